"""The Result as a JSON document, and back."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import InvalidInput
from casemate.model.document import result_document, result_from_document
from casemate.model.result import (
    Event,
    GuestError,
    Isolation,
    OutputFile,
    Reason,
    Result,
    Status,
    Stream,
)

NONE = Isolation(backend="test", layers=())


def result(reason: Reason, **fields: object) -> Result:
    return Result(status=Status.FAILED, reason=reason, isolation=NONE, **fields)  # type: ignore[arg-type]


def test_the_document_holds_the_whole_result() -> None:
    ended = result(
        Reason.EXIT,
        exit_code=0,
        output={"a": [1]},
        stdout=Stream(head=b"caf\xc3\xa9"),
        stderr=Stream(head=b"\xff\x00"),
        files=(OutputFile(path="a/b.bin", data=b"123"),),
    )
    found = result_document(ended, saved={"a/b.bin": "out/a/b.bin"})
    assert set(found) == set(Result.__struct_fields__)
    assert found["stdout"] == {"text": "café", "truncated_bytes": 0}
    assert base64.b64decode(found["stderr"]["base64"]) == b"\xff\x00"
    assert found["files"] == [{"path": "a/b.bin", "size_bytes": 3, "saved_as": "out/a/b.bin"}]


def test_a_cut_stream_says_how_much_is_missing() -> None:
    ended = result(Reason.OUTPUT, stdout=Stream(head=b"a\xc3", tail=b"\xa9b", truncated_bytes=7))
    stream = result_document(ended)["stdout"]
    assert stream["truncated_bytes"] == 7
    assert "7 bytes left out" in stream["text"]


def streams() -> st.SearchStrategy[Stream]:
    kept = st.binary(max_size=20) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))
    whole = st.builds(Stream, head=kept)
    return whole | st.builds(Stream, head=kept, tail=kept, truncated_bytes=st.integers(1, 10**12))


@given(stdout=streams(), stderr=streams(), data=st.binary(max_size=50))
def test_any_result_comes_back_from_its_document(stdout: Stream, stderr: Stream, data: bytes) -> None:
    ended = result(
        Reason.EXCEPTION,
        exit_code=1,
        output={"a": [1, None, "é"]},
        stdout=stdout,
        stderr=stderr,
        error=GuestError(type="ValueError", message="no"),
        events=(Event(kind="bad-reply", detail="odd"),),
        files=(OutputFile(path="a/b.bin", data=data),),
    )
    sent = msgspec.json.decode(msgspec.json.encode(result_document(ended)))
    assert result_from_document(sent) == ended


def test_what_a_newer_service_says_besides_is_passed_over() -> None:
    sent = msgspec.json.decode(msgspec.json.encode(result_document(result(Reason.EXIT))))
    assert result_from_document({**sent, "colour": "red"}) == result(Reason.EXIT)


@pytest.mark.parametrize(
    "document",
    [{}, {"status": "odd"}, {"status": "failed", "reason": "exit"}, {"stdout": 3}, {"files": [{}]}, {"files": 5}],
)
def test_what_is_no_result_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="document"):
        result_from_document(document)
