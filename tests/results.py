"""What tests of more than one kind ask of a Result."""

from __future__ import annotations

import casemate


def kinds_of(result: casemate.Result) -> set[str]:
    """The kinds of its events."""
    return {event.kind for event in result.events}
