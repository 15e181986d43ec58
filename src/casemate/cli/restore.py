"""`casemate restore`: a service's directory, out of a backup."""

from __future__ import annotations

import gc
from pathlib import Path

from casemate.backup.service import restore
from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.backup import line_of
from casemate.cli.service import show_value


def command(parsed: Parsed) -> int:
    """Put one back."""
    data = parsed.one("data")
    if not data:
        raise UsageError("restore", "needs --data DIR: where to")
    gc.enable()
    made = restore(Path(parsed.words[0]), Path(data).absolute())
    show_value(parsed, made, line_of(made))
    return 0
