"""`casemate jobs` against a service: what newcomers ask for, and what they are told when it does not work."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.service.live import LiveService, Tenant, answered
from tests.service.test_account_commands import casemate


@pytest.fixture(scope="module")
def tenant(service: LiveService) -> Tenant:
    return service.tenant()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--", "nosuchprogram"], 127, "is failed: exit code 127: there is no program 'nosuchprogram' in the sandbox"),
        (["--timeout", "100ms", "--", "sleep", "60"], 124, "is failed: timeout; raise the limit with --timeout"),
        (["--retries", "1", "--backoff", "1ms", "--", "false"], 1, "is dead: exit code 1 at attempt 2 of 2"),
    ],
)
def test_who_waits_for_a_job_is_told_why_it_failed(
    service: LiveService, tenant: Tenant, words: list[str], status: int, said: str
) -> None:
    told = casemate(service, tenant, "jobs", "submit", "--wait", *words, status=status)
    assert said in told.splitlines()[-1]


def test_what_a_job_tried_and_was_refused_is_shown_with_it(service: LiveService, tenant: Tenant) -> None:
    tried = "import ctypes; ctypes.CDLL(None).mount(b'a', b'/tmp', b'tmpfs', 0, None)"
    casemate(service, tenant, "jobs", "submit", "--id", "mounter", "--wait", "--", "python3", "-c", tried)
    assert "\n\nevent syscall: mount: 1 refused\n" in casemate(service, tenant, "jobs", "show", "mounter")


def test_a_secret_that_is_unknown_is_refused_at_once(service: LiveService, tenant: Tenant) -> None:
    told = casemate(service, tenant, "jobs", "submit", "--secret", "NONE", "--", "true", status=125)
    assert "secrets: there is no secret 'NONE'" in told


def test_a_cancelled_job_is_told_once(service: LiveService, tenant: Tenant) -> None:
    casemate(service, tenant, "jobs", "queue", "pause")
    casemate(service, tenant, "jobs", "submit", "--id", "held", "--", "true")
    casemate(service, tenant, "jobs", "cancel", "held")
    casemate(service, tenant, "jobs", "queue", "resume")
    assert casemate(service, tenant, "jobs", "show", "held", "--wait", status=130).endswith("held is cancelled\n")


def test_the_language_of_code_is_guessed(service: LiveService, tenant: Tenant, tmp_path: Path) -> None:
    (tmp_path / "mean.py").write_text("print(6 * 7)")
    assert casemate(service, tenant, "jobs", "submit", "--wait", "--code", str(tmp_path / "mean.py")) == "42\n"
    (tmp_path / "mean.cobol").write_text("STOP RUN.")
    told = casemate(service, tenant, "jobs", "submit", "--code", str(tmp_path / "mean.cobol"), status=125)
    assert "--runtime with one of" in told


def test_s2_22_a_template_is_named_with_or_without_its_folder(service: LiveService, tenant: Tenant) -> None:
    body = b'{"command": "echo of the template"}'
    answered(tenant.http.put("/v1/objects/templates/say.json", content=body), 201)
    for name in ("say.json", "templates/say.json"):
        assert casemate(service, tenant, "jobs", "submit", "--wait", "--template", name) == "of the template\n"
    told = casemate(service, tenant, "jobs", "submit", "--template", "say", status=125)
    assert "there is no template 'say'" in told
    assert "with its ending" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submit", "--backoff", "1s", "--", "true"], "--backoff needs --retries"),
        (["list", "--text", "word", "--state", "failed"], "--text goes with --limit alone"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    service: LiveService, tenant: Tenant, words: list[str], said: str
) -> None:
    assert said in casemate(service, tenant, "jobs", *words, status=2)


def test_a_schedule_is_found_by_its_id(service: LiveService, tenant: Tenant) -> None:
    casemate(service, tenant, "jobs", "schedule", "--cron", "0 0 1 1 *", "--name", "yearly", "--", "true")
    told = casemate(service, tenant, "jobs", "schedules", "pause", "yearly", status=125)
    assert "by its id, not by its name" in told
