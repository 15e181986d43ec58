"""Which databases tests of the records have here."""

from __future__ import annotations

import os
import pwd
from typing import Final


def _databases() -> tuple[str, ...]:
    """A server needs a user who has a name, and a machine that is not slow. One that is not installed is a failure."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return ("sqlite",)
    is_slow = float(os.environ.get("CASEMATE_TEST_SLOWNESS", "1")) > 1
    return ("sqlite",) if is_slow else ("sqlite", "postgresql")


DATABASES: Final = _databases()
