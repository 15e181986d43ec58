"""How objects are sealed: whatever is changed, left out, added or put elsewhere is found."""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.ciphers import aead
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casemate.blobs import envelope, sealed
from casemate.blobs.envelope import MasterKeys, keys_in, open_keys, rotate_keys
from casemate.blobs.local import LocalBlobs
from casemate.blobs.pieces import pieces_of
from casemate.blobs.protocol import Blob
from casemate.errors import ConfigError, RecordsDamaged
from casemate.object_config import KEY_VARIABLE
from casemate.object_limits import MASTER_KEYS_MAX, OBJECT_CHUNK_BYTES

FIRST, SECOND = MasterKeys((b"1" * 32,)), MasterKeys((b"2" * 32,))
KEY: Final = "ten_a/shared/x"
DATA: Final = random.Random(3).randbytes(2 * OBJECT_CHUNK_BYTES + 100)
MARK: Final = b"the plain text that nobody may find"


def put(directory: Path, key: str, data: bytes, keys: MasterKeys = FIRST) -> Path:
    """Write an object; its file."""
    before = set(files(directory))
    asyncio.run(LocalBlobs(directory, keys).put(key, pieces_of(data), size_max_bytes=len(data)))
    (path,) = set(files(directory)) - before
    return path


def get(directory: Path, key: str = KEY, keys: MasterKeys = FIRST) -> bytes:
    async def read() -> bytes:
        return b"".join([piece async for piece in LocalBlobs(directory, keys).get(key)])

    return asyncio.run(read())


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_s2_27_neither_content_nor_name_stands_on_the_disk(tmp_path: Path) -> None:
    path = put(tmp_path, "ten_a/jobs/salaries/output/names-of-people.csv", MARK * 10_000)
    raw = path.read_bytes()
    assert MARK[:8] not in raw
    for word in (b"ten_a", b"salaries", b"people", b"output"):
        assert word not in raw
        assert word.decode() not in str(path.relative_to(tmp_path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(each.stat().st_mode & 0o077 == 0 for each in tmp_path.rglob("*"))


def test_s2_27_equal_objects_are_not_equal_on_the_disk(tmp_path: Path) -> None:
    one, other = put(tmp_path, "ten_a/shared/1", DATA), put(tmp_path, "ten_a/shared/2", DATA)
    assert not set(_blocks(one.read_bytes())) & set(_blocks(other.read_bytes()))


def _blocks(raw: bytes) -> list[bytes]:
    return [raw[start : start + 16] for start in range(4, len(raw) - 16)]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(place=st.integers(min_value=0, max_value=10**9), bit=st.integers(min_value=0, max_value=7))
def test_s2_27_any_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    directory = tmp_path_factory.getbasetemp() / "flipped"
    path = found[0] if (found := files(directory)) else put(directory, KEY, DATA)
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= 1 << bit
    whole = path.read_bytes()
    path.write_bytes(raw)
    try:
        with pytest.raises(RecordsDamaged):
            get(directory)
    finally:
        path.write_bytes(whole)
    assert get(directory) == DATA


@pytest.mark.parametrize("cut", [1, 16, 100, 116, 117, OBJECT_CHUNK_BYTES, 10**6])
def test_s2_27_what_is_cut_off_or_added_is_found(tmp_path: Path, cut: int) -> None:
    path = put(tmp_path, KEY, DATA)
    raw = path.read_bytes()
    for changed in (raw[:-cut], raw + b"\0" * cut, raw[cut:], raw + raw[-min(cut, len(raw)) :]):
        path.write_bytes(changed)
        with pytest.raises(RecordsDamaged):
            get(tmp_path)


def test_s2_27_a_chunk_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    path = put(tmp_path, KEY, DATA)
    other = put(tmp_path, "ten_a/shared/y", DATA)
    raw, start, size = path.read_bytes(), sealed.head_size_bytes(KEY), sealed.SEALED_CHUNK_BYTES
    first, second = raw[start : start + size], raw[start + size : start + 2 * size]
    foreign = other.read_bytes()[start : start + size]
    for chunks in (second + first, first + first, foreign + second):
        path.write_bytes(raw[:start] + chunks + raw[start + 2 * size :])
        with pytest.raises(RecordsDamaged):
            get(tmp_path)


def test_s2_27_an_object_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    mine = put(tmp_path, KEY, b"mine")
    theirs = put(tmp_path, "ten_b/shared/x", b"theirs")
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(RecordsDamaged):
        get(tmp_path)

    async def listed() -> list[str]:
        return [blob.key async for blob in LocalBlobs(tmp_path, FIRST).list("")]

    assert asyncio.run(listed()) == ["ten_b/shared/x"]


@given(st.binary(max_size=600))
def test_any_bytes_are_a_head_or_damaged(data: bytes) -> None:
    for raw in (data, sealed.MAGIC + data, sealed.sealed_head(BLOB, FIRST.new_key())[: len(data)] + data):
        with pytest.raises(RecordsDamaged):
            sealed.opened_head(raw, FIRST)


BLOB: Final = Blob(key=KEY, size_bytes=5, modified_us=7, digest=hashlib.sha256().hexdigest())


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.text(max_size=200))
def test_a_head_tells_what_was_put_into_it(size: int, modified_us: int, name: str) -> None:
    try:
        blob = Blob(key=name, size_bytes=size, modified_us=modified_us, digest="ab" * 32)
        raw = sealed.sealed_head(blob, FIRST.new_key())
    except UnicodeEncodeError:
        return
    head = sealed.opened_head(raw + b"more", FIRST)
    assert head.blob == blob
    assert head.size_bytes == len(raw) == sealed.head_size_bytes(name)


def test_no_nonce_is_used_twice_with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[bytes, bytes]] = []

    class Cipher:
        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = key, aead.AESGCM(key)

        def encrypt(self, nonce: bytes, data: bytes, bound: bytes | None) -> bytes:
            used.append((self._key, nonce))
            return self._cipher.encrypt(nonce, data, bound)

        def decrypt(self, nonce: bytes, data: bytes, bound: bytes | None) -> bytes:
            return self._cipher.decrypt(nonce, data, bound)

    for module in (sealed, envelope):
        monkeypatch.setattr(module, "AESGCM", Cipher)
    for _ in range(3):
        asyncio.run(LocalBlobs(tmp_path, FIRST).put(KEY, pieces_of(DATA), size_max_bytes=len(DATA)))
        FIRST.seal(b"value", context="here")
    assert len(used) == len(set(used)) == 3 * (4 + 1)
    assert get(tmp_path) == DATA


