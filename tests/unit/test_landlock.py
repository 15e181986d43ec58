from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import msgspec
import pytest

from casemate.isolation.landlock import (
    READ_EXECUTE,
    Access,
    LandlockRules,
    PathRule,
    Restrict,
    Scope,
    handled,
    ruleset,
)
from casemate.kernel.landlock import abi_version

if TYPE_CHECKING:
    from pathlib import Path

ABI_NEWEST = 7
"""The newest interface that is used in full; later kernels accept everything of it."""

# Puts a ruleset in force in itself and then does what it is told, printing the errno of each step.
CHILD = textwrap.dedent(
    """
    import ctypes, errno, json, os, struct, sys
    libc = ctypes.CDLL(None, use_errno=True)
    def call(number, *args):
        answer = libc.syscall(ctypes.c_long(number), *args)
        if answer < 0:
            raise OSError(ctypes.get_errno(), f"syscall {number}")
        return answer
    rules, steps = json.loads(sys.stdin.read())
    attributes = struct.pack("<QQQ", rules["handled_fs"], 0, rules["scoped"])
    size = 24 if rules["scoped"] else 8
    ruleset = call(444, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    for rule in rules["rules"]:
        fd = os.open(rule["path"], os.O_PATH | os.O_CLOEXEC)
        call(445, ctypes.c_int(ruleset), ctypes.c_int(1), struct.pack("<Qi", rule["access"], fd), ctypes.c_uint32(0))
    libc.prctl(38, 1, 0, 0, 0)
    call(446, ctypes.c_int(ruleset), ctypes.c_uint32(rules["restrict_flags"]))
    def attempt(kind, *args):
        try:
            if kind == "write":
                with open(args[0], "w") as file:
                    file.write("x")
            elif kind == "read":
                with open(args[0]) as file:
                    file.read()
            elif kind == "rename":
                os.rename(*args)
            elif kind == "kill":
                os.kill(int(args[0]), 0)
        except OSError as error:
            return errno.errorcode[error.errno]
        return "ok"
    print(json.dumps([attempt(*step) for step in steps]))
    """
)


def run_confined(rules: LandlockRules, *steps: tuple[str, ...]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", CHILD],
        input=msgspec.json.encode([rules, steps]),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    answers: list[str] = msgspec.json.decode(done.stdout)
    return answers


@pytest.mark.parametrize(
    ("abi", "mask"),
    [(0, 0), (1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (4, 0x7FFF), (5, 0xFFFF), (6, 0xFFFF), (7, 0xFFFF), (99, 0xFFFF)],
)
def test_each_interface_version_handles_the_rights_it_knows(abi: int, mask: int) -> None:
    assert handled(abi) == mask
    assert ruleset(abi, ("/usr",), ("/work",)).handled_fs == mask


@pytest.mark.parametrize("abi", range(1, ABI_NEWEST + 2))
def test_every_rule_stays_within_the_handled_rights_and_is_never_empty(abi: int) -> None:
    rules = ruleset(abi, ("/usr", "/etc"), ("/work", "/dev"))
    for rule in rules.rules:
        assert rule.access
        assert rule.access & ~rules.handled_fs == 0


def test_read_only_paths_cannot_be_changed_and_written_ones_can() -> None:
    read, write = ruleset(ABI_NEWEST, ("/usr",), ("/work",)).rules
    assert read == PathRule(path="/usr", access=READ_EXECUTE)
    assert read.access == Access.EXECUTE | Access.READ_FILE | Access.READ_DIR
    assert write.access == handled(ABI_NEWEST)


@pytest.mark.parametrize(("abi", "scoped"), [(1, 0), (5, 0), (6, 3), (7, 3)])
def test_sockets_and_signals_are_scoped_from_version_six(abi: int, scoped: int) -> None:
    assert ruleset(abi, ("/",), ()).scoped == scoped
    assert Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL == 3


@pytest.mark.parametrize(("abi", "flags"), [(6, 0), (7, 5)])
def test_denials_stay_out_of_the_audit_log_from_version_seven(abi: int, flags: int) -> None:
    assert ruleset(abi, ("/",), ()).restrict_flags == flags
    assert Restrict.LOG_SAME_EXEC_OFF | Restrict.LOG_SUBDOMAINS_OFF == 5


@pytest.mark.parametrize("abi", [0, -1])
def test_without_landlock_the_ruleset_is_empty(abi: int) -> None:
    assert ruleset(abi, ("/usr",), ("/work",)) == LandlockRules()


def test_equal_requests_make_equal_hashable_values() -> None:
    one, other = ruleset(5, ("/usr",), ("/work",)), ruleset(5, ("/usr",), ("/work",))
    assert one == other
    assert hash(one) == hash(other)


def test_the_kernel_takes_every_version_up_to_its_own_and_enforces_it(tmp_path: Path) -> None:
    inside, beside = tmp_path / "inside", tmp_path / "beside"
    (inside / "deep").mkdir(parents=True)
    beside.mkdir()
    (beside / "file").write_text("secret")
    for abi in range(1, min(abi_version(), ABI_NEWEST) + 1):
        (inside / "deep" / "moved").write_text("x")
        rules = ruleset(abi, ("/usr", "/etc"), (str(inside), "/dev"))
        answers = run_confined(
            rules,
            ("write", str(inside / "file")),
            ("write", "/dev/null"),
            ("read", "/etc/passwd"),
            ("write", str(beside / "new")),
            ("read", str(beside / "file")),
            ("rename", str(inside / "deep" / "moved"), str(inside / "moved")),
            ("kill", "1"),
        )
        shared_rename = "ok" if abi >= 2 else "EXDEV"
        assert answers[:-1] == ["ok", "ok", "ok", "EACCES", "EACCES", shared_rename], abi
        assert abi < 6 or answers[-1] == "EPERM"


def test_the_probe_answers_with_a_version() -> None:
    assert 0 <= abi_version() < 1000
