"""The bounds of the way out of a sandbox, as named constants with their unit last."""

from __future__ import annotations
