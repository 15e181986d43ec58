"""A headless Chromium, and a page of it that takes note of everything the browser complains about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

CHROMIUM: Final = "/usr/bin/chromium"
_ARGUMENTS: Final = ["--no-sandbox", "--disable-dev-shm-usage"]
WAIT_MS: Final = 30_000
"""For a page to come to what is expected of it; five seconds by default, which are few beside other tests."""

_EXPECTED: Final = "Failed to load resource: the server responded with a status of "
"""What the browser says of an answer of 4xx; which answers those are is a test's own matter."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=WAIT_MS)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of a browser without a past. `complaints` is what went wrong in it: scripts, styles, the policy."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.context: BrowserContext = browser.new_context(base_url=url, **options)
        self.context.set_default_timeout(WAIT_MS)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not text.startswith(_EXPECTED):
            self.complaints.append(text)

    def log_in(self, key: str) -> Page:
        """Through the form, as people do."""
        self.page.goto("/login")
        self.page.get_by_label("Key").fill(key)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(lambda url: not url.endswith("/login"))
        return self.page

    def close(self) -> None:
        """Close it. Whoever complained, or asked a host of somebody else's, is told of."""
        self.context.close()
        assert not self.complaints, self.complaints
        assert self.hosts <= {self.url.split("//")[1]}


OpenTab = Callable[..., Tab]
