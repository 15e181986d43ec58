"""What a fault may not leave anything in: the machine as it was before."""

from __future__ import annotations

import gc

import pytest
from tests.faults.leftovers import Census, take_census

import casemate


@pytest.fixture(scope="module", autouse=True)
def no_garbage_of_others() -> None:
    """Descriptors of earlier tests' objects in cycles (a page's `CancelToken`) would be closed at any moment later."""
    gc.collect()


@pytest.fixture
def before(engine: casemate.Engine) -> Census:
    return take_census(engine)
