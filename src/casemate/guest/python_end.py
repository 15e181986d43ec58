"""The end of a program without the interpreter's own, where nobody could tell the difference.

The interpreter takes its modules apart and looks for cycles in them: longer than most programs run, for the sake of
what can be seen of it, which is destructors, callbacks, and files that are still to be written. So it is looked first
at what the program has left. If nothing of it is of that kind, all that is left to do is to free memory, and the
process may as well end. Whatever is not known here to be harmless is left to the interpreter.
"""
# ruff: noqa: I002  (importing __future__ would be a tenth of what the harness costs)

import gc
import io
import posix
import sys
from _frozen_importlib_external import ExtensionFileLoader
from _thread import _count as count_threads
from _weakref import ReferenceType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

KNOWN_VERSIONS = ((3, 11), (3, 13))
IS_ON_HEAP = 1 << 9
IS_BASE = 1 << 10
IS_COLLECTED = 1 << 14
"""Of a type's flags."""
TELLING_VARIABLES = ("LD_AUDIT", "LD_PRELOAD", "PYTHONDUMPREFS", "PYTHONDUMPREFSFILE", "PYTHONMALLOCSTATS")
"""With one of them somebody else has something to do or to say when the process ends."""
BuiltinImporter = sys.modules["_frozen_importlib"].BuiltinImporter
Function = type(lambda: None)
BuiltinFunction = type(len)
Module = type(sys)
Generator = type(_ for _ in ())
BUFFERED = frozenset({io.BufferedRandom, io.BufferedReader, io.BufferedWriter})
IN_MEMORY = frozenset({io.BytesIO, io.StringIO})
LOOKED_INTO = {id(kind) for kind in (Generator, ReferenceType, io.FileIO, io.TextIOWrapper, *BUFFERED, *IN_MEMORY)}
"""Types of which it depends on the object whether it is quiet."""
QUIET_MODULES = frozenset(
    {
        "__main__",
        "_abc",
        "_ast",
        "_bisect",
        "_blake2",
        "_bz2",
        "_codecs",
        "_collections",
        "_contextvars",
        "_csv",
        "_datetime",
    }
    | {"_decimal", "_functools", "_hashlib", "_heapq", "_imp", "_io", "_json", "_locale", "_lzma", "_md5", "_opcode"}
    | {"_operator", "_pickle", "_random", "_sha1", "_sha2", "_sha256", "_sha3", "_sha512", "_signal", "_sre", "_stat"}
    | {"_statistics", "_string", "_struct", "_symtable", "_thread", "_tokenize", "_typing", "_uuid", "_warnings"}
    | {"_weakref", "_zoneinfo", "array", "atexit", "binascii", "builtins", "cmath", "collections", "datetime"}
    | {"decimal", "errno", "functools", "gc", "grp", "io", "itertools", "marshal", "math", "operator", "posix", "pwd"}
    | {"re", "resource", "sys", "time", "types", "typing", "unicodedata", "zlib"}
)
"""Those that are not written in Python, by their own names and by those that their types give: they do nothing more."""
TABLES = frozenset({"weakref", "_weakrefset"})
mro_of = type.__dict__["__mro__"].__get__
names_of = type.__dict__["__dict__"].__get__
flags_of = type.__dict__["__flags__"].__get__
module_of = type.__dict__["__module__"].__get__
variables_of = vars(Module)["__dict__"].__get__


class End:
    """What is known before the program begins, and the decision when it has ended."""

    def __init__(self, take_leave: "Callable[[int], None]") -> None:
        self.take_leave = take_leave
        self.status: int | None = None
        self.process = posix.getpid()
        self.files = (sys.stdout, sys.stderr)
        self.streams = [layer for file in (sys.stdin, *self.files) for layer in _layers(file)]
        self.may_leave = _is_known_interpreter()
        self.mark: list[None] = []
        if self.may_leave:
            self._make_mark()

    def leave(self) -> None:
        """Called by the interpreter after all that the program has registered for its end."""
        if self.status is None or not self.may_leave or posix.getpid() != self.process:
            return
        collects = gc.isenabled()
        gc.disable()  # nothing shall go because of our looking
        try:
            leaves = self._has_left_nothing() and self._is_flushed()
            if leaves:
                self.take_leave(self.status)
        except Exception:
            leaves = False
        if leaves:
            posix._exit(self.status)  # noqa: SLF001 - `os._exit`, without `os`
        if collects:
            gc.enable()

    def _make_mark(self) -> None:
        """Put something at the end of the middle generation. What is younger than that is the program's."""
        gc.collect(0)
        self.mark = []
        gc.collect(0)
        self.collections = _collections()

    def _has_left_nothing(self) -> bool:
        if gc.get_freeze_count() or gc.get_debug() or gc.callbacks or gc.garbage or count_threads():
            return False
        ours = set(map(id, self.streams))
        return are_quiet([each for each in self._new_objects() if id(each) not in ours])

    def _new_objects(self) -> "list[Any]":
        """Those of the program, or those of the interpreter as well if they are not apart any more."""
        young, *older = _collections()
        if older != self.collections[1:]:
            return gc.get_objects()
        found = gc.get_objects(generation=0)
        if young != self.collections[0]:
            for each in reversed(gc.get_objects(generation=1)):
                if each is self.mark:
                    break
                found.append(each)
        return found

    def _is_flushed(self) -> bool:
        """Write what is printed, if to files as we found them. Raises what the interpreter is to report."""
        for file, now in zip(self.files, (sys.stdout, sys.stderr), strict=True):
            if file is not now:
                return False
            if file is None or file.closed:
                continue
            if vars(file).keys() - {"mode"}:
                return False
            file.flush()
        return True


