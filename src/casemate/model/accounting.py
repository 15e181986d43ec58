"""What runs use and what that costs, as values. Amounts are whole numbers of small units, and costs are exact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Any, Final

import msgspec

from casemate import account_limits as bound
from casemate.errors import ConfigError, InvalidInput
from casemate.model.result import Usage
from casemate.model.units import SECOND_US

GIB: Final = 2**30
KIB_MS_A_GIB_S: Final = 2**20 * 1000
NANO: Final = 10**9
EPOCH: Final = date(1970, 1, 1)
_DAY_US: Final = 24 * 3600 * SECOND_US
_AMOUNT: Final = re.compile(r"\d{1,20}(\.\d{1,12})?", re.ASCII)
_CURRENCY: Final = re.compile(rf"[A-Za-z]{{1,{bound.CURRENCY_MAX_CHARS}}}", re.ASCII)


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What one or more runs have used.

    `memory_kib_ms`: of each run the most memory that it held, times how long it took.
    """

    cpu_us: int = 0
    wall_us: int = 0
    memory_kib_ms: int = 0
    disk_bytes: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(**{name: getattr(self, name) + getattr(other, name) for name in Spent.__struct_fields__})


def spent_by(usage: Usage) -> Spent:
    """What one run has used. What could not be measured counts as nothing."""
    wall_us = round(usage.wall_s * SECOND_US)
    return Spent(
        cpu_us=round((usage.cpu_user_s + usage.cpu_system_s) * SECOND_US),
        wall_us=wall_us,
        memory_kib_ms=(usage.memory_peak_bytes or 0) * wall_us // (1024 * 1000),
        disk_bytes=usage.disk_bytes or 0,
        sent_bytes=usage.network_sent_bytes,
        received_bytes=usage.network_received_bytes,
    )


def spent_now(*, cpu_s: float, wall_s: float, memory_bytes: int) -> Spent:
    """What a run has used that has not ended, about: the memory is that which it holds now."""
    return spent_by(Usage(cpu_user_s=cpu_s, wall_s=wall_s, memory_peak_bytes=memory_bytes))


# Prices -------------------------------------------------------------------------------------------

SCALES: Final[Mapping[str, int]] = {
    "run": 1,
    "cpu_s": SECOND_US,
    "wall_s": SECOND_US,
    "memory_gib_s": KIB_MS_A_GIB_S,
    "disk_gib": GIB,
    "network_gib": GIB,
}
"""What has a price, and how many small units one of it is."""


