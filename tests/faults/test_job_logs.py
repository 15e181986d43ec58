"""Logs of jobs, of which the process that writes them is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.records import opened, with_tenant

from casemate.jobs.log_pieces import unpacked
from casemate.store import job_logs as rows

CHILD = "tests.faults.job_log_child"


def test_s2_64_no_line_that_was_told_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    with opened(path) as database:
        tenant = with_tenant(database)
    told: list[tuple[str, ...]] = []
    for attempt in range(1, 6):
        lines_wanted = len(told) + 50 * attempt
        command = [sys.executable, "-m", CHILD, str(path), tenant, str(attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            seen: list[tuple[str, ...]] = []
            while len(seen) < lines_wanted:
                seen.append(tuple(child.stdout.readline().decode().split()))
            child.kill()
            seen += [tuple(line.decode().split()) for line in child.stdout if line.endswith(b"\n")]
        # It tells all attempts from the first line on.
        assert seen[: len(told)] == told
        told = seen
    with opened(path) as database:
        pieces = database.read_now(lambda records: rows.pieces_after(records, tenant, "job_1", 0, limit=100_000))
    kept = [(str(line.seq), str(line.text)) for piece in pieces for line in unpacked(piece.data or b"")]
    assert kept[: len(told)] == told
    assert [int(seq) for seq, _ in kept] == list(range(1, len(kept) + 1))
