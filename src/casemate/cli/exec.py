"""`casemate exec`: a command of this machine in a sandbox of its own."""

from __future__ import annotations

from casemate.cli import options
from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.running import carry_out
from casemate.engine.engine import Engine
from casemate.engine.run import prepare_command, run_alone


def command(parsed: Parsed) -> int:
    """Run it; the exit status."""
    if not parsed.rest:
        raise UsageError("exec", "give a command after --")
    if parsed.all("collect"):
        from casemate.cli.collected import check_targets  # later, unless it is needed now

        check_targets(parsed)
    with Engine(warm=False) as engine:
        run = prepare_command(
            engine,
            parsed.rest,
            env=options.environment_of(parsed),
            files=options.files_of(parsed),
            collect=parsed.all("collect"),
            stdin=options.stdin_of(taken=False),
            limits=options.limits_of(parsed),
            require=parsed.all("require"),
            network=parsed.all("allow") or None,
        )
        return carry_out(engine, run_alone(engine, run), run.spec.limits, parsed)
