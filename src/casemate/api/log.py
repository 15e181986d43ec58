"""The service's log: one JSON document a line, on stderr, whoever writes it."""

from __future__ import annotations

import logging
import sys
from typing import Final

import msgspec
import structlog

_SHARED: Final[list[structlog.typing.Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
]
_FOREIGN: Final[list[structlog.typing.Processor]] = [*_SHARED, structlog.stdlib.ExtraAdder()]
_LAST: Final[list[structlog.typing.Processor]] = [
    structlog.processors.format_exc_info,
    structlog.processors.EventRenamer("message"),
]


def log_to_stderr(level: str = "info") -> None:
    """From now on everything that is logged in this process, by us and by libraries."""
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_FOREIGN,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_colours,
                *_LAST,
                structlog.processors.JSONRenderer(serializer=_as_json),
            ],
        )
    )
    logging.basicConfig(level=number, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*_SHARED, *_LAST, structlog.processors.JSONRenderer(serializer=_as_bytes)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),  # past `logging`: a line for every request
        cache_logger_on_first_use=True,
    )


def _without_colours(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.pop("color_message", None)  # uvicorn's, the same once more
    return event


def _as_json(event: object, **_: object) -> str:
    return _as_bytes(event).decode()


def _as_bytes(event: object, **_: object) -> bytes:
    return msgspec.json.encode(event, enc_hook=repr)
