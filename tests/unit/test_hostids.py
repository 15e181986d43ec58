from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from casemate import limits
from casemate.errors import CapacityError, SandboxClosed
from casemate.kernel.hostids import HostIds

FIRST = limits.UID_RANGE_START
BLOCK = limits.UID_BLOCK_COUNT


def test_ids_on_loan_differ(tmp_path: Path) -> None:
    with HostIds(str(tmp_path), first=FIRST, count=2 * BLOCK) as ids:
        values = {ids.lease().value for _ in range(2 * BLOCK)}
        assert values == set(range(FIRST, FIRST + 2 * BLOCK))


def test_range_that_is_used_up_is_an_error_until_one_comes_back(tmp_path: Path) -> None:
    with HostIds(str(tmp_path), first=FIRST, count=3) as ids:
        leases = [ids.lease() for _ in range(3)]
        with pytest.raises(CapacityError, match=f"{FIRST} to {FIRST + 2}"):
            ids.lease()
        leases[1].release()
        assert ids.lease().value == leases[1].value


def test_id_that_came_back_waits_behind_all_others(tmp_path: Path) -> None:
    with HostIds(str(tmp_path), first=FIRST, count=4) as ids:
        seen = []
        for _ in range(8):
            with ids.lease() as lease:
                seen.append(lease.value)
        assert seen == 2 * list(range(FIRST, FIRST + 4))


def test_next_engine_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    seen = []
    for _ in range(5):
        with HostIds(str(tmp_path), first=FIRST, count=4) as ids, ids.lease() as lease:
            seen.append(lease.value - FIRST)
    assert seen == [0, 1, 2, 3, 0]


def test_giving_back_twice_is_giving_back_once(tmp_path: Path) -> None:
    with HostIds(str(tmp_path), first=FIRST, count=2) as ids:
        lease = ids.lease()
        lease.release()
        lease.release()
        assert {ids.lease().value for _ in range(2)} == {FIRST, FIRST + 1}


def test_engines_never_share_an_id_whatever_their_ranges(tmp_path: Path) -> None:
    with (
        HostIds(str(tmp_path), first=FIRST, count=4 * BLOCK) as one,
        HostIds(str(tmp_path), first=FIRST + BLOCK // 2, count=2 * BLOCK) as two,
    ):
        taken = [engine.lease().value for _ in range(BLOCK) for engine in (one, two)]
        assert len(set(taken)) == 2 * BLOCK
        assert all(value // BLOCK != other // BLOCK for value, other in zip(taken[::2], taken[1::2], strict=True))


def test_small_range_that_another_engine_holds_is_used_up(tmp_path: Path) -> None:
    with HostIds(str(tmp_path), first=FIRST, count=4) as one, HostIds(str(tmp_path), first=FIRST, count=4) as two:
        one.lease()
        with pytest.raises(CapacityError):
            two.lease()


def test_ids_of_a_killed_engine_are_free_at_once(tmp_path: Path) -> None:
    code = "import sys; from casemate.kernel.hostids import HostIds; ids = HostIds(sys.argv[1], first=512, count=9)\n"
    code += "print(ids.lease().value, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"512\n"
        with HostIds(str(tmp_path), first=512, count=9) as ids:
            with pytest.raises(CapacityError):
                ids.lease()
            other.kill()
            other.wait()
            assert ids.lease().value == 513


def test_threads_get_different_ids(tmp_path: Path) -> None:
    taken: list[int] = []
    with HostIds(str(tmp_path), first=FIRST, count=8 * BLOCK) as ids:
        threads = [
            threading.Thread(target=lambda: taken.extend(ids.lease().value for _ in range(100))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(taken)) == 800


def test_closed_ids_are_closed_and_leave_no_descriptor(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    ids = HostIds(str(tmp_path), first=FIRST, count=4)
    lease = ids.lease()
    ids.close()
    ids.close()
    lease.release()
    with pytest.raises(SandboxClosed):
        ids.lease()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_directory_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with HostIds(str(tmp_path / "file" / "ids")) as ids, pytest.raises(CapacityError, match="no host ids"):
        ids.lease()


def test_lock_file_is_never_followed_elsewhere(tmp_path: Path) -> None:
    (tmp_path / f"{FIRST}.lock").symlink_to(tmp_path / "elsewhere")
    with HostIds(str(tmp_path), first=FIRST, count=4) as ids, pytest.raises(CapacityError):
        ids.lease()
    assert not (tmp_path / "elsewhere").exists()


def test_unreadable_note_in_a_lock_file_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / f"{FIRST}.lock").write_bytes(b"\xff\x00 nonsense that is long")
    with HostIds(str(tmp_path), first=FIRST, count=4) as ids:
        assert ids.lease().value == FIRST


def test_lock_directory_is_private(tmp_path: Path) -> None:
    with HostIds(str(tmp_path / "deep" / "ids"), first=FIRST, count=4) as ids:
        ids.lease()
    assert (tmp_path / "deep" / "ids").stat().st_mode & 0o777 == 0o700
