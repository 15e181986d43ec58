"""`casemate doctor`: what this machine offers, and how to mend what is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from casemate.cli.arguments import Parsed
from casemate.cli.messages import show, show_json
from casemate.cli.style import GAP, Style, columns_of, hang, pad, style_for
from casemate.engine.drive import drive
from casemate.engine.engine import Engine
from casemate.engine.run import prepare_command, run_alone
from casemate.errors import CapacityError, LaunchError, LayerMissing
from casemate.isolation.diagnosis import Failure
from casemate.isolation.doctor import LOOK_COMMAND, CgroupFacts, Finding, Report, State, Trial, examine
from casemate.isolation.facts import NAMESPACES, read_facts
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.model.layers import Layer, Tier
from casemate.model.spec import SandboxSpec

TRIAL_TIMEOUT: Final = "20s"
TITLES: Final = {True: "Required", False: "Additional"}
MARKS: Final = {State.WORKS: True, State.MISSING: False, State.UNTESTED: None}


def command(parsed: Parsed) -> int:
    """Check; 0 when the standard tier is reached."""
    with Engine(warm=False) as engine:
        report = examine(read_facts(), _cgroup(engine), _try(engine), _own_namespaces())
    if parsed.flag("json"):
        show_json(report)
    else:
        show(_lines(report, style_for(sys.stdout)))
    return 0 if report.tier is Tier.STANDARD else 1


def _try(engine: Engine) -> Trial:
    """Start a real sandbox and look around in it."""
    try:
        run = prepare_command(engine, LOOK_COMMAND, limits={"timeout": TRIAL_TIMEOUT})
        result = drive(run_alone(engine, run))
    except LaunchError as error:
        return Trial(failure=_failure(error))
    except CapacityError as error:
        return Trial(failure=Failure(step=error.code, errno=0, message=error.message, hint=error.hint))
    layers = frozenset(result.isolation.layers)
    return Trial(layers=layers | {Layer.EGRESS} if _has_way_out(engine) else layers, look=result.stdout.text)


def _has_way_out(engine: Engine) -> bool:
    """Whether one can be made: a sandbox without programs needs nobody at its other end."""
    try:
        drive(engine.start(SandboxSpec(network=True))).close()
    except (LayerMissing, LaunchError, CapacityError):
        return False
    return True


def _failure(error: LaunchError) -> Failure:
    message = error.message.removeprefix(f"{error.step}: ")
    return Failure(step=error.step, errno=error.errno, message=message, hint=error.hint)


def _cgroup(engine: Engine) -> CgroupFacts:
    cgroups = engine.backend.cgroups
    if isinstance(cgroups, CgroupUnavailable):
        return CgroupFacts(reason=cgroups.reason, hint=cgroups.hint)
    place = str(Path(cgroups.path).parent)
    return CgroupFacts(version=cgroups.version, path=place, removed=engine.reaped.removed, left=engine.reaped.left)


def _own_namespaces() -> dict[str, str]:
    places = {name: Path(f"/proc/self/ns/{name}") for name in NAMESPACES}
    return {name: str(place.readlink()) for name, place in places.items() if place.exists()}


def _lines(report: Report, style: Style) -> list[str]:
    who = "root" if report.uid == 0 else f"user {report.uid}"
    where = f" (container: {report.container})" if report.container else ""
    lines = [f"Linux {report.kernel}, {report.machine}, as {who}{where}", ""]
    for required, title in TITLES.items():
        findings = [finding for finding in report.layers if finding.required is required]
        lines += [style.paint(title, "bold"), *(line for finding in findings for line in _layer(finding, style)), ""]
    return [*lines, *_leftovers(report.cgroup, style), *_summary(report, style)]


def _layer(finding: Finding, style: Style) -> list[str]:
    width = max(map(len, Layer))
    head = f"{GAP}{style.mark(good=MARKS[finding.state])} {pad(finding.layer, width)}"
    indent = columns_of(head) + len(GAP)
    text = finding.gives if finding.state is State.WORKS else finding.why
    lines = hang(head, text, indent=indent, width=style.width)
    if finding.mend:
        # Never wrapped: it is there to be copied.
        lines.append(" " * indent + style.paint(f"mend: {finding.mend}", "yellow"))
    return lines


def _leftovers(cgroup: CgroupFacts, style: Style) -> list[str]:
    """What dead engines had left: a word on what is gone now, each that is not by its path."""
    done = [f"{style.mark(good=True)} removed {len(cgroup.removed)} control groups of dead engines"]
    stuck = [f"{style.mark(good=False)} left by a dead engine, cannot be removed: {path}" for path in cgroup.left]
    return [*(done if cgroup.removed else []), *stuck]


def _summary(report: Report, style: Style) -> list[str]:
    if report.tier is not Tier.STANDARD:
        return [f"{style.mark(good=False)} tier: {style.paint(report.tier, 'bold')}: no untrusted code can be run here"]
    extra = [finding for finding in report.layers if not finding.required]
    working = sum(finding.state is State.WORKS for finding in extra)
    text = f"tier: {style.paint(report.tier, 'bold')}, with {working} of {len(extra)} additional layers"
    return [f"{style.mark(good=True)} {text}"]
