"""Languages are data: what carries calls knows none of them, and one file serves several environments."""

from __future__ import annotations

import ast
from pathlib import Path

import casemate
from casemate.config import parse_config
from casemate.functions.names import runner_name
from casemate.service_config import load_service

NAMES = {"python", "javascript", "js", "r", "bash"}
CORE = (
    "api/routes/*.py",
    "functions/calls.py",
    "functions/published.py",
    "functions/batch.py",
    "functions/names.py",
    "executions/service.py",
    "executions/book.py",
    "cluster/*.py",
    "node/*.py",
    "queue/*.py",
    "store/*.py",
    "tenancy/*.py",
    "engine/*.py",
    "pool/*.py",
)
CONFIG = b"""
[service]
environment = "dev"
log_retention_days = 7

[languages.python]
memory = 1024
timeout = 65
"""


def test_s0_6_what_carries_calls_names_no_language() -> None:
    source = Path(casemate.__file__).parent
    files = [file for pattern in CORE for file in source.glob(pattern)]
    assert len(files) > 60
    named = [
        f"{file.relative_to(source)}:{node.lineno}: {node.value!r}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in NAMES
    ]
    assert named == []


def test_s0_41_s0_30_one_file_serves_environments_that_differ() -> None:
    config = parse_config(CONFIG, name="casemate.toml")
    home = {"HOME": "/nobody"}
    dev = load_service(config, home)
    changed = {"CASEMATE_SERVICE_ENVIRONMENT": "prod", "CASEMATE_SERVICE_LOG_RETENTION_DAYS": "30"}
    prod = load_service(config, {**home, **changed})
    assert (dev.environment, dev.log_retention_days) == ("dev", 7)
    assert (prod.environment, prod.log_retention_days) == ("prod", 30)
    assert (prod.languages, prod.rate_per_s, prod.maximum) == (dev.languages, dev.rate_per_s, dev.maximum)
    assert {runner_name("python", each.environment) for each in (dev, prod)} == {
        "macro-sandbox-python-dev",
        "macro-sandbox-python-prod",
    }
