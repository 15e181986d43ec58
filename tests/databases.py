"""Which databases tests of the records have here."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Final


def _databases() -> tuple[str, ...]:
    """A server needs a user who has a name, and a machine that is not slow."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return ("sqlite",)
    is_slow = float(os.environ.get("CASEMATE_TEST_SLOWNESS", "1")) > 1
    has_server = any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return ("sqlite", "postgresql") if has_server and not is_slow else ("sqlite",)


DATABASES: Final = _databases()
