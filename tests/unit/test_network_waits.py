"""Flows that come without end hold up nothing else of a run."""

from __future__ import annotations

import os

import pytest

from casemate.engine.network import Network, _awaited
from casemate.isolation.waiting import Wait


def test_a_deadline_is_met_while_flows_come_and_come() -> None:
    with Network() as network:
        steps = _awaited(Wait(deadline_s=0.0), network)
        next(steps)
        os.eventfd_write(network.fd, 1)
        with pytest.raises(StopIteration) as stop:
            steps.send(frozenset({network.fd}))
        assert stop.value.value == frozenset()


def test_a_wait_without_a_deadline_goes_on_after_a_flow() -> None:
    with Network() as network:
        steps = _awaited(Wait(), network)
        wider = next(steps)
        os.eventfd_write(network.fd, 1)
        assert steps.send(frozenset({network.fd})) == wider
        steps.close()
