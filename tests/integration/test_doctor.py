"""`casemate doctor` on real machines: this one, and ones that refuse, made of namespaces and a container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casemate.kernel.hostids import can_lend
from casemate.model.layers import REQUIRED

TRIES = 5
DOCTOR = (sys.executable, "-m", "casemate", "doctor")
LIMIT_S = 30
USER_NAMESPACE = ("unshare", "--user", "--map-root-user")
CONTAINER = ("bwrap", "--unshare-user", "--unshare-pid", "--die-with-parent", "--dev-bind", "/", "/")


def doctor(slowness: float, *around: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the report, of a doctor that is started by the commands `around`."""
    done = subprocess.run(
        [*around, *DOCTOR, "--json"],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S * slowness,
        check=False,
    )
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout)


def layer(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in report["layers"] if each["layer"] == name)
    return found


def without(namespace: str) -> tuple[str, ...]:
    """A shell in a user namespace in which none of that kind can be made; limits hold for all below."""
    script = f'echo 0 > /proc/sys/user/max_{namespace}_namespaces && exec "$@"'
    return (*USER_NAMESPACE, "sh", "-c", script, "sh")


# This machine -------------------------------------------------------------------------------------


def test_this_machine_reaches_the_standard_tier(slowness: float) -> None:
    status, report = doctor(slowness)
    assert (status, report["tier"]) == (0, "standard")
    for name in REQUIRED:
        assert layer(report, name)["state"] == "works", layer(report, name)
    assert (layer(report, "host-uid")["state"] == "works") == can_lend()
    assert (layer(report, "cgroup")["state"] == "works") == bool(report["cgroup"]["version"])


@pytest.mark.root
def test_what_a_dead_engine_left_is_removed_and_named(slowness: float) -> None:
    place = doctor(slowness)[1]["cgroup"]["path"]
    leftover = Path(place, f"casemate-{os.getpid()}-1")

    def is_told() -> bool:
        leftover.mkdir()
        _, report = doctor(slowness)
        assert not leftover.exists()
        assert str(leftover) not in report["cgroup"]["left"]
        return str(leftover) in report["cgroup"]["removed"]

    assert any(is_told() for _ in range(TRIES)), "unless an engine beside was quicker, each time"


def test_without_control_groups_it_says_why_and_how_to_mend_it(slowness: float) -> None:
    status, report = doctor(slowness, CASEMATE_CGROUP="none")
    assert (status, report["tier"]) == (0, "standard")
    found = layer(report, "cgroup")
    assert found["state"] == "missing"
    assert "CASEMATE_CGROUP=none" in found["why"]
    assert found["mend"] == "unset CASEMATE_CGROUP"


def test_people_get_a_page_with_every_layer(slowness: float) -> None:
    done = subprocess.run(DOCTOR, capture_output=True, text=True, timeout=LIMIT_S * slowness, check=True)
    assert all(f"✓ {name}" in done.stdout for name in REQUIRED)
    assert "tier: standard" in done.stdout.splitlines()[-1]
    assert "\x1b" not in done.stdout


# Machines that refuse -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [("user", "user-namespace"), ("net", "network-namespace"), ("pid", "pid-namespace"), ("mnt", "mount-namespace")],
)
def test_a_limit_of_namespaces_is_named_with_its_setting(slowness: float, kind: str, name: str) -> None:
    status, report = doctor(slowness, *without(kind))
    assert (status, report["tier"]) == (1, "none")
    found = layer(report, name)
    assert found["state"] == "missing"
    assert f"user.max_{kind}_namespaces is 0" in found["why"]
    assert found["mend"].startswith(f"sudo sysctl -w user.max_{kind}_namespaces=")
    others = [each["state"] for each in report["layers"] if each["layer"] != name and each["required"]]
    assert set(others) == {"untested"}


def test_a_container_with_a_covered_proc_is_told_so(slowness: float) -> None:
    covered = ("--proc", "/proc", "--ro-bind", "/dev/null", "/proc/version")
    status, report = doctor(slowness, *CONTAINER, *covered)
    assert (status, report["tier"]) == (1, "none")
    found = layer(report, "pid-namespace")
    assert found["state"] == "missing"
    assert "parts of /proc are covered here (/proc/" in found["why"]
    assert "unmask" in found["mend"] or "systempaths=unconfined" in found["mend"]


def test_a_container_with_the_host_s_proc_is_told_so(slowness: float) -> None:
    status, report = doctor(slowness, *CONTAINER)
    assert (status, report["tier"]) == (1, "none")
    found = layer(report, "user-namespace")
    assert found["state"] == "missing"
    assert "another process namespace" in found["why"]


def test_root_of_a_user_namespace_runs_without_ids_of_its_own(slowness: float) -> None:
    status, report = doctor(slowness, *USER_NAMESPACE)
    assert (status, report["tier"]) == (0, "standard")
    found = layer(report, "host-uid")
    assert found["state"] == "missing"
    assert "too few user ids" in found["why"]


@pytest.mark.root
def test_a_chroot_is_recognised(slowness: float) -> None:
    script = 'mount --rbind / "$0" && exec chroot "$0" "$@"'
    status, report = doctor(slowness, "unshare", "--mount", "sh", "-c", script, "/mnt")
    assert (status, report["tier"]) == (1, "none")
    assert "chroot" in layer(report, "user-namespace")["why"]


@pytest.mark.root
def test_a_launcher_that_is_not_there_is_told_as_such(slowness: float) -> None:
    from casemate.isolation.launcher import PROGRAM

    script = f'mount -t tmpfs none "{PROGRAM.parent}" && exec "$@"'
    status, report = doctor(slowness, "unshare", "--mount", "sh", "-c", script, "sh")
    assert (status, report["tier"]) == (1, "none")
    assert str(PROGRAM) in layer(report, "own-root")["why"]


def test_a_refusal_on_a_run_leads_to_the_doctor(slowness: float) -> None:
    words = [*without("user"), sys.executable, "-m", "casemate", "run", "-c", "print(1)"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S * slowness, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        "casemate: launch_failed: creating the namespaces: No space left on device\nhint: run `casemate doctor`\n"
    )
