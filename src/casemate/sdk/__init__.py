"""Clients of the service, for threads and for asyncio."""

from __future__ import annotations

from typing import Final

URL_VARIABLE: Final = "CASEMATE_URL"
KEY_VARIABLE: Final = "CASEMATE_KEY"
INSECURE_VARIABLE: Final = "CASEMATE_INSECURE_HTTP"
VARIABLES: Final = frozenset({URL_VARIABLE, KEY_VARIABLE, INSECURE_VARIABLE})
"""Of the environment, that clients read."""
