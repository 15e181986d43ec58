"""`casemate serve`: a small process that keeps the listening socket and two children, and outlives them both.

It imports neither the service's libraries nor the engine, so there is little in it that could fail. Children that
crash are started again, after a pause that grows; both end with it, however it ends, because they watch a pipe.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from casemate import service_limits as bound
from casemate.cluster.tls import tls_context
from casemate.config import CGROUP_VARIABLE, CONFIG_VARIABLE, DATA_VARIABLE
from casemate.errors import ConfigError, Conflict, ServiceUnavailable
from casemate.service_config import NODE_SOCKET, SETTING_PREFIXES, Service

ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PASSED_ON: Final = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"}
    | {CONFIG_VARIABLE, CGROUP_VARIABLE, DATA_VARIABLE}
)
"""What children get of our environment; whatever secrets are in it stay here."""

LOCK_NAME: Final = "lock"
_PRIVATE: Final = 0o700
_FOR_OTHERS: Final = 0o077
_UNIX_PATH_MAX_BYTES: Final = 107


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """One line that the API writes to the descriptor it is given for that.

    `refused`: why it cannot serve, where to start it again would change nothing; `hint`: what would.
    """

    operator_key: str = ""
    ready: bool = False
    refused: str = ""
    hint: str = ""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How often a child may crash, how long to wait before it is started again, and how long it may take to end."""

    crashes_max: int = bound.CRASHES_MAX
    within_s: float = bound.CRASHES_WITHIN_S
    pause_min_s: float = bound.RESTART_MIN_S
    pause_max_s: float = bound.RESTART_MAX_S
    end_s: float = bound.CHILD_END_TIMEOUT_S


PATIENCE: Final = Patience()


