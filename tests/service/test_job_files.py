"""Files of jobs through the whole service: what goes in is read-only, what comes out is what was written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tests.service.live import LiveService, Tenant, answered

from casemate.service_config import NODE_SPOOL

SIZE_BYTES: Final = 3_000_001


def run(tenant: Tenant, **body: Any) -> dict[str, Any]:
    return ended(tenant, answered(tenant.http.post("/v1/jobs", json=body), 202))


def ended(tenant: Tenant, job: dict[str, Any]) -> dict[str, Any]:
    while job["ended_at"] is None:
        job = answered(tenant.http.get(f"/v1/jobs/{job['id']}", params={"wait": 30}))
    return job


def files_of(tenant: Tenant, job: dict[str, Any]) -> dict[str, bytes]:
    """By their names behind the job's; each is as large, and has the digest, that the list says."""
    listed = answered(tenant.http.get(f"/v1/jobs/{job['id']}/files"))["items"]
    found = {}
    for each in listed:
        name = each["key"].removeprefix(f"jobs/{job['id']}/")
        data = tenant.http.get(f"/v1/jobs/{job['id']}/files/{quote(name)}").content
        assert (len(data), hashlib.sha256(data).hexdigest()) == (each["size_bytes"], each["digest"])
        if not name.startswith("logs/"):
            found[name] = data
    return found


def test_s2_17_s2_19_s2_21_s2_72_files_make_the_round_trip(tenant: Tenant) -> None:
    data = "".join(f"{number}\n" for number in range(SIZE_BYTES // 7))
    script = "cp data.txt output/copy.txt; sha256sum < input/data.txt > sum.txt; ./tool; touch output/empty"
    given = [
        {"path": "data.txt", "content": data},
        {"path": "tool", "content": "#!/bin/sh\necho made > output/made.txt\n", "mode": 0o755},
    ]
    job = run(tenant, command=["sh", "-c", script], files=given, collect=["*.txt"])
    assert job["state"] == "succeeded", job["result"]
    found = files_of(tenant, job)
    assert found.pop("input/tool").startswith(b"#!")
    assert found.pop("input/data.txt") == found.pop("output/copy.txt") == data.encode()
    assert found.pop("artifacts/sum.txt").split()[0].decode() == hashlib.sha256(data.encode()).hexdigest()
    assert found == {"output/made.txt": b"made\n", "output/empty": b""}


def test_s2_37_files_of_a_job_that_was_ended_are_there(tenant: Tenant) -> None:
    job = run(tenant, command="echo kept > output/f; sleep 1000", shell=True, timeout=3)
    assert (job["state"], job["reason"]) == ("failed", "timeout")
    assert files_of(tenant, job) == {"output/f": b"kept\n"}


def test_s2_76_an_input_cannot_be_changed_and_stays_as_it_was(tenant: Tenant) -> None:
    script = "echo spoilt > data; rm -f input/data; mv input elsewhere; cat input/data"
    job = run(tenant, command=script, shell=True, files=[{"path": "data", "content": "original"}])
    assert job["result"]["stdout"]["text"] == "original"
    assert files_of(tenant, job) == {"input/data": b"original"}


def test_f24_names_that_a_program_has_chosen_cost_nobody_the_result(tenant: Tenant) -> None:
    names = [b"odd\xff", b"new\nline", b"-rf", b"..a", b"\xff" * 255]
    code = f"import os\nos.chdir('output')\nfor name in {names}: open(name, 'w').write('x')"
    job = run(tenant, command=["python3", "-c", code])
    assert job["state"] == "succeeded", job["result"]
    found = files_of(tenant, job)
    assert set(found.values()) == {b"x"}
    assert {"output/-rf", "output/..a", "output/new\\x0aline"} < set(found)
    assert len(found) == 4
    assert job["result"]["events"][0]["detail"].startswith("1 left out")


def test_s2_7_s2_35_s2_38_states_are_told_and_nothing_is_left(service: LiveService, tenant: Tenant) -> None:
    before = set(service.data.glob(f"{NODE_SPOOL}/*"))
    job = run(tenant, command=["sleep", "0.625"], files=[{"path": "data", "content": "x"}])
    steps = [(step["state"], step["detail"]) for step in job["transitions"]]
    assert [state for state, _ in steps] == ["queued", "preparing", "running", "collecting", "cleaned", "succeeded"]
    assert ("cleaned", "") in steps
    assert set(service.data.glob(f"{NODE_SPOOL}/*")) <= before
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if read(path) == b"sleep\x000.625\0"]
    assert left == []


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_s2_35_what_cannot_be_prepared_is_a_clear_error_and_nothing_runs(service: LiveService) -> None:
    tenant = service.tenant()
    tenant.http.put("/v1/objects/shared/going", content=b"x").raise_for_status()
    answered(tenant.http.post("/v1/queue/pause"))
    body = {"command": "true", "files": [{"path": "data", "object": "shared/going"}]}
    job = answered(tenant.http.post("/v1/jobs", json=body), 202)
    tenant.http.delete("/v1/objects/shared/going").raise_for_status()
    answered(tenant.http.post("/v1/queue/resume"))
    job = ended(tenant, job)
    assert (job["state"], job["reason"]) == ("failed", "validation")
    assert "shared/going" in job["result"]["error"]["message"]
    assert "running" not in [step["state"] for step in job["transitions"]]
