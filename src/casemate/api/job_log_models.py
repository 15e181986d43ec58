"""What is answered of jobs' logs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from casemate.api.models import Page


class JobLineOut(BaseModel):
    """One line of a job's log. `partial`: it goes on in the next line of its stream."""

    job_id: str
    seq: int
    attempt: int
    stream: Literal["stdout", "stderr"]
    level: Literal["debug", "info", "warning", "error"]
    at: str
    offset: int
    text: str | None = None
    base64: str | None = None
    partial: bool = False


class JobLinesOut(Page):
    """A page of lines."""

    items: list[JobLineOut]


class JobLogOut(JobLinesOut):
    """Lines of one job, and how much of all that it has printed is kept."""

    lines_kept: int
    lines_printed: int
    bytes_kept: int
    bytes_printed: int