def _is_known_interpreter() -> bool:
    """Whether its end is known here, and has nothing to say for itself."""
    if sys.implementation.name != "cpython" or "t" in sys.abiflags or sys.flags.verbose or sys.flags.dev_mode:
        return False
    if any(name.encode() in posix.environ for name in TELLING_VARIABLES):
        return False
    return KNOWN_VERSIONS[0] <= sys.version_info[:2] <= KNOWN_VERSIONS[1]


def _layers(file: "Any") -> "list[Any]":
    if type(file) is not io.TextIOWrapper:
        return []
    return [file, file.buffer, getattr(file.buffer, "raw", None)]  # without one if it is unbuffered


def _collections() -> list[int]:
    return [generation["collections"] for generation in gc.get_stats()]


def are_quiet(objects: "list[Any]") -> bool:
    """Whether none of these would do anything when it goes.

    No type is compared or hashed, and no attribute asked for, in ways that a program could have made its own.
    """
    kinds = {id(kind): kind for kind in map(type, objects)}
    if not all(_is_quiet_type(kind) for key, kind in kinds.items() if key not in LOOKED_INTO):
        return False
    return (
        all(map(_is_done, _of(objects, kinds.keys() & LOOKED_INTO)))
        and all(map(_is_quiet_class, _of(objects, _below(type, kinds))))
        and all(map(_is_quiet_module, _of(objects, _below(Module, kinds))))
    )


def _below(base: type, kinds: dict[int, type]) -> set[int]:
    return {key for key, kind in kinds.items() if any(each is base for each in mro_of(kind))}


def _of(objects: "list[Any]", kinds: set[int]) -> "Iterable[Any]":
    return [each for each in objects if id(type(each)) in kinds] if kinds else ()


def _is_quiet_type(kind: type) -> bool:
    """Of a class written in Python, or of a module that is known."""
    return all(
        "__del__" not in names_of(base) and (flags_of(base) & IS_ON_HEAP or module_of(base) in QUIET_MODULES)
        for base in mro_of(kind)
    )


def _is_quiet_class(found: type) -> bool:
    """Objects that hold no others are in no list of the interpreter's: of them there is only the class to look at.

    One from which no other can be derived is not written in Python, and its module is looked at.
    """
    return flags_of(found) & (IS_COLLECTED | IS_BASE) != IS_BASE or _is_quiet_type(found)


def _is_quiet_module(module: "Any") -> bool:
    names = variables_of(module)
    loader = names.get("__loader__")
    if loader is not BuiltinImporter and type(loader) is not ExtensionFileLoader:
        return True
    return type(names.get("__name__")) is str and names["__name__"] in QUIET_MODULES


def _is_done(found: "Any") -> bool:
    """Of a file: closed. Of a generator: at its end. Of a weak reference: nobody is told, or only a table."""
    kind = type(found)
    if kind in IN_MEMORY:
        return True
    if kind is Generator:
        return found.gi_frame is None
    if kind is ReferenceType:
        return _is_of_table(found.__callback__)
    while kind is not io.FileIO:
        if kind is not io.TextIOWrapper and kind not in BUFFERED:
            return False
        found = found.buffer if kind is io.TextIOWrapper else found.raw
        kind = type(found)
    return bool(found.closed)


def _is_of_table(callback: "Any") -> bool:
    if type(callback) is Function:
        return dict.get(callback.__globals__, "__name__") in TABLES and callback.__name__ in {"remove", "_remove"}
    return callback is None or (type(callback) is BuiltinFunction and callback.__name__ == "_destroy")