class Prices:
    """What one of each is, in a currency. Of equal use the cost is equal, to the billionth."""

    def __init__(self, prices: Mapping[str, Decimal], currency: str = "") -> None:
        self.currency = currency
        self.prices = dict(prices)
        a_unit = {name: Fraction(price) * NANO / SCALES[name] for name, price in prices.items()}
        self._divisor = lcm(1, *(each.denominator for each in a_unit.values()))
        self._weights = {name: int(each * self._divisor) for name, each in a_unit.items()}

    def cost_nano(self, spent: Spent, *, runs: int = 1) -> int:
        """In billionths of the currency, rounded once, half up."""
        amounts = {
            "run": runs,
            "cpu_s": spent.cpu_us,
            "wall_s": spent.wall_us,
            "memory_gib_s": spent.memory_kib_ms,
            "disk_gib": spent.disk_bytes,
            "network_gib": spent.sent_bytes + spent.received_bytes,
        }
        total = sum(weight * amounts[name] for name, weight in self._weights.items())
        return min((2 * total + self._divisor) // (2 * self._divisor), bound.BUDGET_AMOUNT_MAX)


class Accounting(msgspec.Struct, frozen=True, kw_only=True):
    """`[accounting]`, checked. `webhook_hosts`: where webhooks may lead that no public address need have."""

    prices: Prices = Prices({})
    webhook_hosts: tuple[str, ...] = ()
    kept_days: int = bound.USAGE_KEPT_DAYS


def read_accounting(table: Mapping[str, Any]) -> Accounting:
    """The table as people write it. Raises ConfigError naming the key."""
    known = ("prices", "webhook_hosts", "kept_days")
    for name in table:
        if name not in known:
            raise ConfigError(f"accounting.{name}"[:200], "is no key", hint="known: " + ", ".join(known))
    return Accounting(
        prices=_prices(table.get("prices", {})),
        webhook_hosts=_hosts(table.get("webhook_hosts", [])),
        kept_days=_kept_days(table.get("kept_days", bound.USAGE_KEPT_DAYS)),
    )


def _prices(table: object) -> Prices:
    if not isinstance(table, dict):
        raise ConfigError("accounting.prices", "must be a table")
    found = dict(table)
    currency = found.pop("currency", "")
    if not isinstance(currency, str) or not (currency == "" or _CURRENCY.fullmatch(currency)):
        raise ConfigError("accounting.prices.currency", f"must be at most {bound.CURRENCY_MAX_CHARS} letters")
    return Prices({name: _price(name, written) for name, written in found.items()}, currency)


def _price(name: str, written: object) -> Decimal:
    key = f"accounting.prices.{name}"[:200]
    if name not in SCALES:
        raise ConfigError(key, "is nothing that has a price", hint="known: currency, " + ", ".join(SCALES))
    try:
        found = decimal_of(written, key)
    except InvalidInput as error:
        raise ConfigError(key, error.message.partition(": ")[2], hint=error.hint) from error
    if found > bound.PRICE_MAX:
        raise ConfigError(key, f"must be at most {bound.PRICE_MAX}")
    return found


def _hosts(written: object) -> tuple[str, ...]:
    if not isinstance(written, list) or not all(isinstance(each, str) for each in written):
        raise ConfigError("accounting.webhook_hosts", "must be a list of hosts", hint='such as "hooks.internal:8443"')
    return tuple(written)


def _kept_days(written: object) -> int:
    least, most = bound.USAGE_KEPT_MIN_DAYS, bound.USAGE_KEPT_MAX_DAYS
    if not isinstance(written, int) or isinstance(written, bool) or not least <= written <= most:
        raise ConfigError("accounting.kept_days", f"must be a whole number from {least} to {most}")
    return written


# Amounts ------------------------------------------------------------------------------------------


def decimal_of(written: object, field: str) -> Decimal:
    """A number as it is written, not as a computer comes near it. Raises InvalidInput."""
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise InvalidInput(field, "must be a number", hint="write small ones as text: '0.00001'")
    text = format(Decimal(repr(written)), "f") if isinstance(written, float) else str(written).strip()
    if not _AMOUNT.fullmatch(text):
        shown = text[: bound.AMOUNT_MAX_CHARS]
        raise InvalidInput(field, f"{shown!r} is no number of at most {bound.PRICE_DIGITS_MAX} digits after the point")
    return Decimal(text)


BUDGET_UNITS: Final[Mapping[str, int]] = {
    "cost": NANO,
    "runs": 1,
    **{name: SCALES[name] for name in ("cpu_s", "wall_s", "memory_gib_s", "network_gib")},
}
"""What a budget can be of, and how many small units one of it is."""

PERIODS: Final = ("day", "month", "total")


def amount_of(written: object, unit: str, field: str) -> int:
    """An amount of a budget in small units. Raises InvalidInput."""
    found = int(decimal_of(written, field) * BUDGET_UNITS[unit])
    if not 0 < found <= bound.BUDGET_AMOUNT_MAX:
        raise InvalidInput(field, "must be above 0, and not that large")
    return found


def text_of_amount(amount: int, scale: int) -> str:
    """An amount of small units as people write it, without zeros at its end."""
    text = format((Decimal(amount) / Decimal(scale)).quantize(Decimal(1).scaleb(-9)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# Days ---------------------------------------------------------------------------------------------


def day_of(at_us: int) -> int:
    """The day in UTC, counted from 1970-01-01."""
    return at_us // _DAY_US


def date_of(day: int) -> date:
    """The same day for people."""
    return EPOCH + timedelta(days=day)


def first_day(period: str, day: int) -> int:
    """With which day the period began that a day is in."""
    if period == "day":
        return day
    return day - (date_of(day).day - 1) if period == "month" else 0


def next_period(period: str, at_us: int) -> date | None:
    """When the next one begins; None: this one has no end."""
    today = date_of(day_of(at_us))
    if period == "day":
        return today + timedelta(days=1)
    return (today.replace(day=1) + timedelta(days=32)).replace(day=1) if period == "month" else None
