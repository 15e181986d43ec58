"""The commands that speak with a service: what is asked of it, what is shown, and how they end."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_sdk_clients import Body, Service, refused, said

import casemate
from casemate.cli import main
from casemate.cli.commands import COMMANDS, GROUPS
from casemate.cli.complete import complete
from casemate.cli.function_test import Case, differences, judge
from casemate.cli.functions import items_of
from casemate.cli.service_commands import COMMANDS as SERVICE_COMMANDS
from casemate.errors import InvalidInput
from casemate.model.result import GuestError
from casemate.model.service import Invocation

KEY = {"id": "key_1", "name": "ci", "prefix": "cm_abcdefg", "key": "cm_secret"}
Run = Callable[..., int]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service that is played here, for whoever asks for a client."""
    played = Service(refused)
    real = casemate.Client

    def client(url: str | None, key: str | None) -> casemate.Client:
        played.key = key  # type: ignore[attr-defined]
        return real(url or "http://127.0.0.1:1", key, transport=httpx2.MockTransport(played), attempts=1)

    monkeypatch.setattr("casemate.sdk.client.Client", client)
    monkeypatch.setenv("CASEMATE_KEY", "cm_mine")
    monkeypatch.setattr("casemate.cli.main.signal.signal", lambda *_: None)
    return played


def body(service: Service) -> Any:
    return json.loads(service.requests[-1].content)


# Finding commands ----------------------------------------------------------------------------------


def test_commands_of_a_group_are_carried_out_by_functions_that_are_there() -> None:
    from importlib import import_module

    assert not set(GROUPS) & set(COMMANDS)
    for name, command in SERVICE_COMMANDS.items():
        assert name.partition(" ")[0] in GROUPS
        assert callable(getattr(import_module(command.module), command.function))


@pytest.mark.parametrize(
    "words", [["fn"], ["fn", "--help"], ["help", "fn"], ["fn", "invoke", "--help"], ["help", "fn", "invoke"]]
)
def test_groups_and_their_commands_have_pages(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(words) == (2 if words == ["fn"] else 0)
    assert "Usage: casemate fn" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said_so"),
    [
        (["fn", "invok"], "did you mean invoke?"),
        (["fn", "invoke"], "needs NAME"),
        (["fn", "alias", "f", "live"], "needs VERSION"),
        (["fn", "alias", "f", "live", "x"], "whole number"),
        (["fn", "invoke", "f", "g"], "unexpected argument"),
        (["fn", "test", "f.py"], "--cases"),
        (["fnn"], "did you mean fn?"),
        (["runs", "list", "--limit", "many"], "whole number"),
    ],
)
def test_wrong_command_lines_are_told_apart(
    service: Service, words: list[str], said_so: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(words) == 2
    assert said_so in capsys.readouterr().err
    assert service.requests == []


@pytest.mark.parametrize("words", [["jobs", "list"], ["jobs", "dead"], ["webhook", "notices", "whk_1"]])
def test_a_limit_of_none_asks_for_none(service: Service, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*words, "--limit", "0"]) == 0
    assert service.requests == []
    service.answer = lambda _: said({"items": []})
    assert main.run([*words, "--limit", "3"]) == 0
    assert [request.url.params["limit"] for request in service.requests] == ["3"]
    capsys.readouterr()


