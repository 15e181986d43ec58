"""Runs the interpreter's own pip, or the one that its standard library carries, with the arguments given.

`compile FROM AS` compiles all that is in one directory, as if it lay in the other. `default-index` says which index
and which file host pip has where nobody configures one.
"""
# ruff: noqa: I002  (also for interpreters that know nothing newer)

import compileall
import glob
import importlib.util
import py_compile
import runpy
import sys

CARRIED = (f"{sys.base_prefix}/lib/python3*/ensurepip/_bundled/pip-*.whl", "/usr/share/python-wheels/pip-*.whl")
DEPTH_MAX = 100


def main(arguments: "list[str]") -> None:
    """One of the three."""
    if arguments[:1] == ["compile"]:
        compile_all(*arguments[1:])
        return
    find_pip()
    if arguments == ["default-index"]:
        from pip._internal.models.index import PyPI  # type: ignore[import-not-found]

        sys.stdout.write(f"{PyPI.simple_url}\n{PyPI.file_storage_domain}\n")
        return
    sys.argv = ["pip", *arguments]
    runpy.run_module("pip", run_name="__main__")


def find_pip() -> None:
    """See that pip can be imported."""
    if importlib.util.find_spec("pip") is None:
        found = [path for pattern in CARRIED for path in sorted(glob.glob(pattern))]  # noqa: PTH207
        if not found:
            sys.exit("this Python has no pip: install python3-pip or python3-venv")
        sys.path.insert(0, found[-1])


def compile_all(where: str, seen_at: str) -> None:
    """Bytecode that is never compared with its source: in a set neither changes."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(
        where, stripdir=where, prependdir=seen_at, quiet=2, maxlevels=DEPTH_MAX, invalidation_mode=mode
    )


main(sys.argv[1:])