class Child:
    """One process that is to be there. `command` makes its words, and is given descriptors that it may keep."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> None:
        self.name = name
        self.command = command
        self.environment = environment
        self.fds = fds
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.start_at_s = 0.0
        self.crashed_at_s: deque[float] = deque()

    def start(self, words: Sequence[str] = (), fds: Sequence[int] = ()) -> None:
        """Start it, in a session of its own: a Ctrl-C is ours to pass on."""
        self.process = subprocess.Popen(
            [*self.command, *words],
            stdin=subprocess.DEVNULL,
            env=dict(self.environment),
            pass_fds=(*self.fds, *fds),
            start_new_session=True,
        )
        self.pidfd = os.pidfd_open(self.process.pid)

    @property
    def is_running(self) -> bool:
        return self.process is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process, if it is there."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def collect(self) -> int:
        """The status of one that has ended."""
        status = 0 if self.process is None else self.process.wait()
        os.close(self.pidfd)
        self.process, self.pidfd = None, -1
        return status

    def crashed(self, now_s: float, patience: Patience) -> float | None:
        """When to start it again, or None if it has crashed too often."""
        self.crashed_at_s.append(now_s)
        while self.crashed_at_s[0] < now_s - patience.within_s:
            self.crashed_at_s.popleft()
        count = len(self.crashed_at_s)
        if count > patience.crashes_max:
            return None
        return now_s + min(patience.pause_max_s, patience.pause_min_s * 2.0 ** (count - 1))


class Supervisor:
    """Serves until a signal asks it to end. `modules` are the commands of both children, without their arguments."""

    def __init__(
        self,
        service: Service,
        environment: Mapping[str, str],
        say: Callable[[str], None],
        *,
        modules: Mapping[str, Sequence[str]] | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self._service = service
        self._environment = environment
        self._say = say
        self._modules = modules or {name: module_command(f"casemate.{name}") for name in ("node", "api")}
        self._patience = patience
        self._ending_signals = 0
        self._announced = b""
        self._announce_fd = -1
        self._refusal: Conflict | None = None
        self._address = ""

    def run(self) -> None:
        """Raises CasemateError if it cannot begin, or if a child crashes again and again."""
        tls_context(self._service)  # what is wrong with it, the API could only say again and again
        with ExitStack() as stack:
            stack.enter_context(data_lock(self._service.data))
            listener = stack.enter_context(listen(self._service.host, self._service.port))
            self._address = address_of(listener, is_encrypted=bool(self._service.tls_certificate))
            lifeline, ours = os.pipe()
            stack.callback(os.close, lifeline)
            stack.callback(os.close, ours)
            self._wake_fd = stack.enter_context(_signals(self._count_signal))
            self._node, self._api = self._children(listener.fileno(), lifeline)
            try:
                self._serve()
            finally:
                self._end()

    def _children(self, socket_fd: int, lifeline_fd: int) -> tuple[Child, Child]:
        passed_on = {name: value for name, value in self._environment.items() if name in PASSED_ON}
        settings = {name: value for name, value in self._environment.items() if name.startswith(SETTING_PREFIXES)}
        words = ["--data", str(self._service.data), "--lifeline-fd", str(lifeline_fd)]
        node = [*self._modules["node"], *words, "--log-level", self._service.log_level]
        api = [*self._modules["api"], *words, "--socket-fd", str(socket_fd)]
        return (
            Child("node", node, passed_on, (lifeline_fd,)),
            Child("api", api, {**passed_on, **settings}, (lifeline_fd, socket_fd)),
        )

    def _count_signal(self) -> None:
        self._ending_signals += 1

    # While it serves ------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._say(f"starting on {self._address}, with {self._service.data}")
        while not self._ending_signals:
            self._start_due()
            starts = [child.start_at_s for child in (self._node, self._api) if not child.is_running]
            self._wait(min(starts) if starts else None, (self._node, self._api))
            for child in (self._node, self._api):
                if child.is_running and _has_ended(child.pidfd) and not self._ending_signals:
                    self._crashed(child)

    def _start_due(self) -> None:
        now_s = time.monotonic()
        if not self._node.is_running and self._node.start_at_s <= now_s:
            self._node.start()
        if not self._api.is_running and self._api.start_at_s <= now_s:
            self._start_api()

    def _start_api(self) -> None:
        """With a pipe of its own to tell what people are to know."""
        self._close_announcements()
        self._announce_fd, theirs = os.pipe()
        try:
            self._api.start(["--announce-fd", str(theirs)], (theirs,))
        finally:
            os.close(theirs)

    def _crashed(self, child: Child) -> None:
        status = child.collect()
        self._hear_rest()
        if self._refusal is not None:
            raise self._refusal
        again_at_s = child.crashed(time.monotonic(), self._patience)
        what = f"signal {-status}" if status < 0 else f"status {status}"
        if again_at_s is None:
            raise ServiceUnavailable(
                f"the {child.name} process has ended {len(child.crashed_at_s)} times within "
                f"{self._patience.within_s:g} s, lately with {what}",
                hint="its last words are above",
            )
        child.start_at_s = again_at_s
        self._say(f"the {child.name} process has ended with {what}; it is started again")

    def _wait(self, until_s: float | None, children: Sequence[Child]) -> None:
        """Sleep until something happens to us or to these children, or the time has come."""
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        for child in children:
            if child.is_running:
                poll.register(child.pidfd, select.POLLIN)
        if self._announce_fd >= 0:
            poll.register(self._announce_fd, select.POLLIN)
        left_ms = None if until_s is None else max(0, int((until_s - time.monotonic()) * 1000) + 1)
        ready = {fd for fd, _ in poll.poll(left_ms)}
        if self._wake_fd in ready:
            os.read(self._wake_fd, bound.KIB)
        if self._announce_fd in ready:
            self._hear()

    # What the API announces -----------------------------------------------------------------------

    def _hear(self) -> None:
        part = os.read(self._announce_fd, bound.ANNOUNCEMENT_MAX_BYTES)
        self._announced += part
        *lines, self._announced = self._announced.split(b"\n")
        for line in lines:
            self._show(line)
        if not part or len(self._announced) > bound.ANNOUNCEMENT_MAX_BYTES:
            self._close_announcements()

    def _hear_rest(self) -> None:
        """What was announced and not heard yet."""
        poll = select.poll()
        while self._announce_fd >= 0:
            poll.register(self._announce_fd, select.POLLIN)
            if not poll.poll(0):
                return
            poll.unregister(self._announce_fd)
            self._hear()

    def _show(self, line: bytes) -> None:
        try:
            told = msgspec.json.decode(line, type=Announcement)
        except (msgspec.DecodeError, UnicodeError):
            self._say("the api process announces something that makes no sense")
            return
        if told.operator_key.isprintable() and told.operator_key:
            self._say(f"the operator's key, which is shown this once and kept nowhere: {told.operator_key}")
        if told.refused:
            self._refusal = Conflict(_one_line(told.refused), hint=_one_line(told.hint))
        if told.ready:
            self._say(f"ready on {self._address}")

    def _close_announcements(self) -> None:
        if self._announce_fd >= 0:
            os.close(self._announce_fd)
        self._announce_fd, self._announced = -1, b""

    # The end --------------------------------------------------------------------------------------

    def _end(self) -> None:
        """First the API, which lets what runs come to its end; then the node, with whatever still runs."""
        self._say("ending; another signal does not wait for what runs")
        self._end_child(self._api, self._service.drain_s + self._patience.end_s)
        self._end_child(self._node, self._patience.end_s)
        self._close_announcements()

    def _end_child(self, child: Child, within_s: float) -> None:
        """A second signal to us is impatience."""
        child.signal(signal.SIGTERM)
        until_s = time.monotonic() + within_s
        so_far = 1
        while child.is_running and not _has_ended(child.pidfd):
            if time.monotonic() >= until_s or self._ending_signals > so_far:
                self._say(f"the {child.name} process is killed")
                child.signal(signal.SIGKILL)
                until_s, so_far = time.monotonic() + self._patience.end_s, self._ending_signals
            self._wait(until_s, (child,))  # the other may have ended long ago
        if child.is_running:
            child.collect()


def _one_line(text: str) -> str:
    """It came from a database, perhaps."""
    return "".join(char if char.isprintable() else "?" for char in text)


def module_command(module: str) -> list[str]:
    """Python with a module, and without what its environment would add."""
    return [sys.executable, "-I", "-m", module]


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def _signals(on_signal: Callable[[], None]) -> Iterator[int]:
    """A descriptor that becomes readable when a signal asks to end, which `on_signal` is told of."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wake_before = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup leaves one
    before = {number: signal.signal(number, lambda *_: on_signal()) for number in heard}
    try:
        yield readable
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wake_before)
        os.close(readable)
        os.close(writable)


