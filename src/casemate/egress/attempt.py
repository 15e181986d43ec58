"""One attempt to reach something while it lasts; in the end it is a Flow."""

from __future__ import annotations

import os
import time

from casemate.clock import now_us
from casemate.egress.judge import Reason, Refused
from casemate.egress.reading import Counted, Totals
from casemate.model.flow import Flow


class Attempt:
    """What is known so far. Allowed once a server was connected to, or was to be."""

    def __init__(self, totals: Totals, protocol: str, *, host: str = "", port: int = 0) -> None:
        self.counted = Counted(totals)
        self.protocol = protocol
        self.host = host
        self.port = port
        self.address = ""
        self.allowed = False
        self.reason = ""
        self.problem = ""
        self._at_us = now_us()
        self._started_s = time.monotonic()

    def went_wrong(self, error: Exception) -> None:
        """Keep why it was refused, or failed; the first such counts."""
        if self.problem:
            return
        if isinstance(error, Refused):
            self.allowed, self.reason = False, str(error.reason)
        if isinstance(error, TimeoutError) and not str(error):
            self.problem = "nothing came in time"
        elif isinstance(error, OSError):
            self.problem = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
        else:
            self.problem = str(error)

    def refuse(self, reason: Reason, problem: str) -> None:
        self.went_wrong(Refused(reason, problem))

    def flow(self) -> Flow:
        return Flow(
            host=self.host,
            port=self.port,
            allowed=self.allowed,
            address=self.address,
            problem=self.problem,
            sent_bytes=self.counted.sent_bytes,
            received_bytes=self.counted.received_bytes,
            wall_s=time.monotonic() - self._started_s,
            at_us=self._at_us,
            protocol=self.protocol,
            reason=self.reason,
        )
