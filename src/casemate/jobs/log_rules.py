"""How long the logs of jobs are kept: by the runtime, by the kind of job, or as all others. Pure."""

from __future__ import annotations

import msgspec

from casemate.job_limits import LOG_RETENTION_DAYS


class LogRules(msgspec.Struct, frozen=True, kw_only=True):
    """`of`: days for a runtime, or for a kind of jobs: `command`, `code` or `scheduled`. `days`: for all others."""

    days: int = LOG_RETENTION_DAYS
    of: dict[str, int] = {}

    def kept_days(self, runtime: str, kind: str) -> int:
        """For a log of that runtime and kind; what says more comes first."""
        return self.of.get(runtime, self.of.get(kind, self.days))
