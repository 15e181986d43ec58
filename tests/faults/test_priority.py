"""An engine with a priority of its own: what it runs has none of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
{raise_priority}
import casemate
code = "import os\\noutput = [os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)]"
print(casemate.run(code).output)
"""
RAISED = {
    "real time": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "nice": "os.setpriority(os.PRIO_PROCESS, 0, -5)",
}


@pytest.mark.root
@pytest.mark.parametrize("kind", RAISED)
def test_guest_is_an_ordinary_process(kind: str) -> None:
    command = [sys.executable, "-c", SCRIPT.format(raise_priority=RAISED[kind])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 0]\n", "")
