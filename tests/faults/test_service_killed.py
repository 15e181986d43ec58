"""The API and the node are killed under load: what was accepted has an end, and nothing is left."""

from __future__ import annotations

import pytest
from bench.service_chaos import VICTIMS, chaos

KILLS = 10
SEED = 4


@pytest.mark.slow
def test_what_was_accepted_has_an_end_however_the_service_is_killed() -> None:
    told: list[str] = []
    assert chaos(KILLS, SEED, told.append) == []
    assert all(any(f" {victim} " in line for line in told) for victim in VICTIMS), told
