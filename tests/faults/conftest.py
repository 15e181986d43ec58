"""One warm engine for all faults that it survives, and a fresh one for those that it does not."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from tests.faults.leftovers import Census, take_census

import casemate


@pytest.fixture(scope="module", autouse=True)
def no_garbage_of_others() -> None:
    """Descriptors of earlier tests' objects in cycles (a page's `CancelToken`) would be closed at any moment later."""
    gc.collect()


@pytest.fixture(scope="module")
def engine() -> Iterator[casemate.Engine]:
    with casemate.Engine(warm=False) as opened:
        assert casemate.execute(["true"], engine=opened).ok
        yield opened


@pytest.fixture
def before(engine: casemate.Engine) -> Census:
    return take_census(engine)