# Values -------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.text(st.characters(codec="utf-8"), max_size=20))
def test_a_sealed_value_is_read_where_it_belongs_alone(value: bytes, context: str) -> None:
    kept = FIRST.seal(value, context=context)
    assert FIRST.unseal(kept, context=context) == value
    assert len(value) < 8 or value not in kept
    for keys, where in ((FIRST, context + "x"), (SECOND, context)):
        with pytest.raises(RecordsDamaged):
            keys.unseal(kept, context=where)


@given(st.binary(max_size=100), st.data())
def test_a_sealed_value_that_was_changed_is_found(value: bytes, data: st.DataObject) -> None:
    kept = bytearray(FIRST.seal(value, context=""))
    place = data.draw(st.integers(0, len(kept) - 1))
    kept[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RecordsDamaged):
        FIRST.unseal(bytes(kept), context="")
    with pytest.raises(RecordsDamaged):
        FIRST.unseal(bytes(kept[:place]), context="")


# The master key -----------------------------------------------------------------------------------


def test_after_a_rotation_old_objects_are_read_and_new_ones_need_the_new_key(tmp_path: Path) -> None:
    old = open_keys(tmp_path, {}, is_needed=False)
    put(tmp_path / "objects", KEY, b"old", old)
    both = rotate_keys(tmp_path)
    assert get(tmp_path / "objects", KEY, both) == b"old"
    put(tmp_path / "objects", "ten_a/shared/new", b"new", both)
    with pytest.raises(RecordsDamaged, match="not here"):
        get(tmp_path / "objects", "ten_a/shared/new", old)
    assert get(tmp_path / "objects", "ten_a/shared/new", open_keys(tmp_path, {}, is_needed=True)) == b"new"


def test_no_rotation_drops_a_key_that_may_be_needed(tmp_path: Path) -> None:
    first = open_keys(tmp_path, {}, is_needed=False)
    kept = first.seal(b"x", context="")
    for _ in range(MASTER_KEYS_MAX - 1):
        rotate_keys(tmp_path)
    with pytest.raises(ConfigError, match="any may be needed"):
        rotate_keys(tmp_path)
    assert open_keys(tmp_path, {}, is_needed=True).unseal(kept, context="") == b"x"


