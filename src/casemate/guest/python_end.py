"""The end of an interpreter without taking apart what was there before the program: that takes longer than most run.

Whatever the program has made is taken apart in the interpreter's own order: what it had bound at its top level, its
modules, what is left in cycles. If then something is left that would still act when it is taken apart, or if anything
else is unusual, this returns, and the interpreter ends in its own way.
"""
# ruff: noqa: I002  (as in the harness, whose imports these are)

import gc
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STREAMS = ("stdin", "stdout", "stderr")
HOOKS = ("displayhook", "excepthook", "unraisablehook")
LAST = ("last_type", "last_value", "last_traceback", "last_exc")


def end(status: int, known: "frozenset[str]", filters: "tuple[Any, ...]") -> None:
    """Ends with this status, or returns. `known`, `filters`: the modules and warning filters before the program."""
    if _is_unusual(filters):
        return
    _flush()
    _forget(known)
    if not any(map(_would_act, gc.get_objects())):
        _flush()
        posix._exit(status)  # noqa: SLF001 - it is the system's, not private


def _is_unusual(filters: "tuple[Any, ...]") -> bool:
    """Whether somebody else still runs or watches, or a warning would tell where it comes from, which is here."""
    import _thread
    import _warnings

    if _thread._count() or sys.gettrace() or sys.getprofile() or tuple(_warnings.filters) != filters:  # noqa: SLF001
        return True
    return any(type(each).__name__ == "coroutine" for each in gc.get_objects())


def _flush() -> None:
    for name in STREAMS[1:]:
        for stream in (getattr(sys, name, None), getattr(sys, f"__{name}__", None)):
            if stream is not None:
                stream.flush()


def _forget(known: "frozenset[str]") -> None:
    for name in STREAMS + HOOKS:
        setattr(sys, name, getattr(sys, f"__{name}__"))
    for name in LAST:
        if hasattr(sys, name):
            setattr(sys, name, None)
    left = _drop_modules([name for name in sys.modules if name not in known])
    gc.collect()
    for reference in reversed(left):
        module = reference()
        if module is not None:
            _clear(module)
    gc.collect()


def _drop_modules(names: "list[str]") -> "list[Any]":
    """The modules go whom nobody else refers to, in their order; of the others weak references come back."""
    from _weakref import ref

    found = []
    for name in names:
        module = sys.modules[name]
        if type(module) is type(sys):
            found.append(ref(module))
        sys.modules[name] = None  # type: ignore[assignment]  # as the interpreter does
        del module
    return found


def _clear(module: "Any") -> None:
    """First the names that begin with one underscore, then all others."""
    names = vars(module)
    for private in (True, False):
        for name in list(names):
            if name != "__builtins__" and (not private or (name[:1] == "_" and name[:2] != "__")):
                names[name] = None


def _would_act(thing: object) -> bool:
    """A suspended function may have a `finally`, an open file something to write."""
    kind = type(thing)
    if kind.__name__ in ("generator", "coroutine", "async_generator"):
        return True
    if not any("__del__" in vars(base) for base in kind.__mro__):
        return False
    return not getattr(thing, "closed", False)
