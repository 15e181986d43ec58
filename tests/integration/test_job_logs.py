"""Logs of jobs: every line once, in its order, bounded, found again."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.integration.job_logs import NOW_US, Bench, Printer, bench, printed_by

from casemate import job_limits as limits
from casemate.blobs.protocol import Blob
from casemate.errors import InvalidInput, RecordsUnavailable
from casemate.jobs import log_writer
from casemate.jobs.log_attempt import AttemptLog
from casemate.jobs.log_rules import LogRules
from casemate.jobs.logs import Wanted
from casemate.model.result import Chunk
from casemate.store import job_logs as rows
from casemate.store import tenants
from casemate.store.database import Records


async def never() -> bool:
    return False


async def at_once() -> bool:
    return True


def test_s2_6_lines_are_told_while_the_job_runs(tmp_path: Path) -> None:
    async def told() -> None:
        async with bench(tmp_path) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            following = found.logs.follow(found.tenant, "job_1", 0, never)
            await prints(b"begun\n")
            assert [line.text for line in await anext(following)] == ["begun"]
            await prints(b"an error\n", "stderr")
            assert [(line.stream, line.seq) for line in await anext(following)] == [("stderr", 2)]
            await following.aclose()

    asyncio.run(told())


def test_a_line_without_an_end_is_told_after_a_while_and_goes_on_in_the_next(tmp_path: Path) -> None:
    async def told() -> None:
        async with bench(tmp_path) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            following = found.logs.follow(found.tenant, "job_1", 0, never)
            await prints("10 % é".encode()[:-1])
            first = (await anext(following))[0]
            assert (first.text, first.partial, first.offset) == ("10 % ", True, 0)
            await prints("é".encode()[1:] + b" done\n")
            second = (await anext(following))[0]
            assert (second.text, second.partial, second.offset) == ("é done", False, 5)
            await following.aclose()

    asyncio.run(told())


def test_a_log_is_what_was_printed_whatever_that_is(tmp_path: Path) -> None:
    """S2.6: hostile bytes: halves of characters, zeros, control sequences, lines without end."""
    chance = random.Random(7)
    hostile = [b"\xff\xfe\n", b"\0\n", b"\x1b[2J\x1b]0;x\x07\n", b"\r\n", b"\n", b"x" * 40_000, "é✓𝄞".encode(), b"\n"]

    async def kept() -> None:
        async with bench(tmp_path) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            expected = {"stdout": b"", "stderr": b""}
            for _ in range(300):
                data = chance.choice(hostile)
                cut = chance.randrange(len(data) + 1)
                stream = chance.choice(["stdout", "stderr"])
                for part in (data[:cut], data[cut:]):
                    expected[stream] += part
                    await prints(part, stream)
            await prints.log.close()
            lines = await found.all()
            for stream, data in expected.items():
                assert printed_by(lines, stream).removesuffix(b"\n") == data.removesuffix(b"\n")
            assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
            assert max(len(line.data) for line in lines) <= limits.LOG_LINE_MAX_BYTES + 1

    asyncio.run(kept())


def test_numbers_of_lines_go_on_over_attempts_and_restarts(tmp_path: Path, place: str | Path) -> None:
    async def attempt(number: int, tenant: str = "") -> tuple[str, list[tuple[int, int, str | None]]]:
        async with bench(tmp_path, place=place, tenant=tenant) as found:
            prints = Printer(found.logs.open(found.job(), number))
            await prints(b"one\ntwo\n")
            await prints.log.close()
            return found.tenant, [(line.seq, line.attempt, line.text) for line in await found.all()]

    tenant, lines = asyncio.run(attempt(1))
    assert lines == [(1, 1, "one"), (2, 1, "two")]
    assert asyncio.run(attempt(2, tenant))[1][2:] == [(3, 2, "one"), (4, 2, "two")]
    assert asyncio.run(attempt(1, tenant))[1][4:] == [(5, 1, "one"), (6, 1, "two")]


def test_s2_64_a_thousand_cuts_of_the_connection_lose_no_line_and_double_none(tmp_path: Path) -> None:
    chance = random.Random(11)

    async def followed() -> None:
        async with bench(tmp_path) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            has_ended = asyncio.Event()

            async def printing() -> None:
                for number in range(5_000):
                    await prints(f"line {number}\n".encode())
                    if number % 5 == 0:
                        await asyncio.sleep(0)
                await prints.log.close()
                has_ended.set()

            async def is_over() -> bool:
                return has_ended.is_set()

            task = asyncio.create_task(printing())
            told: list[tuple[int, str | None]] = []
            cuts = 0
            while cuts < 1_000 or not task.done() or len(told) < 5_000:
                left = chance.randrange(1, 4)
                async for lines in found.logs.follow(found.tenant, "job_1", told[-1][0] if told else 0, is_over):
                    # The connection is cut within what is told: so far it has come.
                    arrived = lines if cuts >= 1_000 else lines[: chance.randrange(1, min(len(lines), 8) + 1)]
                    told += [(line.seq, line.text) for line in arrived]
                    left -= 1
                    if not left or len(arrived) < len(lines):
                        break
                cuts += 1
            await task
            assert told == [(number + 1, f"line {number}") for number in range(5_000)]

    asyncio.run(followed())


def test_nothing_is_told_that_is_not_recorded(tmp_path: Path) -> None:
    async def followed() -> None:
        async with bench(tmp_path) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            following = found.logs.follow(found.tenant, "job_1", 0, never)
            for number in range(20):
                await prints(f"{number}\n".encode())
                told = await anext(following)
                assert told == [line for line in await found.all() if line.seq >= told[0].seq]
            await following.aclose()

    asyncio.run(followed())


@pytest.mark.parametrize("line", [b"x" * 79 + b"\n", b"\n", b"y" * 100_000])
def test_a_job_that_prints_without_end_is_bounded_and_its_last_lines_are_kept(tmp_path: Path, line: bytes) -> None:
    """What ten gigabytes do, with bounds that a hundredth of a gigabyte exceeds, too."""
    kept_bytes = 2 * 1024 * 1024

    async def printed() -> None:
        async with bench(tmp_path, kept_max_bytes=kept_bytes) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            piece = line * max(1, 65_536 // len(line))
            for _ in range(100 * 1024 * 1024 // len(piece)):
                await prints(piece)
            await prints(b"\nthe last line\n")
            await prints.log.close()
            log = await found.logs.find(found.tenant, "job_1")
            assert log is not None
            assert log.total_bytes == prints.offsets["stdout"]
            assert log.size_bytes <= kept_bytes + 2 * limits.LOG_PIECE_MAX_BYTES
            assert log.lines < log.next_seq - 1
            assert (await found.logs.last(found.tenant, "job_1", 1))[0].text == "the last line"
            first = await found.logs.after(found.tenant, "job_1", 0, limit=50)
            assert [each.seq for each in first] == list(range(1, len(first) + 1))
            assert (tmp_path / "records.db").stat().st_size < 16 * kept_bytes

    asyncio.run(printed())


def test_an_attempt_that_somebody_else_has_taken_over_writes_no_more(tmp_path: Path, place: str | Path) -> None:
    async def written() -> None:
        async with bench(tmp_path, place=place) as found:
            old = Printer(found.logs.open(found.job(), 1))
            await old(b"old\n")
            await old.log.close()
            stale = Printer(found.logs.open(found.job(), 2))
            await stale(b"second\n")
            async for _ in found.logs.follow(found.tenant, "job_1", 1, never):
                break
            await found.printed("third\n")
            await stale(b"too late\n")
            await stale.log.close()
            assert [line.text for line in await found.all()] == ["old", "second", "third"]

    asyncio.run(written())


def test_records_that_take_nothing_for_a_while_lose_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_WRITE_PAUSE_S", 0.0)
    real = rows.append
    failures = iter([True, True, False])

    def failing(*arguments: object) -> object:
        if next(failures, False):
            raise RecordsUnavailable("full", "the disk is full")
        return real(*arguments)  # type: ignore[arg-type]

    async def written() -> None:
        async with bench(tmp_path) as found:
            monkeypatch.setattr(rows, "append", failing)
            await found.printed("kept\n")
            assert [line.text for line in await found.all()] == ["kept"]

    asyncio.run(written())


def test_lines_that_find_no_room_are_left_out_and_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_WRITE_PAUSE_S", 0.0)
    real = rows.append

    def failing(*_: object) -> object:
        raise RecordsUnavailable("full", "the disk is full")

    async def written() -> None:
        async with bench(tmp_path) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            await prints(b"first\n")
            await found.writer.next_change(prints.log.key)
            monkeypatch.setattr(rows, "append", failing)
            await prints(b"lost\nlost\n")
            await found.writer.next_change(prints.log.key)
            monkeypatch.setattr(rows, "append", real)
            await prints(b"last\n")
            await prints.log.close()
            assert [(line.seq, line.text) for line in await found.all()] == [(1, "first"), (4, "last")]

    asyncio.run(written())


def test_a_short_job_costs_one_piece_however_it_prints(tmp_path: Path) -> None:
    async def written() -> None:
        async with bench(tmp_path) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            for number in range(50):
                await prints(f"{number}\n".encode(), "stderr" if number % 2 else "stdout")
            await prints.log.close()
            pieces = await found.database.read(
                lambda records: rows.pieces_after(records, found.tenant, "job_1", 0, limit=100)
            )
            assert [piece.lines for piece in pieces] == [50]

    asyncio.run(written())


def test_what_was_told_before_is_not_fed_twice(tmp_path: Path) -> None:
    async def written() -> None:
        async with bench(tmp_path) as found:
            log = found.logs.open(found.job(), 1)
            for offset, data in ((0, b"ab\ncd"), (3, b"cde\n"), (9, b"after a gap\n")):
                await log.feed(Chunk("stdout", data, offset), NOW_US)
            await log.close()
            lines = await found.all()
            assert [(line.seq, line.text, line.offset) for line in lines] == [
                (1, "ab", 0),
                (2, "cde", 3),
                (4, "after a gap", 9),
            ]

    asyncio.run(written())


# Searching ----------------------------------------------------------------------------------------


async def texts(found: Bench, wanted: Wanted) -> list[tuple[str, str | None]]:
    page = await found.logs.search(found.tenant, wanted, limit=100)
    return [(each.job_id, each.line.text) for each in page.items]


def test_s2_65_lines_are_found_by_job_text_time_level_and_stream(tmp_path: Path, place: str | Path) -> None:
    async def all_of_it() -> None:
        async with bench(tmp_path, place=place) as found:
            searched = partial(texts, found)
            await found.printed("Connection refused by Ünder_42\nall is well\n", "job_a")
            await found.printed("WARN connections are slow\n", "job_b", stream="stderr", runtime="python", code="1")
            prints = Printer(found.logs.open(found.job("job_c"), 1))
            await prints(b'{"level": "error", "message": "disk full"}\n', at_us=NOW_US + 5)
            await prints.log.close()
            assert await searched(Wanted(text="connection")) == [
                ("job_b", "WARN connections are slow"),
                ("job_a", "Connection refused by Ünder_42"),
            ]
            assert await searched(Wanted(text="REFUSED ünder")) == [("job_a", "Connection refused by Ünder_42")]
            assert await searched(Wanted(text="onnection")) == []
            assert await searched(Wanted(text="refused", job_id="job_b")) == []
            assert await searched(Wanted(text="well", job_id="job_a")) == [("job_a", "all is well")]
            assert await searched(Wanted(level="error")) == [("job_c", '{"level": "error", "message": "disk full"}')]
            assert await searched(Wanted(stream="stderr")) == await searched(Wanted(level="warning"))
            assert await searched(Wanted(runtime="python")) == await searched(Wanted(kind="code"))
            assert [job for job, _ in await searched(Wanted(since_us=NOW_US + 1))] == ["job_c"]
            assert [job for job, _ in await searched(Wanted(until_us=NOW_US + 1))] == ["job_b", "job_a", "job_a"]
            assert await found.logs.holding(found.tenant, "connection", limit=10) == ("job_b", "job_a")
            assert await found.logs.holding(found.tenant, "connection", limit=1) == ("job_b",)
            assert (await found.logs.search("ten_other", Wanted(text="connection"), limit=10)).items == ()
            with pytest.raises(InvalidInput, match="text"):
                await searched(Wanted(text="***"))

    asyncio.run(all_of_it())


def test_pages_of_a_search_have_every_line_once(tmp_path: Path, place: str | Path) -> None:
    async def paged() -> None:
        async with bench(tmp_path, place=place) as found:
            for job in range(30):
                await found.printed("".join(f"hit {job}/{line}\nmiss\n" for line in range(job % 7)), f"job_{job}")
            seen: list[str | None] = []
            cursor = None
            while True:
                page = await found.logs.search(found.tenant, Wanted(text="hit"), limit=4, cursor=cursor)
                seen += [each.line.text for each in page.items]
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert seen == [f"hit {job}/{line}" for job in reversed(range(30)) for line in reversed(range(job % 7))]

    asyncio.run(paged())


def test_a_search_looks_into_a_bounded_number_of_pieces_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_PIECES_A_SEARCH_MAX", 8)

    async def paged() -> None:
        async with bench(tmp_path) as found:
            await found.printed("the one\n", "job_first")
            for job in range(20):
                await found.printed("nothing\n", f"job_{job}")
            pages = 1
            page = await found.logs.search(found.tenant, Wanted(level="info", stream="stdout", text=""), limit=100)
            while page.next_cursor is not None:
                pages += 1
                last = page
                page = await found.logs.search(found.tenant, Wanted(), limit=100, cursor=last.next_cursor)
            assert pages == 3
            assert page.items[-1].line.text == "the one"

    asyncio.run(paged())


# Moving and forgetting ----------------------------------------------------------------------------


def test_s2_20_the_log_of_a_job_is_a_file_in_its_area(tmp_path: Path, place: str | Path) -> None:
    async def moved() -> None:
        async with bench(tmp_path, place=place) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            following = found.logs.follow(found.tenant, "job_1", 0, never)
            for number in range(200):
                await prints(f"line {number}\n".encode())
                await anext(following)
            await following.aclose()
            assert await found.move() == 0
            await prints.log.close()
            before = await found.all()
            assert await found.move() == 1
            assert await found.objects() == ["jobs/job_1/logs/000000000001.jsonl.gz"]
            key = f"{found.tenant}/jobs/job_1/logs/000000000001.jsonl.gz"
            data = b"".join([piece async for piece in found.blobs.get(key)])
            assert [json.loads(line)["text"] for line in gzip.decompress(data).splitlines()] == [
                f"line {number}" for number in range(200)
            ]
            assert await found.all() == before
            log = await found.logs.find(found.tenant, "job_1")
            assert log is not None
            assert (log.is_moved, log.lines, log.size_bytes) == (True, 200, prints.offsets["stdout"])
            assert await texts(found, Wanted(text="line 42")) == [("job_1", "line 42")]
            assert await found.move() == 0

    asyncio.run(moved())


def test_a_log_goes_on_after_it_was_moved(tmp_path: Path, place: str | Path) -> None:
    async def moved() -> None:
        async with bench(tmp_path, place=place) as found:
            for attempt in (1, 2, 3):
                prints = Printer(found.logs.open(found.job(), attempt))
                await prints(f"attempt {attempt}\n".encode() * 2)
                await prints.log.close()
                assert await found.move() == 1
            lines = await found.all()
            assert [(line.seq, line.attempt) for line in lines] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3)]
            assert len(await found.objects()) == 3
            assert [line.seq for line in await found.logs.last(found.tenant, "job_1", 3)] == [4, 5, 6]

    asyncio.run(moved())


def test_a_large_log_is_moved_in_segments_and_its_end_is_found_then(tmp_path: Path, place: str | Path) -> None:
    async def moved() -> None:
        async with bench(tmp_path, place=place, kept_max_bytes=2 * 1024 * 1024) as found:
            prints = Printer(found.logs.open(found.job(), 1))
            for number in range(60_000):
                await prints(f"number {number} {'x' * 100}\n".encode())
            await prints(b"treasure\n")
            await prints.log.close()
            before = await found.all()
            assert await found.logs.holding(found.tenant, "treasure", limit=1) == ()
            await found.move()
            assert await found.all() == before
            assert await found.logs.holding(found.tenant, "treasure", limit=1) == ("job_1",)
            pieces = await found.database.read(
                lambda records: rows.pieces_after(records, found.tenant, "job_1", 0, limit=100)
            )
            assert 1 < len(pieces) < 10

    asyncio.run(moved())


def test_s2_66_logs_are_forgotten_by_rules_for_runtimes_and_kinds(tmp_path: Path, place: str | Path) -> None:
    day_us = 24 * 3600 * 1_000_000

    async def swept() -> None:
        async with bench(tmp_path, place=place) as found:
            await found.printed("1\n", "job_python", runtime="python", code="1")
            await found.printed("2\n", "job_node", runtime="node", code="1")
            await found.printed("3\n", "job_command")
            await found.move()
            keeper = found.keeper(LogRules(days=7, of={"python": 30, "code": 1}))
            assert await keeper.sweep(NOW_US + 2 * day_us) == 1
            assert {name.split("/")[1] for name in await found.objects()} == {"job_python", "job_command"}
            assert await keeper.sweep(NOW_US + 8 * day_us) == 1
            assert await keeper.sweep(NOW_US + 29 * day_us) == 0
            assert len(await found.all("job_python")) == 1
            assert await keeper.sweep(NOW_US + 31 * day_us) == 1
            assert await found.objects() == []
            assert await texts(found, Wanted()) == []

    asyncio.run(swept())


def test_a_log_that_cannot_be_deleted_holds_up_no_other(tmp_path: Path) -> None:
    async def swept() -> None:
        async with bench(tmp_path) as found:
            for identity in ("job_1", "job_bad", "job_2"):
                await found.printed("old\n", identity)
            await found.move()
            real = found.blobs.delete

            async def delete(key: str) -> bool:
                if "job_bad" in key:
                    raise RecordsUnavailable("full", "the disk is full")
                return await real(key)

            found.blobs.delete = delete  # type: ignore[method-assign]
            assert await found.keeper().sweep(3 * NOW_US) == 2
            assert [name.split("/")[1] for name in await found.objects()] == ["job_bad"]
            found.blobs.delete = real  # type: ignore[method-assign]
            assert await found.keeper().sweep(3 * NOW_US) == 1

    asyncio.run(swept())


def test_a_log_whose_object_is_gone_has_no_lines_there(tmp_path: Path, place: str | Path) -> None:
    async def gone() -> None:
        async with bench(tmp_path, place=place) as found:
            await found.printed("gone\n")
            await found.move()
            await found.blobs.delete(f"{found.tenant}/jobs/job_1/logs/000000000001.jsonl.gz")
            await found.printed("there\n")
            assert [line.text for line in await found.all()] == ["there"]
            await found.logs.delete(found.tenant, "job_1")
            await found.logs.delete(found.tenant, "job_1")
            assert await found.logs.find(found.tenant, "job_1") is None

    asyncio.run(gone())


def count_of(table: str, records: Records) -> object:
    return records.execute(text(f"select count(*) from {table}")).scalar()


def test_of_a_tenant_that_is_deleted_no_word_is_kept(tmp_path: Path, place: str | Path) -> None:
    async def deleted() -> None:
        async with bench(tmp_path, place=place) as found:
            await found.printed("a secret\n")
            await found.database.write(partial(tenants.remove, tenant_id=found.tenant))
            await found.printed("too late\n", "job_2")
            for name in ("job_logs", "job_log_pieces", "job_log_words"):
                assert await found.database.read(partial(count_of, name)) == 0

    asyncio.run(deleted())


def test_two_attempts_that_overlap_both_come_to_their_end(tmp_path: Path) -> None:
    async def written() -> None:
        async with bench(tmp_path) as found:
            first = Printer(found.logs.open(found.job(), 1))
            second = Printer(found.logs.open(found.job(), 2))
            await first(b"first\n")
            await second(b"second\n")
            await asyncio.gather(first.log.close(), second.log.close())
            assert [line.seq for line in await found.all()] == [1, 2]

    asyncio.run(written())


def test_what_is_wrong_with_one_log_loses_no_line_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rows.append

    def failing(records: Records, new: Sequence[rows.NewPiece], kept: rows.Kept) -> list[rows.Written]:
        assert all(each.job_id != "job_bad" for each in new), "a mistake of ours"
        return real(records, new, kept)

    async def written() -> None:
        async with bench(tmp_path) as found:
            monkeypatch.setattr(rows, "append", failing)
            await asyncio.gather(*(found.printed("kept\n", identity) for identity in ("job_1", "job_bad", "job_2")))
            assert len(await found.all("job_1")) == len(await found.all("job_2")) == 1
            assert await found.all("job_bad") == []

    asyncio.run(written())


def test_a_log_that_is_deleted_while_it_is_moved_leaves_no_object(tmp_path: Path) -> None:
    async def deleted() -> None:
        async with bench(tmp_path) as found:
            await found.printed("gone\n")
            real = found.blobs.put

            async def put(*arguments: Any, **options: Any) -> Blob:
                made = await real(*arguments, **options)
                await found.logs.delete(found.tenant, "job_1")
                return made

            found.blobs.put = put  # type: ignore[method-assign]
            await found.move()
            assert await found.objects() == []

    asyncio.run(deleted())


def test_a_log_of_more_pieces_than_a_statement_takes_parameters_is_deleted(tmp_path: Path, place: str | Path) -> None:
    """As a job leaves it that has printed a line a second for a day, and is deleted when it ends."""
    last = 70_000
    columns = (
        "tenant_id, job_id, attempt, first_seq, last_seq, lines, size_bytes, begin_place, end_place, "
        "first_at_us, last_at_us, data, object_key, object_offset, data_bytes"
    )
    more = text(
        f"INSERT INTO job_log_pieces ({columns}) "
        "WITH RECURSIVE counted(seq) AS (SELECT 2 UNION ALL SELECT seq + 1 FROM counted WHERE seq < :last) "
        "SELECT tenant_id, job_id, attempt, counted.seq, counted.seq, lines, size_bytes, begin_place, end_place, "
        "first_at_us, last_at_us, data, object_key, object_offset, data_bytes FROM job_log_pieces, counted"
    )

    async def deleted() -> None:
        async with bench(tmp_path, place=place) as found:
            await found.printed("1\n")
            await found.database.write(lambda records: records.execute(more, {"last": last}))
            assert await found.database.read(partial(count_of, "job_log_pieces")) == last
            await found.printed("kept\n", "job_2")
            await found.logs.delete(found.tenant, "job_1")
            for name in ("job_logs", "job_log_pieces", "job_log_words"):
                assert await found.database.read(partial(count_of, name)) == 1

    asyncio.run(deleted())


@pytest.mark.parametrize("place", ["portion", "settle", "has_more", "_made"])
def test_a_mistake_with_one_log_stalls_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """Wherever it is: the job that prints goes on, its log is closed, and it is counted and logged."""
    mistakes: list[int] = []

    async def printed() -> None:
        async with bench(tmp_path, on_mistake=lambda: mistakes.append(1)) as found:
            bad = found.logs.open(found.job("job_bad"), 1)
            inject(monkeypatch, bad, place)
            good = Printer(found.logs.open(found.job("job_good"), 1))
            prints = Printer(bad)
            for number in range(3):
                await prints(f"bad {number}\n".encode() * 100_000)  # more than is held, so that it waits
                await good(f"good {number}\n".encode())
            await bad.close()
            await bad.close()
            await good.log.close()
            assert [line.text for line in await found.all("job_good")] == ["good 0", "good 1", "good 2"]
            assert not found.writer.open_count
            await found.printed("after\n", "job_after")
            assert [line.text for line in await found.all("job_after")] == ["after"]

    asyncio.run(asyncio.wait_for(printed(), 60))
    assert mistakes
    assert {record.__dict__["job"] for record in caplog.records if record.levelname == "ERROR"} == {"job_bad"}


def inject(monkeypatch: pytest.MonkeyPatch, bad: AttemptLog, place: str) -> None:
    """A mistake of ours that comes up with one log alone."""
    owner: Any = log_writer if place == "_made" else AttemptLog
    real: Any = getattr(owner, place)
    carried_out: Any = real.fget if isinstance(real, property) else real

    def fails(log: AttemptLog, *rest: Any) -> Any:
        if log is bad:
            raise LookupError("a mistake")
        return carried_out(log, *rest)

    monkeypatch.setattr(owner, place, property(fails) if isinstance(real, property) else fails)
