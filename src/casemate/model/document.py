"""The Result as a JSON document, the same on the command line and over HTTP, and back again."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from casemate.errors import InvalidInput
from casemate.model.result import OutputFile, Result, Stream


def result_document(result: Result, *, saved: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All fields by name. `saved` says where files went; without it they are in the document."""
    found: dict[str, Any] = {field: getattr(result, field) for field in result.__struct_fields__}
    found |= {"stdout": stream_document(result.stdout), "stderr": stream_document(result.stderr)}
    found["files"] = [_file(file, saved) for file in result.files]
    return found


def stream_document(stream: Stream) -> dict[str, Any]:
    """`text` is for people; `base64` is there where the text is not the exact bytes."""
    found: dict[str, Any] = {"text": stream.text, "truncated_bytes": stream.truncated_bytes}
    if not (is_text(stream.head) and is_text(stream.tail)):
        found["base64"] = binascii.b2a_base64(stream.head + stream.tail, newline=False).decode("ascii")
    if stream.truncated_bytes:
        found["head_bytes"] = len(stream.head)
    return found


def is_text(data: bytes) -> bool:
    """Whether it is exactly what its text says."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _file(file: OutputFile, saved: Mapping[str, str] | None) -> dict[str, Any]:
    if saved is not None:
        return {"path": file.path, "size_bytes": len(file.data), "saved_as": saved.get(file.path)}
    data = binascii.b2a_base64(file.data, newline=False).decode("ascii")
    return {"path": file.path, "size_bytes": len(file.data), "base64": data}


def result_from_document(document: Mapping[str, Any]) -> Result:
    """The Result that a document tells of. Raises InvalidInput if it is none.

    Unknown fields are passed over: a newer service may say more.
    """
    try:
        fields = {name: value for name, value in document.items() if name in Result.__struct_fields__}
        fields |= {name: _stream_from(fields.get(name, {})) for name in ("stdout", "stderr")}
        fields["files"] = [{"path": each["path"], "data": each["base64"]} for each in fields.get("files", ())]
        return msgspec.convert(fields, Result, builtin_types=())
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput("result", "is not the document of a Result") from error


def _stream_from(document: Mapping[str, Any]) -> dict[str, Any]:
    truncated = document.get("truncated_bytes", 0)
    gap = b""
    if "base64" in document:
        kept = binascii.a2b_base64(document["base64"])
    else:
        kept = document.get("text", "").encode()
        gap = Stream(truncated_bytes=truncated).text.encode()
    head_bytes = document.get("head_bytes", len(kept))
    return {"head": kept[:head_bytes], "tail": kept[head_bytes + len(gap) :], "truncated_bytes": truncated}