@pytest.mark.parametrize("words", [["usage"], ["usage", "--by", "kind"], ["usage", "show"]])
def test_usage_alone_is_its_table(service: Service, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    total = {"by": "", "runs": 3, "failed": 1, "cost": "0"}
    service.answer = lambda _: said({"since": "2030-01-01", "until": "2030-01-31", "total": total, "groups": []})
    assert main.run(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == ["total", "3", "1"]
    group_by = "kind" if "--by" in words else "day"
    assert service.requests[0].url.params["group_by"] == group_by


@pytest.mark.parametrize("words", [["usage", "--help"], ["usage", "-h"], ["help", "usage"]])
def test_the_page_of_usage_names_what_it_is_alone(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(words) == 0
    assert "`casemate usage` alone, or with options, is `casemate usage show`." in capsys.readouterr().out


def test_usage_is_completed_with_and_without_its_second_word() -> None:
    assert {"show", "job", "--help"} <= set(complete(["usage", ""]).words)
    assert "--by" in complete(["usage", "--b"]).words
    assert "--by" in complete(["usage", "--kind", "job", "--b"]).words


def test_commands_of_groups_are_completed() -> None:
    assert "fn" in complete(["f"]).words
    assert complete(["fn", "inv"]).words == ("invoke",)
    assert "--alias" in complete(["fn", "invoke", "f", "--al"]).words
    assert complete(["fn", "publish", "f", ""]).who == ":files"
    assert complete(["key", "nothing", ""]).words == ()


# What is asked and shown ---------------------------------------------------------------------------


def test_a_call_prints_its_output_and_what_was_printed_apart(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answer = lambda _: said({"id": "exe_1", "success": True, "output": {"a": 1}, "stdout": "hello\n"})
    assert (
        main.run(["fn", "invoke", "f/g", "--data", "[1]", "--context", '{"b": 2}', "--timeout", "2s", "--version", "3"])
        == 0
    )
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ('{"a":1}\n', "hello\n")
    assert service.asked == ["POST /v1/functions/f%2Fg/invoke?version=3"]
    assert body(service) == {"data": [1], "context": {"b": 2}, "timeout": 2.0}


def test_a_call_that_fails_is_a_status(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"type": "ValueError", "message": "no\x1b[2J", "traceback": ""}
    service.answer = lambda _: said({"id": "exe_1", "success": False, "error": error, "reason": "exception"})
    assert main.run(["fn", "invoke", "f"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "ValueError: no" in shown.err
    assert "\x1b" not in shown.err
    assert main.run(["fn", "invoke", "f", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "ValueError"


def test_publishing_sends_the_file_and_its_language(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answer = lambda _: said({"function": "f", "version": 4, "aliases": ["live", "next"]})
    (tmp_path / "f.js").write_text("output = 1")
    options = ["--memory", "64Mi", "--label", "a=b", "--input-schema", '{"type": "array"}', "--no-alias", "--macros"]
    assert main.run(["fn", "publish", "f", str(tmp_path / "f.js"), *options]) == 0
    assert capsys.readouterr().out == "f version 4 (live, next)\n"
    sent = body(service)
    assert (sent["code"], sent["runtime"], sent["alias"], sent["macros"]) == ("output = 1", "node", None, True)
    assert (sent["limits"], sent["labels"], sent["input_schema"]) == ({"memory": "64Mi"}, {"a": "b"}, {"type": "array"})


def test_a_batch_prints_a_line_for_each_item(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = b'{"id":"1","success":true,"output":2}\n{"id":"3","success":false,"error":null,"reason":"timeout"}\n'
    service.answer = lambda _: httpx2.Response(200, stream=Body(lines))
    (tmp_path / "items").write_text("1\n\n2\n")
    assert main.run(["fn", "batch", "f", str(tmp_path / "items"), "--plain"]) == 1
    shown = capsys.readouterr()
    assert [json.loads(line)["success"] for line in shown.out.splitlines()] == [True, False]
    assert "1 of 2 items failed" in shown.err


def test_lists_are_tables_or_json(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "exe_1", "state": "ended", "runtime": "python\x1b[2J", "reason": "exit"}
    service.answer = lambda _: said({"items": [row], "next_cursor": None})
    assert main.run(["runs", "list", "--status", "failed", "--label", "a=b"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ID")
    assert "\x1b" not in shown
    assert service.asked == ["GET /v1/executions?status=failed&label=a%3Db&limit=50"]
    assert main.run(["runs", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == "exe_1"


def test_a_schedule_shows_why_when_and_how_often_it_made_no_job(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {"refused_at": "2026-01-01T02:30:00Z", "refused_reason": "no secret", "refused_count": 3}
    before, since = "2026-01-01T02:29:00Z", "2026-01-01T02:31:00Z"
    items = [{"id": f"sch_{last}", "last_at": last, **refusal} for last in (None, before, since)]
    service.answer = lambda _: said({"items": items, "next_cursor": None})
    assert main.run(["jobs", "schedules"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("no secret;") == 2
    assert "2026-01-01 02:30:00, 3 in all" in shown


def test_an_error_of_the_service_is_an_error_of_ours(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    problem = b'{"code":"permission_denied","message":"the key lacks the scope x","hint":"ask"}'
    service.answer = lambda _: httpx2.Response(403, stream=Body(problem))
    assert main.run(["fn", "list", "--json"]) == 125
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["code"] == "permission_denied"
    assert "permission_denied: the key lacks the scope x" in shown.err


# Keys ----------------------------------------------------------------------------------------------


def test_a_key_is_read_from_a_file(service: Service, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("cm_from_file\n")
    service.answer = lambda _: said({"items": [], "next_cursor": None})
    assert main.run(["tenant", "list", "--key-file", str(tmp_path / "key")]) == 0
    assert service.requests[-1].headers["authorization"] == "Bearer cm_from_file"
    (tmp_path / "key").write_bytes(b"\xff")
    assert main.run(["tenant", "list", "--key-file", str(tmp_path / "key")]) == 125
    assert main.run(["tenant", "list", "--key-file", str(tmp_path / "none")]) == 125


def test_a_new_key_is_the_only_thing_on_stdout(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.answer = lambda _: said(KEY)
    assert main.run(["key", "create", "ci", "--allow", "a:*", "--deny", "a:b", "--lifetime", "12h"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "cm_secret\n"
    assert "cm_secret" not in shown.err
    assert body(service)["scopes"] == {"allow": ["a:*"], "deny": ["a:b"]}
    assert body(service)["lifetime_s"] == 12 * 3600


def test_a_new_key_goes_into_a_file_for_its_owner_alone(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answer = lambda _: said(KEY)
    target = tmp_path / "new"
    assert main.run(["key", "create", "ci", "--out", str(target)]) == 0
    assert target.read_text() == "cm_secret\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert capsys.readouterr().out == ""
    asked = len(service.requests)
    assert main.run(["key", "rotate", "key_1", "--out", str(target)]) == 125
    assert len(service.requests) == asked
    assert target.read_text() == "cm_secret\n"


def test_a_key_that_was_not_made_leaves_no_file(service: Service, tmp_path: Path) -> None:
    assert main.run(["key", "create", "ci", "--out", str(tmp_path / "new")]) == 125
    assert list(tmp_path.iterdir()) == []


# Items and cases -----------------------------------------------------------------------------------


def test_items_are_read_line_by_line() -> None:
    text = b'{"id": "a", "data": 1}\n\n{"data": [2]}'
    assert list(items_of(io.BytesIO(text), plain=False)) == [{"id": "a", "data": 1}, {"data": [2]}]
    assert list(items_of(io.BytesIO(b"1\n\n2"), plain=True)) == [{"id": "1", "data": 1}, {"id": "3", "data": 2}]


@pytest.mark.parametrize("text", [b"1\n[", b'{}\n"text"', b"{}\n\xff"])
def test_lines_that_are_no_items_are_named(text: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"line [12]"):
        list(items_of(io.BytesIO(text), plain=False))


def answered(output: object) -> Invocation:
    return Invocation(success=True, output=output)


FAILED = Invocation(success=False, error=GuestError(type="ValueError", message="too many"))


@pytest.mark.parametrize(
    ("case", "answer", "held"),
    [
        (Case(output=[1, {"a": None}]), answered([1.0000000000001, {"a": None}]), True),
        (Case(output=1), answered(1.1), False),
        (Case(output=True), answered(1), False),
        (Case(output=None), answered(None), True),
        (Case(output={"a": 1}), answered({}), False),
        (Case(output={}), answered({"a": 1}), False),
        (Case(output=[1]), answered([1, 2]), False),
        (Case(output=1), FAILED, False),
        (Case(error="too many"), FAILED, True),
        (Case(error="ValueError: too"), FAILED, True),
        (Case(error="other"), FAILED, False),
        (Case(error=""), answered(1), False),
    ],
    ids=str,
)
def test_a_case_holds_if_what_came_is_what_was_expected(case: Case, answer: Invocation, held: bool) -> None:
    found = judge(case, answer, 1e-9, 1)
    assert found.held is held
    assert bool(found.problem) is not held
    assert found.name == "case 1"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(values)
def test_a_value_differs_from_itself_nowhere(value: object) -> None:
    assert list(differences(value, value, 0.0)) == []


@pytest.mark.parametrize("cases", ["[", "{}", '[{"data": 1}]', '[{"output": 1, "error": ""}]', '[{"outpt": 1}]'])
def test_cases_that_make_no_sense_are_refused(
    service: Service, tmp_path: Path, cases: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cases").write_text(cases)
    assert main.run(["fn", "test", "f", "--service", "--cases", str(tmp_path / "cases")]) == 125
    assert "cases" in capsys.readouterr().err
    assert service.requests == []


# Jobs ------------------------------------------------------------------------------------------------


def test_the_page_of_jobs_tells_their_limits_and_not_those_of_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["jobs", "submit", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for line in ("500ms, 5s, 2m [300s]", "memory: 64Mi, 1Gi [512Mi]", "processors: 0.5, 2 [0.5]", "files hold [1Gi]"):
        assert line in told


def test_a_database_without_its_driver_is_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CASEMATE_SERVICE_DATABASE", "postgresql://db/casemate")
    monkeypatch.setattr("casemate.cli.serve.find_spec", lambda _: None)
    assert main.run(["serve", "--check"]) == 125
    assert "install casemate[postgres]" in capsys.readouterr().err
