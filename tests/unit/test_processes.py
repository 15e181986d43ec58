from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from casemate.kernel.processes import ProcessStat, depth, parse_stat, pids_of
from casemate.kernel.watchdog import sum_kilobytes

FIELDS = b" R 7 8 9 0 -1 4194304 1 2 3 4 11 22 33 44 20 0 5 0 987654 1 2 3"
STAT = ProcessStat(
    state=b"R",
    parent=7,
    user_ticks=11,
    system_ticks=22,
    children_user_ticks=33,
    children_system_ticks=44,
    threads=5,
    start_ticks=987654,
)


@given(st.binary(max_size=15))
def test_no_name_of_a_program_changes_what_is_read(name: bytes) -> None:
    assert parse_stat(b"4711 (" + name + b")" + FIELDS) == STAT


def test_name_made_of_parentheses_and_fields_is_only_a_name() -> None:
    assert parse_stat(b"1 (a) Z 1 1 (b) S 2)" + FIELDS) == STAT


def test_text_that_is_cut_short_is_no_stat() -> None:
    assert parse_stat(b"") is None
    assert parse_stat(b"1 (a) R 1 2 3") is None


def test_memory_is_the_sum_of_its_lines() -> None:
    status = b"Name:\tx\nRssAnon:\t     100 kB\nRssFile:\t 7 kB\nRssShmem:\t 20 kB\n"
    assert sum_kilobytes(status, (b"RssAnon:", b"RssShmem:")) == 120 * 1024


def test_name_with_control_characters_is_no_memory() -> None:
    status = b"Name:\tx\rRssAnon: 9 kB\nUmask:\t0022\nRssAnon:\t 1 kB\n"
    assert sum_kilobytes(status, (b"RssAnon:",)) == 1024


@given(st.binary())
def test_any_bytes_have_some_sum(text: bytes) -> None:
    assert sum_kilobytes(b"RssAnon:" + text, (b"RssAnon:",)) >= 0


def test_a_descriptor_tells_which_process_it_stands_for() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        assert pids_of(pidfd)[0] == os.getpid()
        assert len(pids_of(pidfd)) == depth()
    finally:
        os.close(pidfd)


def test_one_of_a_process_that_is_gone_stands_for_none() -> None:
    child = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(child.pid)
    child.wait()
    try:
        assert pids_of(pidfd) == (-1,)
    finally:
        os.close(pidfd)


def test_a_file_stands_for_no_process(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        assert pids_of(file.fileno()) == ()
