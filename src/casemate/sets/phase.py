"""One phase of an installation: a program in a sandbox of its own, and what it leaves in its directory `out`.

A phase that has rules reaches what those allow, through the gateway's proxy on a port of the sandbox's own loopback,
and nothing else. All other phases have no network at all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from casemate import limits
from casemate.egress.gateway import Sockets
from casemate.egress.rules import HostRule
from casemate.engine.collect import is_full
from casemate.engine.drive import drive
from casemate.engine.engine import Engine
from casemate.engine.execution import Execution, Outcome
from casemate.engine.program import Command
from casemate.engine.request import check_environment
from casemate.engine.transfer import make_directories, write_file
from casemate.errors import BuildFailed
from casemate.isolation.native import NativeSandbox
from casemate.model.flow import Flow
from casemate.model.network import NetworkPolicy
from casemate.model.resources import Limits
from casemate.model.result import Reason
from casemate.model.spec import CODE_DIRECTORY, WORK_DIRECTORY, Mount, SandboxSpec
from casemate.runtimes.interpreter import Interpreter
from casemate.sets.harvest import Harvest

INSIDE: Final = Path(__file__).parent / "inside"
OUT: Final = "out"
OUT_DIRECTORY: Final = f"{WORK_DIRECTORY}/{OUT}"
ARTIFACTS_DIRECTORY: Final = "/opt/artifacts"
PROXY_PORT: Final = 3128
PROXY_URL: Final = f"http://127.0.0.1:{PROXY_PORT}"
NAMED_MAX: Final = 5
"""How many places an error names."""

_RAISE: Final = {reason: f"raise it: --{reason}" for reason in (Reason.TIMEOUT, Reason.MEMORY, Reason.DISK)}


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: the file `script` of ours with `arguments`, by the interpreter with `flags`, or by a shell.

    `files` are placed first, by their absolute paths inside. `statuses` says what it means when the script ends so.
    """

    name: str
    script: str
    flags: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    files: dict[str, bytes] = {}
    mounts: tuple[Mount, ...] = ()
    rules: tuple[HostRule, ...] = ()
    statuses: dict[int, str] = {}


