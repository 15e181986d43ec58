"""The service's log: what is known of a line besides its message is in the line."""

from __future__ import annotations

import json
import subprocess
import sys

LOGGED = """
import logging
from casemate.api.log import log_to_stderr

log_to_stderr()
logging.getLogger("a").warning("no job: %s", "why", extra={"schedule": "sch_1", "color_message": "\\x1b[1mno job"})
"""


def test_a_line_names_what_it_is_about() -> None:
    done = subprocess.run([sys.executable, "-c", LOGGED], capture_output=True, text=True, check=True)
    line = json.loads(done.stderr)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "message": "no job: why", "schedule": "sch_1"}
