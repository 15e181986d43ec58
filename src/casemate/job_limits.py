"""The bounds of jobs, their queue, their schedules and their logs, as named constants with their unit last."""

from __future__ import annotations
