"""Adds jobs: their rows, leases, transitions and schedules."""

from __future__ import annotations

from typing import Final

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    """Nothing yet."""
