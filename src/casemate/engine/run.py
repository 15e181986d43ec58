"""Runs: what was asked for, checked and made ready to start, and its start in a sandbox of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, Unpack

import msgspec

from casemate.engine.calling import AS_EVER, Calling, check_calling
from casemate.engine.cancel import Cancelled, CancelToken, until_cancelled
from casemate.engine.engine import Engine
from casemate.engine.program import (
    GUEST_MOUNT,
    NO_INPUT,
    Command,
    NeverBegan,
    Program,
    check_input,
    make_program,
    owned_variables,
)
from casemate.engine.request import (
    CodeOptions,
    CommandOptions,
    FileSource,
    InputFile,
    LimitsLike,
    NetworkLike,
    ProgramOptions,
    StdinLike,
    check_arguments,
    check_cancel,
    check_code,
    check_environment,
    check_file_name,
    check_files,
    check_flag,
    check_isolate,
    check_layers,
    check_limits,
    check_options,
    check_patterns,
    check_recording,
    check_stdin,
    check_tenant,
    debug_wish,
)
from casemate.errors import InvalidInput, SandboxClosed
from casemate.isolation.native import NativeSandbox
from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.model.debug import Debug
from casemate.model.network import NetworkPolicy
from casemate.model.resources import Limits
from casemate.model.result import Chunk, Result
from casemate.model.runtime import Channel, Runtime
from casemate.model.spec import WORK_DIRECTORY, SandboxSpec
from casemate.runtimes.interpreter import Interpreter, find_interpreter

if TYPE_CHECKING:
    from casemate.engine.execution import Waiting

E = TypeVar("E")
T = TypeVar("T")
CODE_OPTIONS: Final = frozenset(CodeOptions.__annotations__)
COMMAND_OPTIONS: Final = frozenset(CommandOptions.__annotations__)
COMMANDS_LABEL: Final = "commands"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run, checked: what to start, what to place before and to collect after it.

    `label` is what it is, for people. `runtime` is there if it is code. `fresh`: in nothing that was made ahead, as is
    every run with a `network`. `tells_flows`: what it tries to reach is told as it goes, and
    not once more in its Result.
    """

    label: str
    spec: SandboxSpec
    program: Program
    runtime: Runtime | None = None
    fresh: bool = False
    files: tuple[InputFile, ...]
    collect: tuple[str, ...]
    tenant: str = ""
    network: NetworkPolicy | None = None
    tells_flows: bool = False


def prepare_code(
    engine: Engine,
    code: str,
    *,
    runtime: str,
    live: bool = False,
    calling: Calling | None = None,
    **options: Unpack[CodeOptions],
) -> Run:
    """Check everything about a run of code. Raises InvalidInput or RuntimeUnavailable; nothing is started.

    `live`: somebody follows the output, so lines are to come when they are printed. `calling`: what the harness is
    asked besides, if it is not what the options say.
    """
    check_options(options, CODE_OPTIONS)
    declared, interpreter = find_runtime(engine, runtime)
    wanted = runtime_limits(engine, declared, options.get("limits"))
    if declared.channel is Channel.ISOLATE:
        check_isolate(options, wanted, declared.instead)
    network, environment = check_way(engine, options.get("network"), options.get("env"))
    options["env"] = environment
    calling = calling or check_calling(declared, options)
    debug = check_recording(options.get("debug"), declared)
    program = check_program(
        declared,
        interpreter,
        code,
        options,
        live=live,
        heap_bytes=wanted.memory_bytes,
        calling=calling,
        debug=debug,
    )
    require = check_layers(options.get("require", ()))
    mounts = (GUEST_MOUNT, *interpreter.mounts)
    spec = SandboxSpec(limits=wanted, mounts=mounts, require=require, network=network is not None)
    return Run(
        spec=spec,
        program=program,
        label=runtime,
        runtime=declared,
        fresh=check_flag(options.get("fresh", False), field="fresh") or spec.network,
        files=(*program.files, *check_files(options.get("files"), wanted.disk_bytes)),
        collect=check_patterns(options.get("collect", ())),
        tenant=check_tenant(options.get("tenant", "")),
        network=network,
    )


def prepare_command(engine: Engine, argv: Iterable[str], **options: Unpack[CommandOptions]) -> Run:
    """Check everything about a run of a program of the base. Raises InvalidInput; nothing is started."""
    check_options(options, COMMAND_OPTIONS)
    wanted = check_limits(engine.config.default_limits(), options.get("limits"))
    network, environment = check_way(engine, options.get("network"), options.get("env"))
    require = check_layers(options.get("require", ()))
    spec = SandboxSpec(limits=wanted, require=require, network=network is not None)
    return Run(
        spec=spec,
        label=COMMANDS_LABEL,
        fresh=check_flag(options.get("fresh", False), field="fresh") or spec.network,
        program=check_command(argv, env=environment, stdin=options.get("stdin")),
        files=check_files(options.get("files"), wanted.disk_bytes),
        collect=check_patterns(options.get("collect", ())),
        network=network,
    )


def check_way(
    engine: Engine, wanted: NetworkLike, env: Mapping[str, str] | None
) -> tuple[NetworkPolicy | None, Mapping[str, str] | None]:
    """The network policy, if there is to be a network, and the environment with what it adds."""
    if wanted is None:
        return None, env
    from casemate.engine.network import check_network, with_proxy  # most runs have none

    network = check_network(wanted, engine.config.network)
    return network, with_proxy(network, env)


async def prepared(prepare: Callable[[], T], files: Mapping[str, FileSource] | None) -> T:
    """What `prepare` returns, for asyncio: from another thread if it has files to read, for a disk may be slow."""
    if not isinstance(files, Mapping) or not any(isinstance(source, Path) for source in files.values()):
        return prepare()
    import asyncio  # some 30 ms that a run without a loop does not pay

    return await asyncio.to_thread(prepare)


