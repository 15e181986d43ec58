"""What stands for S3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.object_store import ObjectStore


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    store = ObjectStore()
    yield store
    store.close()
