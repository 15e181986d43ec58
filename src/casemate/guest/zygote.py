"""What a zygote runs: `python3 -S <this file> LIBRARY MODULE...`. It imports what its forks are to find imported.

Each fork comes out of the library inside a sandbox of its own and behind all of its walls, and takes one request, as an
interpreter does that was started there. Descriptor 3 is the way to the engine.
"""
# ruff: noqa: I002  (as in the harness, whose imports these are)

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HERE = __file__.rpartition("/")[0]
CHANNEL_FD = 3
READY = bytes(4)


def become_zygote() -> "Any":
    """Returns in each fork: the harness, ready to run a program."""
    import posix

    library, *modules = sys.argv[1:]
    harness = _neighbour("python_program")
    harness.import_ahead(HERE)
    zygote, before, after = _load(library)
    for name in modules:
        __import__(name)
    if len(posix.listdir("/proc/self/task")) > 1:
        sys.exit(f"importing {', '.join(modules)} starts threads, which a fork would be without")
    if _shares_memory():
        sys.exit(f"importing {', '.join(modules)} leaves memory in which forks would meet")
    posix.write(CHANNEL_FD, READY)
    before()
    if zygote(CHANNEL_FD) != 0:
        posix._exit(1)  # noqa: SLF001 - it is the system's, not private
    after()
    _differ()
    return harness


def _load(library: str) -> "tuple[Any, Any, Any]":
    """The ways in, without a trace in what forks find imported; packages are not to stand in for what this needs."""
    known, path = set(sys.modules), sys.path[:]
    sys.path[:] = [each for each in path if each.startswith((sys.prefix, sys.exec_prefix))]
    import ctypes

    api = ctypes.pythonapi
    found = ctypes.PyDLL(library).casemate_zygote, api.PyOS_BeforeFork, api.PyOS_AfterFork_Child
    for name in set(sys.modules) - known:
        del sys.modules[name]
    sys.path[:] = path
    return found


def _shares_memory() -> bool:
    """Whether something is mapped that a write changes for all who have it."""
    with open("/proc/self/maps", "rb") as maps:  # noqa: PTH123 - another module to import
        return any(b"w" in modes and b"s" in modes for modes in (line.split()[1] for line in maps))


def _neighbour(name: str) -> "Any":
    sys.path.insert(0, HERE)
    try:
        return __import__(name)
    finally:
        sys.path.remove(HERE)
        sys.modules.pop(name, None)


def _differ() -> None:
    """What siblings must not share: the interpreter itself has seen to `random`, the libraries of OpenSSL to theirs."""
    modules = sys.modules
    if "numpy.random" in modules:
        modules["numpy.random"].seed()
    if "tempfile" in modules:
        setattr(modules["tempfile"], "_name_sequence", None)  # noqa: B010
    if "uuid" in modules:
        for name in ("_node", "_last_timestamp"):
            setattr(modules["uuid"], name, None)


program = become_zygote()
program.main(HERE)
