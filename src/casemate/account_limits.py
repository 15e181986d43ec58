"""The bounds of accounting, budgets and notices, as named constants with their unit last."""

from __future__ import annotations

from typing import Final

# Usage --------------------------------------------------------------------------------------------
USAGE_KEPT_DAYS: Final = 400
USAGE_KEPT_MIN_DAYS: Final = 62
"""Two whole months, whatever day it is: budgets of a month are never about days that were put together."""

USAGE_KEPT_MAX_DAYS: Final = 36_500
USAGE_ROWS_A_DAY_MAX: Final = 1_000
"""Of one tenant: kinds, keys and sets of labels that are told apart. What comes beyond is counted without labels."""

USAGE_READ_MAX_COUNT: Final = 100_000
"""Of rows that one question adds up here, and not in the database."""

USAGE_FOLDED_MAX_COUNT: Final = 500
"""Of rows that one write puts together, so that others are not kept waiting."""

# Prices -------------------------------------------------------------------------------------------
PRICE_MAX: Final = 1_000_000
PRICE_DIGITS_MAX: Final = 12
"""After the point."""

AMOUNT_MAX_CHARS: Final = 40
CURRENCY_MAX_CHARS: Final = 8

# Budgets ------------------------------------------------------------------------------------------
BUDGETS_A_TENANT_MAX: Final = 20
BUDGET_NAME_MAX_CHARS: Final = 64
BUDGET_LOOK_S: Final = 1.0
"""How long what runs may go on, at most, when a hard budget is used up."""

BUDGET_AMOUNT_MAX: Final = 2**62
"""In the smallest units, so that what is spent beyond it still is a number."""

# Webhooks -----------------------------------------------------------------------------------------
WEBHOOKS_A_TENANT_MAX: Final = 20
WEBHOOK_EVENTS_MAX: Final = 32
WEBHOOK_URL_MAX_CHARS: Final = 2_000
NOTICE_BODY_MAX_BYTES: Final = 64 * 1024
NOTICE_PROBLEM_MAX_CHARS: Final = 200
NOTICES_WAITING_A_TENANT_MAX: Final = 10_000
"""What comes beyond is not sent: its receivers have taken nothing for long."""

NOTICES_AT_ONCE: Final = 64
NOTICES_AT_ONCE_A_TENANT: Final = 4
NOTICE_TIMEOUT_S: Final = 10.0
"""Of one attempt, from the look-up of the name to the end of the answer's head."""

NOTICE_LOOKUPS_AT_ONCE: Final = 8
"""Threads that look up names, which a slow answer may keep busy for long."""

NOTICE_ATTEMPTS_MAX: Final = 12
NOTICE_PAUSE_FIRST_S: Final = 5.0
NOTICE_PAUSE_MAX_S: Final = 3600.0
"""Twelve attempts, each pause twice the one before, are about four hours."""

NOTICE_LOOK_S: Final = 1.0
"""How late a notice may be that another process has written."""

NOTICE_COMMITTED_S: Final = 0.05
"""From its being posted to its being there for others, usually."""

NOTICES_KEPT_S: Final = 7 * 24 * 3600.0
"""How long what became of a notice can be looked up."""

# Backups ------------------------------------------------------------------------------------------
BACKUP_PIECE_BYTES: Final = 1024 * 1024
BACKUP_HEAD_MAX_BYTES: Final = 64 * 1024
BACKUP_DEPTH_MAX: Final = 6
"""Of directories in one another."""
