"""Requests to the service and its answers as values, and what both have in common. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import msgspec

from casemate.errors import CasemateError, InvalidInput, ServiceError
from casemate.model.service import Execution, execution_from_document
from casemate.sdk.problems import error_of, read_problem
from casemate.service_limits import (
    IDEMPOTENCY_KEY_MAX_CHARS,
    SDK_ANSWER_MAX_BYTES,
    SDK_PROBLEM_MAX_BYTES,
    SDK_SILENCE_MAX_S,
)

T = TypeVar("T")
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
LINES: Final = "application/x-ndjson"
STATUS_OK_MAX: Final = 299


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. `silence_max_s`: how long the service may say nothing before it is given up."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    accept: str = JSON
    idempotency_key: str = ""
    last_event_id: str = ""
    silence_max_s: float = SDK_SILENCE_MAX_S
    own_headers: tuple[tuple[str, str], ...] = ()
    is_idempotent: bool = False

    @property
    def is_repeatable(self) -> bool:
        """Whether asking twice does it once."""
        return self.method == "GET" or self.is_idempotent or bool(self.idempotency_key)

    @property
    def headers(self) -> dict[str, str]:
        """Those that this request alone has."""
        found = {"Accept": self.accept}
        if self.body is not None:
            found["Content-Type"] = JSON
        if self.idempotency_key:
            found["Idempotency-Key"] = self.idempotency_key
        if self.last_event_id:
            found["Last-Event-ID"] = self.last_event_id
        return {**found, **dict(self.own_headers)}


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer begins."""

    status: int
    headers: Mapping[str, str] = {}

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_good(self) -> bool:
        return self.status <= STATUS_OK_MAX

    @property
    def body_max_bytes(self) -> int:
        return SDK_ANSWER_MAX_BYTES if self.is_good else SDK_PROBLEM_MAX_BYTES


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    head: Head
    body: bytes = b""

    def error(self) -> CasemateError:
        """The error that it is."""
        return error_of(self.head.status, read_problem(self.body), retry_after(self.head))


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """There was no answer, or it broke off. `sent`: the service may have seen the request."""

    message: str
    sent: bool = True


class Call(msgspec.Struct, Generic[T], frozen=True):
    """A request, and what its answer is read as."""

    request: Request
    read: Callable[[bytes], T]


class Listing(msgspec.Struct, Generic[T], frozen=True):
    """A request for a list, and what its items are read as. `limit`: no more of them.

    Lists come in pages, unless all of one is told at once.
    """

    request: Request
    item: type[T]
    limit: int | None = None
    in_pages: bool = True


def retry_after(head: Head) -> float | None:
    """The seconds of `Retry-After`; None where there is none, or a date."""
    text = head.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None  # noqa: PLR2004


def path(*parts: str) -> str:
    """A path below `/v1`, whatever is in its parts."""
    return "/v1/" + "/".join(_quoted(part) for part in parts)


def _quoted(part: str) -> str:
    if part in {"", ".", ".."}:
        raise InvalidInput("name", f"{part!r} names nothing")
    return quote(part, safe="")


def query(**values: object) -> tuple[tuple[str, str], ...]:
    """Those that are given; a sequence is several."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        several = value if isinstance(value, tuple | list) else (value,)
        found += [(name, _text(each)) for each in several if each is not None]
    return tuple(found)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    isoformat = getattr(value, "isoformat", None)
    return str(value) if isoformat is None else str(isoformat())


def encode(field: str, value: object) -> bytes:
    """As JSON. Raises InvalidInput for what is none."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, msgspec.EncodeError) as error:
        raise InvalidInput(field, f"cannot be written as JSON: {error}") from error


def given(**values: object) -> dict[str, object]:
    """A body of what is given."""
    return {name: value for name, value in values.items() if value is not None}


def check_key(key: str) -> str:
    """Raise InvalidInput for what is no key of idempotency."""
    if not key or len(key) > IDEMPOTENCY_KEY_MAX_CHARS or not (key.isascii() and key.isprintable()):
        raise InvalidInput("idempotency_key", f"must be 1 to {IDEMPOTENCY_KEY_MAX_CHARS} printable ASCII characters")
    return key


# Reading answers -----------------------------------------------------------------------------------


def reader(kind: type[T]) -> Callable[[bytes], T]:
    """Reads a body as a value of that type. Raises ServiceError."""

    def read(body: bytes) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise not_an_answer(kind.__name__) from error

    return read


def read_nothing(_: bytes) -> None:
    """The answer's status says it all."""


def read_document(body: bytes) -> dict[str, Any]:
    """An object as it is."""
    return reader(dict[str, Any])(body)


def read_execution(body: bytes) -> Execution:
    """An execution with its Result. Raises ServiceError."""
    try:
        return execution_from_document(read_document(body))
    except InvalidInput as error:
        raise not_an_answer("Execution") from error


def not_an_answer(what: str) -> ServiceError:
    """For a body that is not what was asked for."""
    return ServiceError(f"the service answered with something that is no {what}", hint="is it a Casemate service?")
