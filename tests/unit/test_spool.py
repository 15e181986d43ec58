"""What is staged on a node: its names are checked again, its pieces come in order, and it goes when it is to go."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import job_limits as bound
from casemate.errors import CapacityError, ConfigError, Conflict, InvalidInput, NodeUnavailable
from casemate.node import spool as module
from casemate.node.spool import AREAS, Spool, Staged, staged_parts

HOSTILE = [
    "../../etc/x",
    "/abs",
    "a/../../b",
    "",
    ".",
    "..",
    "a/./b",
    "a//b",
    "a/",
    "nul\0",
    "n" * 300,
    "/".join("d" * 40),
    "\udc80",
    "x/" * 3000 + "x",
]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.open()
    return made


def put(
    spool: Spool,
    path: str,
    data: bytes = b"x",
    *,
    tenant: str = "one",
    run: str = "r",
    offset: int = 0,
    mode: int = 0o644,
) -> int:
    return spool.stage(run, ("input", path), offset, data, mode=mode, tenant=tenant)


def everything_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*"))


@pytest.mark.parametrize("path", HOSTILE)
def test_f8_a_name_that_leads_elsewhere_is_refused_and_nothing_is_written(
    spool: Spool, tmp_path: Path, path: str
) -> None:
    with pytest.raises(InvalidInput):
        put(spool, path)
    assert everything_below(tmp_path) == [tmp_path / "spool"]


@given(st.text(alphabet=st.sampled_from("a/.\0\\é\udc80~ ")), st.sampled_from([*AREAS, "output", "..", ""]))
def test_f8_whatever_is_accepted_lies_below_its_area(path: str, area: str) -> None:
    try:
        parts = staged_parts(area, path)
    except InvalidInput:
        return
    assert area in AREAS
    assert os.path.normpath(f"/root/{area}/{path}") == "/".join(["/root", area, *parts])


@pytest.mark.parametrize("run", ["../../x", "a/b", "", "n" * 128, "\udc80"])
def test_f8_the_name_of_a_run_is_no_name_on_the_disk(spool: Spool, tmp_path: Path, run: str) -> None:
    put(spool, "f", run=run)
    (directory,) = (tmp_path / "spool").iterdir()
    assert len(directory.name) == 64
    assert everything_below(directory) == [directory / "input", directory / "input/f"]
    spool.forget(run)
    assert everything_below(tmp_path) == [tmp_path / "spool"]


def test_pieces_come_in_their_order_and_the_first_begins_anew(spool: Spool, tmp_path: Path) -> None:
    assert put(spool, "a/b", b"old content") == 11
    assert put(spool, "a/b", b"new") == 3
    assert put(spool, "a/b", b" end", offset=3) == 7
    for offset in (3, 8, 2**70):
        with pytest.raises(Conflict, match="begins at 7"):
            put(spool, "a/b", offset=offset)
    with pytest.raises(InvalidInput):
        put(spool, "a/b", offset=-1)
    (mount,), links = spool.take("r", 1)
    assert Path(mount.source, "a/b").read_bytes() == b"new end"
    assert (mount.target, mount.kin, links) == ("/work/input", str(tmp_path / "spool"), [("a", "input/a")])


def test_a_name_cannot_be_a_file_and_a_directory(spool: Spool) -> None:
    put(spool, "a")
    put(spool, "d/f")
    for path in ("a/b", "d"):
        with pytest.raises(InvalidInput, match="a file and a directory"):
            put(spool, path)


def test_s2_17_everybody_may_read_what_is_staged_and_nobody_write_it(spool: Spool) -> None:
    put(spool, "data", mode=0o600)
    put(spool, "program", mode=0o700)
    put(spool, "d/odd", mode=0o7777)
    (mount,), _ = spool.take("r", None)
    modes = {
        str(path.relative_to(mount.source)): stat.S_IMODE(path.stat().st_mode) for path in Path(mount.source).rglob("*")
    }
    assert modes == {"data": 0o444, "program": 0o555, "d": 0o755, "d/odd": 0o555}


def test_names_of_the_work_directory_itself_have_no_link(spool: Spool) -> None:
    for path in ("input", "shared/x", "output", "b", "a"):
        put(spool, path)
    assert spool.take("r", 5)[1] == [("a", "input/a"), ("b", "input/b")]


def test_there_are_no_more_links_than_a_plan_has_room_for(spool: Spool) -> None:
    for number in range(bound.LINKS_MAX + 10):
        put(spool, f"{number:03d}")
    assert len(spool.take("r", None)[1]) == bound.LINKS_MAX
    for number in range(bound.LINKS_MAX):
        put(spool, f"{number:03d}" + "é" * 100, run="long")
    links = spool.take("long", None)[1]
    assert links
    assert sum(len(name.encode()) for name, _ in links) <= bound.LINKS_TOTAL_MAX_BYTES


def test_a_run_does_not_begin_without_what_was_staged_for_it(spool: Spool) -> None:
    with pytest.raises(NodeUnavailable, match="1 files were staged for the run, and 0 are there"):
        spool.take("r", 1)
    with pytest.raises(NodeUnavailable, match="not there any more"):
        put(spool, "a", run="other", offset=1)
    assert spool.take("r", 0) == ([], [])
    put(spool, "a")
    with pytest.raises(NodeUnavailable):
        spool.take("r", 2)
    spool.take("r", 1)


def test_nothing_is_added_to_a_run_that_has_begun(spool: Spool) -> None:
    put(spool, "a")
    spool.take("r", None)
    for again in (lambda: put(spool, "b"), lambda: spool.take("r", None)):
        with pytest.raises(Conflict, match="has begun"):
            again()


def test_what_an_earlier_node_has_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "spool"
    (left / "run/input/d").mkdir(parents=True)
    (left / "run/input/d/f").write_bytes(b"x")
    (left / "file").write_bytes(b"x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    (left / "link").symlink_to(outside)
    (left / "run/input/link").symlink_to(outside)
    Spool(left).open()
    assert everything_below(tmp_path) == [outside, outside / "kept", left]


def test_what_nobody_runs_is_forgotten_in_the_end(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    put(spool, "a", run="stale")
    put(spool, "a", run="running")
    spool.take("running", 1)
    clock.now_s = bound.STAGED_AGE_MAX_S + 1
    put(spool, "a", run="new")
    assert len(list((tmp_path / "spool").iterdir())) == 2
    assert spool.take("stale", 0) == ([], [])


def test_forgetting_is_idempotent_and_the_name_is_free_again(spool: Spool) -> None:
    put(spool, "a", b"one")
    spool.forget("r")
    spool.forget("r")
    put(spool, "b")
    assert [name for name, _ in spool.take("r", 1)[1]] == ["b"]


def test_staging_has_its_bounds(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="a piece has at most"):
        put(spool, "a", bytes(bound.PIECE_MAX_BYTES + 1))
    monkeypatch.setattr(bound, "STAGED_TOTAL_MAX_BYTES", 5)
    put(spool, "a", b"12345")
    put(spool, "a", b"123")  # in its place
    put(spool, "a", b"45", offset=3)
    with pytest.raises(InvalidInput, match="bytes together"):
        put(spool, "b", b"1")
    monkeypatch.setattr(bound, "STAGED_FILES_MAX", 1)
    with pytest.raises(InvalidInput, match="more than 1"):
        put(spool, "b", b"")
    monkeypatch.setattr(bound, "STAGED_RUNS_MAX", 1)
    with pytest.raises(CapacityError, match="as many runs"):
        put(spool, "a", run="other")
    monkeypatch.setattr(bound, "SPOOL_FREE_MIN_BYTES", 2**62)
    with pytest.raises(CapacityError, match="disk is full"):
        put(spool, "a")


class Disk:
    """One of so many bytes and files, of which what is staged takes as much as it counts for."""

    def __init__(self, spool: Spool, monkeypatch: pytest.MonkeyPatch, *, size_bytes: int) -> None:
        self.spool = spool
        self.size_bytes = size_bytes
        self.files = self.free_files = 10 * bound.SPOOL_FREE_MIN_FILES
        monkeypatch.setattr("os.statvfs", self.statvfs)

    def statvfs(self, directory: Path) -> SimpleNamespace:
        taken_bytes = sum(each.stat().st_size + bound.STAGED_OVERHEAD_BYTES for each in directory.rglob("*/input/*"))
        free_bytes = bound.SPOOL_FREE_MIN_BYTES + self.size_bytes - taken_bytes
        return SimpleNamespace(f_bavail=free_bytes, f_frsize=1, f_files=self.files, f_favail=self.free_files)

    def fill(self, tenant: str) -> None:
        for number in range(self.size_bytes // 1000):
            put(self.spool, "f", bytes(1000), tenant=tenant, run=f"{tenant}-{number}")

    def filled(self, tenant: str) -> int:
        """How many bytes a tenant can have staged, in many runs, before it is refused."""
        with pytest.raises(CapacityError, match="its share of the node's disk"):
            self.fill(tenant)
        return sum(each.cost_bytes for each in self.spool._runs.values() if each.tenant == tenant)


def test_a_tenant_that_fills_the_disk_leaves_as_much_to_the_next(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(spool, monkeypatch, size_bytes=1_000_000)
    one_bytes = 1000 + bound.STAGED_OVERHEAD_BYTES
    left_bytes = disk.size_bytes
    for tenant in ("greedy", "next", "third"):
        held_bytes = disk.filled(tenant)
        assert left_bytes / 2 - 2 * one_bytes <= held_bytes <= left_bytes / 2 + one_bytes
        left_bytes -= held_bytes
    for run in [name for name, each in spool._runs.items() if each.tenant == "greedy"]:
        spool.forget(run)
    put(spool, "f", bytes(1000), tenant="third", run="again")


def test_a_piece_that_the_disk_has_no_room_for_is_refused_before_it_is_written(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(spool, monkeypatch, size_bytes=1000)
    with pytest.raises(CapacityError, match="disk is full"):
        put(spool, "f", bytes(1001))
    disk.free_files = bound.SPOOL_FREE_MIN_FILES - 1
    with pytest.raises(CapacityError, match="disk is full"):
        put(spool, "f", b"")
    disk.files = 0  # it does not say
    put(spool, "f", b"")


def test_a_link_that_somebody_has_put_there_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"kept")
    root = tmp_path / "run"
    (root / "input").mkdir(parents=True)
    (root / "input/d").symlink_to(outside)
    (root / "input/f").symlink_to(outside / "f")
    staged = Staged(root, "one")
    for parts in (("input", "d", "f"), ("input", "f")):
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            staged.write(parts, 0, b"x", 0o644)
    assert (outside / "f").read_bytes() == b"kept"


def test_nobody_else_enters_the_directory(tmp_path: Path) -> None:
    place = tmp_path / "spool"
    place.mkdir(mode=0o755)
    Spool(place).open()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_place_that_is_no_directory_is_named(tmp_path: Path) -> None:
    place = tmp_path / "spool"
    place.write_bytes(b"")
    with pytest.raises(ConfigError, match="spool cannot be used"):
        Spool(place).open()
