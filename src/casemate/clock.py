"""The wall clock: for records, and for what processes that share no other clock agree on."""

from __future__ import annotations

import time


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
