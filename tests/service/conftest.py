"""One real service for all tests of a session that disturb it in nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.service.live import LiveService, Tenant, serving


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, slowness: float) -> Iterator[LiveService]:
    with serving(tmp_path_factory.mktemp("service") / "data", slowness=slowness) as started:
        yield started


@pytest.fixture(scope="session")
def tenant(service: LiveService) -> Tenant:
    """For tests to which it does not matter who else uses it."""
    return service.tenant()
