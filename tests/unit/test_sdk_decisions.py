"""What the client of the service decides without a service: errors, retries, addresses, requests."""

from __future__ import annotations

import inspect
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import casemate
from casemate import errors
from casemate import service_limits as limits
from casemate.errors import CasemateError, ConfigError, InvalidInput, PermissionDenied, ServiceError, TooManyRequests
from casemate.job_limits import JOB_WAIT_MAX_S
from casemate.model.function import Item
from casemate.sdk import calls, job_calls
from casemate.sdk.items import ItemLike, sent_items
from casemate.sdk.options import ExecutionOptions, execution_request
from casemate.sdk.problems import ProblemBody, error_of, read_problem
from casemate.sdk.requests import Answer, Failure, Head, Request, path, query
from casemate.sdk.retry import Policy, pause_before_retry
from casemate.sdk.settings import settings

CLASSES = [
    each
    for each in vars(errors).values()
    if inspect.isclass(each) and issubclass(each, CasemateError) and each is not CasemateError
]
GET = Request(method="GET", path="/v1/me")
PUT = Request(method="PUT", path="/v1/functions/f", body=b"{}")
KEYED = Request(method="POST", path="/v1/executions", body=b"{}", idempotency_key="k")


def problem(code: str, **more: object) -> bytes:
    return msgspec.json.encode({"code": code, "message": "no", "hint": "do so", "request_id": "req_1", **more})


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    return Answer(
        head=Head(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()}), body=body
    )


# Errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_every_error_comes_back_as_its_own_class(kind: type[CasemateError]) -> None:
    error = answer(kind.http_status, problem(kind.code, field="code")).error()
    assert type(error) is kind
    assert (error.message, error.hint, error.request_id) == ("no", "do so", "req_1")
    assert isinstance(str(error), str)
    assert repr(error)


def test_what_an_error_is_about_comes_back_with_it() -> None:
    refused = answer(422, problem("invalid_input", field="limits.memory")).error()
    assert isinstance(refused, InvalidInput)
    assert refused.field == "limits.memory"
    busy = answer(429, problem("too_many_requests"), retry_after="7").error()
    assert isinstance(busy, TooManyRequests)
    assert busy.retry_after_s == 7
    sent = PermissionDenied("functions:publish")
    denied = answer(403, problem(sent.code, message=sent.message)).error()
    assert isinstance(denied, PermissionDenied)
    assert denied.scope == "functions:publish"


@pytest.mark.parametrize("code", ["too_large", "brand_new", "error", "KeyboardInterrupt", "builtins.exec", ""])
def test_a_code_that_nobody_here_knows_is_a_service_error(code: str) -> None:
    error = answer(418, problem(code)).error()
    assert type(error) is ServiceError
    assert (error.service_code, error.status) == (code, 418)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code": 3}', b"\xff"])
def test_what_is_no_problem_is_judged_by_its_status(body: bytes) -> None:
    assert isinstance(answer(503, body).error(), casemate.ServiceUnavailable)
    assert isinstance(answer(401, body).error(), casemate.Unauthenticated)
    assert isinstance(answer(500, body).error(), ServiceError)


@given(st.text(max_size=50), st.text(max_size=50))
def test_words_of_the_other_side_say_nothing_to_a_terminal(message: str, hint: str) -> None:
    error = error_of(500, read_problem(msgspec.json.encode(ProblemBody(code="x", message=message, hint=hint))), None)
    assert str(error).isprintable()


# Retries -------------------------------------------------------------------------------------------


def pause(request: Request, outcome: Answer | Failure, attempts: int = 1, jitter: float = 0.5) -> float | None:
    return pause_before_retry(request, outcome, attempts=attempts, policy=Policy(), jitter=jitter)


@pytest.mark.parametrize("request_", [GET, KEYED], ids=["get", "keyed"])
@pytest.mark.parametrize("outcome", [answer(503), answer(502), answer(429), Failure(message="gone")], ids=str)
def test_what_can_be_repeated_is_repeated(request_: Request, outcome: Answer | Failure) -> None:
    assert pause(request_, outcome) is not None


