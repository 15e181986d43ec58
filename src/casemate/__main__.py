"""`python -m casemate` is the command line."""

from __future__ import annotations

from casemate.cli.main import main

main()
