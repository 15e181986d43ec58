"""Flows of jobs: written down, listed, followed, counted, forgotten; and as clients and the command line see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

import httpx2
import msgspec
import pytest
from tests.integration.records import with_tenant
from tests.unit.test_sdk_clients import EVENT_STREAM, Body, refused, said

import casemate
from casemate import network_limits as bound
from casemate.api.measures import Measures
from casemate.api.routes.flows import event_of, flow_document
from casemate.cli.flows import line_of
from casemate.cli.main import run
from casemate.errors import InvalidInput, RecordsUnavailable, TooManyRequests
from casemate.jobs.flows import Flows, open_flows
from casemate.model.flow import Flow, FlowEntry
from casemate.store import flows as rows
from casemate.store import tenants
from casemate.store.database import Database, Records
from casemate.store.flows import Filters, NewFlow, StoredFlow
from casemate.store.stored import Stored, count_bytes

GOOD = Flow(host="a.example", port=443, allowed=True, address="93.184.215.14", sent_bytes=10, received_bytes=20,
            wall_s=0.5, at_us=1_000_000, protocol="tls")  # fmt: skip
BAD = Flow(host="b.example", port=22, allowed=False, at_us=2_000_000, protocol="tcp", reason="port", problem="no")


def write(database: Database, tenant_id: str, *found: Flow, job: str = "job_1") -> None:
    new = [NewFlow(tenant_id=tenant_id, job_id=job, attempt=1, flow=flow) for flow in found]
    database.write_now(partial(rows.insert_flows, new=new))


def read(database: Database, tenant_id: str, limit: int = 50, **filters: Any) -> list[StoredFlow]:
    asked = partial(rows.list_flows, tenant_id=tenant_id, filters=Filters(**filters), limit=limit)
    return list(database.read_now(asked).items)


def test_s2_61_allowed_and_refused_attempts_are_recorded_for_each_job(database: Database) -> None:
    owner, other = with_tenant(database), with_tenant(database, "other")
    write(database, owner, GOOD, BAD)
    write(database, other, GOOD, job="job_1")
    bad, good = read(database, owner, job_id="job_1")
    assert (good.host, good.port, good.allowed, good.address) == ("a.example", 443, True, "93.184.215.14")
    assert (good.sent_bytes, good.received_bytes, good.wall_us, good.at_us) == (10, 20, 500_000, 1_000_000)
    assert (bad.host, bad.allowed, bad.reason, bad.problem, bad.attempt) == ("b.example", False, "port", "no", 1)
    assert len(read(database, other)) == 1


def test_flows_are_found_by_job_host_verdict_and_time(database: Database) -> None:
    owner = with_tenant(database)
    write(database, owner, GOOD, BAD)
    write(database, owner, GOOD, job="job_2")
    assert [flow.job_id for flow in read(database, owner, job_id="job_2")] == ["job_2"]
    assert [flow.host for flow in read(database, owner, host="b.example")] == ["b.example"]
    assert [flow.host for flow in read(database, owner, allowed=False)] == ["b.example"]
    assert [flow.host for flow in read(database, owner, since_us=1_500_000)] == ["b.example"]
    assert [flow.host for flow in read(database, owner, until_us=1_500_000)] == ["a.example"] * 2


def test_flows_come_in_pages(database: Database) -> None:
    owner = with_tenant(database)
    write(database, owner, *(msgspec.structs.replace(GOOD, port=port) for port in range(1, 8)))
    found, cursor = [], None
    for _ in range(3):
        page = database.read_now(partial(rows.list_flows, tenant_id=owner, limit=3, cursor=cursor))
        found += [flow.port for flow in page.items]
        cursor = page.next_cursor
    assert (found, cursor) == ([7, 6, 5, 4, 3, 2, 1], None)
    with pytest.raises(InvalidInput):
        database.read_now(partial(rows.list_flows, tenant_id=owner, cursor="MS9saW5l"))


def test_what_a_guest_has_had_its_part_in_is_cut_and_storable(database: Database) -> None:
    owner = with_tenant(database)
    write(database, owner, msgspec.structs.replace(BAD, host="x" * 999, problem="\ud800\0" * 999, reason="r" * 999))
    (found,) = read(database, owner)
    assert (len(found.host), len(found.problem), len(found.reason)) == (253, 300, 64)


def test_of_a_tenant_that_is_gone_nothing_is_written_or_kept(database: Database) -> None:
    owner = with_tenant(database)
    write(database, owner, GOOD)
    database.write_now(partial(tenants.remove, tenant_id=owner))
    write(database, owner, GOOD)
    assert read(database, owner) == []


def test_s2_61_flows_are_forgotten_after_their_own_time(database: Database) -> None:
    owner = with_tenant(database)
    write(database, owner, GOOD, BAD)
    assert database.write_now(partial(rows.sweep, before_us=1_500_000)) == 1
    assert database.write_now(partial(rows.sweep, before_us=1_500_000)) == 0
    assert [flow.host for flow in read(database, owner)] == ["b.example"]


def test_s2_61_flows_are_told_as_they_come_each_once(database: Database) -> None:
    owner = with_tenant(database)

    async def told() -> list[int]:
        async with open_flows(database, lambda _: None) as flows:
            found: list[int] = []
            following = flows.follow(owner, Filters(job_id="job_1"), await flows.last_id())
            async with aclosing(following) as pieces:  # type: ignore[type-var]
                for port in range(1, 1200):
                    flows.note(owner, "job_1", 1, msgspec.structs.replace(GOOD, port=port))
                    flows.note(owner, "job_2", 1, GOOD)
                async for piece in pieces:
                    found += [flow.port for flow in piece]
                    if len(found) == 1199:
                        return found
        raise AssertionError("it has ended")

    assert asyncio.run(told()) == list(range(1, 1200))


def test_what_waits_is_written_down_at_the_end(database: Database) -> None:
    owner = with_tenant(database)

    async def noted() -> None:
        async with open_flows(database, lambda _: None) as flows:
            flows.note(owner, "job_1", 1, GOOD)

    asyncio.run(noted())
    assert len(read(database, owner)) == 1


def test_more_than_can_be_written_is_counted_and_thrown_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casemate.network_limits.FLOWS_WAITING_MAX", 6)
    owner = with_tenant(database)

    async def noted() -> None:
        flows = Flows(database)
        for _ in range(5):
            flows.note(owner, "job_1", 1, GOOD)
        assert flows.dropped == {owner: 2}
        await flows.flush()
        assert not flows.dropped

    asyncio.run(noted())
    assert len(read(database, owner)) == 3


def test_s2_61_the_flood_of_one_tenant_takes_no_flow_of_another_and_does_not_go_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "FLOWS_WAITING_MAX", 100)
    monkeypatch.setattr(bound, "FLOWS_A_WRITE_MAX", 2)
    greedy, other = with_tenant(database, "greedy"), with_tenant(database, "other")
    written: list[str] = []
    insert = rows.insert_flows

    def noting(connection: Records, new: list[NewFlow]) -> None:
        written.extend(each.tenant_id for each in new)
        insert(connection, new)

    monkeypatch.setattr(rows, "insert_flows", noting)

    async def noted() -> None:
        flows = Flows(database)
        for _ in range(1000):
            flows.note(greedy, "job_1", 1, BAD)
        for _ in range(3):
            flows.note(other, "job_1", 1, GOOD)
        assert flows.dropped == {greedy: 950}
        await flows.flush()

    asyncio.run(noted())
    assert written[:6] == [greedy, other] * 3
    assert len(read(database, other)) == 3
    assert len(written) == 53


def test_flows_that_the_records_do_not_take_are_written_later_each_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, fails = with_tenant(database), [RecordsUnavailable("io", "nobody answers")]
    insert = rows.insert_flows

    def fails_once(connection: Records, new: list[NewFlow]) -> None:
        if fails:
            raise fails.pop()
        insert(connection, new)

    monkeypatch.setattr(rows, "insert_flows", fails_once)

    async def noted() -> None:
        flows = Flows(database)
        flows.note(owner, "job_1", 1, GOOD)
        await flows.flush()
        flows.note(owner, "job_1", 1, BAD)
        await flows.flush()

    asyncio.run(noted())
    assert [flow.host for flow in read(database, owner)] == ["b.example", "a.example"]


def test_flows_count_for_what_a_tenant_has_in_the_records(database: Database) -> None:
    owner = with_tenant(database)
    database.stored = Stored(2 * bound.FLOW_BYTES)

    async def noted() -> None:
        flows = Flows(database)
        for _ in range(3):
            flows.note(owner, "job_1", 1, GOOD)
        assert flows.dropped == {owner: 1}
        await flows.flush()

    asyncio.run(noted())
    assert database.read_now(count_bytes) == {owner: 2 * bound.FLOW_BYTES}


def test_followers_are_bounded_and_each_tenants_as_well(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "FLOW_FOLLOWERS_A_TENANT_MAX", 1)
    monkeypatch.setattr(bound, "FLOW_FOLLOWERS_MAX", 2)
    tenants_of = [with_tenant(database, name) for name in ("one", "two", "three")]

    async def refused() -> None:
        flows = Flows(database)
        for tenant_id in tenants_of[:2]:
            write(database, tenant_id, GOOD)
            following = flows.follow(tenant_id, Filters(), 0)
            assert len(await anext(aiter(following))) == 1
            with pytest.raises(TooManyRequests, match="by 1 already"):
                await anext(aiter(flows.follow(tenant_id, Filters(), 0)))
            followed.append(following)
        with pytest.raises(TooManyRequests, match="by 2 already"):
            await anext(aiter(flows.follow(tenants_of[2], Filters(), 0)))
        for following in followed:
            await following.aclose()  # type: ignore[attr-defined]
        write(database, tenants_of[2], GOOD)
        assert await anext(aiter(flows.follow(tenants_of[2], Filters(), 0)))

    followed: list[AsyncIterator[list[StoredFlow]]] = []
    asyncio.run(refused())


def test_s2_69_refused_connections_raise_a_counter() -> None:
    measures = Measures()
    for flow in (GOOD, BAD, msgspec.structs.replace(BAD, reason="what a node may say", protocol="?")):
        measures.observe_flow(flow)
    text = measures.text().decode()
    assert 'casemate_flows_total{protocol="tls",reason="",verdict="allowed"} 1.0' in text
    assert 'casemate_flows_total{protocol="tcp",reason="port",verdict="refused"} 1.0' in text
    assert 'casemate_flows_total{protocol="other",reason="other",verdict="refused"} 1.0' in text
    assert 'casemate_flow_bytes_total{direction="received"} 20.0' in text


# Clients ------------------------------------------------------------------------------------------------


def stored(number: int, flow: Flow = GOOD) -> StoredFlow:
    values = {name: getattr(flow, name) for name in Flow.__struct_fields__ if name != "wall_s"}
    return StoredFlow(id=number, tenant_id="ten_1", job_id="job_1", attempt=1, wall_us=int(flow.wall_s * 1e6), **values)


class Cutting:
    """A service that cuts its stream after each flow."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if "event-stream" not in request.headers["accept"]:
            items = [flow_document(stored(2, BAD)), flow_document(stored(1))]
            return said({"items": items, "next_cursor": None})
        self.asked.append(request.headers.get("last-event-id", ""))
        place = int(self.asked[-1] or 0) + 1
        if place > self.count:
            return refused(request)
        return httpx2.Response(200, headers=EVENT_STREAM, stream=Body(event_of(stored(place)), breaks=True))


