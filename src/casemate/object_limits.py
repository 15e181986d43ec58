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

OBJECT_MAX_DEFAULT_BYTES: Final = 5 * GIB
TENANT_OBJECTS_DEFAULT_BYTES: Final = 100 * GIB
"""Of all that one tenant keeps."""

OBJECT_OVERHEAD_BYTES: Final = 4 * KIB
"""What each object counts for beside its size: the fewest bytes that a file takes, so that empty ones are bounded."""

OBJECTS_LOOK_KEPT_S: Final = 10.0
"""How long it is believed that the object store answers, or does not: so often it is asked, however often we are."""

OBJECTS_LOOK_TIMEOUT_S: Final = 5.0
"""How long somebody who wants to know waits for a look, and how long one may take until it is given up."""

OBJECTS_LOOK_GIVEN_UP_S: Final = 30.0
OBJECTS_RECOUNT_S: Final = 3600.0
"""How often what tenants keep is counted anew, and what is too old is looked for."""

ORPHAN_KEPT_US: Final = 24 * 3600 * 1_000_000
"""How old an object of a tenant has to be that is no more, before it goes."""

RETENTION_MAX_DAYS: Final = 36_500
OBJECTS_A_PAGE_MAX: Final = 1000
TEMPLATE_MAX_BYTES: Final = 1 * MIB
SHARED_FILES_A_JOB_MAX: Final = 1000

# Transfers over HTTP ------------------------------------------------------------------------------
UPLOAD_STEP_S: Final = 30.0
UPLOAD_STEP_MIN_BYTES: Final = 64 * KIB
"""So much of an upload has to come in that time, or it is cut off."""

UPLOAD_MAX_S: Final = 6 * 3600.0
"""For all of one request."""

TRANSFER_HELD_BYTES: Final = 3 * MIB
"""What one upload or download counts for among the bodies that are held."""

UPLOAD_PARTS_MAX: Final = 10_000
UPLOADS_A_TENANT_MAX: Final = 100
"""That are not complete."""

# Signed addresses ---------------------------------------------------------------------------------
ADDRESS_LIFE_MAX_S: Final = 7 * 24 * 3600.0
ADDRESS_LIFE_DEFAULT_S: Final = 3600.0
ADDRESS_MAX_CHARS: Final = 4096

DIRECT_PUT_MAX_BYTES: Final = 5 * GIB
"""As much as S3 takes at once."""

DIRECT_ADDRESSES_A_TENANT_MAX: Final = 1000
"""Keys for which a tenant has addresses at the object store itself with which something can be put."""

DIRECT_COUNTED_AFTER_S: Final = 2 * OBJECTS_RECOUNT_S
"""So long after an address at the object store has expired room is still set aside: then what was put there has been
counted."""

# Secrets of tenants -------------------------------------------------------------------------------
SECRET_MAX_BYTES: Final = 64 * KIB
SECRETS_A_TENANT_MAX: Final = 1000
SECRET_NAME_MAX_CHARS: Final = 128

# The audit log ------------------------------------------------------------------------------------
AUDIT_DEFAULT_DAYS: Final = 365
AUDIT_TEXT_MAX_CHARS: Final = 1024
"""Of what was acted on, and of what is said of it."""

AUDIT_VERIFIED_AT_ONCE: Final = 5000
"""Records that one read looks at."""
