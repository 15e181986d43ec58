"""The bounds of jobs, their queue, their schedules and their logs, as named constants with their unit last."""

from __future__ import annotations

from typing import Final

from casemate.service_limits import MIB

# The queue -----------------------------------------------------------------------------------------
LEASE_S: Final = 30.0
"""How long a job stays with whoever has it, if nothing is heard from there; it is renewed three times as often."""

LOST_MAX: Final = 3
"""Attempts of one job of which nothing came back: after so many it is dead."""

BACKOFF_MAX_S: Final = 30.0
"""The longest time from a failure to the next attempt."""

BACKOFF_DOUBLINGS_MAX: Final = 32
CLAIMS_MAX: Final = 256
"""Jobs that one claim leases."""

DUE_MAX: Final = 500
"""Delayed jobs that one claim finds due. Others are found by the next."""

EXPIRED_MAX: Final = 500
"""Leases that one transaction takes back."""

QUEUE_LOOK_S: Final = 1.0
"""How often whoever waits for jobs looks for them, where nothing tells that there are any."""

QUEUE_RETRY_S: Final = 5.0
"""When to try again that was refused because too many jobs were waiting."""

JOBS_READ_MAX: Final = 10_000
TRANSITIONS_READ_MAX: Final = 1_000
SPECS_A_PAGE_MAX_BYTES: Final = 8 * MIB
"""Of a list of jobs; a page ends before it has more."""
