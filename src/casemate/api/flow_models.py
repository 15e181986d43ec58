"""What is answered of flows."""

from __future__ import annotations

from pydantic import BaseModel

from casemate.api.models import Page


class FlowOut(BaseModel):
    """One attempt of a job to reach something. `reason` says in a word why it was refused, `problem` in words."""

    id: int
    job_id: str
    attempt: int
    at: str
    host: str
    port: int
    address: str
    protocol: str
    allowed: bool
    reason: str
    problem: str
    sent_bytes: int
    received_bytes: int
    wall_s: float


class FlowsOut(Page):
    """A page of flows."""

    items: list[FlowOut]
