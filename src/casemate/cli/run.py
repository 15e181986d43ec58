"""`casemate run`: a script or a piece of code in a sandbox of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NamedTuple

from casemate import limits as bound
from casemate.cli import options
from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.language import guess_runtime, require_runtime
from casemate.cli.running import carry_out
from casemate.engine.engine import Engine
from casemate.engine.program import NO_INPUT
from casemate.engine.run import prepare_code, run_alone
from casemate.errors import InvalidInput
from casemate.model.runtime import Channel
from casemate.runtimes.registry import DEFAULT_RUNTIME

ALL: Final = "all"


class Source(NamedTuple):
    """Code and where it came from; `name` is a file's, empty for other code."""

    code: str
    name: str = ""
    is_stdin: bool = False


def command(parsed: Parsed) -> int:
    """Run it; the exit status."""
    value = parsed.one("input")
    source = source_of(parsed, "run")
    if source.is_stdin and value == options.STDIN:
        raise UsageError("run", "the code and the input cannot both come from stdin")
    if parsed.all("collect"):
        from casemate.cli.collected import check_targets  # later, unless it is needed now

        check_targets(parsed)
    with Engine(warm=False) as engine:
        runtime = parsed.one("runtime") or language_of(engine, source)
        # Ours is always there, and a program that has none cannot miss it.
        has_stdin = engine.runtimes.get(runtime).channel is not Channel.ISOLATE
        taken = source.is_stdin or value == options.STDIN
        run = prepare_code(
            engine,
            source.code,
            runtime=runtime,
            live=True,
            filename=Path(source.name).name or None,
            input=NO_INPUT if value is None else options.input_of(value),
            args=parsed.rest or (),
            env=options.environment_of(parsed),
            files=options.files_of(parsed),
            collect=parsed.all("collect"),
            stdin=options.stdin_of(taken=taken) if has_stdin else None,
            limits=options.limits_of(parsed),
            require=parsed.all("require"),
            network=parsed.all("allow") or None,
            function=parsed.one("function") or "",
            spread=parsed.flag("spread"),
            globals=parsed.all("global") or None,
            debug=_debug(engine, runtime, parsed),
        )
        return carry_out(engine, run_alone(engine, run), run.spec.limits, parsed)


def _debug(engine: Engine, runtime: str, parsed: Parsed) -> dict[str, bool] | None:
    """What is to be recorded; `all` is everything that the runtime can record."""
    wanted = parsed.all("debug")
    if not wanted:
        return None
    everything = ("stack", *engine.runtimes.get(runtime).debug)
    return dict.fromkeys(everything if ALL in wanted else wanted, True)


def language_of(engine: Engine, source: Source) -> str:
    """The runtime that the file's name or the code's first line tells. Raises InvalidInput."""
    if source.name:
        return require_runtime(engine.runtimes, source.name, source.code)
    return guess_runtime(engine.runtimes, "", source.code) or DEFAULT_RUNTIME


def source_of(parsed: Parsed, name: str) -> Source:
    """The code that the command of that name is given: FILE, `-` or -c."""
    code = parsed.one("c")
    if code is not None and parsed.words:
        raise UsageError(name, "give either FILE or -c CODE, not both")
    if code is not None:
        return Source(code)
    if not parsed.words:
        raise UsageError(name, "give a FILE, `-` for stdin, or -c CODE")
    path = parsed.words[0]
    if path == options.STDIN:
        return Source(_decoded(sys.stdin.buffer.read(bound.CODE_MAX_BYTES + 1)), is_stdin=True)
    return Source(_decoded(options.read_file(path, bound.CODE_MAX_BYTES, field="file")), name=path)


def _decoded(data: bytes) -> str:
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InvalidInput("code", f"is no UTF-8 text (byte {error.start})") from error
