"""An interpreter that stays: runs one piece of code after the other in the same `__main__`, and forks copies of itself.

Requests come as frames on one descriptor, answers go as frames to another; each answer has the id of its request. What
the code prints goes to its stdout and stderr, which carry no protocol.
"""
# ruff: noqa: I002  (as in the harness of a single program)

import _ast
import builtins
import linecache
import posix
import signal
import sys
import traceback
import warnings
from _thread import RLock, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, ModuleType
    from typing import Any

REQUEST_FD = 63
REPLY_FD = 62
"""Where they wait, so that the program's own files get the numbers that they get natively. The engine knows both."""
STDOUT_FD = 1
STDERR_FD = 2
GIVEN_REQUEST_FD = 3
GIVEN_REPLY_FD = 4
READ_BYTES = 1 << 20
READY = bytes(4)
"""An empty frame: from now on requests may come. To a copy it says that its pipes are in the engine's hands."""
SOURCES_MAX = 1000
"""Of how many calls the text is kept for tracebacks."""
PID_BYTES = 4
NO_PROCESS = -1
ADOPTION_MAX_S = 60
COPIES_EACH_MIN = 8
"""So many copies are worth a process of their own to fork them."""
PyCF_ONLY_AST = 0x400


def main(here: str) -> None:
    """Serve until there are no more requests."""
    sys.path.insert(0, here)
    program = __import__("python_program")
    modules = {name: __import__(name) for name in ("python_output", "python_failure", "python_display")}
    del sys.path[0]
    for name in ("python_program", *modules):
        del sys.modules[name]
    program._complete_builtins()
    program._set_arguments(f"{posix.getcwd()}/main", [""])
    posix.putenv("MPLBACKEND", "agg")
    posix.environ[b"MPLBACKEND"] = b"agg"
    # Open figures are shown at the end of the call, whether `show()` was called or not.
    warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
    Session(here, program, **modules).serve()


class Interrupts:
    """Ctrl-C from outside: an exception in the program's code, and nothing between two calls."""

    def __init__(self) -> None:
        self.is_on = False
        self.is_held = False
        self.is_pending = False
        signal.signal(signal.SIGINT, self.take)

    def take(self, _number: int, _frame: "FrameType | None") -> None:
        if self.is_held:
            self.is_pending = self.is_on
        elif self.is_on:
            raise KeyboardInterrupt

    def rearm(self) -> None:
        """The program's own handler stays, unless it has only put back what every program begins with."""
        self.is_pending = False
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self.take)

    def release(self) -> None:
        """Catch up on what was held back."""
        self.is_held = False
        if self.is_pending:
            self.is_pending = False
            raise KeyboardInterrupt


