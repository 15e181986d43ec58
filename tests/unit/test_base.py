"""Which programs a minimal base shows of a machine, and the mask that hides the others."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from casemate.config import Config
from casemate.errors import ConfigError, LaunchError
from casemate.jobs.config import load_jobs
from casemate.model.result import GuestError, Isolation, Reason, Result, Status
from casemate.node import base as module
from casemate.node.base import Base, make_mask, read_base
from casemate.node.bases import Bases, explained

PROGRAMS = """
    bin/ls bin/dash bin/python3.11 bin/gcc bin/x86_64-linux-gnu-gcc-12 bin/git bin/apt-get bin/own-tool bin/kill
    sbin/useradd sbin/nft local/bin/jq local/bin/terraform local/sbin/own-admin
    lib/gcc/x86_64-linux-gnu/12/cc1 lib/git-core/git lib/apt/methods/http lib/jvm/java-17/bin/javac
    lib/x86_64/libc.so lib/x86_64/utempter lib/helpers/gdb libexec/dpkg/cleanup lib/R/bin/exec/R
    lib/python3/dist-packages/pip/main.py lib/python3/dist-packages/numpy/bin/f2py lib/python3.11/ensurepip/x.py
    lib/node_modules/npm/bin/npm lib/node_modules/left-pad/bin/pad include/stdio.h share/doc/gcc
    share/maven/bin/mvn share/cmake-3.25/Modules/cpp share/sensible/bin/gain
    share/nodejs/npm/cli.js share/nodejs/semver/index.js
""".split()  # noqa: SIM905


@pytest.fixture
def usr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a machine of a few programs, which is all that there is."""
    top = tmp_path.resolve() / "usr"
    for name in PROGRAMS:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("#!/bin/sh\n")
        (top / name).chmod(0o755)
    for name in ("bin/kill", "lib/x86_64/utempter"):
        (top / name).chmod(0o4755)
    (top / "bin/sh").symlink_to("dash")
    monkeypatch.setattr(module, "_tops", lambda: [str(top)])
    return top


def shown(usr: Path, *chosen: str, needed: tuple[str, ...] = ()) -> set[str]:
    return {str(Path(each.path).relative_to(usr)) for each in read_base(chosen, needed).programs}


def hidden(usr: Path, *chosen: str) -> set[str]:
    return {str(Path(each).relative_to(usr)) for each in read_base(chosen).hidden}


def test_s2_33_only_known_programs_are_shown(usr: Path) -> None:
    assert shown(usr) == {"bin/ls", "bin/sh", "bin/dash", "bin/python3.11", "local/bin/jq"}


def test_s2_33_what_gives_rights_builds_installs_or_administers_is_hidden(usr: Path) -> None:
    programs = {"gcc", "x86_64-linux-gnu-gcc-12", "git", "apt-get", "own-tool", "kill"}
    assert hidden(usr) == {f"bin/{name}" for name in programs} | {
        *("sbin", "local/bin/terraform", "local/sbin", "lib/gcc", "lib/git-core", "lib/apt", "lib/jvm/java-17/bin"),
        *("lib/x86_64/utempter", "lib/helpers/gdb", "libexec/dpkg", "include"),
        *("lib/python3/dist-packages/pip", "lib/python3.11/ensurepip", "lib/node_modules/npm", "share/nodejs/npm"),
        *("share/maven", "share/cmake-3.25", "share/sensible/bin"),
    }


@pytest.mark.parametrize(
    ("chosen", "comes_back"),
    [
        ("git", {"bin/git", "lib/git-core"}),
        ("gcc", {"bin/gcc", "lib/gcc", "include"}),
        ("own-tool", {"bin/own-tool"}),
        ("nft", {"sbin/nft"}),
        ("gdb", {"lib/helpers/gdb"}),
        ("pip", {"lib/python3/dist-packages/pip", "lib/python3.11/ensurepip"}),
    ],
)
def test_s2_33_a_chosen_program_comes_with_what_belongs_to_it(usr: Path, chosen: str, comes_back: set[str]) -> None:
    base = read_base((chosen,))
    assert all(base.is_hidden(str(usr / each)) == (each not in comes_back) for each in hidden(usr) if each != "sbin")
    assert not any(base.is_hidden(str(usr / each)) for each in comes_back)
    assert base.is_hidden(str(usr / "sbin/useradd"))


