"""A sandbox that stays, as steps: what `Sandbox` and `AsyncSandbox` have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import msgspec

from casemate.engine import transfer
from casemate.engine.cancel import CancelToken
from casemate.engine.collect import Collected, Collector
from casemate.engine.engine import Engine
from casemate.engine.idle import IdleLimit, check_idle
from casemate.engine.inside import run_in
from casemate.engine.paths import inside_path, new_file_path
from casemate.engine.program import GUEST_MOUNT
from casemate.engine.request import (
    LimitsLike,
    NetworkLike,
    SessionCodeOptions,
    SessionCommandOptions,
    check_arguments,
    check_environment,
    check_files,
    check_flag,
    check_layers,
    check_limits,
    check_options,
    check_patterns,
    checked_mapping,
    encoded_text,
)
from casemate.engine.run import check_command, check_program, check_way, find_runtime, runtime_limits
from casemate.engine.stateful import Context, session_command, session_files
from casemate.engine.terminal import TerminalSession, open_terminal
from casemate.engine.transfer import FileInfo
from casemate.errors import InvalidInput, SandboxClosed
from casemate.isolation.native import NativeSandbox
from casemate.isolation.waiting import Steps
from casemate.model.layers import Layer
from casemate.model.resources import Limits
from casemate.model.result import Isolation, Reason, Result
from casemate.model.runtime import Channel
from casemate.model.spec import WORK_DIRECTORY, SandboxSpec

if TYPE_CHECKING:
    from casemate.engine.network import Network

RUN_LIMITS = frozenset({"timeout", "cpu_time", "output"})
"""What can be set for each run; the rest belongs to the whole sandbox."""

CODE_OPTIONS = frozenset(SessionCodeOptions.__annotations__)
COMMAND_OPTIONS = frozenset(SessionCommandOptions.__annotations__)
T = TypeVar("T")


class Session:
    """One sandbox of one runtime, with files that stay between runs. Not started until `start`."""

    def __init__(
        self,
        engine: Engine,
        *,
        runtime: str,
        limits: LimitsLike,
        require: Iterable[Layer | str],
        stateful: bool = False,
        idle_timeout: str | float | None = None,
        network: NetworkLike = None,
    ) -> None:
        self._engine = engine
        self._runtime, self._interpreter = find_runtime(engine, runtime)
        if self._runtime.channel is Channel.ISOLATE:
            hint = f"use the runtime {self._runtime.instead}" if self._runtime.instead else ""
            raise InvalidInput("runtime", "isolates keep nothing between runs", hint=hint)
        self.limits = runtime_limits(engine, self._runtime, limits)
        self._policy, self._variables = check_way(engine, network, None)
        self._network: Network | None = None
        self._spec = SandboxSpec(
            limits=self.limits,
            mounts=(GUEST_MOUNT, *self._interpreter.mounts),
            require=check_layers(require),
            network=self._policy is not None,
        )
        self.context: Context | None = None
        if check_flag(stateful, field="stateful"):
            command = session_command(self._runtime, self._interpreter)
            command = msgspec.structs.replace(command, environment={**(self._variables or {}), **command.environment})
            self.context = Context(command, session_files(self._runtime))
        self._copies: list[Context] = []
        self._idle = IdleLimit(check_idle(idle_timeout), self._end_idle)
        self._sandbox: NativeSandbox | None = None
        self._started = False
        self._ended = False
        self._out_of_memory = False

    def start(self) -> Steps[None]:
        """Build the sandbox. Raises LaunchError, LayerMissing or CapacityError; then it can be tried again."""
        if self._started or self._ended:
            raise SandboxClosed("a sandbox is started once")
        self._started = True
        try:
            self._sandbox = yield from self._engine.start(self._spec)
        except BaseException:
            self._started = False
            raise
        self._end_if_closed_meanwhile(self._sandbox)
        yield from self._connect(self._sandbox)
        with self._idle.working():
            yield from self._start_context()

    def _connect(self, sandbox: NativeSandbox) -> Steps[None]:
        if self._policy is None:
            return
        from casemate.engine.network import Network  # most sandboxes have none

        self._network = Network()
        try:
            yield from self._network.open(self._engine, self._policy, sandbox)
        except BaseException:
            self._ended = True
            self._network.leave()
            self._engine.backend.bury(sandbox)
            raise

    def _start_context(self) -> Steps[None]:
        if self.context is None:
            return
        sandbox = self.sandbox
        try:
            yield from self.context.start(sandbox)
        except BaseException:
            self._ended = True
            self._close_contexts()
            self._engine.backend.bury(sandbox)
            raise

    def _end_idle(self) -> None:
        """Nobody waits here, and nobody is to."""
        if self._sandbox is not None and not self._ended:
            self._leave_network()
            self._engine.backend.bury(self._sandbox)

    def _end_if_closed_meanwhile(self, sandbox: NativeSandbox) -> None:
        if self._ended:
            self._engine.backend.bury(sandbox)
            raise SandboxClosed("the sandbox was closed while it was built")

    def close(self) -> None:
        """Kill everything inside and release it. Idempotent."""
        self._ended = True
        self._close_contexts()
        self._leave_network()
        if self._sandbox is not None:
            self._sandbox.close()

    def _leave_network(self) -> None:
        if self._network is not None:
            self._network.leave()

    def _close_contexts(self) -> None:
        for context in (self.context, *self._copies):
            if context is not None:
                context.close()

    def end(self) -> Steps[None]:
        """As `close`, for a loop: waits for the end as steps do, and leaves the release to the undertaker."""
        is_first, self._ended = not self._ended, True
        self._close_contexts()
        self._leave_network()
        if self._sandbox is not None and is_first:
            try:
                yield from self._sandbox.end()
            finally:
                self._engine.backend.bury(self._sandbox)

    @property
    def sandbox(self) -> NativeSandbox:
        if self._sandbox is None or self._ended:
            raise SandboxClosed("the sandbox is not open")
        self._engine.check_open()
        self._idle.check()
        if self._out_of_memory:
            raise SandboxClosed("the sandbox has ended: its memory limit was reached in an earlier run")
        return self._sandbox

    def _running(self, steps: Steps[Result]) -> Steps[Result]:
        """Whatever of it the kernel killed: a sandbox whose memory ran out ends as a whole."""
        result = yield from self._using(steps)
        if self._network is not None:
            result = self._network.told(result)
        if result.reason is Reason.MEMORY and self._sandbox is not None:
            self._out_of_memory = True
            self._sandbox.kill()
        return result

    def _using(self, steps: Steps[T]) -> Steps[T]:
        with self.sandbox.in_use(), self._idle.working():
            return (yield from steps)

    @property
    def isolation(self) -> Isolation:
        return self.sandbox.isolation

    def run(
        self,
        code: str,
        *,
        cancel: CancelToken | None = None,
        live: bool = False,
        context: Context | None = None,
        **options: Unpack[SessionCodeOptions],
    ) -> Steps[Result]:
        """Run code of the sandbox's runtime, in its context or that copy of it. `live`: somebody follows the output."""
        check_options(options, CODE_OPTIONS)
        if context := context or self.context:
            files = check_files(options.get("files"), self.limits.disk_bytes)
            wanted = self._run_limits(options.get("limits"))
            call = context.call(self.sandbox, code, options, wanted, files, cancel=cancel, live=live)
            return self._running(call)
        options["env"] = self._with_variables(options.get("env"))
        program = check_program(self._runtime, self._interpreter, code, options, live=live)
        files = check_files(options.get("files"), self.limits.disk_bytes)
        wanted = self._run_limits(options.get("limits"))
        return self._running(run_in(self.sandbox, program, files=files, limits=wanted, cancel=cancel))

    def fork(self, count: int, context: Context | None = None) -> Steps[list[Context]]:
        """Copies of the context, or of a copy of it."""
        copies = yield from self._using(self.require_context(context).fork(count))
        self._copies = [each for each in self._copies if not each.is_closed] + copies
        return copies

    def restart(self) -> Steps[None]:
        """Begin anew with no variables; files and copies stay."""
        return self._using(self.require_context().start(self.sandbox))

    def require_context(self, context: Context | None = None) -> Context:
        """The copy, or the sandbox's own context. Raises InvalidInput if it keeps no variables."""
        if (found := context or self.context) is None:
            raise InvalidInput("stateful", "this sandbox keeps no variables", hint="make it with stateful=True")
        return found

    def exec(
        self, argv: Iterable[str], *, cancel: CancelToken | None = None, **options: Unpack[SessionCommandOptions]
    ) -> Steps[Result]:
        """Run a program of the base or of the work directory."""
        check_options(options, COMMAND_OPTIONS)
        directory = inside_path(options.get("cwd", WORK_DIRECTORY), field="cwd")
        env = self._with_variables(options.get("env"))
        program = check_command(argv, env=env, stdin=options.get("stdin"), cwd=str(directory))
        wanted = self._run_limits(options.get("limits"))
        return self._running(run_in(self.sandbox, program, limits=wanted, cancel=cancel))

    def open_pty(
        self, argv: Iterable[str], *, rows: int, columns: int, env: Mapping[str, str] | None
    ) -> Steps[TerminalSession]:
        words = check_arguments(argv, field="argv") or self.interactive_command()
        env = check_environment(self._with_variables(env))
        environment = {"TERM": "xterm-256color", **env, **self.interpreter_environment}
        return self._using(self._open_pty(words, environment, rows, columns))

    def _open_pty(
        self, words: tuple[str, ...], environment: Mapping[str, str], rows: int, columns: int
    ) -> Steps[TerminalSession]:
        """A terminal counts as work until it is closed."""
        opened = open_terminal(self.sandbox, words, environment, cwd=WORK_DIRECTORY, rows=rows, columns=columns)
        terminal = yield from opened
        self._idle.begin()
        terminal.on_close = self._idle.finish
        return terminal

    def _with_variables(self, env: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """What the network adds, and over it what the caller sets."""
        return {**self._variables, **checked_mapping(env, "env")} if self._variables else env

    @property
    def interpreter_environment(self) -> Mapping[str, str]:
        """The variables without which the runtime's interpreter does not start inside."""
        return self._interpreter.environment

    def interactive_command(self) -> tuple[str, ...]:
        """The runtime's own prompt, or a shell."""
        words = self._runtime.interactive or ("/bin/sh",)
        return tuple(word.replace("{interpreter}", self._interpreter.path) for word in words)

    def write(self, path: str, data: bytes | str) -> Steps[None]:
        if not isinstance(data, bytes | str):
            raise InvalidInput("data", f"must be bytes or text, not {type(data).__name__}")
        content = data if isinstance(data, bytes) else encoded_text(data, field="data")
        return self._using(transfer.write_file(self.sandbox, new_file_path(path, field="path"), content))

    def read(self, path: str, max_bytes: int) -> Steps[bytes]:
        return self._using(transfer.read_file(self.sandbox, inside_path(path, field="path"), max_bytes=max_bytes))

    def list(self, path: str) -> Steps[tuple[FileInfo, ...]]:
        where = WORK_DIRECTORY if path == "." else path
        return self._using(transfer.list_directory(self.sandbox, inside_path(where, field="path")))

    def make_directory(self, path: str) -> Steps[None]:
        return self._using(transfer.make_directories(self.sandbox, inside_path(path, field="path")))

    def remove(self, path: str) -> Steps[None]:
        return self._using(transfer.remove_file(self.sandbox, new_file_path(path, field="path")))

    def collect(self, patterns: Iterable[str]) -> Steps[Collected]:
        """Files that match, as a run's `collect` would take them."""
        return self._using(Collector(self.sandbox.work_fd, check_patterns(patterns)).run())

    def _run_limits(self, overrides: Mapping[str, Any] | None) -> Limits:
        for key in checked_mapping(overrides, "limits"):
            if key not in RUN_LIMITS:
                raise InvalidInput(f"limits.{key}"[:80], "belongs to the whole sandbox; set it when you make it")
        return check_limits(self.limits, overrides)
