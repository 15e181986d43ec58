"""Adds objects: the audit log, and what tenants keep secret."""

from __future__ import annotations

from typing import Final

revision: Final = "0003"
down_revision: Final = "0002"


def upgrade() -> None:
    """Nothing yet."""