class Session:
    """The one namespace and the channel."""

    def __init__(
        self,
        here: str,
        program: "ModuleType",
        python_output: "ModuleType",
        python_failure: "ModuleType",
        python_display: "ModuleType",
    ) -> None:
        self.here = here
        self.parse = program._json_parser()
        self.output: Any = python_output
        self.failure: Any = python_failure
        self.shown: Any = python_display
        self.process = posix.getpid()
        self.main_thread = get_ident()
        self.sending = RLock()
        self.request_id = ""
        self.is_frozen = False
        self.spare_fds: list[int] = []
        for given, later in ((GIVEN_REQUEST_FD, REQUEST_FD), (GIVEN_REPLY_FD, REPLY_FD)):
            posix.dup2(given, later, inheritable=False)
            posix.close(given)
        module = type(sys)("__main__")
        self.names = vars(module)
        self.names.update(__builtins__=builtins, __annotations__={})
        sys.modules["__main__"] = module
        builtins.display = self.display  # type: ignore[attr-defined]  # the name that notebooks have for it
        self.interrupts = Interrupts()

    def serve(self) -> None:
        posix.write(REPLY_FD, READY)
        while (data := self._read_frame()) is not None:
            if not data:
                self._close_spares()
                continue
            request = self.parse(data.decode())
            self.request_id = request["id"]
            if request["op"] == "run":
                self._answer(request)
            else:
                self._fork(request["count"])

    # Frames -------------------------------------------------------------------------------------

    def _read_frame(self) -> "bytes | None":
        head = self._read_exactly(4)
        return None if head is None else self._read_exactly(int.from_bytes(head, "big"))

    def _read_exactly(self, count: int) -> "bytes | None":
        data = bytearray()
        while len(data) < count:
            piece = posix.read(REQUEST_FD, min(count - len(data), READ_BYTES))
            if not piece:
                return None
            data += piece
        return bytes(data)

    def send(self, body: bytes) -> None:
        """One whole frame, whatever interrupts: half of one would be the end of the session."""
        if posix.getpid() != self.process:
            return  # a process that the program has forked has nothing to say here
        is_main = get_ident() == self.main_thread
        with self.sending:
            self.interrupts.is_held = self.interrupts.is_held or is_main
            frame = memoryview(len(body).to_bytes(4, "big") + body)
            while frame:
                frame = frame[posix.write(REPLY_FD, frame) :]
            if is_main:
                self.interrupts.release()

    def _send_fields(self, kind: str, **fields: "Any") -> None:
        self.send(self.output._write({"kind": kind, "id": self.request_id, **fields}))

    # One call -----------------------------------------------------------------------------------

    def _answer(self, request: "dict[str, Any]") -> None:
        if self.is_frozen:
            self._thaw()
        self.interrupts.rearm()
        self._send_fields("taken")
        code, reply = self._call(request)
        self.names.pop("output", None)
        if request["has_input"]:
            self.names.pop("input", None)
        self._flush()
        if posix.getpid() != self.process:
            sys.exit(code)
        self.send(b'{"kind":"done","id":"%s","exit_code":%d,"reply":%s}' % (self.request_id.encode(), code, reply))

    def _call(self, request: "dict[str, Any]") -> "tuple[int, bytes]":
        """Run the code; its exit code and the reply."""
        try:
            try:
                self.interrupts.is_on = True
                self._execute(request)
            finally:
                self.interrupts.is_on = False
        except SystemExit as stop:
            code = self._exit_code(stop.code)
        except BaseException as error:
            self.interrupts.is_on = False
            return 1, self._failed(error)
        else:
            code = 0
        if "output" not in self.names:
            return code, b'{"kind":"none"}'
        return code, self.output.payload(self.names["output"])

    def _execute(self, request: "dict[str, Any]") -> None:
        filename = self._remember(request["number"], request["code"])
        if request["live"]:
            self._print_lines_at_once()
        if request["has_input"]:
            self.names["input"] = request["input"]
        tree = compile(request["code"].removeprefix("\ufeff"), filename, "exec", PyCF_ONLY_AST, dont_inherit=True)
        last = tree.body.pop() if tree.body and type(tree.body[-1]) is _ast.Expr else None
        try:
            exec(compile(tree, filename, "exec", dont_inherit=True), self.names)
            if last is not None:
                value = eval(compile(_ast.Expression(last.value), filename, "eval", dont_inherit=True), self.names)
                if value is not None:
                    self._show("result", value)
        except Exception:
            self._show_figures()
            raise
        self._show_figures()

    def _print_lines_at_once(self) -> None:
        """On the stream that the interpreter opened, wherever the program has sent its output since."""
        try:
            sys.__stdout__.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        except Exception:
            return  # the program has closed it

    def _remember(self, number: int, code: str) -> str:
        """Keep the text of this call, for tracebacks, and forget that of one long ago."""
        filename = f"<call {number}>"
        linecache.cache.pop(f"<call {number - SOURCES_MAX}>", None)
        linecache.cache[filename] = (len(code), None, [f"{line}\n" for line in code.splitlines()], filename)
        return filename

    def _exit_code(self, code: "Any") -> int:
        """What the interpreter makes of `sys.exit(code)`."""
        if code is None or isinstance(code, int):
            return (code or 0) & 0xFF
        try:
            sys.stderr.write(f"{code}\n")
        except Exception:
            return 1
        return 1

    def _failed(self, error: BaseException) -> bytes:
        """Report what the code did not catch, and print it as the interpreter would."""
        self._strip(error)
        try:
            text = "".join(traceback.format_exception(error))
        except Exception:  # the program's own `__str__` or `__notes__`
            text = f"{type(error).__name__}\n"
        reply: bytes = self.failure.payload(error, text)
        try:
            sys.stderr.write(text)
        except Exception:
            return reply
        return reply

    def _strip(self, error: BaseException) -> None:
        """Take our own frames off: those above the program's, and of an interrupt the one below."""
        first = error.__traceback__
        while first and first.tb_frame.f_code.co_filename.startswith(self.here):
            first = first.tb_next
        last = first
        while last and last.tb_next:
            if last.tb_next.tb_frame.f_code.co_filename.startswith(self.here):
                last.tb_next = None
                break
            last = last.tb_next
        error.__traceback__ = first

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()  # type: ignore[union-attr]
            except Exception:  # noqa: S112  (the program has closed or replaced it)
                continue

    # Displays -----------------------------------------------------------------------------------

    def display(self, *values: "Any") -> None:
        """Show values in the richest forms that they have."""
        for value in values:
            self._show("display", value)

    def _show(self, kind: str, value: "Any") -> None:
        self._send_fields("display", display=self.shown.bundle(self.output, kind, value))

    def _show_figures(self) -> None:
        for figure in self.shown.figures():
            self._show("figure", figure)

    # Copies -------------------------------------------------------------------------------------

    def _fork(self, count: int) -> None:
        """Fork copies by a process that ends at once, so that they belong to the sandbox's init.

        A copy comes out of here as one that serves requests of its own.
        """
        import gc

        self._flush()
        try:
            read_fd, write_fd = posix.pipe()
        except OSError:  # the program has used up its descriptors: the engine sees that there is no copy
            self._send_fields("forked", pids=[])
            return
        gc.freeze()  # or the first collection in each copy would write to every object, and so copy it
        try:
            middle = posix.fork()
        except OSError:
            middle = NO_PROCESS
        if middle == 0:
            posix.close(read_fd)
            self._fork_copies(count, write_fd)
            return
        posix.close(write_fd)
        found = bytearray()
        while piece := posix.read(read_fd, READ_BYTES):
            found += piece
        posix.close(read_fd)
        if middle != NO_PROCESS:
            self._wait_for(middle)
        gc.unfreeze()
        pids = [int.from_bytes(found[at : at + PID_BYTES], "big") for at in range(0, len(found), PID_BYTES)]
        self._send_fields("forked", pids=pids)

    def _fork_copies(self, count: int, ready_fd: int) -> None:
        """Fork them, by several processes at once where there are processors; returns only in a copy.

        Whoever forks is waited for: only its end makes the copies init's.
        """
        makers = max(1, min(len(posix.sched_getaffinity(0)), count // COPIES_EACH_MIN))
        shares = [count // makers + (number < count % makers) for number in range(makers)]
        helpers = []
        for share in shares[1:]:
            try:
                pid = posix.fork()
            except OSError:
                shares[0] += share
                continue
            if pid == 0:
                if self._fork_share(share, ready_fd):
                    return
                posix._exit(0)
            helpers.append(pid)
        if self._fork_share(shares[0], ready_fd):
            return
        for pid in helpers:
            self._wait_for(pid)
        posix._exit(0)

    def _fork_share(self, count: int, ready_fd: int) -> bool:
        """Fork so many copies; True in a copy."""
        for _ in range(count):
            try:
                pid = posix.fork()
            except OSError:  # no more processes are allowed: the engine sees how many there are
                break
            if pid == 0:
                self._become_copy(ready_fd)
                return True
        return False

    def _become_copy(self, ready_fd: int) -> None:
        """Pipes and random state of its own; the ends that are the engine's it opens for itself, by way of init."""
        try:
            posix.setsid()
            self.process = posix.getpid()
            self.main_thread = get_ident()
            self.sending = RLock()  # a thread, which does not exist here, may have held it
            self.is_frozen = True
            (out, out_fd), (err, err_fd), (request_fd, keep), (rest, reply_fd) = [posix.pipe() for _ in range(4)]
            for fd, number in (
                (out_fd, STDOUT_FD),
                (err_fd, STDERR_FD),
                (request_fd, REQUEST_FD),
                (reply_fd, REPLY_FD),
            ):
                posix.dup2(fd, number, inheritable=number <= STDERR_FD)
                posix.close(fd)
            # Until the engine has its ends, a pipe with one end only would look closed.
            self.spare_fds = [out, err, keep, rest]
            self._reseed()
            posix.write(ready_fd, self.process.to_bytes(PID_BYTES, "big"))
            posix.close(ready_fd)
            signal.alarm(ADOPTION_MAX_S)  # a copy that nobody has asked for by then is not to stay
        except BaseException:
            posix._exit(1)

    def _reseed(self) -> None:
        """What `random`, `tempfile` and OpenSSL do by themselves."""
        for name in ("numpy.random", "torch"):
            try:
                sys.modules[name].seed()
            except Exception:  # noqa: S112  (it is not loaded, or is no longer what it was)
                continue

    def _close_spares(self) -> None:
        signal.alarm(0)
        while self.spare_fds:
            posix.close(self.spare_fds.pop())

    def _thaw(self) -> None:
        import gc

        self.is_frozen = False
        gc.unfreeze()

    def _wait_for(self, pid: int) -> None:
        try:
            posix.waitpid(pid, 0)
        except ChildProcessError:
            return  # the program lets the kernel do that
