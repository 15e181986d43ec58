"""An engine whose every run takes a sandbox that was made ahead: for suites that are to hold in those as well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import casemate
from casemate import limits
from casemate.engine.run import Run
from casemate.engine.warm import WarmSandbox, warm_key

IS_WARM: Final = os.environ.get("CASEMATE_TEST_WARM") == "1"


def open_engine() -> casemate.Engine:
    """The engine of a suite: without anything made ahead, or with everything, as CASEMATE_TEST_WARM says."""
    return AheadEngine() if IS_WARM else casemate.Engine(warm=False)


class AheadEngine(casemate.Engine):
    """Makes one sandbox ahead of each run and waits for it; a run for which none can be made gets a new one."""

    @contextmanager
    def taken(self, run: Run) -> Iterator[WarmSandbox | None]:
        if run.fresh:
            yield None
            return
        key = warm_key(run)
        is_ready = self.warm.keep(key, 1, limits.LAUNCH_TIMEOUT_S)
        with super().taken(run) as warm:
            self.warm.keep(key, 0, 0.0)
            assert warm is not None or not is_ready
            yield warm
