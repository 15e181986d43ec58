"""HTTP as it comes in, with what its sender owes us: a head that ends, a body that comes, answers that are taken.

uvicorn bounds none of these, so that anybody, with a key or without, could hold all connections or any memory.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from casemate import object_limits
from casemate import service_limits as limits
from casemate.api.transfer import is_upload

_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _Upload:
    """A body that may take long, as long as it comes at some pace."""

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self.came_bytes = 0

    def may_go_on(self, now_s: float, *, is_paused: bool) -> bool:
        """Whether enough has come since the last time, if it was not we who did not take it."""
        came_bytes, self.came_bytes = self.came_bytes, 0
        is_timely = now_s - self._began_s < object_limits.UPLOAD_MAX_S
        return is_timely and (is_paused or came_bytes >= object_limits.UPLOAD_STEP_MIN_BYTES)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A request that is late, or longer than it may be, is cut off."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0
        self._upload: _Upload | None = None
        self._owed: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None

    # What comes in --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect(limits.HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        self._watch_taking(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._owed is None and self._is_idle():
            self._expect(limits.HEAD_TIMEOUT_S)
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > limits.HEAD_MAX_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect(limits.HEAD_TIMEOUT_S)

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()
        self._upload = _Upload(self.loop.time()) if is_upload(self.scope) else None
        self._expect(limits.BODY_TIMEOUT_S if self._upload is None else object_limits.UPLOAD_STEP_S)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self._upload is not None:
            self._upload.came_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._upload = None
        super().on_message_complete()
        self._expect(limits.HEAD_TIMEOUT_S if self._is_idle() else None)

    def _is_idle(self) -> bool:
        """Whether nobody is waiting for us."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _expect(self, within_s: float | None) -> None:
        if self._owed is not None:
            self._owed.cancel()
        self._owed = None if within_s is None else self.loop.call_later(within_s, self._is_late)

    def _is_late(self) -> None:
        """Of a body whose request has been answered nothing is worth waiting for, at whatever pace it comes."""
        self._owed = None
        if (
            self._upload is not None
            and not self._is_idle()
            and self._upload.may_go_on(self.loop.time(), is_paused=self.flow.read_paused)
        ):
            self._expect(object_limits.UPLOAD_STEP_S)
        elif self._upload is None and self.flow.read_paused:  # it is we who do not take what comes
            self._expect(limits.HEAD_TIMEOUT_S)
        else:
            self.transport.abort()

    # What goes out --------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_taking(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch_taking(None)

    def _watch_taking(self, waiting_bytes: int | None) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None
        if waiting_bytes is not None:
            self._untaken = self.loop.call_later(limits.TAKING_TIMEOUT_S, self._look_at_taking, waiting_bytes)

    def _look_at_taking(self, before_bytes: int) -> None:
        """An answer is taken at some pace, or not at all: it would be kept for whoever never takes it."""
        waiting_bytes = self.transport.get_write_buffer_size()
        if before_bytes - waiting_bytes < limits.TAKEN_MIN_BYTES:
            self.transport.abort()
        else:
            self._watch_taking(waiting_bytes)
