"""Bodies of requests: read once, bounded, and nothing in them that a reader may take in two ways."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any, Final, NoReturn

from fastapi import Request
from starlette.exceptions import HTTPException

from casemate import service_limits as limits
from casemate.api.state import state_of
from casemate.errors import CasemateError, InvalidInput
from casemate.model.values import has_too_many_containers, is_too_deep

_TOO_DEEP: Final = f"is nested more than {limits.VALUE_DEPTH_MAX} deep"
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class BadBody(HTTPException):
    """A body that is refused; carries the error through a framework that turns all others into one of its own."""

    def __init__(self, error: CasemateError) -> None:
        super().__init__(error.http_status, error.message)
        self.error = error


class CheckedRequest(Request):
    """A request whose JSON has no NaN, no key twice, no number that is too long, and no depth without end."""

    async def body(self) -> bytes:
        """The bytes, which count as held from when they come until the request is answered. Raises TooManyRequests."""
        if not hasattr(self, "_body"):
            load, found = state_of(self).load, bytearray()
            async for piece in self.stream():
                load.hold(self.scope, len(piece))
                found += piece
            self._body = bytes(found)
        return self._body

    async def json(self) -> Any:
        """The body's value. Raises BadBody."""
        if not hasattr(self, "_json"):
            body = await self.body()
            large = len(body) > limits.REQUEST_PARSED_HERE_MAX_BYTES
            self._json: Any = await asyncio.to_thread(parsed, body) if large else parsed(body)
        return self._json


def parsed(body: bytes) -> Any:
    """The value of a JSON text. Raises BadBody."""
    try:
        return _bounded(body)
    except InvalidInput as error:
        raise BadBody(error) from error
    except RecursionError as error:
        raise BadBody(InvalidInput("body", _TOO_DEEP)) from error
    except ValueError as error:
        raise BadBody(InvalidInput("body", f"is no valid JSON: {_reason(error)}")) from error


def _bounded(body: bytes) -> Any:
    if has_too_many_containers(body):
        raise InvalidInput("body", f"holds more than {limits.VALUE_CONTAINERS_MAX} arrays and objects")
    value = json.loads(
        body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite
    )
    if is_too_deep(value):
        raise InvalidInput("body", _TOO_DEEP)
    if _SURROGATE.search(body):
        json.dumps(
            value, ensure_ascii=False
        ).encode()  # pairs are characters; half of one is none, and nothing behind here can write it
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, UnicodeEncodeError):
        return "it holds half of a surrogate pair"
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "a number has too many digits"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidInput("body", f"has the key {twice[: limits.LABEL_MAX_CHARS]!r} twice in one object")
    return found


def _finite(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise InvalidInput("body", "holds a number that no double can hold")
    return found


def _no_constant(name: str) -> NoReturn:
    raise InvalidInput("body", f"{name} is not JSON", hint="send null")
