"""The dashboard as people use it: the real service, and a real browser that fails a test for every complaint it has."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.e2e.browsing import OpenTab, Tab
from tests.e2e.running import WAIT_S, RunningService

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("dashboard"),
]
COUNTING = "import time\nfor n in range(40):\n    print('line', n, flush=True)\n    time.sleep(0.25)\n"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>\x1b[31mred\u202egnp"
PAGES = (
    "/executions",
    "/run",
    "/jobs",
    "/functions",
    "/publish",
    "/charts",
    "/workers",
    "/runtimes",
    "/usage",
    "/tenants",
    "/keys",
)


def new_key(service: RunningService, *scopes: str, tenant_id: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = service.ask(
        "POST",
        "/v1/keys",
        {"name": "a key", "scopes": {"allow": list(scopes)}, **({"tenant_id": tenant_id} if tenant_id else {})},
    )
    return made


def write(page: Page, code: str) -> None:
    page.get_by_label("Code").fill(code)


# The way in -----------------------------------------------------------------------------------------


def test_a_key_logs_in_and_out(service: RunningService, tab: OpenTab) -> None:
    opened = tab()
    page = opened.log_in(service.key)
    expect(page.get_by_role("heading", name="Executions")).to_be_visible()
    (cookie,) = opened.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert service.key not in cookie["value"]
    assert service.key not in page.content()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    opened.context.add_cookies([{"name": cookie["name"], "value": cookie["value"], "url": service.url}])
    page.goto("/keys")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_whoever_is_not_logged_in_comes_back_to_the_page_afterwards(service: RunningService, tab: OpenTab) -> None:
    opened = tab()
    opened.page.goto("/runtimes")
    opened.page.get_by_label("Key").fill(service.key)
    opened.page.get_by_role("button", name="Log in").click()
    expect(opened.page.get_by_role("heading", name="Runtimes")).to_be_visible()


def test_a_wrong_key_is_refused_in_words_that_tell_nothing(service: RunningService, tab: OpenTab) -> None:
    revoked = new_key(service, "executions:read")
    service.ask("DELETE", f"/v1/keys/{revoked['id']}")
    page = tab().page
    said = []
    for key in ("cm_nonsense", revoked["key"]):
        page.goto("/login")
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Log in").click()
        said.append(page.get_by_role("alert").inner_text())
    assert len(set(said)) == 1


# Running code ---------------------------------------------------------------------------------------


def test_code_that_is_run_shows_its_output_while_it_runs(page: Page) -> None:
    page.goto("/run")
    write(page, COUNTING)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("log", name="Output")).to_contain_text("line 2")
    expect(page.get_by_text("running")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".outcome").get_by_text("cancelled", exact=True)).to_be_visible()
    expect(page.locator(".outcome")).to_contain_text("line 2")


def test_an_error_is_shown_with_its_traceback_and_usage(page: Page) -> None:
    page.goto("/run")
    write(page, "def f(n):\n    return 1 / n\nf(input)\n")
    page.get_by_label("Input (JSON)").fill("0")
    page.get_by_role("button", name="Run", exact=True).click()
    outcome = page.locator(".outcome")
    expect(outcome.get_by_role("heading", name="ZeroDivisionError")).to_be_visible()
    expect(outcome.locator("details").first).to_contain_text("line 2, in f")
    expect(outcome).to_contain_text("Memory peak")
    outcome.get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("exe_")
    expect(page.locator("details", has_text="Isolation")).to_be_visible()


def test_a_field_that_is_wrong_is_told_of_on_the_page(page: Page) -> None:
    page.goto("/run")
    page.get_by_label("Input (JSON)").fill("{not json")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("is no JSON")


def test_the_editor_numbers_lines_and_lets_the_keyboard_out(page: Page) -> None:
    page.goto("/run")
    code = page.get_by_label("Code")
    code.fill("")
    code.press_sequentially("if True:\n")
    code.press("Tab")
    code.press_sequentially("pass")
    assert code.input_value() == "if True:\n    pass"
    assert page.locator(".gutter").inner_text().split() == ["1", "2"]
    code.press("Escape")
    code.press("Tab")
    expect(code).not_to_be_focused()


def test_code_is_run_without_scripts_too(service: RunningService, tab: OpenTab) -> None:
    page = tab(java_script_enabled=False).log_in(service.key)
    page.goto("/run")
    write(page, "print(6 * 7)\n")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("exe_")
    path = page.url.removeprefix(service.url)
    while service.ask("GET", f"/v1{path}")["state"] != "ended":
        pass
    page.reload()
    expect(page.locator(".outcome")).to_contain_text("42")


def test_a_reader_who_wants_no_motion_sees_none(service: RunningService, tab: OpenTab) -> None:
    page = tab(reduced_motion="reduce").log_in(service.key)
    expect(page.get_by_text("This page follows what happens.")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.live i')).animationName") == "none"


# The live list --------------------------------------------------------------------------------------


def test_the_list_follows_what_runs_and_cancels_it(service: RunningService, page: Page) -> None:
    page.goto("/executions?label=who=live")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    expect(page.get_by_text("This page follows what happens.")).to_be_visible()
    with httpx2.Client(
        base_url=service.url, headers={"Authorization": f"Bearer {service.key}"}, timeout=WAIT_S
    ) as client:
        body = {"code": "import time; time.sleep(60)", "labels": {"who": "live"}}
        made = client.post("/v1/executions", json=body, headers={"Prefer": "respond-async"}).json()
    row = page.locator(f"#{made['id']}")
    expect(row.get_by_text("running")).to_be_visible()
    row.get_by_role("button", name="Cancel").click()
    expect(row.get_by_text("cancelled")).to_be_visible()
    expect(row.get_by_role("button", name="Cancel")).to_have_count(0)


def test_filters_narrow_the_list(service: RunningService, page: Page) -> None:
    service.ask("POST", "/v1/executions", {"code": "raise SystemExit(3)", "labels": {"who": "filtered"}})
    service.ask("POST", "/v1/executions", {"code": "pass", "labels": {"who": "filtered"}})
    page.goto("/executions")
    page.get_by_label("Label").fill("who=filtered")
    page.get_by_label("Status").select_option("failed")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url(re.compile("status=failed"))
    expect(page.locator(".rows tbody tr")).to_have_count(1)


# Functions ------------------------------------------------------------------------------------------


def test_a_function_is_written_called_edited_compared_and_rolled_back(page: Page) -> None:
    page.goto("/functions")
    page.get_by_role("link", name="New function").click()
    write(page, "output = {'twice': input['n'] * 2}\n")
    page.get_by_label("Name", exact=True).fill("twice")
    page.get_by_label("Description").fill("Doubles a number.")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name="twice", level=1)).to_be_visible()

    page.get_by_label("Data (JSON)").fill('{"n": 21}')
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.locator("#invocation")).to_contain_text('"twice": 42')

    page.get_by_role("link", name="Edit").click()
    write(page, "output = {'thrice': input['n'] * 3}\n")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", name="Version 2")).to_be_visible()
    page.get_by_label("Data (JSON)").fill('{"n": 14}')
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.locator("#invocation")).to_contain_text('"thrice": 42')

    page.get_by_role("link", name="What changed in version 2").click()
    expect(page.locator(".diff .added").filter(has_text="thrice")).to_be_visible()
    page.goto("/functions/twice")
    page.get_by_role("button", name="Roll live back").click()
    expect(page.get_by_role("heading", name="Version 1")).to_be_visible()
    page.get_by_label("Alias", exact=True).fill("canary")
    page.get_by_label("to version").select_option("2")
    page.get_by_role("button", name="Move").click()
    expect(page.locator("tr", has_text="canary").get_by_role("link", name="v2").first).to_be_visible()
    page.get_by_role("link", name="History").last.click()
    expect(page.locator("tbody")).to_contain_text("rolled back")


def test_a_mistake_in_a_function_is_told_of_and_what_was_written_stays(page: Page) -> None:
    page.goto("/publish")
    write(page, "def broken(:\n")
    page.get_by_label("Name", exact=True).fill("broken")
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("#problem").get_by_role("alert")).to_be_visible()
    assert page.get_by_label("Code").input_value() == "def broken(:\n"


# Tenants and keys -----------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_ends_at_once(service: RunningService, page: Page, tab: OpenTab) -> None:
    page.goto("/keys")
    page.get_by_label("Name", exact=True).fill("visitor")
    page.get_by_role("checkbox", name="functions:read").check()
    page.get_by_role("button", name="Make a key").click()
    key = page.get_by_label("The new key").input_value()
    assert key.startswith("cm_")
    page.goto("/keys")
    assert key not in page.content()

    theirs = tab().log_in(key)
    expect(theirs.get_by_role("link", name="Functions")).to_be_visible()
    expect(theirs.get_by_role("link", name="Keys")).to_have_count(0)
    expect(theirs.get_by_text("This page follows what happens.")).to_be_visible()
    theirs.goto("/keys")
    expect(theirs.get_by_role("heading", name="Not allowed")).to_be_visible()

    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke visitor").click()
    expect(page.locator("tr", has_text="visitor").get_by_text("revoked")).to_be_visible()
    theirs.goto("/executions")
    expect(theirs.get_by_role("heading", name="Log in")).to_be_visible()


def test_a_followed_page_ends_with_its_key(service: RunningService, tab: OpenTab) -> None:
    made = new_key(service, "executions:read")
    opened = tab()
    page = opened.log_in(made["key"])
    expect(page.get_by_text("This page follows what happens.")).to_be_visible()
    service.ask("DELETE", f"/v1/keys/{made['id']}")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert all("401" in each for each in opened.complaints)
    opened.complaints.clear()


def test_another_tenants_things_are_not_there(service: RunningService, tab: OpenTab) -> None:
    tenant = service.ask("POST", "/v1/tenants", {"name": "others"})
    made = new_key(service, "executions:*", "functions:*", "keys:*", "tenants:read", tenant_id=tenant["id"])
    ours = service.ask("POST", "/v1/executions", {"code": "print('of ours')"})
    page = tab().log_in(made["key"])
    expect(page.get_by_role("heading", name="Nothing has run yet")).to_be_visible()
    for path in (f"/executions/{ours['id']}", f"/executions/{ours['id']}/outcome", "/tenants", "/functions/twice"):
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 404
        assert "of ours" not in page.content()
    page.goto("/keys")
    assert "first" not in page.locator("tbody").inner_text()


def test_tenants_are_made_and_suspended(page: Page) -> None:
    page.goto("/tenants")
    page.get_by_label("Name", exact=True).fill("guests")
    page.get_by_role("button", name="Make a tenant").click()
    row = page.locator("tr", has_text="guests")
    row.get_by_role("button", name="Suspend").click()
    expect(page.locator("tr", has_text="guests").get_by_text("suspended")).to_be_visible()


# Attacks --------------------------------------------------------------------------------------------


def test_o5_what_programs_say_is_text_and_does_nothing(service: RunningService, page: Page) -> None:
    code = f"import sys\nprint({HOSTILE!r}); print({HOSTILE!r}, file=sys.stderr)\noutput = {HOSTILE!r}\n"
    raising = f"type({HOSTILE!r}, (Exception,), {{}})\nraise type('X<img src=x>', (Exception,), {{}})({HOSTILE!r})\n"
    names = {HOSTILE.replace("\x1b", ""): HOSTILE.replace("\x1b", "")}
    told = service.ask("POST", "/v1/executions", {"code": code, "labels": {"<b>name</b>": next(iter(names))[:120]}})
    failed = service.ask("POST", "/v1/executions", {"code": raising})
    service.ask("PUT", "/v1/functions/o5", {"runtime": "python", "code": code, "description": HOSTILE})
    title = "Casemate"
    for path in (
        "/executions",
        f"/executions/{told['id']}",
        f"/executions/{failed['id']}",
        "/functions",
        "/functions/o5",
        "/executions?function=%3Cscript%3Edocument.title%3D'taken'%3C/script%3E&label=%3Cimg%20src=x%3E=1",
    ):
        page.goto(path)
        assert title in page.title()
        assert page.locator("main img, main script, main b:not(.counts b)").count() == 0
        assert "taken" not in page.title()
        assert "\x1b" not in page.content()
        assert "\u202e" not in page.content()
    page.goto(f"/executions/{told['id']}")
    expect(page.locator("main")).to_contain_text("<script>document.title='taken'</script>^[[31mred[U+202E]gnp")


def test_o5_output_that_comes_live_is_text_as_well(page: Page) -> None:
    page.goto("/run")
    write(page, f"import time\nprint({HOSTILE!r}, flush=True)\ntime.sleep(60)\n")
    page.get_by_role("button", name="Run", exact=True).click()
    log = page.get_by_role("log", name="Output")
    expect(log).to_contain_text("</script>^[[31mred[U+202E]gnp")
    assert log.locator("*").count() == 0
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".outcome")).to_contain_text("</script>^[[31mred[U+202E]gnp")
    assert "taken" not in page.title()


def test_output_without_end_does_not_fill_the_page(page: Page) -> None:
    page.goto("/run")
    write(page, "import time\nfor n in range(3000):\n    print('x' * 400)\ntime.sleep(60)\n")
    page.get_by_role("button", name="Run", exact=True).click()
    log = page.get_by_role("log", name="Output")
    expect(log).to_contain_text("the beginning is left out here")
    assert len(log.inner_text()) <= 262_144 + 100
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".outcome")).to_be_visible()
    assert len(page.locator(".outcome").inner_text()) < 200_000


@pytest.fixture
def client(service: RunningService) -> Iterator[httpx2.Client]:
    """Logged in without a browser."""
    with httpx2.Client(base_url=service.url, headers={"Origin": service.url}, timeout=WAIT_S) as found:
        assert found.post("/login", data={"key": service.key}).status_code == 303
        yield found


def token_of(client: httpx2.Client) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/keys").text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("origin", "has_token"),
    [("http://evil.example", True), ("null", True), (None, True), ("", True), ("own", False)],
    ids=["another site", "no site", "none told", "empty", "without the token"],
)
def test_a_form_that_no_page_of_ours_has_sent_is_refused(
    client: httpx2.Client, service: RunningService, origin: str | None, *, has_token: bool
) -> None:
    sent = {"name": "forged", "csrf_token": token_of(client) if has_token else "guessed"}
    client.headers.pop("Origin")
    headers = {} if origin is None else {"Origin": service.url if origin == "own" else origin}
    assert client.post("/tenants", data=sent, headers=headers).status_code == 403
    assert "forged" not in [each["name"] for each in service.ask("GET", "/v1/tenants")["items"]]


def test_a_form_of_ours_is_taken(client: httpx2.Client) -> None:
    answer = client.post("/tenants", data={"name": "taken", "csrf_token": token_of(client)})
    assert answer.status_code == 303


def test_a_page_of_another_site_cannot_log_anybody_in(service: RunningService) -> None:
    headers = {"Origin": "http://evil.example"}
    answer = httpx2.post(f"{service.url}/login", data={"key": service.key}, headers=headers, timeout=WAIT_S)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_pages_carry_a_policy_that_lets_nothing_else_in(client: httpx2.Client) -> None:
    for path in ("/login", "/keys", "/executions/exe_none", "/assets/casemate.css"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    for path in PAGES:
        text = client.get(path).text
        assert not re.search(r"<[a-z][^<>]*\s(on[a-z]+|style)=|<style|<script(?! src=\"/assets/)", text)


def test_the_cookie_is_for_tls_alone_where_there_is_tls(service: RunningService, tmp_path: Path) -> None:
    """A proxy says so, if it is one that is believed."""
    with RunningService(tmp_path / "behind", CASEMATE_SERVICE_PROXIES='["127.0.0.1"]') as behind:
        cookie = _logged_in_by_tls(behind).headers["set-cookie"]
        assert cookie.startswith("__Host-casemate=")
        assert "Secure" in cookie
    assert "Secure" not in _logged_in_by_tls(service).headers["set-cookie"]


def _logged_in_by_tls(service: RunningService) -> httpx2.Response:
    origin = service.url.replace("http:", "https:")
    headers = {"Origin": origin, "X-Forwarded-Proto": "https"}
    return httpx2.post(f"{service.url}/login", data={"key": service.key}, headers=headers, timeout=WAIT_S)


def test_the_dashboard_is_no_part_of_the_api_document(service: RunningService) -> None:
    document = httpx2.get(f"{service.url}/openapi.json", timeout=WAIT_S).json()
    assert [
        path for path in document["paths"] if not path.startswith(("/v1/", "/healthz", "/readyz", "/metrics"))
    ] == []


# How it looks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_fits_and_is_drawn_in_the_readers_colours(
    service: RunningService, tab: OpenTab, width: int, scheme: str
) -> None:
    wide = "x" * 3000
    service.ask(
        "POST", "/v1/executions", {"code": f"print({wide!r})\nraise ValueError({wide!r})", "labels": {"k": wide[:90]}}
    )
    service.ask("PUT", "/v1/functions/wide", {"runtime": "python", "code": f"# {wide}\n", "description": wide[:500]})
    last = service.ask("GET", "/v1/executions?limit=1")["items"][0]["id"]
    page = tab(viewport={"width": width, "height": 800}, color_scheme=scheme).log_in(service.key)
    for path in (*PAGES, f"/executions/{last}", "/functions/wide", "/functions/wide/edit", "/functions/wide/logs"):
        page.goto(path)
        expect(page.locator("h1").first).to_be_visible()
        found = page.evaluate(
            "({over: document.documentElement.scrollWidth - document.documentElement.clientWidth,"
            " ground: getComputedStyle(document.body).backgroundColor})"
        )
        assert found["over"] <= 0, f"{path} is {found['over']} pixels too wide"
        assert (int(found["ground"].split("(")[1].split(",")[0]) < 64) == (scheme == "dark")


def test_every_field_has_a_label_and_every_button_a_name(page: Page) -> None:
    for path in PAGES:
        page.goto(path)
        nameless = page.evaluate(
            "[...document.querySelectorAll('input:not([type=hidden]):not([hidden]),select,textarea,button,a')]"
            ".filter((each) => !(each.labels?.length || each.ariaLabel || each.textContent.trim()))"
            ".map((each) => each.outerHTML)"
        )
        assert nameless == [], path


def test_text_stands_out_from_its_ground(service: RunningService, tab: OpenTab) -> None:
    for scheme in ("light", "dark"):
        page = tab(color_scheme=scheme).log_in(service.key)
        weak = page.evaluate(_CONTRASTS)
        assert {name: ratio for name, ratio in weak.items() if ratio < 4.5} == {}


_CONTRASTS = """() => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const parts = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
    const [red, green, blue] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const pairs = ["--ground", "--surface", "--sunken"].flatMap((ground) =>
    ["--text", "--muted", "--accent", "--bad"].map((text) => [text, ground]));
  for (const name of ["good", "bad", "warn", "busy"]) pairs.push([`--${name}`, `--${name}-soft`]);
  pairs.push(["--accent", "--accent-soft"], ["--on-accent", "--accent"]);
  return Object.fromEntries(pairs.map(([text, ground]) => {
    const [low, high] = [light(text), light(ground)].sort((a, b) => a - b);
    return [`${text} on ${ground}`, (high + 0.05) / (low + 0.05)];
  }));
}"""


def test_charts_are_drawn_from_what_ran(service: RunningService, page: Page) -> None:
    service.ask("POST", "/v1/executions", {"code": "pass"})
    page.goto("/charts")
    expect(page.locator("canvas")).to_have_count(4)
    expect(page.get_by_text(re.compile(r"[1-9]\d* ended"))).to_be_visible()


def test_numbers_are_shown_by_runtime_function_and_tenant(service: RunningService, page: Page) -> None:
    service.ask("PUT", "/v1/functions/counted", {"runtime": "python", "code": "output = 1 / input"})
    for data in (1, 2, 0):
        service.ask("POST", "/v1/functions/counted/invoke", {"data": data})
    page.goto("/charts")
    page.get_by_role("navigation", name="Group by").get_by_role("link", name="function").click()
    cells = page.locator("tr", has_text="counted").locator("td").all_inner_texts()
    assert cells[1:3] == ["3", "1"]
    assert "runtime 1" in cells[-1]
    page.get_by_role("navigation", name="Group by").get_by_role("link", name="tenant").click()
    expect(page.locator(".rows tbody tr").first).to_contain_text("operator")


# The end --------------------------------------------------------------------------------------------


def test_open_pages_do_not_keep_the_service_from_ending(tmp_path: Path, browser: Browser) -> None:
    with RunningService(tmp_path) as running:
        tabs = [Tab(browser, running.url) for _ in range(2)]
        for each, path in zip(tabs, ("/executions", "/workers"), strict=True):
            each.log_in(running.key)
            each.page.goto(path)
            expect(each.page.get_by_text("This page follows what happens.")).to_be_visible()
        began_s = time.monotonic()
        assert running.end() == 0
        assert time.monotonic() - began_s < 20
        for each in tabs:
            each.context.close()
