"""Bytecode for the harness files that are Python: inside they lie on a read-only mount, where none can be written."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

GUEST_FILES: Final = Path(__file__).parent.parent / "guest"


def keep_bytecode(directory: Path = GUEST_FILES) -> None:
    """Compile what has changed, for interpreters of the engine's own version.

    Compiling would be a third of the start of a small program. Where the directory is not ours to write to, it is.
    """
    for source in directory.glob("*.py"):
        target = directory / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        with suppress(OSError):
            if not target.exists() or target.stat().st_mtime_ns < source.stat().st_mtime_ns:
                _compile(source, target)


def _compile(source: Path, target: Path) -> None:
    import py_compile  # hardly ever needed

    # Interpreters compare a hash of the source: times say nothing after an installation.
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    py_compile.compile(str(source), str(target), doraise=True, invalidation_mode=mode)
