"""Lines of logs as they are kept: JSON lines, compressed by gzip, so that objects of them can be read by anybody. Pure.

Several pieces one behind the other are such a file, too.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from typing import Final

import msgspec

from casemate.errors import RecordsDamaged
from casemate.job_limits import LOG_SEGMENT_MAX_BYTES
from casemate.model.job import Job
from casemate.model.job_log import JobLine, words_of

COMMAND: Final = "command"
CODE: Final = "code"
SCHEDULED: Final = "scheduled"
KINDS: Final = (COMMAND, CODE, SCHEDULED)
_FAST: Final = 1
_SMALL: Final = 6
_INFLATED_MAX_BYTES: Final = 64 * LOG_SEGMENT_MAX_BYTES
"""What lines of nothing but their ends take as JSON is many times their size; more than that we have not written."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(JobLine)


def packed(lines: Iterable[JobLine], *, is_final: bool = False) -> bytes:
    """Lines, compressed: fast, or small where they are to be kept for long."""
    return gzip.compress(_encoder.encode_lines(lines), _SMALL if is_final else _FAST, mtime=0)


def unpacked(data: bytes) -> list[JobLine]:
    """The lines of one piece. Raises RecordsDamaged."""
    try:
        inflater = zlib.decompressobj(wbits=31)
        found = inflater.decompress(data, _INFLATED_MAX_BYTES)
        if not inflater.eof:
            raise RecordsDamaged("damaged", "a piece of a job's log is not whole")
        return _decoder.decode_lines(found)
    except (zlib.error, msgspec.DecodeError) as error:
        raise RecordsDamaged("damaged", "a piece of a job's log is not what was written") from error


def words_in(lines: Iterable[JobLine]) -> frozenset[str]:
    """The words by which a piece is found."""
    return frozenset(words_of("\n".join(line.readable for line in lines)))


def size_of(lines: Iterable[JobLine]) -> int:
    """The bytes that were printed."""
    return sum(len(line.data) for line in lines)


def kind_of(job: Job) -> str:
    """What sort of job a log is of, for the rules of how long it is kept."""
    if job.schedule_id:
        return SCHEDULED
    return CODE if job.spec.code else COMMAND
