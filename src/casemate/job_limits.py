"""The bounds of jobs, their queue, their schedules and their logs, as named constants with their unit last."""

from __future__ import annotations

from typing import Final

from casemate.limits import GIB, KIB, MIB

# What is kept on a node for a run that is to come ----------------------------------------------------
PIECE_MAX_BYTES: Final = 1 * MIB
"""Of an input on its way to a node."""

STAGED_FILES_MAX: Final = 10_000
"""Of one run."""

STAGED_TOTAL_MAX_BYTES: Final = 64 * GIB
"""Of one run."""

STAGED_DEPTH_MAX: Final = 32
STAGED_RUNS_MAX: Final = 4096
STAGED_AGE_MAX_S: Final = 3600.0
"""What nobody has run or added to for so long is forgotten."""

SPOOL_FREE_MIN_BYTES: Final = 256 * MIB
"""So much of the node's disk is left to others."""

LINKS_MAX: Final = 128
"""So many inputs have a link in the work directory besides."""

LINKS_TOTAL_MAX_BYTES: Final = 16 * KIB

# What comes from a run -------------------------------------------------------------------------------
SAMPLE_PERIOD_S: Final = 1.0
OUTBOX_BYTES: Final = 1 * MIB
"""What a node keeps of one run for whoever takes it; when there is more the program waits."""

OUTBOX_STALL_MAX_S: Final = 600.0
"""A run whose files nobody takes for so long is given up."""

COLLECT_PIECE_BYTES: Final = 256 * KIB
COLLECT_FILES_MAX: Final = 10_000
COLLECT_TIME_MAX_S: Final = 3600.0
"""With the time that whoever keeps them takes."""
