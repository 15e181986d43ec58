"""What takes long for one tenant, or one sandbox, is done once at a time for it; others do not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from casemate import network_limits
from casemate.blobs.objects import Objects
from casemate.blobs.protocol import Blob
from casemate.blobs.uploads import Uploads
from casemate.egress.connecting import Connector, Unreachable
from casemate.egress.names import Names
from casemate.egress.policy import Rules
from casemate.jobs.logs import Logs, Wanted
from casemate.model.network import NetworkPolicy
from casemate.object_config import read_objects

PATIENCE_S = 60
ROUNDS = 20
"""Of the loop: far more than any task here needs to come to where it waits."""


class Slow:
    """Whoever comes is noted, and waits until all may go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_go_on = asyncio.Event()

    async def wait(self, whose: str) -> None:
        self.begun.append(whose)
        await self.may_go_on.wait()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, PATIENCE_S))


async def settled() -> None:
    for _ in range(ROUNDS):
        await asyncio.sleep(0)


# Lists of objects ---------------------------------------------------------------------------------


class SlowBlobs:
    """There is nothing, and that takes long to find out."""

    def __init__(self) -> None:
        self.slow = Slow()

    async def list(self, prefix: str) -> AsyncIterator[Blob]:
        await self.slow.wait(prefix.partition("/")[0])
        nothing: tuple[Blob, ...] = ()
        for blob in nothing:
            yield blob


def test_s9_one_list_of_a_tenants_objects_is_made_at_a_time() -> None:
    async def main() -> None:
        blobs = SlowBlobs()
        objects = Objects(blobs, read_objects({}))  # type: ignore[arg-type]
        uploads = Uploads(objects)
        asked = [
            asyncio.create_task(objects.list("ten_a", "shared/", limit=1)),
            asyncio.create_task(objects.list("ten_a", "", limit=1)),
            asyncio.create_task(uploads._count("ten_a")),
            asyncio.create_task(objects.list("ten_b", "shared/", limit=1)),
        ]
        await settled()
        assert blobs.slow.begun == ["ten_a", "ten_b"]
        blobs.slow.may_go_on.set()
        await asyncio.gather(*asked)
        assert blobs.slow.begun == ["ten_a", "ten_b", "ten_a", "ten_a"]

    run(main())


def test_s9_a_list_that_is_given_up_leaves_the_turn_to_the_next() -> None:
    async def main() -> None:
        blobs = SlowBlobs()
        objects = Objects(blobs, read_objects({}))  # type: ignore[arg-type]
        first, second = (asyncio.create_task(objects.list("ten_a", "", limit=1)) for _ in range(2))
        await settled()
        first.cancel()
        await asyncio.wait([first])
        await settled()
        assert blobs.slow.begun == ["ten_a", "ten_a"]
        blobs.slow.may_go_on.set()
        assert (await second).items == ()

    run(main())


# Searches of logs ---------------------------------------------------------------------------------


def test_s9_one_search_in_a_tenants_logs_is_made_at_a_time_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        slow = Slow()
        logs = Logs(None, None, None)  # type: ignore[arg-type]

        async def searched(tenant_id: str, *_: Any) -> None:
            await slow.wait(tenant_id)

        for name in ("_search", "_holding"):
            monkeypatch.setattr(logs, name, searched)
        asked = [
            asyncio.create_task(logs.search("ten_a", Wanted(text="x"), limit=1)),
            asyncio.create_task(logs.search("ten_a", Wanted(text="y"), limit=1)),
            asyncio.create_task(logs.holding("ten_a", "x", limit=1)),
            asyncio.create_task(logs.holding("ten_b", "x", limit=1)),
        ]
        await settled()
        assert slow.begun == ["ten_a", "ten_b"]
        slow.may_go_on.set()
        await asyncio.gather(*asked)
        assert slow.begun == ["ten_a", "ten_b", "ten_a", "ten_a"]

    run(main())


# Names --------------------------------------------------------------------------------------------


class SlowNames(Names):
    """Nobody answers, for long; then there is no such name."""

    def __init__(self) -> None:
        super().__init__([])
        self.slow = Slow()

    async def _question(self, name: str, kind: str) -> str:
        if kind == "A":
            await self.slow.wait(name)
        return f"{name} does not exist"


def connector(names: Names) -> Connector:
    rules = Rules(NetworkPolicy(outbound=True, allowed_hosts=("*.example",)))
    return Connector(rules, names, asyncio.get_running_loop().time())


async def looked_up(way: Connector, name: str) -> None:
    with pytest.raises(Unreachable):
        await way.admitted(name)


def test_n17_names_whose_servers_do_not_answer_keep_no_other_sandbox_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_limits, "WAY_LOOKUPS_MAX", 3)

    async def main() -> None:
        names = SlowNames()
        hostile, other = connector(names), connector(names)
        wanted = [f"n{number}.example" for number in range(8)]
        asked = [asyncio.create_task(looked_up(hostile, name)) for name in wanted]
        await settled()
        assert names.slow.begun == wanted[:3]
        asked.append(asyncio.create_task(looked_up(other, "other.example")))
        await settled()
        assert names.slow.begun == [*wanted[:3], "other.example"]
        names.slow.may_go_on.set()
        await asyncio.gather(*asked)
        assert sorted(names.slow.begun) == sorted([*wanted, "other.example"])

    run(main())


def test_n17_lookups_of_all_sandboxes_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_limits, "LOOKUPS_MAX", 2)

    async def main() -> None:
        names = SlowNames()
        asked = [asyncio.create_task(looked_up(connector(names), f"n{number}.example")) for number in range(5)]
        await settled()
        assert len(names.slow.begun) == 2
        names.slow.may_go_on.set()
        await asyncio.gather(*asked)
        assert len(names.slow.begun) == 5

    run(main())