CLIENT = casemate.Client


def client_for(service: Cutting) -> casemate.Client:
    return CLIENT("http://127.0.0.1:1", "cm_x", transport=httpx2.MockTransport(service), attempts=9)


def test_flows_that_are_followed_over_cut_connections_are_told_once() -> None:
    service = Cutting(3)
    with client_for(service) as client:
        following = client.flows.follow(job="job_1", allowed=True)
        found = [next(following).id for _ in range(3)]
        with pytest.raises(casemate.CasemateError):
            next(following)
    assert found == [1, 2, 3]
    assert service.asked[:4] == ["", "1", "2", "3"]


def test_a_list_of_flows_is_read_as_values() -> None:
    with client_for(Cutting(0)) as client:
        bad, good = client.flows.list(limit=5)
    assert (good.host, good.allowed, good.wall_s, good.at.timestamp()) == ("a.example", True, 0.5, 1.0)
    assert (bad.reason, bad.problem) == ("port", "no")


def test_s2_61_the_command_line_shows_flows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Cutting(2)
    monkeypatch.setattr("casemate.sdk.client.Client", lambda *_: client_for(service))
    assert run(["flows", "--job", "job_1", "--limit", "5"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "a.example:443 (93.184.215.14) allowed, 10 B sent, 20 B received" in shown[0]
    assert "b.example:22 refused (port), no" in shown[1]
    assert run(["flows", "--json"]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [1, 2]
    assert run(["flows", "-f"]) != 0
    assert len([line for line in capsys.readouterr().out.splitlines() if "a.example" in line]) == 2


def test_nothing_in_a_line_moves_a_cursor() -> None:
    document = flow_document(stored(1, msgspec.structs.replace(BAD, problem="\x1b[2J")))
    entry = msgspec.convert(document, FlowEntry, strict=False)
    assert "\x1b" not in line_of(entry)
