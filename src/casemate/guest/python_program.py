"""Runs one program the way `python3 FILE` would, and reports its output value on a descriptor of its own.

Descriptor 3 carries the request, descriptor 4 takes the reply. Starting is on the clock of every run: only built-in
modules are imported here, and what few programs need stands in neighbours of this file that are imported when they do.
"""
# ruff: noqa: I002  (importing __future__ would be a tenth of what the harness costs)

import builtins
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType, TracebackType
    from typing import Any, TypeAlias

    Part: TypeAlias = "CodeType | Callable[[], tuple[Any, ...] | None]"

REQUEST_FD = 3
REPLY_FD = 4
REPLY_FD_LATER = 63
"""Where the reply descriptor waits, so that the program's own files get the numbers that they get natively."""
SPARE_FD = 62
"""Given up when the program has ended and a neighbour of this file is imported: it may have used up all others."""
SPARE_BYTES = 2 << 20
"""Of memory, given up at the same time: a program that has used up all other could not even be said to have done so."""
HEAD_BYTES = 4
READ_BYTES = 1 << 20
TYPE_MASK = 0o170000
DIRECTORY = 0o040000
FRAMES_BELOW = 4
"""What of the recursion limit stands below the program: two modules' frames, one function, the call of `exec`."""
STATUSES = range(256)
MISSING = object()
FAREWELL = b"\xff\xff\xff"
READY = bytes(4)
"""An empty frame: from now on the request may come."""
spare: "list[bytes]" = []
ahead: "dict[str, Any]" = {}
"""Neighbours of this file that were imported before anybody knew of a program."""


def main(here: str) -> None:
    """One program from its request to its natural end. `here`: where the harness lies."""
    reply = Reply()
    _reserve()
    _complete_builtins()
    parse = _json_parser()
    head = _read_early()
    if not head:
        _without_trace(here, "python_rehearsal").rehearse()
    end = _prepare_end(here, reply)
    posix.write(reply.fd, READY)
    request = parse(_read_frame(head).decode())
    _set_variables(request["env"])
    source, filename = request["code"], request["filename"]
    if request.get("check"):
        _check(here, reply, source, filename)
        return
    path = filename if filename[:1] == "/" else f"{posix.getcwd()}/{filename}"
    placed = _place(path, source.encode())
    _set_arguments(path, [filename, *request["args"]])
    if request["live"] and sys.stdout is not None:
        # As on a terminal: what is printed can be seen, and stays if a limit ends the program.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is what the interpreter opened
    names = vars(_make_main(path, None if placed else source))
    if request["has_input"]:
        names["input"] = request["input"]
    try:
        parts = _compile_program(here, source, path)
        call = _find_call(here, request, source)
        value = _run(parts, names, reply.record(here, request, path))
        if value is MISSING:
            value = call(names)
    except SystemExit as error:
        _send_value(here, reply, _own_output(names, request))
        if type(error) is SystemExit and (error.code is None or (type(error.code) is int and error.code in STATUSES)):
            end.status = error.code or 0
        raise
    except BaseException as error:
        _fail(here, reply, error, path, None if placed else source, end)
        raise
    _send_value(here, reply, _own_output(names, request) if value is MISSING else value)
    end.status = 0


def _read_early() -> bytes:
    """What there is of the request already: something, unless this interpreter is started ahead."""
    posix.set_blocking(REQUEST_FD, False)
    try:
        return posix.read(REQUEST_FD, HEAD_BYTES)
    except BlockingIOError:
        return b""
    finally:
        posix.set_blocking(REQUEST_FD, True)


def _prepare_end(here: str, reply: "Reply") -> "Any":
    """What is registered first is called last."""
    import atexit

    end = _without_trace(here, "python_end").End(reply.take_leave)
    if end.may_leave:
        atexit.register(end.leave)
        _watch_audit_hooks(end)
    return end


def _without_trace(here: str, name: str) -> "Any":
    """A neighbour of this file; the program finds nothing imported that only this needs."""
    others = set(sys.modules)
    module = _neighbour(here, name)
    for other in set(sys.modules) - others:
        del sys.modules[other]
    return module


