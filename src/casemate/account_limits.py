"""The bounds of accounting, budgets and notices, as named constants with their unit last."""

from __future__ import annotations
