"""Backups: everything that there is, whole or not at all, and nothing that a hostile one would like."""

from __future__ import annotations

import asyncio
import io
import os
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.records import ending, opened, with_execution, with_tenant

from casemate.backup import archive
from casemate.backup.archive import Archive, Head, Reader, header, parsed
from casemate.backup.service import PARTS, back_up, restore
from casemate.blobs.envelope import MasterKeys
from casemate.blobs.local import LocalBlobs
from casemate.errors import CasemateError, Conflict, InvalidInput, RecordsDamaged
from casemate.model.units import format_bytes
from casemate.store import executions
from casemate.store.schema import REVISIONS
from casemate.tenancy.secrets import open_signing

KEYS = MasterKeys((b"k" * 32,))
HEAD = Head(format=1, version="0", schema=REVISIONS[-1], made_at="2030-01-01T00:00:00+00:00", has=PARTS)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _put(directory: Path, objects: dict[str, bytes]) -> None:
    blobs = LocalBlobs(directory, KEYS)
    for key, content in objects.items():
        await blobs.put(key, _pieces(content), size_max_bytes=len(content))


async def _objects(directory: Path) -> dict[str, bytes]:
    blobs = LocalBlobs(directory, KEYS)
    found = {}
    for tenant in ("ten_one", "ten_two"):
        async for blob in blobs.list(f"{tenant}/"):
            found[blob.key] = b"".join([piece async for piece in blobs.get(blob.key)])
    return found


def made_objects() -> dict[str, bytes]:
    return {
        f"{tenant}/{name}": os.urandom(size)
        for tenant in ("ten_one", "ten_two")
        for name, size in (("shared/a", 0), ("shared/b/c", 10), ("jobs/x/output/y", 3_000_000), ("templates/t", 1))
    }


def rows(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    found = list(connection.iterdump())
    connection.close()
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "service"
    made.mkdir(mode=0o700)
    open_signing(made)
    return made


def test_s2_93_everything_comes_back_as_it_was(data: Path, tmp_path: Path) -> None:
    objects = made_objects()
    asyncio.run(_put(data / "objects", objects))
    with opened(data / "records.sqlite") as database:
        owner = with_tenant(database)
        for number in range(100):
            execution_id = with_execution(database, owner, labels={"n": str(number)})
            database.write_now(
                partial(executions.end, tenant_id=owner, execution_id=execution_id, ending=ending(result=b"\0" * 99))
            )
        made = back_up(data, tmp_path / "backup.tar")
        before = rows(data / "records.sqlite")
    restored = tmp_path / "elsewhere" / "service"
    assert restore(tmp_path / "backup.tar", restored).files == made.files - 1
    assert rows(restored / "records.sqlite") == before
    assert asyncio.run(_objects(restored / "objects")) == objects
    assert (restored / "secrets/signing.key").read_bytes() == (data / "secrets/signing.key").read_bytes()
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in (restored, *restored.rglob("*"))}
    assert modes == {0o700, 0o600}
    assert open_signing(restored).notice_secrets("x") == open_signing(data).notice_secrets("x")
    with opened(restored / "records.sqlite") as database:
        assert database.read_now(partial(executions.unfinished, tenant_id=None)) == 0


