"""What a refusal of the kernel teaches about the machine."""

from __future__ import annotations

import msgspec

from casemate.isolation.host import read_host_facts
from casemate.isolation.stages import Refused
from casemate.isolation.syscalls import WATCHED
from casemate.model.layers import Layer
from casemate.model.spec import Mount

HOST = msgspec.structs.replace(read_host_facts(), overlay_refused=frozenset({"/usr"}), device_nodes=True)
INPUT = Mount("/spool/a/input", "/work/input", "/spool")


def test_a_directory_without_overlay_is_remembered() -> None:
    assert Refused(Layer.PRIVATE_BASE, "/etc").without(HOST, ()).overlay_refused == {"/usr", "/etc"}


def test_of_inputs_that_come_and_go_the_place_that_stays_is_remembered() -> None:
    refused = Refused(Layer.PRIVATE_BASE, INPUT.source)
    assert refused.without(HOST, (INPUT,)).overlay_refused == {"/usr", "/spool"}
    assert refused.is_about((INPUT,))
    assert not Refused(Layer.PRIVATE_BASE, "/usr").is_about((INPUT,))


def test_device_nodes_that_cannot_be_made_are_not_tried_again() -> None:
    known = Refused(Layer.PRIVATE_DEVICES).without(HOST, (INPUT,))
    assert (known.device_nodes, known.overlay_refused) == (False, HOST.overlay_refused)


def test_where_nobody_can_watch_calls_nobody_is_asked_to_again() -> None:
    known = Refused(Layer.WATCHED_CALLS).without(HOST, (INPUT,))
    assert (HOST.watched, known.watched, known.device_nodes) == (WATCHED, (), True)
