"""Sessions, forms and what is shown: the parts of the dashboard that need no browser."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from casemate import dashboard
from casemate.dashboard import asking
from casemate.dashboard.asking import Api, Refusal, address
from casemate.dashboard.render import label, lasted, seconds, size, trend, visible
from casemate.dashboard.series import series_of
from casemate.dashboard.sessions import Attempts, Sessions, is_own_origin, is_token
from casemate.dashboard.site import local
from casemate.dashboard.visit import read_form, whole_number
from casemate.errors import InvalidInput, NotFound
from casemate.executions.book import Changes
from casemate.service_limits import FORM_MAX_BYTES, LOGIN_BURST, LOGIN_RATE_PER_S, SESSION_IDLE_S, SESSION_LIFE_S
from casemate.store.executions import Measured
from casemate.tenancy.scopes import Scopes
from casemate.tenancy.terms import Principal

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

VENDOR = Path(dashboard.__file__).parent / "vendor"
MINUTE_US = 60_000_000


def test_a_session_is_found_by_its_cookie_alone() -> None:
    sessions = Sessions()
    session = sessions.begin("key_a", 0.0)
    assert sessions.find(sessions.cookie(session), 1.0) is session
    assert "key_a" not in sessions.cookie(session)
    for forged in ("", session.id, f"{session.id}.", f"{session.id}.{'0' * 64}", "é.ü", f".{sessions.cookie(session)}"):
        assert sessions.find(forged, 1.0) is None
    assert Sessions().find(sessions.cookie(session), 1.0) is None


def test_a_session_ends_when_it_is_ended_unused_or_old() -> None:
    sessions = Sessions()
    ended, unused, old = (sessions.begin("key_a", 0.0) for _ in range(3))
    cookies = [sessions.cookie(each) for each in (ended, unused, old)]
    sessions.end(ended)
    sessions.end(ended)
    assert sessions.find(cookies[0], 1.0) is None
    at_s = 0.0
    while at_s + SESSION_IDLE_S / 2 < SESSION_LIFE_S:
        at_s += SESSION_IDLE_S / 2
        assert sessions.find(cookies[2], at_s) is old
    assert sessions.find(cookies[1], SESSION_IDLE_S) is None
    assert sessions.find(cookies[2], SESSION_LIFE_S) is None
    assert len(sessions) == 0


def test_sessions_are_bounded_for_each_key_and_in_all() -> None:
    sessions = Sessions(sessions_max=4, a_key_max=2)
    first, second, third = (sessions.begin("key_a", float(at)) for at in range(3))
    assert [sessions.is_known(each) for each in (first, second, third)] == [False, True, True]
    for number in range(10):
        sessions.begin(f"key_{number}", 3.0)
    assert len(sessions) == 4


def test_wrong_keys_are_counted_for_each_address() -> None:
    attempts = Attempts(addresses_max=2)
    for _ in range(LOGIN_BURST):
        assert attempts.wait_s("here", 0.0) == 0
        attempts.failed("here", 0.0)
    assert attempts.wait_s("here", 0.0) == 1 / LOGIN_RATE_PER_S
    assert attempts.wait_s("here", 1 / LOGIN_RATE_PER_S) == 0
    assert attempts.wait_s("there", 0.0) == 0
    for other in ("there", "elsewhere"):
        attempts.failed(other, 0.0)
    assert attempts.wait_s("here", 0.0) == 0


def test_a_forms_token_is_that_of_its_session() -> None:
    sessions = Sessions()
    ours, theirs = sessions.begin("key_a", 0.0), sessions.begin("key_b", 0.0)
    assert is_token(ours, ours.csrf_token)
    for wrong in ("", theirs.csrf_token, ours.csrf_token[:-1], ours.csrf_token + "x", "\ud800"):
        assert not is_token(ours, wrong)


@pytest.mark.parametrize(
    ("origin", "site", "is_own"),
    [
        ("http://here:8700", None, True),
        ("https://here:8700", "same-origin", True),
        ("HTTP://HERE:8700", None, False),
        ("http://HERE:8700", None, True),
        (None, "same-origin", True),
        (None, None, False),
        ("null", None, False),
        ("", None, False),
        ("http://here", None, False),
        ("http://here:8700.evil.example", None, False),
        ("http://evil.example", "same-origin", False),
        ("http://here:8700", "cross-site", False),
        ("http://here:8700", "same-site", False),
        ("http://here:8700", "none", False),
        ("file://here:8700", None, False),
    ],
)
def test_only_pages_of_ours_change_anything(origin: str | None, site: str | None, *, is_own: bool) -> None:
    assert is_own_origin(origin, site, "here:8700") is is_own


def test_without_a_host_nothing_is_ours() -> None:
    assert not is_own_origin("http://", None, "")


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "", None, "/a\nb", "/a\\b", "\t//e"]
)
def test_a_login_leads_to_no_other_site(path: str | None) -> None:
    assert local(path) == "/"


def test_a_login_leads_back_to_a_page_of_ours() -> None:
    assert local("/functions/a%20b?version=3") == "/functions/a%20b?version=3"


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "/", "../keys"])
def test_no_name_leads_to_another_address_of_the_api(part: str) -> None:
    with pytest.raises(NotFound):
        address("functions", part, "invoke")


def test_names_are_quoted_in_addresses() -> None:
    assert address("functions", "a b?x#y%2e", query={"q": "1&2"}) == "/v1/functions/a%20b%3Fx%23y%252e?q=1%262"


@given(st.text())
def test_o5_whatever_a_text_holds_can_be_seen(text: str) -> None:
    shown = visible(text)
    assert all(char.isprintable() or char in "\n\t" or char.isspace() or ord(char) > 0xA0 for char in shown)
    assert not set(shown) & {"\x00", "\x1b", "\r", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff"}


def test_o5_control_characters_are_shown_as_terminals_do() -> None:
    assert visible("\x1b[31mred\r\n\x00\x7f\x9b\u202ea\tb\rc") == "^[[31mred\n^@^?[U+009B][U+202E]a\tb^Mc"


def test_o5_long_texts_lose_their_middle() -> None:
    shown = visible("a" * 1000 + "b" * 1000, 100)
    assert shown.startswith("a" * 50)
    assert shown.endswith("b" * 50)
    assert "1900 characters are left out" in shown
    assert len(label("x\ny" * 1000)) <= 201


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.0000421, "42 µs"),
        (0.0421, "42.1 ms"),
        (4.21, "4.21 s"),
        (75, "1 min 15 s"),
        (7300, "2 h 01 min"),
    ],
)
def test_durations_are_shown_in_the_unit_that_fits(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_sizes_are_shown_in_the_unit_that_fits() -> None:
    assert [size(each) for each in (None, 0, 1023, 1536, 5 << 20, 3 << 30)] == [
        "\N{EN DASH}", "0 B", "1023 B", "1.5 KiB", "5 MiB", "3 GiB",
    ]  # fmt: skip


def test_an_execution_that_goes_on_has_no_duration_yet() -> None:
    assert lasted({"created_at": "2030-01-31T12:00:00Z", "started_at": None, "ended_at": None}) is None
    assert lasted({"started_at": "2030-01-31T12:00:00Z", "ended_at": "2030-01-31T12:00:02.5Z"}) == 2.5


def test_a_trend_is_a_line_of_numbers() -> None:
    shown = trend([{"memory_bytes": 1}, {"memory_bytes": 5}, {"memory_bytes": None}])
    assert 'points="0.0,18.0 56.0,2.0 112.0,22.0"' in shown
    assert trend([]) == "\N{EN DASH}"


def measured(at_us: int, wall_us: int, status: str = "succeeded", **values: str | int) -> Measured:
    return Measured(
        tenant_id="ten_a", kind="code", runtime="python", function="", status=status, reason="exit",
        created_us=at_us - wall_us, started_us=at_us - wall_us, ended_us=at_us, wall_us=wall_us, cpu_us=1,
        **{"memory_peak_bytes": 10, "error_category": None, **values},  # type: ignore[arg-type]
    )  # fmt: skip


def test_series_have_a_point_for_each_step() -> None:
    rows = [measured(MINUTE_US // 2, wall_us * 1000) for wall_us in range(1, 101)]
    rows += [measured(MINUTE_US * 3 - 1, 7, "failed", error_category="timeout", memory_peak_bytes=99)]
    found = series_of(rows, since_us=0, until_us=3 * MINUTE_US, points=3)
    assert found.at_s == [0.0, 60.0, 120.0]
    assert found.rate == [100 / 60, 0.0, 1 / 60]
    assert found.failures == [0.0, 0.0, 1 / 60]
    assert [found.p50[0], found.p95[0], found.p99[0], found.p50[1]] == [0.05, 0.095, 0.099, None]
    assert found.memory_bytes == [10, None, 99]
    assert (found.total, found.failed, found.errors) == (101, 1, {"timeout": 1})


def test_series_of_nothing_are_flat() -> None:
    found = series_of([], since_us=0, until_us=7, points=3)
    assert found.rate == [0.0, 0.0, 0.0]
    assert msgspec.json.encode(found)


def test_what_is_vendored_is_what_was_published() -> None:
    sums = dict(line.split()[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    found.pop("SHA256SUMS")
    assert found == sums
    assert {"htmx.LICENSE", "uplot.LICENSE"} <= sums.keys()


async def _answers(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that tells what it was asked."""
    body = (await receive())["body"]
    told = {"path": scope["path"], "who": scope["state"]["principal"], "body": body.decode()}
    await send({"type": "http.response.start", "status": 404 if "missing" in scope["path"] else 200, "headers": []})
    await send({"type": "http.response.body", "body": msgspec.json.encode(told), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


OUTER: dict[str, Any] = {
    "type": "http", "asgi": {}, "scheme": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": [],
    "state": {"request_id": "req_1"},
}  # fmt: skip
WHO = Principal(
    tenant_id="ten_a", tenant_name="a", key_id="key_a", scopes=Scopes(), rate_per_s=1.0, burst=1, concurrency_max=1,
    queue_max=1,
)  # fmt: skip


def test_the_api_is_asked_in_the_name_of_who_is_logged_in() -> None:
    asked = Api(_answers).ask(Request(OUTER), WHO, "POST", address("keys", "a b"), {"n": 1})
    found = asyncio.run(asked)
    assert (found["path"], found["body"]) == ("/v1/keys/a b", '{"n":1}')
    assert found["who"]["tenant_id"] == "ten_a"


def test_what_the_api_refuses_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        asyncio.run(Api(_answers).ask(Request(OUTER), WHO, "GET", address("missing")))
    assert refused.value.status == 404


def test_an_answer_too_large_for_a_page_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_MAX_BYTES", 10)
    with pytest.raises(Refusal, match="too large"):
        asyncio.run(Api(_answers).ask(Request(OUTER), WHO, "GET", address("keys")))


def test_watchers_are_told_of_their_tenants_executions_alone() -> None:
    changes = Changes()
    with changes.watching("ten_a") as ours, changes.watching("ten_b") as theirs:
        changes.tell("ten_a")
        assert ours.is_set()
        assert not theirs.is_set()
    changes.tell("ten_a")
    assert changes.watched == 0


def form(body: bytes, content_type: str = "application/x-www-form-urlencoded") -> dict[str, str]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", content_type.encode())]
    return asyncio.run(read_form(Request({**OUTER, "headers": headers}, receive)))


def test_a_form_is_read_with_the_ends_of_lines_that_programs_expect() -> None:
    assert form(b"code=a%0D%0Ab&name=%C3%BC&empty=") == {"code": "a\nb", "name": "\u00fc", "empty": ""}


@pytest.mark.parametrize(
    "body", [b"a=%FF", b"\xff", b"&".join(b"a%d=1" % n for n in range(100)), b"a=" + b"x" * FORM_MAX_BYTES]
)
def test_a_form_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        form(body)


def test_other_bodies_are_no_forms() -> None:
    with pytest.raises(InvalidInput):
        form(b"{}", "text/plain")


# Forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "-1", "1.5", "\u0663", "1 000", "0" * 9 + "1", "9" * 5000])
def test_a_number_in_a_form_is_a_small_one_or_refused_by_its_field(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        whole_number(text, "version")
    assert refused.value.field == "version"


def test_a_number_in_a_form_is_read() -> None:
    assert whole_number("999999999", "range") == 999_999_999