def _watch_audit_hooks(end: "Any") -> None:
    """They are told of the interpreter's end."""
    add = sys.addaudithook

    def addaudithook(hook: "Callable[[str, tuple[Any, ...]], Any]") -> None:
        end.may_leave = False
        add(hook)

    sys.addaudithook = addaudithook


def import_ahead(here: str) -> None:
    """For a zygote: what `main` imports before it takes a request, and what most programs need."""
    import _sitebuiltins  # noqa: F401
    import atexit  # noqa: F401

    _json_parser()
    for name in ("python_end", "python_output"):
        ahead[name] = _without_trace(here, name)


def _reserve() -> None:
    """Zeroes that nobody has written to take room of the process's limit, but none of the machine's."""
    try:  # noqa: SIM105  (contextlib would have to be imported)
        spare.append(bytes(SPARE_BYTES))
    except MemoryError:
        pass  # a limit as low as this leaves no room for a reserve


def _give_up_reserves() -> None:
    spare.clear()
    try:  # noqa: SIM105  (contextlib would have to be imported)
        posix.close(SPARE_FD)
    except OSError:
        pass


class Reply:
    """The way out for the one reply. Child processes do not inherit it, and a forked one may not use it."""

    def __init__(self) -> None:
        self.process = posix.getpid()
        self.is_sent = False
        self.recorder: Any = None
        try:
            self.fd = posix.dup2(REPLY_FD, REPLY_FD_LATER, inheritable=False)
            posix.dup2(REPLY_FD, SPARE_FD, inheritable=False)
            posix.close(REPLY_FD)
        except OSError:
            self.fd = REPLY_FD
            posix.set_inheritable(REPLY_FD, False)  # noqa: FBT003  (it takes no name)

    def send(self, payload: bytes) -> None:
        if posix.getpid() != self.process:
            return
        if self.recorder:
            payload = self.recorder.joined(payload)
        frame = memoryview(len(payload).to_bytes(4, "big") + payload)
        try:
            while frame:
                frame = frame[posix.write(self.fd, frame) :]
            self.is_sent = True
        except OSError:
            pass  # the program closed it: there is no reply then, and its exit status stands

    def record(self, here: str, request: "dict[str, Any]", path: str) -> "Any":
        if "debug" in request:
            self.recorder = _without_trace(here, "python_debug").Recorder(request["debug"], path)
        return self.recorder

    def stop_recording(self) -> None:
        """What comes now is not the program's own doing."""
        if self.recorder:
            self.recorder.stop()

    def take_leave(self, status: int) -> None:
        """Nothing of the program comes any more: whoever waits for its end need not wait for that of the process."""
        if self.is_sent:
            posix.write(self.fd, FAREWELL + bytes([status]))


def _read_frame(head: bytes) -> bytes:
    """The request, of which the head was perhaps read before; descriptor 3 is the program's to use from then on."""
    head += _read_exactly(HEAD_BYTES - len(head))
    data = _read_exactly(int.from_bytes(head, "big"))
    posix.close(REQUEST_FD)
    return data


def _set_variables(given: "dict[str, str]") -> None:
    """What the caller's environment adds; the interpreter was perhaps started before anybody knew of it."""
    for name, value in given.items():
        posix.putenv(name, value)
        posix.environ[name.encode()] = value.encode("utf-8", "surrogateescape")


