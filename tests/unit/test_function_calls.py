"""What is kept of a batch, however much its functions answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from casemate import service_limits as limits
from casemate.functions.calls import Called, Room, all_results
from casemate.functions.published import _diff
from casemate.model.function import ItemResult
from casemate.model.result import Reason


def test_o1_outputs_that_are_too_much_together_are_errors_of_their_items() -> None:
    async def results() -> AsyncGenerator[Called, None]:
        for number in range(5):
            yield Called(result=ItemResult(id=str(number), success=True, reason=Reason.EXIT, output="x" * 40))

    found = asyncio.run(all_results(results(), Room(100)))
    assert [each.success for each in found] == [True, True, False, False, False]
    assert found[2].reason is Reason.OUTPUT
    assert found[2].output is None


def test_a_large_change_is_told_as_one_and_what_is_around_it_is_not() -> None:
    old = ["same\n", *(f"a{number % 7}\n" for number in range(2000)), "end\n"]
    new = ["same\n", *(f"b{number % 5}\n" for number in range(2000)), "end\n"]
    assert limits.DIFF_LINE_PAIRS_MAX < 2000 * 2000
    text = "".join(_diff(old, new, "f@1", "f@2"))
    removed = [line[1:] for line in text.splitlines(keepends=True)[2:] if line.startswith("-")]
    assert text.startswith("--- f@1\n+++ f@2\n@@ -2,")
    assert "same" not in text
    assert removed == old[1:2001]
