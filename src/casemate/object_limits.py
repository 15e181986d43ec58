"""The bounds of objects, signed addresses, secrets and the audit log, as named constants with their unit last."""

from __future__ import annotations
