"""Where the configuration says that objects are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from casemate.blobs.envelope import MasterKeys
from casemate.blobs.local import LocalBlobs, has_objects
from casemate.blobs.protocol import Blobs
from casemate.errors import ConfigError
from casemate.object_config import ObjectsTerms, read_credentials

DIRECTORY: Final = "objects"


def open_blobs(terms: ObjectsTerms, data: Path, keys: MasterKeys, environment: Mapping[str, str]) -> Blobs:
    """The place of objects, for the one process that keeps them. Raises ConfigError."""
    if terms.s3 is None:
        local = LocalBlobs(data / DIRECTORY, keys)
        local.sweep()
        return local
    try:
        from casemate.blobs.s3 import S3Blobs  # a package that only S3 needs
    except ImportError as error:
        raise ConfigError("objects.store", "needs the extra `s3`", hint="pip install 'casemate[s3]'") from error
    return S3Blobs.open(terms.s3, read_credentials(terms.credentials, environment))


def needs_keys(data: Path) -> bool:
    """Whether there are objects that no new key could read."""
    return has_objects(data / DIRECTORY)
