"""What goes on for as long as a service is open, whatever goes wrong in between."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from casemate.errors import RecordsUnavailable
from casemate.recurring import Recurring

if TYPE_CHECKING:
    import pytest


def test_a_turn_that_fails_is_told_and_followed_by_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        fails: list[Exception] = [RecordsUnavailable("io", "nobody answers"), KeyError("ours")]
        turns, is_well = 0, asyncio.Event()

        async def turn() -> None:
            nonlocal turns
            turns += 1
            if fails:
                raise fails.pop(0)
            is_well.set()
            await asyncio.Event().wait()

        async with Recurring(turn, name="looking", pause_s=0), asyncio.timeout(10):
            await is_well.wait()
        return turns

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(main()) == 3
    assert [each.getMessage() for each in caplog.records] == [
        "looking: nobody answers",
        "looking: a mistake of ours",
    ]


def test_the_end_is_one_also_where_a_turn_has_something_else_to_say() -> None:
    async def main() -> int:
        turns, has_begun = 0, asyncio.Event()

        async def turn() -> None:
            nonlocal turns
            turns += 1
            has_begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                raise RecordsUnavailable("closed", "the records are closed") from error

        recurring = Recurring(turn, name="looking", pause_s=0)
        await recurring.end()
        async with recurring, asyncio.timeout(10):
            await has_begun.wait()
        return turns

    assert asyncio.run(main()) == 1
