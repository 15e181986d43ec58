"""What interpreters bring to test themselves passes inside: CPython's test modules, the examples of R's own packages.

Node ships no tests of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import pytest

import casemate

SYSTEM_PYTHON: Final = "/usr/bin/python3"
LIMITS: Final[Mapping[str, Any]] = {"memory": "2Gi", "disk": "512Mi", "processes": 256, "cpu": 2}
TIMEOUT_S: Final = 240.0
TEST_TIMEOUT_S: Final = 300
FAILED: Final = re.compile(r"^(?:ERROR|FAIL): .*?(?=^={70}|^-{70}\nRan )", re.MULTILINE | re.DOTALL)
"""What a test says of its failure."""

TESTS_RUN: Final = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
"""Every test module says so itself, before the whole run's summary."""

SUITES: Final = {
    "numbers": """
        test_float test_int test_long test_math test_cmath test_complex test_fractions test_decimal test_random
        test_statistics
    """,
    "containers": """
        test_json test_re test_dict test_list test_set test_tuple test_string test_unicode test_datetime test_sort
    """,
    "libraries": """
        test_itertools test_functools test_collections test_heapq test_bisect test_copy test_dataclasses test_enum
        test_struct test_textwrap test_csv test_zlib test_gzip test_hashlib test_base64 test_binascii
        test_configparser test_argparse test_contextlib test_typing
    """,
    "language": "test_grammar test_builtin test_generators test_exceptions test_traceback",
    "system": "test_os test_tempfile test_pathlib test_glob test_mmap test_pty test_select",
}
DENIED: Final = {"test_os": ("*splice*", "*TestSendfile*", "*MemfdCreate*", "test_chown_without_permission")}
"""What a sandbox does not allow: pages by reference between files and pipes, users other than its own and, where no
control group counts them, files that are memory.
"""

R_PACKAGES: Final = ("splines", "stats4", "compiler", "parallel", "tools", "grid")
EXAMPLES: Final = """
packages <- unlist(input)
output <- sapply(packages, simplify = FALSE, function(package) {
    failed <- tools::testInstalledPackage(package, outDir = ".", types = "examples")
    shown <- readLines(paste0(package, "-Ex.R"))
    list(failed = failed, examples = sum(startsWith(shown, "nameEx(")))
})
"""


@pytest.mark.slow
@pytest.mark.timeout(TEST_TIMEOUT_S)
@pytest.mark.parametrize("topic", SUITES)
def test_cpythons_own_tests_pass(topic: str, slowness: float) -> None:
    names = SUITES[topic].split()
    denied = [word for name in names for pattern in DENIED.get(name, ()) for word in ("--ignore", pattern)]
    # Those that fail are tried once more by `-w`, as their authors do: some depend on what else the machine does.
    result = casemate.execute(
        [SYSTEM_PYTHON, "-m", "test", "-v", "-w", *denied, *names], limits={**LIMITS, "timeout": TIMEOUT_S * slowness}
    )
    said = result.stdout.text + result.stderr.text
    assert result.ok, "\n".join(FAILED.findall(said)) or said[-4000:]
    assert re.search(r"^Tests result: (FAILURE then )?SUCCESS$", said, re.MULTILINE)
    counts = [int(count) for count in TESTS_RUN.findall(said)]
    assert len(counts) >= len(names)
    assert min(counts) > 0


@pytest.mark.slow
@pytest.mark.timeout(TEST_TIMEOUT_S)
def test_the_examples_of_rs_own_packages_run(slowness: float) -> None:
    limits = {**LIMITS, "timeout": TIMEOUT_S * slowness}
    result = casemate.run(EXAMPLES, "r", input=list(R_PACKAGES), limits=limits)
    assert result.ok, (result.reason, result.stdout.text[-2000:], result.stderr.text[-2000:])
    assert {name: found["failed"] for name, found in result.output.items()} == dict.fromkeys(R_PACKAGES, 0)
    assert all(found["examples"] > 0 for found in result.output.values())
