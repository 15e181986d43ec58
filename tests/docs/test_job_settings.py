"""The names under which jobs are configured elsewhere, and the suites that prove them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "docs/reference/configuration.md").read_text()
NAMES = (
    "SANDBOX_REDIS_URL",
    "SANDBOX_DEFAULT_CPU",
    "SANDBOX_DEFAULT_MEMORY",
    "SANDBOX_DEFAULT_DISK",
    "SANDBOX_DEFAULT_TIMEOUT",
    "SANDBOX_ALLOWED_COMMANDS",
    "SANDBOX_BLOCKED_PORTS",
    "SANDBOX_ALLOWED_HOSTS",
)


@pytest.mark.parametrize("name", NAMES)
def test_s2_83_common_names_of_settings_are_documented(name: str) -> None:
    assert f"`{name}`" in CONFIGURATION


def test_s2_82_no_token_for_containers_is_needed() -> None:
    assert "no token" in CONFIGURATION


def test_s2_79_each_kind_of_test_has_one_command() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"test", "check", "bench", "soak"} <= targets
    for suite in ("service", "integration", "conformance", "security", "faults"):
        assert any((ROOT / "tests" / suite).glob("test_*job*.py")) or any((ROOT / "tests" / suite).glob("test_*.py"))