@pytest.mark.parametrize("outcome", [answer(503), Failure(message="gone")], ids=str)
def test_what_may_have_been_done_is_not_done_twice(outcome: Answer | Failure) -> None:
    assert pause(PUT, outcome) is None


@pytest.mark.parametrize("outcome", [answer(429), Failure(message="refused", sent=False)], ids=str)
def test_what_cannot_have_been_done_is_repeated_whatever_it_is(outcome: Answer | Failure) -> None:
    assert pause(PUT, outcome) is not None


@pytest.mark.parametrize(
    "outcome",
    [answer(500), answer(404), answer(422), answer(503, problem("node_lost")), answer(503, problem("layer_missing"))],
    ids=str,
)
def test_what_would_be_answered_the_same_is_not_repeated(outcome: Answer) -> None:
    assert pause(GET, outcome) is None


def test_the_service_says_how_long_to_wait_within_reason() -> None:
    assert pause(GET, answer(429, retry_after="3"), jitter=0) == 3
    assert 3 < (pause(GET, answer(429, retry_after="3"), jitter=0.99) or 0) < 3.5
    assert pause(GET, answer(429, retry_after="3600")) is None
    assert pause(GET, answer(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")) is not None


def test_pauses_grow_and_end() -> None:
    pauses = [pause(GET, answer(503), attempts, jitter=0) for attempts in range(1, limits.SDK_ATTEMPTS_MAX + 1)]
    assert pauses.pop() is None
    assert pauses == sorted(pauses, key=lambda seconds: seconds or 0)
    assert len(set(pauses)) == len(pauses)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 4))
def test_chance_moves_a_pause_within_bounds(jitter: float, attempts: int) -> None:
    seconds = pause(GET, answer(503), attempts, jitter)
    assert seconds is not None
    assert 0 < seconds <= limits.SDK_PAUSE_MAX_S


# Where, and with which key -------------------------------------------------------------------------


def test_arguments_come_before_the_environment() -> None:
    environment = {"CASEMATE_URL": "https://one.example/", "CASEMATE_KEY": " cm_env\n"}
    found = settings(None, None, insecure_http=False, environment=environment)
    assert (found.url, found.key) == ("https://one.example", "cm_env")
    found = settings("http://127.0.0.1:9", "cm_mine", insecure_http=False, environment=environment)
    assert (found.url, found.key, found.is_loopback) == ("http://127.0.0.1:9", "cm_mine", True)
    assert settings(None, None, insecure_http=False, environment={}).url == "http://127.0.0.1:8700"


@pytest.mark.parametrize("url", ["http://10.0.0.1", "http://localhost.example", "http://[2001:db8::1]:80/x"])
def test_a_key_does_not_go_unencrypted_over_a_network(url: str) -> None:
    with pytest.raises(ConfigError, match="unencrypted") as caught:
        settings(url, "cm_secret", insecure_http=False, environment={})
    assert "cm_secret" not in str(caught.value)
    assert settings(url, "cm_secret", insecure_http=True, environment={}).url == url
    assert settings(url, "cm_secret", insecure_http=False, environment={"CASEMATE_INSECURE_HTTP": "1"}).url == url
    assert settings(url, None, insecure_http=False, environment={}).key == ""


@pytest.mark.parametrize(
    "url",
    ["", "casemate", "ftp://a", "http://", "http://u:p@a", "https://a?x=1", "https://a#x", "http://a:0", "http://a:x"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="url"):
        settings(url, None, insecure_http=False, environment={})


@pytest.mark.parametrize("key", ["a b", "a\nb", "é", "x" * 1001])
def test_what_is_no_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="key") as caught:
        settings("https://a.example", key, insecure_http=False, environment={})
    assert key not in str(caught.value)


