"""Imports what is to be preloaded: the first arguments are where the packages lie and the first of our statuses.

The others are names of modules. For one that cannot be imported the status says which, and stderr why.
"""
# ruff: noqa: I002

import importlib
import sys
import traceback
from types import TracebackType

IMPORTING = (__file__, importlib.__file__, "<frozen importlib")


def main(place: str, first_status: str, *names: str) -> None:
    """Import them in order; the first that fails ends the process."""
    sys.path.insert(0, place)
    for status, name in enumerate(names, int(first_status)):
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever a package raises
            traceback.print_exception(type(error), error, own_part(error.__traceback__))
            sys.exit(status)


def own_part(trace: "TracebackType | None") -> "TracebackType | None":
    """What of a traceback is about the package: neither this file nor the machinery of imports."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(IMPORTING):
        trace = trace.tb_next
    return trace


main(*sys.argv[1:])
