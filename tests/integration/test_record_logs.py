"""Records of what functions print, of what workers use, and of the service's own settings."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.integration.records import Place, opened, with_tenant

from casemate.api import upkeep
from casemate.config import Config
from casemate.errors import Conflict, InvalidInput
from casemate.jobs.config import load_jobs
from casemate.service_config import load_service
from casemate.service_limits import (
    FUNCTION_LOG_TEXT_MAX_CHARS,
    ITEM_ID_MAX_CHARS,
    LOG_LINES_A_WRITE_MAX,
    SAMPLES_A_WRITE_MAX,
    SETTING_MAX_BYTES,
)
from casemate.store import logs, samples, settings, tenants
from casemate.store.database import Database
from casemate.store.logs import Filters, Line, NewLine
from casemate.store.samples import Sample

if TYPE_CHECKING:
    from casemate.api.state import State

DAY_US = 24 * 3600 * 1_000_000


# Logs ---------------------------------------------------------------------------------------------


def line(tenant_id: str, text: str = "said", **changes: Any) -> NewLine:
    values: dict[str, Any] = {"runtime": "python", "function": "f", "execution_id": "exe_1", "stream": logs.STDOUT}
    return NewLine(tenant_id=tenant_id, text=text, **(values | {"at_us": 1} | changes))


def write(database: Database, *lines: NewLine) -> None:
    database.write_now(partial(logs.insert_lines, lines=lines))


def read(database: Database, tenant_id: str, **filters: Any) -> list[str]:
    asked = partial(logs.list_lines, tenant_id=tenant_id, filters=Filters(**filters))
    return [found.text for found in database.read_now(asked).items]


def test_lines_are_read_as_they_were_written_the_last_first(database: Database) -> None:
    owner = with_tenant(database)
    write(database, line(owner, "a", version=3, item_id="7", stream=logs.STDERR), line(owner, "b"))
    found = database.read_now(partial(logs.list_lines, tenant_id=owner)).items
    assert [one.text for one in found] == ["b", "a"]
    assert found[1] == Line(
        id=found[1].id,
        tenant_id=owner,
        runtime="python",
        function="f",
        version=3,
        execution_id="exe_1",
        item_id="7",
        stream="stderr",
        text="a",
        at_us=1,
    )


def test_lines_are_found_by_what_they_are_of(database: Database) -> None:
    owner, other = with_tenant(database), with_tenant(database, "other")
    write(database, line(owner, "g", function="g"), line(owner, "r", runtime="r"), line(owner, "x", execution_id="e"))
    write(database, line(owner, "v", version=2), line(owner, "err", stream=logs.STDERR), line(other, "theirs"))
    write(database, line(owner, "late", at_us=9))
    assert read(database, owner, function="g") == ["g"]
    assert read(database, owner, execution_id="e") == ["x"]
    assert read(database, owner, version=2) == ["v"]
    assert read(database, owner, stream="stderr") == ["err"]
    assert read(database, owner, since_us=9) == ["late"]
    assert read(database, owner, since_us=1, until_us=9, function="g", runtime="r") == []
    assert len(read(database, owner, until_us=9)) == 5
    assert read(database, other) == ["theirs"]


def test_s0_45_what_functions_of_one_language_print_is_found_alone(database: Database) -> None:
    owner, other = with_tenant(database), with_tenant(database, "other")
    write(database, line(owner, "1", runtime="r"), line(owner, "2"), line(owner, "3", runtime="r", function="g"))
    write(database, line(other, "4", runtime="r"))
    assert read(database, owner, runtime="r") == ["3", "1"]
    assert read(database, owner, runtime="python") == ["2"]


def test_s0_37_what_was_printed_longer_ago_than_it_is_kept_is_gone_after_the_sweep(database: Database) -> None:
    owner = with_tenant(database)
    at_us = 100 * DAY_US
    write(database, line(owner, "old", at_us=at_us - 7 * DAY_US - 1), line(owner, "kept", at_us=at_us - 7 * DAY_US))
    database.write_now(partial(samples.insert_samples, samples=[sample(1), sample(at_us)]))
    jobs = SimpleNamespace(settings=load_jobs(Config(), {}))
    parts = SimpleNamespace(config=load_service(Config(), {"HOME": "/home/one"}), database=database, jobs=jobs)
    assert parts.config.log_retention_days == 7
    asyncio.run(upkeep.sweep(cast("State", parts), at_us))
    assert read(database, owner) == ["kept"]
    assert between(database, 0, at_us + 1) == (sample(at_us),)


def test_pages_of_lines_follow_each_other(database: Database) -> None:
    owner = with_tenant(database)
    write(database, *(line(owner, str(number)) for number in range(5)))
    texts: list[str] = []
    cursor = None
    for _ in range(3):
        page = database.read_now(partial(logs.list_lines, tenant_id=owner, limit=2, cursor=cursor))
        texts += [found.text for found in page.items]
        cursor = page.next_cursor
    assert (cursor, texts) == (None, ["4", "3", "2", "1", "0"])


@pytest.mark.parametrize("cursor", ["nonsense", "NS94"])
def test_a_cursor_of_another_list_of_lines_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        database.read_now(partial(logs.list_lines, tenant_id=with_tenant(database), cursor=cursor))


def test_lines_are_cut_to_what_the_records_take(database: Database) -> None:
    owner = with_tenant(database)
    write(database, line(owner, "x" * (FUNCTION_LOG_TEXT_MAX_CHARS + 1), item_id="i" * (ITEM_ID_MAX_CHARS + 1)))
    write(database, line(owner, "half \ud800", item_id="\udfff"))
    found = database.read_now(partial(logs.list_lines, tenant_id=owner)).items
    assert [(len(one.text), len(one.item_id)) for one in found] == [
        (6, 1),
        (FUNCTION_LOG_TEXT_MAX_CHARS, ITEM_ID_MAX_CHARS),
    ]
    with pytest.raises(InvalidInput):
        write(database, *[line(owner)] * (LOG_LINES_A_WRITE_MAX + 1))


def test_lines_of_a_tenant_that_is_gone_take_no_others_with_them(database: Database) -> None:
    owner, gone = with_tenant(database), with_tenant(database, "gone")
    write(database, line(gone))
    database.write_now(partial(tenants.remove, tenant_id=gone))
    write(database, line(gone), line(owner, "mine"))
    write(database, line(gone))
    write(database)
    assert (read(database, owner), read(database, gone)) == (["mine"], [])


def test_old_lines_are_swept_in_steps(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SWEEP_MAX_COUNT", 2)
    owner = with_tenant(database)
    write(database, *(line(owner, str(at_us), at_us=at_us) for at_us in range(5)))
    swept = [database.write_now(partial(logs.sweep, before_us=3)) for _ in range(3)]
    assert (swept, read(database, owner)) == ([2, 1, 0], ["4", "3"])


# Samples ------------------------------------------------------------------------------------------


def sample(at_us: int, **changes: Any) -> Sample:
    values: dict[str, Any] = {"worker_id": "w1", "memory_bytes": at_us * 1000}
    return Sample(at_us=at_us, **(values | changes))


def add(database: Database, *added: Sample) -> None:
    database.write_now(partial(samples.insert_samples, samples=added))


def between(database: Database, since_us: int, until_us: int, **changes: Any) -> tuple[Sample, ...]:
    asked = partial(samples.list_samples, since_us=since_us, until_us=until_us)
    return database.read_now(partial(asked, **({"worker_id": "w1"} | changes)))


def test_samples_of_a_worker_come_in_their_order(database: Database) -> None:
    full = sample(5, node="n", runtime="javascript", tenant_id="ten_x", execution_id="exe_x", heap_used_bytes=2**40)
    add(database, full, sample(3), sample(4), sample(4, worker_id="w2"))
    add(database)
    assert between(database, 0, 100) == (sample(3), sample(4), full)
    assert between(database, 4, 5) == (sample(4),)
    assert between(database, 0, 100, worker_id="w2") == (sample(4, worker_id="w2"),)
    assert between(database, 0, 100, worker_id="w3") == ()


def test_of_too_many_samples_the_last_are_read(database: Database) -> None:
    add(database, *(sample(at_us) for at_us in range(10)))
    assert [found.at_us for found in between(database, 0, 100, limit=3)] == [7, 8, 9]
    with pytest.raises(InvalidInput):
        add(database, *[sample(1)] * (SAMPLES_A_WRITE_MAX + 1))


def test_old_samples_are_swept_in_steps(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SWEEP_MAX_COUNT", 2)
    add(database, *(sample(at_us) for at_us in range(5)))
    assert [database.write_now(partial(samples.sweep, before_us=3)) for _ in range(3)] == [2, 1, 0]
    assert [found.at_us for found in between(database, 0, 100)] == [3, 4]


# Settings -----------------------------------------------------------------------------------------


def test_settings_are_kept_by_name(place: Place) -> None:
    with opened(place) as database:
        assert database.read_now(partial(settings.get_setting, name="a")) is None
        database.write_now(partial(settings.put_setting, name="a", value={"x": [1, None]}))
        database.write_now(partial(settings.put_setting, name="a", value={"x": [2]}))
        database.write_now(partial(settings.put_setting, name="b", value=None))
    with opened(place) as database:
        assert database.read_now(partial(settings.get_setting, name="a")) == {"x": [2]}
        assert database.read_now(partial(settings.get_setting, name="b")) is None


def test_settings_are_few_and_small(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SETTINGS_MAX", 1)
    database.write_now(partial(settings.put_setting, name="a", value=1))
    database.write_now(partial(settings.put_setting, name="a", value=2))
    with pytest.raises(Conflict):
        database.write_now(partial(settings.put_setting, name="b", value=1))
    with pytest.raises(InvalidInput, match="a: has more than"):
        database.write_now(partial(settings.put_setting, name="a", value="x" * SETTING_MAX_BYTES))
