"""What runs use, what that costs, and how amounts and addresses are read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import ConfigError, InvalidInput
from casemate.functions.webhook import verify
from casemate.model.accounting import (
    BUDGET_UNITS,
    NANO,
    Prices,
    Spent,
    amount_of,
    day_of,
    decimal_of,
    first_day,
    next_period,
    read_accounting,
    spent_by,
    text_of_amount,
)
from casemate.model.result import Usage
from casemate.model.signature import sign
from casemate.store.webhooks import Notice, Webhook
from casemate.tenancy.delivery import pause_s, signed_headers
from casemate.tenancy.destinations import configured, place_of
from casemate.tenancy.secrets import Signing, webhook_text
from casemate.tenancy.webhooks import check_events

NOWHERE = configured(())
COUNTS = st.integers(0, 2**40)


def test_s2_94_the_use_of_a_run_is_in_whole_units() -> None:
    usage = Usage(
        wall_s=2.0,
        cpu_user_s=1.25,
        cpu_system_s=0.25,
        memory_peak_bytes=2**30,
        disk_bytes=7,
        network_received_bytes=3,
        network_sent_bytes=4,
    )
    assert spent_by(usage) == Spent(
        cpu_us=1_500_000,
        wall_us=2_000_000,
        memory_kib_ms=2 * 2**20 * 1000,
        disk_bytes=7,
        sent_bytes=4,
        received_bytes=3,
    )


def test_what_could_not_be_measured_counts_as_nothing() -> None:
    assert spent_by(Usage(wall_s=1.0)) == Spent(wall_us=1_000_000)


def test_s2_94_a_cost_is_exact() -> None:
    prices = Prices({"cpu_s": Decimal("0.00001"), "memory_gib_s": Decimal("0.0000025"), "run": Decimal("0.0000002")})
    spent = Spent(cpu_us=3_000_000, wall_us=9, memory_kib_ms=4 * 2**20 * 1000)
    assert prices.cost_nano(spent) == 30_000 + 10_000 + 200
    assert text_of_amount(prices.cost_nano(spent), NANO) == "0.0000402"


def test_without_prices_nothing_costs_anything() -> None:
    assert Prices({}).cost_nano(Spent(cpu_us=10**12)) == 0


@given(COUNTS, COUNTS, st.decimals(0, 1000, places=12))
def test_the_cost_of_two_runs_is_that_of_both_to_one_billionth(one: int, other: int, price: Decimal) -> None:
    prices = Prices({"cpu_s": price})
    apart = prices.cost_nano(Spent(cpu_us=one)) + prices.cost_nano(Spent(cpu_us=other))
    assert abs(apart - prices.cost_nano(Spent(cpu_us=one) + Spent(cpu_us=other))) <= 1


@given(st.integers(0, 2**62), st.sampled_from(sorted(BUDGET_UNITS.values())))
def test_amounts_are_shown_without_losing_their_value(amount: int, scale: int) -> None:
    assert abs(Decimal(text_of_amount(amount, scale)) - Decimal(amount) / scale) <= Decimal("1e-9")


@pytest.mark.parametrize(
    "written", ["", "-1", "1e3", "NaN", "inf", "0x1", "1.0000000000001", True, None, [], "1 0", "९"]
)
def test_what_is_no_amount_is_refused(written: Any) -> None:
    with pytest.raises(InvalidInput):
        decimal_of(written, "hard")


@pytest.mark.parametrize(
    ("written", "found"), [("0.1", "0.1"), (0.1, "0.1"), (3, "3"), ("007", "7"), (1e-7, "0.0000001")]
)
def test_amounts_are_what_is_written(written: Any, found: str) -> None:
    assert decimal_of(written, "hard") == Decimal(found)


@pytest.mark.parametrize("written", ["0", "0.0000000001", 10**20])
def test_a_budget_of_nothing_or_of_everything_is_refused(written: Any) -> None:
    with pytest.raises(InvalidInput, match="hard"):
        amount_of(written, "cost", "hard")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"price": {}}, "accounting.price"),
        ({"prices": []}, "accounting.prices"),
        ({"prices": {"cpu": 1}}, "accounting.prices.cpu"),
        ({"prices": {"cpu_s": "x"}}, "accounting.prices.cpu_s"),
        ({"prices": {"cpu_s": 10**7}}, "accounting.prices.cpu_s"),
        ({"prices": {"currency": "¤"}}, "accounting.prices.currency"),
        ({"webhook_hosts": "all"}, "accounting.webhook_hosts"),
        ({"kept_days": 1}, "accounting.kept_days"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(table: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_accounting(table)
    assert raised.value.field == key


def test_periods_begin_and_end_in_utc() -> None:
    leap_day = 19_782  # 2024-02-29
    assert day_of((leap_day * 86400 + 86399) * 10**6) == leap_day
    assert [first_day(period, leap_day) for period in ("day", "month", "total")] == [leap_day, leap_day - 28, 0]
    at_us = leap_day * 86400 * 10**6
    assert [str(next_period(period, at_us)) for period in ("day", "month", "total")] == ["2024-03-01"] * 2 + ["None"]


# Webhooks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://10.1.2.3/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://user:word@example.com/",
        "https://example.com:25/",
        "https://example.com:5432/",
        "https://example.com:99999/",
        "https://example.com/#part",
        "https:///path",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://exa mple.com/",
        "https://example.com/a\r\nX: y",
        "https://example.com\\@10.0.0.1/",
        "nothing",
    ],
)
def test_addresses_that_are_not_for_everybody_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="url"):
        place_of(url, NOWHERE)


def test_an_address_is_taken_apart() -> None:
    found = place_of("https://Hooks.Example.COM:8443/a/b?c=d", NOWHERE)
    assert (found.host, found.port, found.target, found.authority, found.rule) == (
        "hooks.example.com",
        8443,
        "/a/b?c=d",
        "hooks.example.com:8443",
        None,
    )
    assert place_of("https://example.com", NOWHERE).authority == "example.com"


def test_the_configuration_allows_hosts_of_its_own() -> None:
    policy = configured(["127.0.0.1:8080", "*.internal:80"])
    assert place_of("http://127.0.0.1:8080/x", policy).rule is not None
    assert place_of("http://a.internal/", policy).rule is not None
    for url in ("http://127.0.0.1:8081/", "http://internal/"):
        with pytest.raises(InvalidInput):
            place_of(url, policy)
    with pytest.raises(ConfigError, match="webhook_hosts"):
        configured(["*"])


def test_events_that_nothing_tells_are_refused() -> None:
    check_events(["*", "job.*", "budget.hard"])
    with pytest.raises(InvalidInput, match="known"):
        check_events(["job.exploded"])


@pytest.mark.parametrize(
    ("events", "wants"), [(["*"], True), (["job.*"], True), (["job.failed"], True), (["budget.*", "job.dead"], False)]
)
def test_a_webhook_gets_what_it_has_subscribed_to(events: list[str], wants: bool) -> None:
    webhook = Webhook(id="whk_x", tenant_id="t", url="https://example.com", events=events, created_us=0)
    assert webhook.wants("job.failed") is wants


def test_notices_are_signed_by_each_secret_in_use() -> None:
    signing = Signing((b"new" * 11, b"old" * 11))
    notice = Notice(
        tenant_id="t", webhook_id="whk_x", event_id="evt_y", kind="test", body='{"é":1}', created_us=0, due_us=0
    )
    headers = signed_headers(signing, notice, "1700000000")
    codes = headers["X-Casemate-Signature"].split(", ")
    secrets = [webhook_text(each) for each in signing.notice_secrets("whk_x")]
    assert codes == [sign(secret, "1700000000", notice.body.encode()) for secret in secrets]
    assert signing.notice_secrets("whk_x") != signing.webhook_secrets("whk_x")


def test_a_notice_is_signed_as_requests_to_us_are() -> None:
    signing = Signing((b"new" * 11,))
    notice = Notice(tenant_id="t", webhook_id="w", event_id="e", kind="test", body='{"a":1}', created_us=0, due_us=0)
    headers = {name.lower(): value for name, value in signed_headers(signing, notice, "1700000000").items()}
    headers["x-casemate-key-id"] = "w"
    secret = webhook_text(signing.notice_secrets("w")[0])
    assert verify(headers, notice.body.encode(), secret_of=lambda _: secret, now_s=1_700_000_000.0).key_id == "w"


def test_pauses_double_up_to_a_bound() -> None:
    assert [pause_s(attempts) for attempts in (1, 2, 3, 12)] == [5.0, 10.0, 20.0, 3600.0]
