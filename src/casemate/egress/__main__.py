"""`python -m casemate.egress FD`: the gateway's process, started by `Gateways` with one end of a socket pair."""

from __future__ import annotations

import sys

from casemate.egress.process import main

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
