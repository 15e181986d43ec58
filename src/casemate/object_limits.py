"""The bounds of objects, signed addresses, secrets and the audit log, as named constants with their unit last."""

from __future__ import annotations

from typing import Final

from casemate.limits import GIB, KIB, MIB

# Keys and objects ---------------------------------------------------------------------------------
OBJECT_PATH_MAX_BYTES: Final = 700
"""Below an area. With what stands before it a key stays below the 1,024 bytes that S3 takes."""

OBJECT_NAME_MAX_BYTES: Final = 255
"""Of one part of a path, as file systems have it."""

OBJECT_DEPTH_MAX: Final = 64
OBJECT_MAX_BYTES: Final = 64 * GIB
OBJECT_CHUNK_BYTES: Final = 64 * KIB
"""Sealed by itself: nothing of a chunk is told before all of it has been checked."""

OBJECT_BATCH_BYTES: Final = 1 * MIB
"""What is read or written at once: it is in memory, once or twice for each transfer."""

OBJECT_PLACING_MAX: Final = 8
"""Attempts to put an object into a directory that another task removes because it was empty."""

MASTER_KEYS_MAX: Final = 16
"""Generations of the key that objects and secrets are sealed with; the last one that something needs must be there."""
