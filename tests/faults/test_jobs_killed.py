"""`kill -9` of the API, the node and whatever runs below it while jobs run: each ends exactly once in the records."""

from __future__ import annotations

import pytest
from bench.job_chaos import chaos


@pytest.mark.slow
def test_s2_90_s2_71_every_job_ends_once_whatever_is_killed() -> None:
    told: list[str] = []
    assert chaos(jobs=90, kills=5, seed=1, told=told.append) == [], "\n".join(told)
