"""`casemate selftest`: attacks on this machine's sandbox, and which wall held."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from casemate.cli.arguments import Parsed
from casemate.cli.exhaustion import EXHAUSTIONS, Exhaustion, judge
from casemate.cli.messages import printable, show, show_json
from casemate.cli.style import GAP, Style, row, style_for
from casemate.engine.api import run
from casemate.engine.engine import Engine
from casemate.errors import LaunchError, LayerMissing
from casemate.kernel.cgroup_files import subgroups
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.kernel.processes import process_tree
from casemate.model.layers import Layer

PROBES: Final = Path(__file__).with_name("inside") / "probes.py"
VARIABLE: Final = "CASEMATE_SELFTEST"
INSIDE_TIMEOUT: Final = "60s"
NAMED: Final = "named.invalid"
REACH: Final = """
import socket
output = []
for host in ("169.254.169.254", "10.0.0.1", "93.184.215.14", "metadata.google.internal"):
    try:
        with socket.create_connection((host, 80), timeout=10) as tcp:
            tcp.sendall(b"who is there?\\r\\n")
            if tcp.recv(1):
                output.append(host)
    except OSError:
        pass
"""
REFUSED_MIN: Final = 3
NAME_WIDTH: Final = 16
HEADS: Final = ("CHECK", "WHAT WAS TRIED", "THE WALL, AND ITS ANSWER")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One attack. `held` of None: it could not be tried here, `answer` says why."""

    check: str
    tried: str
    wall: str
    held: bool | None
    answer: str


def command(parsed: Parsed) -> int:
    """Attack; 0 when every wall held."""
    style = style_for(sys.stdout)
    quiet = parsed.flag("json")
    found: list[Check] = []
    if not quiet:
        show(_row(style, "", *(style.paint(head, "bold") for head in HEADS)))
    with Engine(warm=False) as engine:
        for check in attacks(engine):
            found.append(check)
            if not quiet:
                show(_check_row(style, check))
    failed = [check.check for check in found if check.held is False]
    if quiet:
        show_json({"held": not failed, "checks": found})
    else:
        show(["", _summary(style, found, failed)])
    return 1 if failed else 0


def attacks(engine: Engine) -> Iterator[Check]:
    """All of them, in turn."""
    with _targets() as facts:
        yield from _inside(engine, facts)
    yield _networked(engine)
    for exhaustion in EXHAUSTIONS:
        yield _exhausted(engine, exhaustion)
    yield _leftovers(engine)


@contextmanager
def _targets() -> Iterator[dict[str, Any]]:
    """Things of this machine that an attacker would like to reach, made for the occasion."""
    secret = secrets.token_hex(16)
    name = f"casemate-selftest-{secret}"
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="casemate-selftest-")))
        file = directory / "secret"
        file.write_text(secret)
        port = _listener(stack, socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
        _listener(stack, socket.AF_UNIX, f"\0{name}")
        os.environ[VARIABLE] = secret
        stack.callback(os.environ.pop, VARIABLE)
        paths = [str(directory), str(Path(__file__).parents[1])]
        yield {
            "places": [str(file), *_private_home()],
            "port": port,
            "abstract": name,
            "secret": secret,
            "hostname": socket.gethostname(),
            "paths": paths,
        }


def _private_home() -> list[str]:
    """The caller's home, unless it is a directory that every sandbox has one of."""
    home = os.path.realpath(os.environ.get("HOME") or "/")
    return [] if home in {"/", "/tmp", "/work", "/home/guest"} or home.startswith("/usr") else [home]  # noqa: S108


def _listener(stack: ExitStack, family: int, address: tuple[str, int] | str) -> socket.socket:
    listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    listener.bind(address)
    listener.listen()
    return listener


def _inside(engine: Engine, facts: dict[str, Any]) -> Iterator[Check]:
    """The attacks that one program can try; what it says of itself is parsed like any guest's word."""
    result = run(PROBES.read_text(), input=facts, engine=engine, limits={"timeout": INSIDE_TIMEOUT})
    try:
        checks = msgspec.convert(result.output, list[Check])
    except msgspec.ValidationError:
        answer = printable(result.stderr.text[-300:]) or f"ended by {result.reason}"
        checks = [Check(check="inside", tried="Run the attacks", wall="", held=False, answer=answer)]
    yield from checks


def _networked(engine: Engine) -> Check:
    """What a network policy does not name is refused by the gateway, from outside of the sandbox."""
    check = Check(
        check="not-named",
        tried="Reach what a network policy does not name",
        wall=Layer.EGRESS,
        held=None,
        answer="a run with a network is refused here",
    )
    try:
        result = run(REACH, engine=engine, network=[NAMED], limits={"timeout": INSIDE_TIMEOUT})
    except (LayerMissing, LaunchError):
        return check
    refused = sorted({flow.host for flow in result.flows if not flow.allowed})
    reached = ", ".join(map(str, result.output or ())) if isinstance(result.output, list) else "the attack failed"
    held = result.output == [] and len(refused) >= REFUSED_MIN
    answer = f"refused {', '.join(refused)}" if held else f"reached {reached}"
    return msgspec.structs.replace(check, held=held, answer=answer)


def _exhausted(engine: Engine, exhaustion: Exhaustion) -> Check:
    result = run(exhaustion.code, engine=engine, limits=exhaustion.limits, collect=exhaustion.collect)
    held, answer = judge(exhaustion, result)
    return Check(check=exhaustion.name, tried=exhaustion.tried, wall=exhaustion.wall, held=held, answer=answer)


def _leftovers(engine: Engine) -> Check:
    """After all that: no process of a sandbox, no control group of one."""
    engine.backend.settle()
    left = [f"process {pid}" for pid in process_tree(engine.backend.launcher.pid)[1:]]
    cgroups = engine.backend.cgroups
    if not isinstance(cgroups, CgroupUnavailable):
        names = (Path(group).name for group in subgroups(cgroups.path))
        left += [f"control group {name}" for name in names if name.startswith("run-")]
    answer = ", ".join(left[:5]) or "nothing"
    return Check(
        check="leftovers", tried="Leave something behind", wall=Layer.PID_NAMESPACE, held=not left, answer=answer
    )


def _row(style: Style, mark: str, name: str, tried: str, answer: str) -> list[str]:
    left = style.width - NAME_WIDTH - 1 - 3 * len(GAP)
    return row((mark, name, tried, answer), (1, NAME_WIDTH, left // 2, left - left // 2))


def _check_row(style: Style, check: Check) -> list[str]:
    answer = f"{check.wall}: {printable(check.answer)}" if check.wall else printable(check.answer)
    return _row(style, style.mark(good=check.held), printable(check.check), printable(check.tried), answer)


def _summary(style: Style, found: list[Check], failed: list[str]) -> str:
    held = sum(check.held is True for check in found)
    untried = sum(check.held is None for check in found)
    more = f", {untried} could not be tried" if untried else ""
    if failed:
        return f"{style.mark(good=False)} {len(failed)} of {len(found)} walls did not hold: {', '.join(failed)}{more}"
    return f"{style.mark(good=True)} all {held} walls held{more}"