def test_links_are_followed_to_their_programs(usr: Path, tmp_path: Path) -> None:
    alternatives = tmp_path / "alternatives"
    alternatives.mkdir()
    (usr / "bin/awk").symlink_to(alternatives / "awk")
    (alternatives / "awk").symlink_to(usr / "bin/own-tool")
    assert shown(usr) >= {"bin/awk", "bin/own-tool"}


def test_links_in_a_circle_end(usr: Path) -> None:
    (usr / "bin/awk").symlink_to("gawk")
    (usr / "bin/gawk").symlink_to("awk")
    assert shown(usr) >= {"bin/awk", "bin/gawk"}


def test_a_known_name_that_leads_to_what_gives_rights_leads_nowhere(usr: Path) -> None:
    (usr / "bin/cat").symlink_to("own-tool")
    (usr / "bin/own-tool").chmod(0o4755)
    assert "bin/own-tool" in hidden(usr)
    assert "bin/own-tool" in shown(usr, "own-tool")


def test_what_its_user_may_not_look_into_is_hidden(usr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def scandir(path: str) -> Any:
        if path.endswith("/semver"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "share/nodejs/semver" in hidden(usr)


def test_directories_at_the_top_stay_and_are_emptied(
    usr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = usr.parent / "sbin"
    top.mkdir()
    (top / "fdisk").touch()
    monkeypatch.setattr(module, "_tops", lambda: [str(usr), str(top)])
    base = read_base()
    assert str(top / "fdisk") in base.hidden
    make_mask(base, str(tmp_path / "mask"))
    assert Path(f"{tmp_path}/mask{top}").is_dir()


def test_an_interpreter_of_a_declared_language_is_shown(usr: Path) -> None:
    path = usr / "lib/jvm/java-17/bin/javac"
    assert "lib/jvm/java-17/bin/javac" in shown(usr, needed=(str(path), "/home/somebody/bin/python3"))


def test_a_base_is_another_when_programs_come_or_go(usr: Path) -> None:
    before = read_base()
    assert before.is_current()
    (usr / "local/bin/wget").touch()
    os.utime(usr / "local/bin", ns=(0, 0))
    assert not before.is_current()
    assert read_base().digest != before.digest
    os.utime(usr / "local/bin", ns=(1, 1))
    assert read_base().digest == read_base().digest


def test_the_mask_has_a_whiteout_for_all_that_is_hidden_and_nothing_else(usr: Path, tmp_path: Path) -> None:
    base = read_base()
    mask = tmp_path / "mask"
    old = os.umask(0o077)
    try:
        make_mask(base, str(mask))
    finally:
        os.umask(old)
    found = [path for path in mask.rglob("*") if not path.is_dir()]
    assert {"/" + str(path.relative_to(mask)) for path in found} == set(base.hidden)
    assert all(stat.S_ISCHR(path.stat().st_mode) and path.stat().st_rdev == 0 for path in found)
    assert {stat.S_IMODE(path.stat().st_mode) for path in [mask, *mask.rglob("*")] if path.is_dir()} == {0o755}


# On a node ------------------------------------------------------------------------------------------


def make_bases(tmp_path: Path) -> Bases:
    return Bases(tmp_path / "run" / "base", list)


def test_a_base_is_made_once_and_again_when_the_machine_has_changed(usr: Path, tmp_path: Path) -> None:
    bases = make_bases(tmp_path)
    assert bases.find(()) is None
    first = bases.get(())
    assert bases.find(()) is first
    assert bases.get(()) is first
    (usr / "bin/strace").touch()
    os.utime(usr / "bin", ns=(0, 0))
    assert bases.find(()) is None
    second = bases.get(())
    assert str(usr / "bin/strace") in second.hidden
    assert {Path(bases.mask_of(each)).is_dir() for each in (first, second)} == {True}  # the first one may be in use


def test_masks_of_an_earlier_process_are_not_trusted(usr: Path, tmp_path: Path) -> None:
    bases = make_bases(tmp_path)
    mask = Path(bases.mask_of(bases.get(())))
    whiteout = Path(f"{mask}{usr}/bin/gcc")
    whiteout.unlink()
    (mask.parent / "minimal-old").mkdir()
    again = make_bases(tmp_path)
    again.get(())
    assert stat.S_ISCHR(whiteout.stat().st_mode)
    assert [path.name for path in mask.parent.iterdir()] == [mask.name]


def test_a_base_that_cannot_be_made_is_refused_by_name(usr: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no directory")
    with pytest.raises(LaunchError, match=r"the minimal base: .*Not a directory") as caught:
        make_bases(tmp_path).get(())
    assert 'base = "machine"' in caught.value.hint


def test_a_node_without_a_place_has_none(usr: Path) -> None:
    with pytest.raises(LaunchError, match="no place"):
        Bases(None, list).get(())


def ended(**values: Any) -> Result:
    isolation = Isolation(backend="test", layers=())
    return Result(status=Status.FAILED, reason=Reason.EXIT, isolation=isolation, **values)


@pytest.fixture
def without_gcc(tmp_path: Path) -> Base:
    path = tmp_path.resolve() / "gcc"
    path.touch()
    return Base(programs=(), hidden=(str(path),), watched=(), digest="0")


def test_who_calls_a_hidden_program_is_told_of_the_base(without_gcc: Base, tmp_path: Path) -> None:
    result = ended(exit_code=127, error=GuestError(type="CommandNotFound", message="there is no program"))
    told = explained(result, (str(tmp_path / "gcc"), "-v"), without_gcc).error
    assert told is not None
    assert "'gcc' is not in the minimal base of jobs" in told.message
    assert "`programs`" in told.message
    for words in ((str(tmp_path / "other"),), ("nosuchprogram",), ()):
        assert explained(result, words, without_gcc) is result


def test_a_shell_that_does_not_find_a_program_leads_to_an_event(without_gcc: Base) -> None:
    (event,) = explained(ended(exit_code=127), ("sh", "-c", "gcc"), without_gcc).events
    assert event.kind == "base"
    assert "`programs`" in event.detail
    other = ended(exit_code=1)
    assert explained(other, ("sh", "-c", "gcc"), without_gcc) is other


# The configuration ----------------------------------------------------------------------------------


def test_jobs_have_a_minimal_base_unless_they_are_to_have_all() -> None:
    assert load_jobs(Config(), {}).base == "minimal"
    assert load_jobs(Config(), {"CASEMATE_JOBS_BASE": "machine"}).base == "machine"
    with pytest.raises(ConfigError, match=r"jobs\.base"):
        load_jobs(Config(jobs={"base": "none"}), {})


def test_what_is_allowed_by_name_is_chosen() -> None:
    settings = load_jobs(Config(jobs={"programs": ["git"], "allowed_commands": ["/usr/bin/make", "ls"]}), {})
    assert settings.programs == ("git", "ls", "make")


@pytest.mark.parametrize("word", ["/usr/bin/git", "", "two words"])
def test_programs_are_chosen_by_their_names(word: str) -> None:
    with pytest.raises(ConfigError, match=r"jobs\.programs"):
        load_jobs(Config(jobs={"programs": [word]}), {})


def test_where_a_whiteout_takes_no_more_links_there_are_several(
    usr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(31, "Too many links")

    link: Callable[..., None] = refuse
    monkeypatch.setattr(os, "link", link)
    base = read_base()
    make_mask(base, str(tmp_path / "mask"))
    assert all(stat.S_ISCHR(Path(f"{tmp_path}/mask{path}").stat().st_mode) for path in base.hidden)