def find_runtime(engine: Engine, name: str) -> tuple[Runtime, Interpreter]:
    """A runtime and its interpreter on this machine."""
    runtime = engine.runtimes.get(name)
    return runtime, find_interpreter(name, runtime)


def runtime_limits(engine: Engine, runtime: Runtime, wanted: LimitsLike) -> Limits:
    """The configuration's defaults, then the runtime's, then what the caller says."""
    return check_limits(engine.config.default_limits().replacing(runtime.limits), wanted)


def check_program(
    runtime: Runtime,
    interpreter: Interpreter,
    code: str,
    options: ProgramOptions,
    *,
    live: bool,
    heap_bytes: int = 0,
    calling: Calling = AS_EVER,
    debug: Debug | None = None,
) -> Program:
    """Code of one runtime as a program. Options: filename, input, args, env, stdin; others are not looked at."""
    filename = options.get("filename")
    owned = owned_variables(runtime, interpreter)
    return make_program(
        runtime,
        interpreter,
        code=check_code(code),
        filename=check_file_name(runtime.filename if filename is None else filename),
        arguments=check_arguments(options.get("args", ()), field="args"),
        environment=check_environment(options.get("env"), defaults=runtime.environment, owned=owned),
        value=check_input(options.get("input", NO_INPUT)),
        stdin=check_stdin(options.get("stdin")),
        live=live,
        heap_bytes=heap_bytes,
        asked={**calling.fields(), **debug_wish(debug)},
        debug=debug,
    )


def check_command(
    argv: Iterable[str], *, env: Mapping[str, str] | None = None, stdin: StdinLike = None, cwd: str = WORK_DIRECTORY
) -> Program:
    """A program of the base with its arguments."""
    words = check_arguments(argv, field="argv")
    if not words or not words[0]:
        raise InvalidInput("argv", "is empty")
    command = Command(argv=words, environment=check_environment(env), cwd=cwd, stdin=check_stdin(stdin))
    return Program(command=command, files=(), channel=Channel.NONE)


def run_alone(engine: Engine, run: Run, cancel: CancelToken | None = None) -> Steps[Result]:
    """A run in a sandbox of its own, which is killed when the Result is there, and gone soon after.

    A program for an isolate runs in one of its own, in a sandbox of its tenant's.
    """
    if run.program.channel is Channel.ISOLATE and not (cancel is not None and cancel.is_cancelled):
        from casemate.engine.isolate import run_in_isolate  # of use only where there are isolates

        check_cancel(cancel)
        return (yield from run_in_isolate(engine, run, cancel))
    return (yield from run_by(engine, run, cancel, _seen_through))


Seeing: TypeAlias = Callable[
    [NativeSandbox, Run, "Waiting | None", CancelToken | None, Callable[[], None] | None],
    Generator[Wait | E, Ready, Result],
]
"""How a run is seen through in the sandbox that is its own."""


def run_by(
    engine: Engine, run: Run, cancel: CancelToken | None, seeing: Seeing[E]
) -> Generator[Wait | Chunk | E, Ready, Result]:
    """A run in a sandbox that was made ahead, or that a zygote makes now, or that is new, in that order.

    One that was ready but has ended before anything of the program was read is followed by the next.
    """
    check_cancel(cancel)
    if cancel is not None and cancel.is_cancelled:
        return _cancelled(engine)
    with engine.taken(run) as warm, suppress(Cancelled):
        if warm is not None:
            try:
                return (yield from _buried(engine, warm.sandbox, run, warm.waiting, cancel, seeing))
            except SandboxClosed as error:
                if not (isinstance(error, NeverBegan) or (warm.waiting is not None and warm.waiting.is_ours)):
                    raise  # it may have begun, and nothing runs twice
        nested = yield from until_cancelled(engine.nested(run), cancel)
        if nested is not None:
            return (yield from _buried(engine, nested, _as_fork(run), None, cancel, seeing))
        sandbox = yield from until_cancelled(engine.start(run.spec), cancel)
        return (yield from _buried(engine, sandbox, run, None, cancel, seeing))
    return _cancelled(engine)


def _as_fork(run: Run) -> Run:
    command = msgspec.structs.replace(run.program.command, forked=True)
    return msgspec.structs.replace(run, program=msgspec.structs.replace(run.program, command=command))


def _buried(  # noqa: PLR0917 - what one run has come to
    engine: Engine,
    sandbox: NativeSandbox,
    run: Run,
    waiting: Waiting | None,
    cancel: CancelToken | None,
    seeing: Seeing[E],
) -> Generator[Wait | Chunk | E, Ready, Result]:
    try:
        on_start = None if waiting is None else engine.warm.wake
        steps: Generator[Wait | Chunk | E, Ready, Result] = seeing(sandbox, run, waiting, cancel, on_start)
        if run.network is not None:
            from casemate.engine.network import connected

            steps = connected(engine, run, sandbox, steps, cancel)
        return (yield from steps)
    finally:
        engine.backend.bury(sandbox)


def _seen_through(
    sandbox: NativeSandbox,
    run: Run,
    waiting: Waiting | None,
    cancel: CancelToken | None,
    on_start: Callable[[], None] | None,
) -> Steps[Result]:
    from casemate.engine.inside import see_through  # not before the sandbox is being built

    return (yield from see_through(sandbox, run, waiting, cancel, on_start))


def _cancelled(engine: Engine) -> Result:
    from casemate.engine.results import cancelled_result

    return cancelled_result(engine.backend.name)