def test_no_repr_shows_a_key() -> None:
    found = settings("https://a.example", "cm_secret", insecure_http=False, environment={})
    assert "cm_secret" not in repr(found)


# Requests ------------------------------------------------------------------------------------------


def test_names_in_paths_stay_one_part() -> None:
    assert path("functions", "a/b ?é") == "/v1/functions/a%2Fb%20%3F%C3%A9"
    for name in ("", ".", ".."):
        with pytest.raises(InvalidInput):
            path("functions", name)


def test_queries_have_what_is_given() -> None:
    assert query(a=None, b=1, c=True, d=["x", "y"]) == (("b", "1"), ("c", "true"), ("d", "x"), ("d", "y"))


def test_who_waits_for_a_job_is_not_given_up_while_the_service_waits() -> None:
    assert job_calls.get_job("a").request.silence_max_s == limits.SDK_SILENCE_MAX_S
    waiting = job_calls.get_job("a", wait=JOB_WAIT_MAX_S).request
    assert waiting.silence_max_s >= JOB_WAIT_MAX_S + limits.SDK_SILENCE_MAX_S
    assert waiting.query == (("wait", str(JOB_WAIT_MAX_S)),)


def test_an_execution_is_asked_for_with_the_options_of_run(tmp_path: Path) -> None:
    (tmp_path / "in.bin").write_bytes(b"\xff")
    options: ExecutionOptions = {
        "input": None,
        "args": ("a",),
        "stdin": b"\x00",
        "files": {"a.txt": "text", "b.bin": tmp_path / "in.bin"},
        "limits": casemate.Limits(wall_s=2.0),
        "env": None,
    }
    body = msgspec.json.decode(execution_request("1", "python", options).body or b"")
    assert body["input"] is None
    assert body["files"] == {"a.txt": "text", "b.bin": {"base64": "/w=="}}
    assert body["stdin"] == {"base64": "AA=="}
    assert body["limits"]["timeout"] == 2.0
    assert "env" not in body


@pytest.mark.parametrize(
    "options",
    [
        {"memory": 3},
        {"stdin": 0},
        {"files": {"a": 3}},
        {"files": 3},
        {"files": {"a": Path("/nowhere")}},
        {"input": {1, 2}.__class__},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused_before_anything_is_sent(options: ExecutionOptions) -> None:
    with pytest.raises(InvalidInput):
        execution_request("1", "python", options)


def test_items_are_sent_as_they_are_written() -> None:
    given_items: list[ItemLike] = [
        {"id": "a", "data": [1]},
        Item(id="b", data={"x": None}, context={"y": 1}),
        {"data": None},
    ]
    sent = [msgspec.json.decode(item.body) for item in sent_items(given_items)]
    assert sent == [
        {"id": "a", "data": [1]},
        {"id": "b", "data": {"x": None}, "context": {"y": 1}},
        {"id": "", "data": None},
    ]


@pytest.mark.parametrize("item", [3, "text", {"id": 1}, {"dta": 1}, {"data": object()}])
def test_what_is_no_item_is_refused_by_its_place(item: object) -> None:
    with pytest.raises(InvalidInput, match=r"items\[1\]"):
        list(sent_items([{"data": 1}, item]))  # type: ignore[list-item]


def test_a_request_of_items_is_one_json_document() -> None:
    request = calls.batch_request("f", [b'{"id":"a"}', b'{"id":"b"}'], timeout="2s", version=3)
    assert msgspec.json.decode(request.body or b"") == {"items": [{"id": "a"}, {"id": "b"}], "timeout": 2.0}
    assert request.query == (("version", "3"),)
    assert msgspec.json.decode(calls.batch_request("f", [b"1"]).body or b"") == {"items": [1]}


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\nb"])
def test_a_key_of_idempotency_has_its_bounds(key: str) -> None:
    with pytest.raises(InvalidInput, match="idempotency_key"):
        calls.invoke("f", 1, idempotency_key=key)
