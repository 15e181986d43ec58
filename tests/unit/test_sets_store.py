"""Package sets on disk: whatever was changed, half-made, or belongs to others is not used."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.config import Config, EngineConfig, data_directory
from casemate.errors import ConfigError, InvalidInput, SetDamaged, UnknownRuntime
from casemate.model.packages import FORMAT, Locked, Manifest, Recipe
from casemate.runtimes import tree as trees
from casemate.runtimes.registry import Registry
from casemate.runtimes.sets import MANIFEST_FILE, SetDirectory, SetRuntimes
from casemate.runtimes.tree import fingerprint, summarize
from casemate.sets.workplace import LOCK, forget, prepare, publish, sweep, workplace

RECIPE = Recipe(runtime="python", packages=("tiny",), preload=("tiny",))


@pytest.fixture
def directory(tmp_path: Path) -> SetDirectory:
    found = SetDirectory(tmp_path / "data")
    prepare(found)
    return found


def make(directory: SetDirectory, name: str, content: str = "x = 1\n", *, replace: bool = False) -> str:
    """A set with one file, published under a name."""
    with workplace(directory) as work:
        (work.tree / "tiny").mkdir(parents=True)
        (work.tree / "tiny" / "__init__.py").write_text(content)
        summary = summarize(str(work.tree))
        manifest = Manifest(
            format=FORMAT,
            runtime="python",
            installer="pip",
            packages=("tiny",),
            preload=("tiny",),
            lock=(Locked(name="tiny", version="1", file="tiny.whl", hash="sha256-0"),),
            tree=summary.digest,
            files=summary.files,
            size_bytes=summary.size_bytes,
        )
        return publish(directory, work, name, manifest, recipe=RECIPE, flows=(), replace=replace)


@pytest.fixture
def registry(directory: SetDirectory) -> Iterator[Registry]:
    found = Registry({}, lambda: directory.path)
    yield found
    found.close()


def module_of(directory: SetDirectory, digest: str) -> Path:
    return directory.sets / digest / "tree" / "tiny" / "__init__.py"


def test_a_set_is_a_runtime_that_inherits_from_its_own(directory: SetDirectory, registry: Registry) -> None:
    digest = make(directory, "ours")
    found, base = registry.get("ours"), registry.get("python")
    assert found.library is not None
    assert (found.command, found.interpreter, found.preload) == (base.command, base.interpreter, ("tiny",))
    assert (found.aliases, found.extensions, found.sets) == ((), (), None)
    assert found.library.source == str(directory.sets / digest / "tree")
    assert "ours" in registry.names
    assert registry.guess("x.py") == "python"


def test_equal_content_is_one_set(directory: SetDirectory) -> None:
    assert make(directory, "one") == make(directory, "two")
    assert len(list(directory.sets.iterdir())) == 1
    assert make(directory, "three", "x = 2\n") != make(directory, "two", replace=True)


def test_a_name_is_not_taken_over_by_another_build(directory: SetDirectory) -> None:
    make(directory, "ours")
    with pytest.raises(InvalidInput, match="meanwhile"):
        make(directory, "ours", "x = 2\n")
    make(directory, "ours", "x = 2\n", replace=True)
    assert list(directory.building.iterdir()) == []


def test_an_update_is_seen_by_who_knows_the_old_one(directory: SetDirectory, registry: Registry) -> None:
    make(directory, "ours")
    before = registry.get("ours")
    make(directory, "ours", "x = 2\n", replace=True)
    assert registry.get("ours") != before
    forget(directory, "ours")
    with pytest.raises(UnknownRuntime):
        registry.get("ours")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: path.write_text("x = 3\n"),
    "added": lambda path: (path.parent / "more.py").write_text(""),
    "removed": lambda path: path.unlink(),
    "linked": lambda path: (path.parent / "link").symlink_to("/etc/passwd"),
    "fifo": lambda path: os.mkfifo(path.parent / "fifo"),
    "mode": lambda path: path.chmod(0o755),
    "gone": lambda path: shutil.rmtree(path.parents[1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_set_that_was_changed_is_refused(directory: SetDirectory, change: str) -> None:
    digest = make(directory, "ours")
    for _ in range(2):  # the second time the fingerprint of the untouched set is known
        used = SetRuntimes(directory)
        assert used.get("ours", {"python": Registry({}).get("python")}) is not None
        used.close()
    CHANGES[change](module_of(directory, digest))
    registry = Registry({}, lambda: directory.path)
    with pytest.raises(SetDamaged, match=r"chang|read|neither"):
        registry.get("ours")
    registry.close()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_asking_for_a_damaged_set_keeps_no_descriptor(directory: SetDirectory, registry: Registry) -> None:
    digest = make(directory, "ours")
    registry.get("ours")
    module_of(directory, digest).write_text("x = 9\n")
    registry.close()
    before = open_files()
    for _ in range(3):
        with pytest.raises(SetDamaged):
            registry.get("ours")
    assert open_files() == before


def test_an_updated_set_is_let_go_of_when_nothing_that_uses_it_is_left(
    directory: SetDirectory, registry: Registry
) -> None:
    old = make(directory, "ours")
    used = registry.get("ours")
    make(directory, "ours", "x = 2\n", replace=True)
    assert registry.get("ours") != used
    assert sweep(directory) == []
    files = open_files()
    del used
    assert open_files() == files - 1
    assert sweep(directory) == [old]


def test_a_removed_set_is_let_go_of_when_somebody_asks_for_its_name(
    directory: SetDirectory, registry: Registry
) -> None:
    old = make(directory, "ours")
    registry.get("ours")
    forget(directory, "ours")
    with pytest.raises(UnknownRuntime):
        registry.get("ours")
    assert sweep(directory) == [old]


def test_times_that_are_put_back_hide_no_change(directory: SetDirectory, registry: Registry) -> None:
    path = module_of(directory, make(directory, "ours"))
    registry.get("ours")
    registry.close()
    status = path.stat()
    path.chmod(0o644)
    path.write_text("x = 9\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.chmod(stat.S_IMODE(status.st_mode))
    with pytest.raises(SetDamaged):
        Registry({}, lambda: directory.path).get("ours")


def test_a_copy_of_a_set_is_read_once_and_then_known(directory: SetDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = make(directory, "ours")
    copy = SetDirectory(directory.path.with_name("copy"))
    shutil.copytree(directory.path, copy.path)
    found = copy.find("ours")
    assert found is not None
    copy.check_content(found)
    monkeypatch.setattr(trees, "_content", lambda _: pytest.fail("read again"))
    copy.check_content(found)
    assert (copy.seen / digest).exists()


@pytest.mark.parametrize("what", ["manifest", "name", "digest", "base"])
def test_what_describes_a_set_cannot_be_changed_either(directory: SetDirectory, registry: Registry, what: str) -> None:
    digest = make(directory, "ours")
    name, manifest = directory.names / "ours.json", directory.sets / digest / "set.json"
    if what == "manifest":
        manifest.write_bytes(manifest.read_bytes().replace(b'"preload"', b'"preload" '))
    elif what == "name":
        name.write_text("{")
    elif what == "digest":
        name.write_text(name.read_text().replace(digest, "../" + digest[3:]))
    else:
        name.write_text(name.read_text().replace(digest, digest[::-1]))
    with pytest.raises(SetDamaged):
        registry.get("ours")


@pytest.mark.parametrize("place", ["path", "names", "sets"])
def test_sets_that_others_could_have_changed_are_refused(
    directory: SetDirectory, registry: Registry, place: str
) -> None:
    make(directory, "ours")
    getattr(directory, place).chmod(0o777)
    with pytest.raises(SetDamaged, match="others"):
        registry.get("ours")


@pytest.mark.parametrize("name", ["", ".", "..", "../ours", "a/b", "a\0b", ".ours"])
def test_names_that_are_paths_find_nothing(directory: SetDirectory, registry: Registry, name: str) -> None:
    make(directory, "ours")
    assert directory.find(name) is None
    with pytest.raises(UnknownRuntime):
        registry.get(name)


# Removing -----------------------------------------------------------------------------------------


def test_a_set_without_a_name_goes_and_one_in_use_stays(directory: SetDirectory, registry: Registry) -> None:
    kept, used = make(directory, "kept"), make(directory, "used", "x = 2\n")
    registry.get("used")
    forget(directory, "used")
    assert sweep(directory) == []
    assert module_of(directory, used).exists()
    registry.close()
    assert sweep(directory) == [used]
    assert [path.name for path in directory.sets.iterdir()] == [kept]
    assert list(directory.building.iterdir()) == []


def test_nobody_takes_hold_of_a_set_that_is_just_being_removed(
    directory: SetDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = make(directory, "ours")
    forget(directory, "ours")
    real, locked = Path.rename, []

    def rename(path: Path, target: Path) -> Path:
        fd = os.open(path / MANIFEST_FILE, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            locked.append(path)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert sweep(directory) == [digest]
    assert locked == []


def test_what_a_dead_builder_left_goes_and_what_a_living_one_makes_stays(directory: SetDirectory) -> None:
    make(directory, "ours")
    dead = directory.building / "dead"
    (dead / "made").mkdir(parents=True)
    (directory.names / ".ours.json.0").write_text("{")
    with workplace(directory) as work:
        sweep(directory)
        assert work.made.is_dir()
    assert list(directory.building.iterdir()) == []
    assert list(directory.list()) == ["ours"]
    assert [path.name for path in directory.names.iterdir()] == ["ours.json"]


def test_a_damaged_set_makes_room_when_it_is_made_anew(directory: SetDirectory, registry: Registry) -> None:
    digest = make(directory, "ours")
    module_of(directory, digest).write_text("x = 9\n")
    assert make(directory, "ours", replace=True) == digest
    assert registry.get("ours").library is not None
    sweep(directory)
    assert list(directory.building.iterdir()) == []


def test_two_cannot_change_sets_at_once(directory: SetDirectory) -> None:
    with directory.changing():
        fd = os.open(directory.path / LOCK, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)


# Digests and places -------------------------------------------------------------------------------

TREES = st.dictionaries(
    st.text("abc.", min_size=1, max_size=4).filter(lambda name: name not in {".", ".."}),
    st.binary(max_size=8),
    max_size=5,
)


@given(TREES, TREES)
def test_trees_have_the_same_digest_only_if_they_hold_the_same(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    digests = []
    for files in (one, other):
        folder = tmp_path_factory.mktemp("tree")
        for name, data in files.items():
            (folder / name).write_bytes(data)
        digests.append(summarize(str(folder)).digest)
        assert fingerprint(str(folder)) == fingerprint(str(folder))
    assert (digests[0] == digests[1]) == (one == other)


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        ("/srv/casemate", {"XDG_DATA_HOME": "/data", "HOME": "/home/x"}, "/srv/casemate"),
        ("", {"XDG_DATA_HOME": "/data", "HOME": "/home/x"}, "/data/casemate"),
        ("", {"XDG_DATA_HOME": "relative", "HOME": "/home/x"}, "/home/x/.local/share/casemate"),
        ("", {"HOME": "/home/x"}, "/home/x/.local/share/casemate"),
    ],
)
def test_where_sets_are_kept(configured: str, environment: dict[str, str], expected: str) -> None:
    config = Config(engine=EngineConfig(data_directory=configured))
    assert data_directory(config, environment) == Path(expected)


@pytest.mark.parametrize(
    ("configured", "environment"), [("", {}), ("relative", {"HOME": "/home/x"}), ("", {"HOME": "x"})]
)
def test_nowhere_to_keep_sets_is_said(configured: str, environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="data_directory"):
        data_directory(Config(engine=EngineConfig(data_directory=configured)), environment)
