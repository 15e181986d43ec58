"""Zygotes that a package has taken over: whatever they tell the engine, it is not the engine that does their work."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec
import pytest

import casemate
from casemate import limits
from casemate.engine.drive import drive
from casemate.engine.execution import start_process
from casemate.engine.program import Command
from casemate.engine.request import InputFile
from casemate.engine.run import prepare_code
from casemate.engine.transfer import write_files
from casemate.engine.warm import WarmKey, warm_key
from casemate.engine.zygote import start_zygote
from casemate.errors import FileTransferError, InternalError, LaunchError
from casemate.isolation.native import NativeSandbox
from casemate.isolation.nursery import Nursery
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.model.spec import Mount

PROGRAM: Final = Path(__file__).parent / "probes" / "hostile_zygote.py"
FORK: Final = Command(argv=("python",), environment={}, cwd="/work", stdin=b"0", request=b"", forked=True)
SOON_S: Final = 1.0

Made = Callable[[str], Nursery]


@pytest.fixture
def key(engine: casemate.Engine) -> WarmKey:
    return warm_key(prepare_code(engine, "", runtime="python"))


@pytest.fixture
def hostile(engine: casemate.Engine, key: WarmKey, tmp_path: Path) -> Iterator[Made]:
    """Start a zygote that does what its argument says."""
    tmp_path.chmod(0o755)
    shutil.copy(PROGRAM, tmp_path)
    wanted = key.zygote_key()
    assert wanted is not None
    mounts = (*wanted.mounts, Mount(str(tmp_path), "/opt/packages"))
    made: list[Nursery] = []

    def start(what: str) -> Nursery:
        words = (wanted.argv[0], "-S", f"/opt/packages/{PROGRAM.name}", what, str(key.spec.limits.disk_bytes))
        changed = msgspec.structs.replace(wanted, argv=words, mounts=mounts)
        made.append(drive(start_zygote(engine.backend, changed)))
        return made[-1]

    yield start
    for nursery in made:
        nursery.close()
    engine.backend.settle()


@pytest.fixture
def sandbox(engine: casemate.Engine, key: WarmKey, hostile: Made) -> Iterator[Callable[[str], NativeSandbox]]:
    """Have one made by such a zygote."""
    made: list[NativeSandbox] = []

    def start(what: str) -> NativeSandbox:
        made.append(drive(engine.backend.start_within(hostile(what), key.spec)))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.mark.parametrize("what", ["engine", "nursery", "nobody"])
def test_s1_a_zygote_cannot_have_the_engine_kill_what_it_likes(
    sandbox: Callable[[str], NativeSandbox], what: str
) -> None:
    with pytest.raises(LaunchError, match=r"not its init|ended while"):
        sandbox(what)


@pytest.mark.parametrize("directory", ["/run/etc", "/proc", "/proc/self", "/", "/tmp"])
def test_s1_a_zygote_cannot_have_the_engine_read_elsewhere(
    sandbox: Callable[[str], NativeSandbox], directory: str
) -> None:
    with pytest.raises(LaunchError, match="not its work directory"):
        sandbox(directory)


def test_s1_a_zygote_cannot_have_the_engine_move_itself(
    sandbox: Callable[[str], NativeSandbox], engine: casemate.Engine, not_run: Callable[[str, str], None]
) -> None:
    if isinstance(engine.backend.cgroups, CgroupUnavailable):
        not_run("S1", "there is no cgroup to move to")
    before = Path("/proc/self/cgroup").read_text()
    made = sandbox("cgroup")
    with pytest.raises(LaunchError, match="not its pipes"):
        drive(start_process(made, FORK))
    with pytest.raises(FileTransferError, match="not a file of the sandbox"):
        drive(write_files(made, [InputFile(PurePosixPath("/work/x"), b"0")]))
    assert Path("/proc/self/cgroup").read_text() == before


def test_s1_a_zygote_cannot_have_the_engine_write_elsewhere(sandbox: Callable[[str], NativeSandbox]) -> None:
    made = sandbox("order")
    with pytest.raises(LaunchError, match="not its pipes"):
        drive(start_process(made, FORK))
    with pytest.raises(FileTransferError, match="not a file of the sandbox"):
        drive(write_files(made, [InputFile(PurePosixPath("/work/x"), b"0")]))


def test_s16_a_zygote_that_never_stops_talking_holds_nobody_up(
    sandbox: Callable[[str], NativeSandbox], slowness: float
) -> None:
    started_s = time.monotonic()
    with pytest.raises(InternalError, match="unexpected report"):
        sandbox("flood")
    assert time.monotonic() - started_s < (limits.HANG_UP_TIMEOUT_S + 10.0) * slowness


@pytest.mark.parametrize("what", ["print", "leave"])
def test_s16_a_zygote_that_does_not_become_ready_is_not_waited_for_without_end(
    hostile: Made, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(limits, "ZYGOTE_START_TIMEOUT_S", SOON_S)
    spent_s = time.thread_time()
    with pytest.raises(LaunchError, match="does not become ready"):
        hostile(what)
    if what == "leave":
        assert time.thread_time() - spent_s < SOON_S / 2
