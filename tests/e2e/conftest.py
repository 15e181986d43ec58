"""One service and one browser for the tests of a file, and tabs that are closed with each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.browsing import OpenTab, Tab, chromium
from tests.e2e.running import RunningService

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def tab(service: RunningService, browser: Browser) -> Iterator[OpenTab]:
    opened: list[Tab] = []

    def open_tab(**options: Any) -> Tab:
        opened.append(Tab(browser, service.url, **options))
        return opened[-1]

    yield open_tab
    for each in opened:
        each.close()


@pytest.fixture
def page(service: RunningService, tab: OpenTab) -> Page:
    """The operator's."""
    return tab().log_in(service.key)
