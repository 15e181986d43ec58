"""A runner: compiles a source once, and runs it for one item after the other, each in a fork of this process.

Started as `python3 -S <this file> LIBRARY MODULE...`. The library forks; its child comes back here with the item's
request and gives an answer. Nothing of the program has run in the process that forks.
"""
# ruff: noqa: I002  (as in the harness, whose imports these are)

import _ast
import _signal as signal  # type: ignore[import-not-found]  # `signal` imports `enum` for the same
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

HERE = __file__.rpartition("/")[0]
REQUEST_FD = 3
REPLY_FD = 4
ANSWER_FD = 63
HEAD_BYTES = 4
READ_BYTES = 1 << 20
ROOM_BYTES = 1 << 12
FRAME_READY = 6
COMPILED = b'{"kind":"none"}'
MISSING = object()
PyCF_ONLY_AST = 0x400
FRAMES_BELOW = 7
"""What of the recursion limit stands below the program: this module's frame, five functions, the call of `exec`."""
IMPORTS_MAX = 100
IMPORT_MAX_S = 10


def main() -> None:
    """Prepare, and in each fork run one item."""
    library, *modules = sys.argv[1:]
    harness = Harness()
    source = harness.program._json_parser()(_read_frame().decode())
    runner = _load(library)
    harness.program._complete_builtins()
    harness.program._set_arguments(f"{posix.getcwd()}/{source['filename']}", [source["filename"]])
    function = Function(harness, source)
    try:
        function.compile()
    except BaseException as error:
        posix.write(REPLY_FD, _frame(harness.failed(error, function.path, source["code"])))
        posix._exit(0)
    function.import_ahead(modules)
    request = runner.next_item()
    posix._exit(function.run(request))


class Harness:
    """The neighbours of this file; a program finds none of them imported."""

    def __init__(self) -> None:
        sys.path.insert(0, HERE)
        names = ("python_program", "python_output", "python_failure", "python_context", "python_function")
        self.program, self.output, self.failure, self.context, self.function = map(_imported, names)
        del sys.path[0]
        self.program.FRAMES_BELOW = FRAMES_BELOW
        self.program.ahead.update(python_output=self.output, python_failure=self.failure)

    def failed(self, error: BaseException, path: str, source: str) -> bytes:
        """The reply about what nothing has caught, which is printed, too."""
        self.program._strip(HERE, error)
        try:
            text = self.failure.render(error, path, source)
        except BaseException:  # the program's own `__str__`, or no memory
            text = f"{type(error).__name__}\n"
        reply: bytes = self.failure.payload(error, text)
        return reply


def _imported(name: str) -> "Any":
    module = __import__(name)
    del sys.modules[name]
    return module


def _read_frame() -> bytes:
    size = int.from_bytes(_read_exactly(HEAD_BYTES), "big")
    return _read_exactly(size)