@contextmanager
def data_lock(data: Path) -> Iterator[None]:
    """The service's directory, made where it is missing, for us alone. Raises Conflict if another has it."""
    _make_directories(data)
    fd = os.open(data / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            problem = f"{data} is in use by another `casemate serve`, process {owner or 'unknown'}"
            raise Conflict(problem, hint="end that one, or name another directory with --data") from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _make_directories(data: Path) -> None:
    if len(os.fsencode(data / NODE_SOCKET)) > _UNIX_PATH_MAX_BYTES:
        raise ConfigError("service.data", "is too long a path for the socket in it", hint="name a shorter one")
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        for directory in (data, data / "run"):
            with suppress(FileExistsError):
                directory.mkdir(mode=_PRIVATE)
            _check_private(directory)
    except OSError as error:
        raise ConfigError("service.data", f"{data} cannot be made: {error.strerror}") from error


def _check_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError("service.data", f"{directory} is no directory")
    if found.st_uid != os.geteuid():
        raise ConfigError("service.data", f"{directory} belongs to another user")
    if found.st_mode & _FOR_OTHERS:
        raise ConfigError("service.data", f"{directory} is open to other users", hint=f"chmod 700 {directory}")


def listen(host: str, port: int) -> socket.socket:
    """The socket of the service. Raises ConfigError if there can be none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError("service.host", f"{host[:80]!r}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(bound.LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        hint = "another program has it; --port names another, 0 takes any" if error.errno == errno.EADDRINUSE else ""
        key = "service.host" if error.errno == errno.EADDRNOTAVAIL else "service.port"
        raise ConfigError(key, f"{host[:80]} port {port}: {error.strerror}", hint=hint) from error
    return listener


def address_of(listener: socket.socket, *, is_encrypted: bool) -> str:
    """Where the service is reached, as people write it."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_encrypted else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