def policy_of(rules: tuple[HostRule, ...]) -> NetworkPolicy:
    """The rules as the gateway takes them: each names its port, so no port is blocked beside them."""
    return NetworkPolicy(
        outbound=True,
        allowed_hosts=tuple(map(str, rules)),
        blocked_ports=(),
        anywhere=tuple(str(rule) for rule in rules if rule.anywhere),
    )


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a phase, beside its files."""

    left_out: tuple[str, ...]
    flows: tuple[Flow, ...]
    log: str


def run_phase(engine: Engine, interpreter: Interpreter, phase: Phase, wanted: Limits, target: Path) -> Done:
    """Run it; its files go to `target`, which is made. Raises BuildFailed, and whatever an engine raises."""
    spec = SandboxSpec(
        limits=wanted,
        mounts=(*interpreter.mounts, *phase.mounts),
        listen=(PROXY_PORT,) if phase.rules else (),
    )
    with ExitStack() as stack:
        sandbox = drive(engine.start(spec))
        stack.callback(sandbox.close)
        _place(sandbox, phase)
        with _network(engine, sandbox, phase.rules) as found:
            outcome = drive(Execution(sandbox, _command(interpreter, phase), wanted).run())
        flows = tuple(found)
        log = log_of(outcome)
        _check(phase, outcome, flows, log, full=is_full(sandbox.work_fd))
        drive(sandbox.end())
        harvest = Harvest(sandbox.work_fd, OUT, target, max_bytes=wanted.disk_bytes)
        harvest.run()
        return Done(left_out=tuple(harvest.left_out), flows=flows, log=log)


def _place(sandbox: NativeSandbox, phase: Phase) -> None:
    drive(make_directories(sandbox, PurePosixPath(OUT_DIRECTORY)))
    scripts = {f"{CODE_DIRECTORY}/{phase.script}": (INSIDE / phase.script).read_bytes()}
    for path, data in {**scripts, **phase.files}.items():
        drive(write_file(sandbox, PurePosixPath(path), data))


@contextmanager
def _network(engine: Engine, sandbox: NativeSandbox, rules: tuple[HostRule, ...]) -> Iterator[list[Flow]]:
    """The way out that a phase has, and its flows, of which all are there at the end.

    Only the proxy leads out: whoever fetches packages knows of it, and no machine is too old for that.
    """
    flows: list[Flow] = []
    if not rules:
        yield flows
        return
    way = engine.gateways.open(policy_of(rules), Sockets(proxy=os.dup(sandbox.listeners[0])), flows.append)
    try:
        yield flows
    finally:
        way.close()


def _command(interpreter: Interpreter, phase: Phase) -> Command:
    path = f"{CODE_DIRECTORY}/{phase.script}"
    by = ("/bin/sh",) if phase.script.endswith(".sh") else (interpreter.path, *phase.flags)
    own = {"INTERPRETER": interpreter.path, "OUT": OUT_DIRECTORY, "ARTIFACTS": ARTIFACTS_DIRECTORY}
    environment = {**check_environment(phase.environment), **interpreter.environment, **own}
    return Command(argv=(*by, path, *phase.arguments), environment=environment, cwd=WORK_DIRECTORY)


def _check(phase: Phase, outcome: Outcome, flows: tuple[Flow, ...], log: str, *, full: bool) -> None:
    hint = _hint(flows)
    if outcome.exec_errno:
        raise BuildFailed(f"{phase.name}: cannot start: {os.strerror(outcome.exec_errno)}", log=log)
    if outcome.stopped is not None or outcome.counted.oom_kills:
        reason = outcome.stopped or Reason.MEMORY
        where = unreached(flows) if reason is Reason.TIMEOUT else ""
        hint = where or _RAISE.get(reason, hint)
        raise BuildFailed(f"{phase.name}: stopped, for the limit of {reason}", log=log, hint=hint)
    if outcome.wait_status != 0 and (full or os.strerror(errno.ENOSPC) in log):
        raise BuildFailed(f"{phase.name}: its files need more room", log=log, hint=_RAISE[Reason.DISK])
    if outcome.wait_status != 0:
        meaning = phase.statuses.get(os.waitstatus_to_exitcode(outcome.wait_status or 0)) or unreached(flows)
        raise BuildFailed(f"{phase.name}: {meaning or 'the installer failed'}", log=log, hint=hint)


def _hint(flows: tuple[Flow, ...]) -> str:
    refused = sorted({f"{flow.host}:{flow.port}" for flow in flows if flow.host and not flow.allowed})
    if refused:
        return f"it was refused {', '.join(refused[:NAMED_MAX])}; allow what you trust"
    problems = sorted({flow.problem for flow in flows if flow.allowed and flow.problem})
    return "; ".join(problems[:NAMED_MAX])


def unreached(flows: tuple[Flow, ...]) -> str:
    """Which places could not be reached though they were allowed, and were not reached by another try either."""
    tried = {f"{flow.host}:{flow.port}" for flow in flows if flow.allowed and not flow.address}
    places = sorted(tried - {f"{flow.host}:{flow.port}" for flow in flows if flow.address})
    return f"{', '.join(places[:NAMED_MAX])} could not be reached" if places else ""


def log_of(outcome: Outcome) -> str:
    """The end of what was said, without anything that moves a terminal."""
    text = f"{outcome.stdout.text}\n{outcome.stderr.text}".strip()
    lines = ("".join(c if c.isprintable() else "\ufffd" for c in line.replace("\t", " ")) for line in text.splitlines())
    return "\n".join(lines)[-limits.SET_LOG_MAX_CHARS :]