def test_s2_93_what_was_acknowledged_before_is_in_a_backup_that_is_made_meanwhile(data: Path, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    enough, stop = threading.Event(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            acknowledged.append(with_execution(database, owner))
            if len(acknowledged) == 200:
                enough.set()

    with opened(data / "records.sqlite") as database:
        owner = with_tenant(database)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            enough.wait(60)
            for number in range(3):
                before = list(acknowledged)
                back_up(data, tmp_path / f"{number}.tar")
                restore(tmp_path / f"{number}.tar", tmp_path / str(number))
                with opened(tmp_path / str(number) / "records.sqlite") as copy:
                    for execution_id in before[-50:]:
                        copy.read_now(partial(executions.get, tenant_id=owner, execution_id=execution_id))
                    assert copy.read_now(partial(executions.unfinished, tenant_id=owner)) >= len(before)
        finally:
            stop.set()
            writer.join()


def test_a_backup_is_for_its_owner_alone_and_takes_nothings_place(data: Path, tmp_path: Path) -> None:
    with opened(data / "records.sqlite"):
        pass
    target = tmp_path / "backup.tar"
    back_up(data, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(Conflict, match="is there already"):
        back_up(data, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "service"]


def test_a_backup_that_fails_leaves_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CasemateError, match="there are no records"):
        back_up(data, tmp_path / "backup.tar")
    with pytest.raises(CasemateError, match="cannot be written"):
        back_up(data, tmp_path / "nowhere" / "backup.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["service"]


def test_others_can_read_it(data: Path, tmp_path: Path) -> None:
    """It is a tar like any other."""
    asyncio.run(_put(data / "objects", made_objects()))
    with opened(data / "records.sqlite"):
        pass
    made = back_up(data, tmp_path / "backup.tar")
    with tarfile.open(tmp_path / "backup.tar") as found:
        members = found.getmembers()
        assert all(each.isreg() and each.mode == 0o600 for each in members)
        assert len(members) == made.files + 1
        head = found.extractfile("casemate-backup.json")
        assert head is not None
        assert msgspec.json.decode(head.read())["schema"] == REVISIONS[-1]


def test_parts_that_are_elsewhere_are_left_out(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "backup.tar", ("secrets",))
    restore(tmp_path / "backup.tar", tmp_path / "new")
    assert sorted(str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*")) == [
        "secrets",
        "secrets/signing.key",
    ]


def test_it_is_put_back_where_nothing_is(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "backup.tar", ("secrets",))
    with pytest.raises(Conflict, match="is not empty"):
        restore(tmp_path / "backup.tar", data)
    (tmp_path / "empty").mkdir()
    restore(tmp_path / "backup.tar", tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(Conflict):
        restore(tmp_path / "backup.tar", tmp_path / "file")


# What is hostile ----------------------------------------------------------------------------------


def refused(tmp_path: Path, content: bytes) -> CasemateError:
    """How putting that back ends, of which nothing is left."""
    source = tmp_path / "hostile.tar"
    source.write_bytes(content)
    here = sorted(tmp_path.iterdir())
    with pytest.raises(CasemateError) as raised:
        restore(source, tmp_path / "target")
    assert sorted(tmp_path.iterdir()) == here
    return raised.value


def written(fill: Callable[[Archive], object], head: Head = HEAD) -> bytes:
    file = io.BytesIO()
    made = Archive(file, head)
    fill(made)
    made.end()
    return file.getvalue()


HOSTILE_NAMES = [
    "../../etc/x",
    "/abs",
    "a/../../b",
    "",
    ".",
    "secrets/../x",
    "secrets//x",
    "secrets/x\0y",
    "secrets/.hidden",
    "secrets/" + 101 * "x",
    "objects/" + "a/" * 20 + "b",
    "objects/é",
    "objects\\x",
    "run/node.sock",
    "secrets",
    "other.sqlite",
    "records.sqlite/x",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_f8_s17_a_name_that_leads_elsewhere_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(archive, "check_name", lambda each: each)
        try:
            content = written(lambda made: made._add_bytes(name, b"x"))
        except ValueError:  # no header holds it
            return
    assert isinstance(refused(tmp_path, content), InvalidInput | RecordsDamaged)


def _tar(*members: tarfile.TarInfo) -> bytes:
    """An archive with members that we never write, between what is ours."""
    ours = written(lambda _: None)
    blocks = b"".join(each.tobuf(tarfile.GNU_FORMAT) for each in members)
    at = 512 + 512  # head and its content
    return ours[:at] + blocks + ours[at:]


def _member(kind: bytes, name: str = "secrets/x", link: str = "/etc/passwd") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


@pytest.mark.parametrize(
    "kind",
    [
        *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE),
        *(tarfile.CONTTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE),
    ],
)
def test_s17_links_devices_and_extensions_are_refused(tmp_path: Path, kind: bytes) -> None:
    assert isinstance(refused(tmp_path, _tar(_member(kind))), InvalidInput | RecordsDamaged)


def test_s17_a_size_that_is_not_there_takes_no_room(tmp_path: Path) -> None:
    ours = written(lambda _: None)
    huge = header("secrets/x", 2**60)
    assert "ends before its end" in refused(tmp_path, ours[:1024] + huge + ours[1024:]).message


def test_a_file_that_comes_twice_is_refused(tmp_path: Path) -> None:
    def twice(made: Archive) -> None:
        for _ in range(2):
            made._add_bytes("secrets/x", b"x")

    assert "File exists" in refused(tmp_path, written(twice)).message


def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    for changes in ({"format": 2}, {"schema": "9999"}, {"has": ("records", "moods")}):
        head = msgspec.structs.replace(HEAD, **changes)
        assert isinstance(refused(tmp_path, written(lambda _: None, head)), InvalidInput)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"x" * 512, bytes(2000), b"\xff" * 600):
        refused(tmp_path, content)
    refused(tmp_path, _tar()[512:])


def test_records_that_are_damaged_are_refused(tmp_path: Path) -> None:
    bad = written(lambda made: made._add_bytes("records.sqlite", b"SQLite format 3\0" + b"\xff" * 5000))
    assert isinstance(refused(tmp_path, bad), RecordsDamaged)
    assert isinstance(refused(tmp_path, written(lambda _: None)), RecordsDamaged)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made = tmp_path_factory.mktemp("whole") / "service"
    made.mkdir(mode=0o700)
    open_signing(made)
    asyncio.run(_put(made / "objects", {"ten_one/shared/a": b"abc"}))
    back_up(made, made.parent / "backup.tar", ("objects", "secrets"))
    return (made.parent / "backup.tar").read_bytes()


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_a_changed_or_shortened_backup_is_never_put_back(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, cut: bool
) -> None:
    content_end = len(whole) - 1024
    at %= content_end
    changed = whole[:at] + (b"" if cut else bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    target = tmp_path_factory.mktemp("changed")
    source = target / "backup.tar"
    source.write_bytes(changed)
    try:
        restore(source, target / "data")
    except CasemateError:
        assert [path.name for path in target.iterdir()] == ["backup.tar"]
    else:  # it was the padding of a block
        restore_whole = target / "whole.tar"
        restore_whole.write_bytes(whole)
        restore(restore_whole, target / "other")
        for path in (target / "other").rglob("*"):
            twin = target / "data" / path.relative_to(target / "other")
            assert path.is_dir() or path.read_bytes() == twin.read_bytes()


@given(name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}(/[A-Za-z0-9_][a-z]{0,9}){0,3}", fullmatch=True))
def test_headers_are_read_as_they_were_written(name: str) -> None:
    for size_bytes in (0, 1, 8**11 - 1, 8**11, 2**70):
        assert parsed(header(name, size_bytes)) == (name, size_bytes)


@given(st.binary(min_size=512, max_size=512))
def test_any_block_is_a_header_or_an_error(block: bytes) -> None:
    try:
        parsed(block)
    except CasemateError:
        return
    raise AssertionError("nobody writes that by chance")


def test_files_beyond_eight_gigabytes_are_as_gnu_writes_them() -> None:
    found = tarfile.TarInfo.frombuf(header("objects/x", 2**40), "ascii", "strict")
    assert (found.name, found.size, found.isreg()) == ("objects/x", 2**40, True)


def test_entries_are_read_in_order() -> None:
    def fill(made: Archive) -> None:
        for number in range(5):
            made._add_bytes(f"secrets/{number}", bytes(number * 300))

    content = written(fill)
    reader = Reader(io.BytesIO(content))
    assert [(each.name, len(b"".join(each.pieces()))) for each in reader.entries()] == [
        (f"secrets/{n}", n * 300) for n in range(5)
    ]


# The commands --------------------------------------------------------------------------------------


def casemate(*words: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "casemate", *words]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_what_is_kept_elsewhere_is_copied_by_its_own_tools(data: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "backup.tar")
    server = {"CASEMATE_SERVICE_DATABASE": "postgresql://nobody@localhost/nothing"}
    status, said = casemate("backup", target, "--data", str(data), **server)
    assert (status, "pg_dump" in said, "--without records" in said) == (125, True, True)
    config = tmp_path / "config.toml"
    config.write_text('[objects]\nstore = "s3://bucket/prefix"\n')
    status, said = casemate("backup", target, "--data", str(data), "--config", str(config))
    assert (status, "--without objects" in said) == (125, True)
    words = ("--without", "objects", "--without", "records", "--config", str(config))
    status, said = casemate("backup", target, "--data", str(data), *words, **server)
    assert (status, said.endswith(f"{target}: secrets; 2 files, {_size(target)}\n")) == (0, True), said


def _size(target: str) -> str:
    with tarfile.open(target) as found:
        sizes = [each.size for each in found.getmembers()]
    return format_bytes(sum(sizes[:-1]))


def test_commands_say_what_they_lack(data: Path, tmp_path: Path) -> None:
    assert casemate("backup", "x", "--data", str(data), "--without", "moods")[0] == 2
    status, said = casemate("restore", "x")
    assert (status, "needs --data DIR" in said) == (2, True)
    status, said = casemate("restore", str(tmp_path / "nothing"), "--data", str(tmp_path / "new"))
    assert (status, f"put back: {tmp_path / 'nothing'}: No such file" in said) == (125, True)
    assert not (tmp_path / "new").exists()
    status, said = casemate("backup", str(tmp_path / "x"), "--data", str(tmp_path / "nothing"))
    assert (status, "hint: name the service's directory: --data DIR" in said) == (125, True)