def _read_exactly(count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = posix.read(REQUEST_FD, min(count - len(data), READ_BYTES))
        if not piece:
            sys.exit("casemate: the request on descriptor 3 ends early")
        data += piece
    return bytes(data)


def _json_parser() -> "Callable[[str], Any]":
    """What `json.loads` is, without importing `json`: its regular expressions cost more than all the rest."""
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.loads
    scanner = make_scanner(ScannerSettings)  # type: ignore[arg-type]  # it only reads attributes
    return lambda text: scanner(text, 0)[0]


class ScannerSettings:
    """What the scanner asks of a `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = None


def _complete_builtins() -> None:
    """What `site` does for every program, except running `.pth` files and `sitecustomize`."""
    from _sitebuiltins import Quitter, _Helper

    for name in ("quit", "exit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D (i.e. EOF)"))
    for name in ("copyright", "credits", "license"):
        setattr(builtins, name, Notice(name))
    builtins.help = _Helper()
    sys.path += [each for each in _package_directories() if each not in sys.path]


def _set_arguments(path: str, arguments: "list[str]") -> None:
    """What the interpreter does for one program."""
    directory = path.rpartition("/")[0] or "/"
    if sys.flags.isolated:
        sys.path.insert(0, directory)
    elif not sys.flags.safe_path:
        sys.path[0] = directory
    sys.argv = arguments
    sys.orig_argv = [sys.executable, *arguments]


class Notice:
    """`copyright`, `credits` or `license`: making the real one imports `os`, and hardly any program asks for it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return repr(self.real())

    def __call__(self) -> None:
        self.real()()

    def real(self) -> "Any":
        import site

        site.setcopyright()
        return getattr(builtins, self.name)


def _package_directories() -> "list[str]":
    """What `site.getsitepackages()` says, as far as it exists. Importing `site` would cost half of all the rest."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.prefix == "/usr" and _is_directory("/usr/lib/python3/dist-packages"):
        # Debian's own interpreter.
        found = [f"/usr/local/lib/{version}/dist-packages", "/usr/lib/python3/dist-packages"]
        found.append(f"/usr/lib/{version}/dist-packages")
    else:
        found = [
            f"{prefix}/{library}/{version}/site-packages"
            for prefix in (sys.prefix, sys.exec_prefix)
            for library in (sys.platlibdir, "lib")
        ]
    return [path for path in dict.fromkeys(found) if _is_directory(path)]


def _is_directory(path: str) -> bool:
    try:
        return posix.stat(path).st_mode & TYPE_MASK == DIRECTORY
    except OSError:
        return False


def _place(path: str, data: bytes) -> bool:
    """Make the program the file that it natively is, until its end. What lies there already stays as it is."""
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    except OSError:
        return False
    try:
        complete = posix.write(fd, data) == len(data)
    except OSError:
        complete = False
    made = posix.fstat(fd)
    posix.close(fd)
    if not complete:
        posix.unlink(path)
        return False
    import atexit

    atexit.register(_remove, path, posix.getpid(), (made.st_ino, made.st_mtime_ns))
    return True


def _remove(path: str, process: int, made: "tuple[int, int]") -> None:
    try:
        found = posix.stat(path)
        if posix.getpid() == process and (found.st_ino, found.st_mtime_ns) == made:
            posix.unlink(path)
    except OSError:
        pass  # the program has removed it itself


def _make_main(path: str, source: "str | None") -> "ModuleType":
    """The module `__main__`: what pickle, dataclasses, inspect and multiprocessing expect to find there.

    `source` is given if it is on no disk: then its lines in tracebacks and warnings come from the loader.
    """
    module = type(sys)("__main__")
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    if source is not None:
        data = source.encode()
        loader.get_data = lambda wanted: data if wanted == path else type(loader).get_data(loader, wanted)
    vars(module).update(__loader__=loader, __annotations__={}, __builtins__=builtins, __file__=path, __cached__=None)
    sys.modules["__main__"] = module
    return module


def _compile_program(here: str, source: str, path: str) -> "list[Part]":
    """The parts to run one after the other: one, unless there is a `return` at the top level."""
    try:
        return [compile(source.removeprefix("\ufeff"), path, "exec", dont_inherit=True)]
    except SyntaxError as error:
        problem = error
    if problem.msg == "'return' outside function":
        try:
            return _split(here, source, path)
        except SyntaxError as error:
            problem = error
    if problem.text is None and problem.lineno:
        problem.text = [*source.splitlines(), ""][problem.lineno - 1]
    raise problem.with_traceback(None)


def _split(here: str, source: str, path: str) -> "list[Part]":
    parts: list[Part] = _neighbour(here, "python_return").split(source, path, vars(sys.modules["__main__"]))
    return parts


def _neighbour(here: str, name: str) -> "Any":
    """A module that lies beside this one. The program does not find it in `sys.modules`."""
    if name in ahead:
        return ahead[name]
    sys.path.insert(0, here)
    try:
        __import__(name)
    finally:
        sys.path.remove(here)
    return sys.modules.pop(name)


def _run(parts: "list[Part]", names: "dict[str, Any]", recorder: "Any") -> "Any":
    """Run the program; the value of the `return` that it reached at its top level, else MISSING."""
    _hide_own_depth(FRAMES_BELOW + (recorder.frames if recorder else 0))
    if recorder:
        recorder.start()
    for part in parts:
        if not callable(part):
            exec(part, names)
            continue
        returned = part()
        if returned is not None:
            return returned[0] if returned else MISSING
    return MISSING


def _hide_own_depth(frames: int) -> None:
    """The program can go as deep as natively, and is told the same limit."""
    tell, limit = sys.getrecursionlimit, sys.setrecursionlimit
    sys.getrecursionlimit = lambda: tell() - frames
    sys.setrecursionlimit = lambda wanted, /: limit(wanted + frames)
    sys.setrecursionlimit(sys.getrecursionlimit() + frames)


def _check(here: str, reply: "Reply", source: str, path: str) -> None:
    """Only say whether it can be compiled."""
    reply.send(_neighbour(here, "python_check").payload(lambda: _compile_program(here, source, path)))


def _find_call(here: str, request: "dict[str, Any]", source: str) -> "Callable[[dict[str, Any]], Any]":
    """What is done with the program's names when it has ended without a value: a function of it is called."""
    if "function" in request:
        named = _neighbour(here, "python_function").Named(request["function"], source)
        return lambda names: _awaited(named.call(names, request))
    if request["has_input"]:
        return lambda names: MISSING if "output" in names else _call_main(names.get("main"), request["input"])
    return lambda _: MISSING


def _own_output(names: "dict[str, Any]", request: "dict[str, Any]") -> "Any":
    """The variable `output`, which means nothing where a function was to be called."""
    return MISSING if "function" in request else names.get("output", MISSING)


def _call_main(function: "Any", value: "Any") -> "Any":
    """`main(input)`, if that is a function with exactly one required parameter."""
    inner = function
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    if type(inner) is not type(_call_main) or not _takes_one(inner):
        return MISSING
    return _awaited(function(value))


def _awaited(result: "Any") -> "Any":
    if type(result).__name__ == "coroutine":
        import asyncio

        return asyncio.run(result)
    return result


def _takes_one(function: "Any") -> bool:
    code = function.__code__
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    optional = function.__kwdefaults__ or {}
    required = code.co_argcount - len(function.__defaults__ or ())
    return required == 1 and all(name in optional for name in keywords)


def _send_value(here: str, reply: Reply, value: "Any") -> None:
    reply.stop_recording()
    if value is MISSING:
        reply.send(b'{"kind":"none"}')
    else:
        _give_up_reserves()
        reply.send(_neighbour(here, "python_output").payload(value))


def _fail(  # noqa: PLR0917 - all that the end of a program depends on
    here: str, reply: Reply, error: BaseException, path: str, source: "str | None", end: "Any"
) -> None:
    """Report what the program did not catch; the interpreter then prints it, without our frames, and exits."""
    reply.stop_recording()
    _give_up_reserves()
    _strip(here, error)
    failure = _neighbour(here, "python_failure")
    text = failure.render(error, path, source)
    reply.send(failure.payload(error, text))
    hook = sys.excepthook

    def print_natively(kind: type[BaseException], value: BaseException, _: "TracebackType | None") -> None:
        sys.excepthook = hook
        _strip(here, value)
        if hook is sys.__excepthook__:
            failure.show(value, text)
            end.status = 1 if isinstance(value, Exception) else None
        else:
            failure.show_by(hook, kind, value)

    sys.excepthook = print_natively


def _strip(here: str, error: BaseException) -> None:
    """Take the frames of the harness off the traceback, and what there was no memory for a traceback of."""
    if type(error) is MemoryError and error.__traceback__ is None:
        error.__context__ = None
    traceback = error.__traceback__
    while traceback and traceback.tb_frame.f_code.co_filename.startswith(here):
        traceback = traceback.tb_next
    error.__traceback__ = traceback