def test_no_key_is_made_where_something_needs_the_one_that_was_lost(tmp_path: Path) -> None:
    open_keys(tmp_path, {}, is_needed=False)
    (tmp_path / "secrets" / "objects.key").unlink()
    with pytest.raises(ConfigError, match=r"objects\.key"):
        open_keys(tmp_path, {}, is_needed=True)
    assert not (tmp_path / "secrets" / "objects.key").exists()


def test_s2_81_the_key_comes_from_a_file_for_its_owner_alone_or_from_a_variable(tmp_path: Path) -> None:
    made = open_keys(tmp_path, {}, is_needed=False)
    path = tmp_path / "secrets" / "objects.key"
    assert path.stat().st_mode & 0o777 == 0o600
    given_keys = open_keys(tmp_path / "none", {KEY_VARIABLE: path.read_bytes().hex()}, is_needed=True)
    assert given_keys.unseal(made.seal(b"x", context=""), context="") == b"x"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="open to others"):
        open_keys(tmp_path, {}, is_needed=False)


@pytest.mark.parametrize("text", ["", "xyz", "abab", "zz" * 32, "ab" * 31, f"{'ab' * 32},", ",".join(["ab" * 32] * 17)])
def test_s2_81_a_wrong_variable_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        keys_in(text)
    assert caught.value.field == KEY_VARIABLE
    assert not text or text not in str(caught.value)


def test_s2_81_no_key_shows_when_it_is_printed() -> None:
    assert "1" * 8 not in repr(FIRST)
    assert FIRST.new_key().secret.hex() not in repr(FIRST.new_key())


# What dies --------------------------------------------------------------------------------------


DYING: Final = """
import os, sys
from pathlib import Path
from casemate.blobs import files
from casemate.blobs.envelope import MasterKeys

directory, before = Path(sys.argv[1]), sys.argv[2].encode()
key, keys = "ten_a/shared/x", MasterKeys((b"1" * 32,))
path = directory / files.hidden("ten_a") / files.hidden("ten_a/shared") / files.hidden(key)
os.makedirs(directory / "new", 0o700, exist_ok=True)


def put(data):
    writing = files.Writing(directory / "new", key, keys)
    for _ in range(3):
        writing.write(data)
    writing.keep(path, 1)
    writing.close()


def die_at(wanted):
    seen = 0

    def count(event, _):
        nonlocal seen
        if event in {"open", "os.mkdir", "os.rename", "os.remove"}:
            seen += 1
            if seen == wanted:
                os._exit(7)

    sys.addaudithook(count)
    for module, name in ((os, "fdatasync"), (files.Writing, "_write_all")):
        whole = getattr(module, name)
        setattr(module, name, lambda *given, whole=whole: (count("open", ()), whole(*given), count("open", ())))


for step in range(1, 40):
    if before:
        put(before)
    child = os.fork()
    if child == 0:
        die_at(step)
        put(b"the new one" * 20_000)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        reading = files.Reading(path, key, keys, 0)
    except files.NotFound:
        found = b""
    else:
        found = b"".join(iter(reading.read, b""))
        reading.close()
    print(status, {before * 3: "old", b"the new one" * 60_000: "new"}[found], flush=True)
    path.unlink(missing_ok=True)
    if status == 0:
        break
"""


@pytest.mark.parametrize("before", ["", "what was there"])
def test_s2_25_a_write_that_dies_at_any_step_leaves_the_old_object_or_the_new(tmp_path: Path, before: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", DYING, tmp_path, before], capture_output=True, text=True, check=True, timeout=60
    )
    told = [line.split() for line in run.stdout.splitlines()]
    assert [status for status, _ in told] == ["7"] * (len(told) - 1) + ["0"]
    assert len(told) > 8
    assert [what for _, what in told] == sorted((what for _, what in told), reverse=True), (
        "it goes from old to new once"
    )
    assert {told[0][1], told[-1][1]} == {"old", "new"}
    blobs = LocalBlobs(tmp_path, FIRST)
    assert blobs.sweep() > 3
    assert blobs.sweep() == 0
    assert files(tmp_path) == []