def _read_exactly(count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = posix.read(REQUEST_FD, min(count - len(data), READ_BYTES))
        if not piece:
            posix._exit(0)
        data += piece
    return bytes(data)


def _frame(body: bytes) -> bytes:
    return (len(body) + 1).to_bytes(HEAD_BYTES, "big") + bytes([FRAME_READY]) + body


class Function:
    """The program: compiled once, and run at most once in each process."""

    def __init__(self, harness: Harness, source: "dict[str, Any]") -> None:
        self.harness = harness
        self.source = source
        self.parse = harness.program._json_parser()
        self.path = f"{posix.getcwd()}/{source['filename']}"
        self.parts: list[Any] = []
        self.is_empty = True
        self.module: ModuleType = harness.program._make_main(self.path, source["code"])
        self.names: dict[str, Any] = vars(self.module)
        self._load_library(source["library"])

    def _load_library(self, text: str) -> None:
        """Helper functions, whose names are globals of the program."""
        module = type(sys)("macros")
        exec(compile(text, "macros.py", "exec", dont_inherit=True), vars(module))
        for name in getattr(module, "__all__", ()):
            self.names[name] = getattr(module, name)

    def compile(self) -> None:
        """Raises SyntaxError as the compiler does."""
        self.parts = self.harness.program._compile_program(HERE, self.source["code"], self.path)

    def import_ahead(self, modules: "list[str]") -> None:
        """What the source imports, each item would import again. Not what could not be forked after that."""
        found = modules + (_imports(self.source["code"]) if "import" in self.source["code"] else [])
        if not found:
            return
        _silence()
        trial = posix.fork()
        if trial == 0:
            signal.alarm(IMPORT_MAX_S)
            posix.close(REPLY_FD)
            _import_all(found)
            posix._exit(len(posix.listdir("/proc/self/task")) > 1 or _shares_memory())
        if posix.waitpid(trial, 0)[1] == 0:
            _import_all(found)
            _flush()

    def run(self, request: bytes) -> int:
        """Run it for one item; the exit status."""
        process = posix.getpid()
        try:
            status, reply = self._outcome(self.parse(request.decode()))
        finally:
            _flush()
        if posix.getpid() == process:  # and not a process that the program has forked
            _answer(reply)
        return status

    def _outcome(self, item: "dict[str, Any]") -> "tuple[int, bytes]":
        """The exit status and the reply."""
        program, failure = self.harness.program, self.harness
        value = item["input"]
        _reseed()
        program._reserve()
        self._bind(item)
        status = 0
        try:
            returned = self._call(value)
        except SystemExit as stop:
            status, returned = _exit_code(stop.code), program.MISSING
        except BaseException as error:
            program._give_up_reserves()
            reply = failure.failed(error, self.path, self.source["code"])
            _print_failure(error)
            return 1, reply
        program._give_up_reserves()
        output = self._merged(returned)
        return status, b'{"kind":"none"}' if output is program.MISSING else self.harness.output.payload(output)

    def _bind(self, item: "dict[str, Any]") -> None:
        self.names["input"] = item["input"]
        self.names["ctx"] = self.harness.context.freeze(item["ctx"])
        if self.source["macros"]:
            self.names["json"] = item["input"]
            self.names["output"] = {}

    def _call(self, value: "Any") -> "Any":
        """What the program, or the function in it that is asked for, returns."""
        program = self.harness.program
        wanted = self.source["function"]
        named = wanted and self.harness.function.Named(wanted, self.source["code"])
        returned = program._run(self.parts, self.names, None)
        if named:
            request = {"has_input": True, "input": value, "spread": self.source["spread"]}
            return program._awaited(named.call(self.names, request)) if returned is program.MISSING else returned
        if returned is program.MISSING and not self._has_output():
            found = program._call_main(self.names.get("main"), value)
            return returned if found is program.MISSING else found
        return returned

    def _has_output(self) -> bool:
        """With macros there is one from the start, so it has to hold something."""
        if not self.source["macros"]:
            return "output" in self.names
        output = self.names.get("output", {})
        return type(output) is not dict or bool(output)

    def _merged(self, returned: "Any") -> "Any":
        """The output: what was returned, or what `output` holds; with macros a dictionary is merged over that."""
        missing = self.harness.program.MISSING
        output = self.names.get("output", missing)
        if returned is missing or (returned is None and self.source["macros"]):
            return output
        if self.source["macros"] and isinstance(returned, dict) and isinstance(output, dict):
            return {**output, **returned}
        return returned


def _imports(code: str) -> "list[str]":
    """The modules that are named in the source's imports, wherever these stand."""
    found: dict[str, None] = {}
    waiting: list[Any] = [compile(code, "", "exec", PyCF_ONLY_AST, dont_inherit=True)]
    while waiting and len(found) < IMPORTS_MAX:
        node = waiting.pop()
        if isinstance(node, _ast.Import):
            found.update(dict.fromkeys(each.name for each in node.names))
        elif isinstance(node, _ast.ImportFrom) and not node.level and node.module:
            found[node.module] = None
        elif hasattr(node, "body") or hasattr(node, "handlers"):
            for part in ("body", "orelse", "finalbody", "handlers"):
                within = getattr(node, part, None)
                waiting += within if isinstance(within, list) else []
    return list(found)


def _import_all(names: "list[str]") -> None:
    for name in names:
        try:
            __import__(name)
        except BaseException:  # noqa: S112  (the program itself is to find that out)
            continue


def _shares_memory() -> bool:
    """Whether something is mapped that a write changes for all who have it."""
    with open("/proc/self/maps", "rb") as maps:  # noqa: PTH123 - another module to import
        return any(b"w" in modes and b"s" in modes for modes in (line.split()[1] for line in maps))


def _silence() -> None:
    """Whatever an import prints is of no interest here; each item has a stdout and a stderr of its own."""
    null = posix.open("/dev/null", posix.O_WRONLY)
    for fd in (1, 2):
        posix.dup2(null, fd)
    posix.close(null)


def _exit_code(code: "Any") -> int:
    """What the interpreter makes of `sys.exit(code)`."""
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    try:
        sys.stderr.write(f"{code}\n")
    except Exception:
        return 1
    return 1


def _print_failure(error: BaseException) -> None:
    try:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    except BaseException:
        return  # its text is the program's code


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # type: ignore[union-attr]
        except BaseException:  # noqa: S112  (the program has closed or replaced it)
            continue


def _answer(reply: bytes) -> None:
    data = memoryview(len(reply).to_bytes(HEAD_BYTES, "big") + reply)
    try:
        while data:
            data = data[posix.write(ANSWER_FD, data) :]
    except OSError:
        return  # the program has closed it: there is no answer then


def _reseed() -> None:
    """What siblings must not share: the interpreter itself has seen to `random`, the libraries of OpenSSL to theirs."""
    modules = sys.modules
    if "numpy.random" in modules:
        modules["numpy.random"].seed()
    if "tempfile" in modules:
        setattr(modules["tempfile"], "_name_sequence", None)  # noqa: B010
    if "uuid" in modules:
        for name in ("_node", "_last_timestamp"):
            setattr(modules["uuid"], name, None)


def _load(library: str) -> "Any":
    """The way into the library, without a trace in what programs find imported."""
    known, path = set(sys.modules), sys.path[:]
    sys.path[:] = [each for each in path if each.startswith((sys.prefix, sys.exec_prefix))]
    import ctypes

    runner = Runner(ctypes, ctypes.PyDLL(library))
    for name in set(sys.modules) - known:
        del sys.modules[name]
    sys.path[:] = path
    return runner


class Runner:
    """The library that forks."""

    def __init__(self, ctypes: "Any", library: "Any") -> None:
        self.ctypes = ctypes
        self.library = library
        self.api = ctypes.pythonapi

    def next_item(self) -> bytes:
        """Returns in each fork, with its request."""
        import gc

        ctypes = self.ctypes
        size = ctypes.c_int()
        room = ctypes.create_string_buffer(ROOM_BYTES)  # an array of any other size is a type to be made in each fork
        gc.collect()
        gc.freeze()  # or the first collection in each fork would write to every object, and so copy it
        self.api.PyOS_BeforeFork()
        self.library.casemate_runner(COMPILED, ctypes.byref(ctypes.c_int(len(COMPILED))), ctypes.byref(size))
        self.api.PyOS_AfterFork_Child()
        gc.unfreeze()
        request = room if size.value <= ROOM_BYTES else ctypes.create_string_buffer(size.value)
        self.library.casemate_runner_request(request)
        data: bytes = request.raw[: size.value]
        return data


main()
