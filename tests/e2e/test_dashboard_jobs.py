"""The dashboard's pages of jobs and usage: real jobs while they run, when they have ended, and what they leave."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from playwright.sync_api import Page, expect
from tests.e2e.running import WAIT_S

if TYPE_CHECKING:
    from tests.e2e.browsing import OpenTab
    from tests.e2e.running import RunningService

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("dashboard"),
]
COUNTING = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; echo oops $i >&2; sleep 0.1; done"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>\\033[31mred"
ENDED = {"succeeded", "failed", "cancelled", "dead"}


def submitted(service: RunningService, command: str, **values: Any) -> str:
    """The id of a job of the operator's."""
    made = service.ask("POST", "/v1/jobs", {"command": command, "shell": True, **values})
    return str(made["id"])


def ended(service: RunningService, command: str, **values: Any) -> str:
    """The same of one that has ended."""
    identity = submitted(service, command, **values)
    while service.ask("GET", f"/v1/jobs/{identity}?wait=20")["state"] not in ENDED:
        continue
    return identity


def test_s2_77_a_job_is_followed_while_it_runs_with_its_log_and_what_it_uses(
    service: RunningService, page: Page
) -> None:
    identity = submitted(service, COUNTING, timeout=60)
    page.goto(f"/jobs/{identity}")
    log = page.get_by_role("log", name="Log")
    expect(log).to_contain_text("line 3")
    expect(log.locator(".error").first).to_have_text("oops 1")
    expect(page.locator("[data-usage-charts] canvas")).to_have_count(2)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("[data-live] .badge", has_text="cancelled").first).to_be_visible()
    expect(page.get_by_text("The job has ended: cancelled.")).to_be_visible()
    expect(page.get_by_role("button", name="Run a copy")).to_be_visible()
    lines = log.locator(".plain").all_inner_texts()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]


def test_s2_21_what_a_job_leaves_is_listed_and_downloaded(service: RunningService, page: Page) -> None:
    command = "echo done; mkdir output/deep; printf 'a,b' > 'output/deep/b c.csv'; echo kept > report.html"
    identity = ended(service, command, collect=["*.html"])
    page.goto(f"/jobs/{identity}")
    expect(page.get_by_role("log", name="Log")).to_have_text("done")
    with page.expect_download() as found:
        page.get_by_role("link", name="output/deep/b c.csv").click()
    assert found.value.path().read_text() == "a,b"
    with page.expect_download() as found:
        page.get_by_role("link", name="artifacts/report.html").click()
    assert found.value.path().read_text() == "kept\n"
    expect(page.locator("main")).to_contain_text("Memory peak")


def test_what_a_job_leaves_is_never_a_page_of_ours(service: RunningService) -> None:
    identity = ended(service, "echo '<script>alert(1)</script>' > output/evil.html")
    with httpx2.Client(base_url=service.url, headers={"Origin": service.url}, timeout=WAIT_S) as client:
        client.post("/login", data={"key": service.key})
        answer = client.get(f"/jobs/{identity}/files/output/evil.html")
        assert answer.text == "<script>alert(1)</script>\n"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        for path in ("output/../input/x", "output/%2e%2e/x", "none/x", "output/none"):
            assert client.get(f"/jobs/{identity}/files/{path}").status_code in {404, 422}


def test_o5_what_a_job_prints_is_text_and_does_nothing(service: RunningService, page: Page) -> None:
    running = submitted(service, "printf '%b\\n' \"$TEXT\"; sleep 30", environment={"TEXT": HOSTILE}, timeout=60)
    done = ended(service, "printf '%b\\n' \"$TEXT\" >&2", environment={"TEXT": HOSTILE}, labels={HOSTILE: HOSTILE})
    for identity in (running, done):
        page.goto(f"/jobs/{identity}")
        expect(page.get_by_role("log", name="Log")).to_contain_text("^[[31mred")
        assert page.locator("main img, main script").count() == 0
        expect(page).to_have_title(re.compile(identity))
    page.goto("/jobs")
    expect(page.locator("main")).to_contain_text("document.title='taken'")
    service.ask("POST", f"/v1/jobs/{running}/cancel", {})


def test_the_queue_is_followed_paused_and_searched(service: RunningService, page: Page) -> None:
    ended(service, "echo a needle in a haystack", id="haystack")
    page.goto("/jobs")
    page.get_by_role("button", name="Pause the queue").click()
    expect(page.locator(".queue")).to_contain_text("paused")
    waiting = submitted(service, "echo at last", id="waiting")
    expect(page.locator(f"#job-{waiting}")).to_contain_text("queued")
    page.get_by_role("button", name="Resume the queue").click()
    expect(page.locator(f"#job-{waiting}")).to_contain_text("succeeded")
    page.get_by_label("In its log").fill("needle hay")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("haystack")
    page.get_by_role("link", name="haystack").click()
    page.get_by_role("button", name="Run a copy").click()
    expect(page.locator("h1")).to_contain_text("job_")
    page.goto("/jobs/haystack")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    assert page.goto("/jobs/haystack").status == 404  # type: ignore[union-attr]


def test_usage_and_budgets_are_shown(service: RunningService, page: Page) -> None:
    ended(service, "exit 1")
    service.ask("PUT", "/v1/budgets/monthly", {"unit": "runs", "soft": "1000", "hard": "100000"})
    page.goto("/usage")
    expect(page.locator(".facts.big")).to_contain_text("failed")
    expect(page.locator("main")).to_contain_text("monthly")
    for by in ("kind", "key", "tenant"):
        page.get_by_role("link", name=by, exact=True).click()
        expect(page.locator("thead").first).to_contain_text(by.capitalize())


def test_another_tenants_jobs_are_not_there(service: RunningService, tab: OpenTab) -> None:
    identity = ended(service, "echo ours > output/x")
    tenant = service.ask("POST", "/v1/tenants", {"name": "others"})
    scopes = {"allow": ["jobs:read"]}
    key = service.ask("POST", "/v1/keys", {"name": "k", "tenant_id": tenant["id"], "scopes": scopes})
    page = tab().log_in(key["key"])
    page.goto("/jobs")
    expect(page.locator("main")).to_contain_text("There is no job yet")
    expect(page.get_by_role("button", name="Pause the queue")).to_have_count(0)
    for path in ("", "/live", "/log", "/files/output/x"):
        assert page.request.get(f"/jobs/{identity}{path}").status == 404
    assert page.request.get("/usage").status == 403


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_jobs_fit_and_are_drawn_in_the_readers_colours(
    service: RunningService, tab: OpenTab, width: int, scheme: str
) -> None:
    wide = "x" * 300
    identity = ended(service, f"echo {wide}; echo {wide} > output/{wide[:200]}.txt", labels={wide[:60]: wide[:60]})
    page = tab(viewport={"width": width, "height": 800}, color_scheme=scheme).log_in(service.key)
    for path in ("/jobs", f"/jobs/{identity}", "/usage"):
        page.goto(path)
        expect(page.locator("h1").first).to_be_visible()
        found = page.evaluate(
            "({over: document.documentElement.scrollWidth - document.documentElement.clientWidth,"
            " ground: getComputedStyle(document.body).backgroundColor})"
        )
        assert found["over"] <= 0, f"{path} is {found['over']} pixels too wide"
        assert (int(found["ground"].split("(")[1].split(",")[0]) < 64) == (scheme == "dark")
