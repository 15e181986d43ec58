"""`casemate shell`: a terminal in a sandbox."""

from __future__ import annotations

import os
from collections.abc import Mapping

from casemate.cli import options
from casemate.cli.arguments import Parsed
from casemate.cli.messages import printable, say
from casemate.cli.relay import Left, Relay, following_size, raw_terminal, window_size
from casemate.cli.report import EXIT_INTERRUPTED, EXIT_OURS, EXIT_TIMEOUT, SIGNAL_BASE
from casemate.cli.running import carry_out
from casemate.engine.drive import drive
from casemate.engine.engine import Engine
from casemate.engine.inside import run_in
from casemate.engine.request import check_files
from casemate.engine.run import check_command
from casemate.engine.session import Session
from casemate.engine.terminal import PROGRAM_STEP, TerminalSession
from casemate.engine.transfer import write_files
from casemate.engine.verdict import exec_status
from casemate.errors import LaunchError, SandboxClosed
from casemate.limits import OUTPUT_MAX_BYTES, WALL_MAX_S
from casemate.model.units import format_bytes, format_duration

DEFAULT_RUNTIME = "bash"
PASSED_ON = ("TERM", "COLORTERM")
PROMPT = r"[sandbox] \w\$ "
"""What a shell inside asks with, so that nobody takes it for one outside."""


def command(parsed: Parsed) -> int:
    """Open it; the exit status of the shell."""
    with Engine(warm=False) as engine:
        runtime = parsed.one("runtime") or DEFAULT_RUNTIME
        session = Session(
            engine,
            runtime=runtime,
            limits=options.limits_of(parsed),
            require=parsed.all("require"),
            network=parsed.all("allow") or None,
        )
        files = check_files(options.files_of(parsed), session.limits.disk_bytes)
        environment = {**_ours(os.environ), **options.environment_of(parsed)}
        try:
            drive(session.start())
            drive(write_files(session.sandbox, files))
            return _talk(engine, session, parsed, environment)
        finally:
            session.close()


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    """What a program needs to know of the user's terminal."""
    return {name: environment[name] for name in PASSED_ON if name in environment}


def _talk(engine: Engine, session: Session, parsed: Parsed, environment: dict[str, str]) -> int:
    if not os.isatty(0):
        return _pipe(engine, session, parsed, environment)
    rows, columns = window_size()
    try:
        prompted = {"PS1": PROMPT, **environment}
        terminal = drive(session.open_pty(parsed.rest or (), rows=rows, columns=columns, env=prompted))
    except LaunchError as error:
        if error.step != PROGRAM_STEP:
            raise
        say(printable(error.message.removeprefix(f"{error.step}: ")))
        return exec_status(error.errno)
    timeout_s = session.limits.wall_s if parsed.flag("timeout") else None
    try:
        with raw_terminal(), following_size(terminal):
            ended = Relay(terminal, timeout_s=timeout_s).run()
        if not ended:
            say(f"time limit of {format_duration(session.limits.wall_s)} reached; raise it with --timeout")
            return EXIT_TIMEOUT
        return _status(session, terminal)
    except Left:
        say("left; the sandbox is gone")
        return EXIT_INTERRUPTED
    finally:
        terminal.close()


def _pipe(engine: Engine, session: Session, parsed: Parsed, environment: dict[str, str]) -> int:
    """Without a terminal of the user's the shell reads its commands from a pipe, as shells do."""
    stdin = options.stdin_of(taken=False)
    environment = {**environment, **session.interpreter_environment}
    program = check_command(parsed.rest or session.interactive_command(), env=environment, stdin=stdin)
    limits = session.limits.replacing({"output": OUTPUT_MAX_BYTES})
    if not parsed.flag("timeout"):
        limits = limits.replacing({"timeout": WALL_MAX_S})
    return carry_out(engine, run_in(session.sandbox, program, limits=limits), limits, parsed)


def _status(session: Session, terminal: TerminalSession) -> int:
    cgroup = session.sandbox.cgroup
    if cgroup is not None and cgroup.counters().oom_kills:
        say(f"memory limit of {format_bytes(session.limits.memory_bytes)} reached; raise it with --memory")
    try:
        code = drive(terminal.wait())
    except SandboxClosed:
        say("the sandbox ended without saying how; nothing is known of the program's status")
        return EXIT_OURS
    return code if code >= 0 else SIGNAL_BASE - code
