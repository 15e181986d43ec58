"""Files of jobs, from the objects through a sandbox and back, with secrets, addresses, and the record of it all."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any, Final
from urllib.parse import quote

import pytest
from tests.service.live import LiveService, Tenant, answered, refused
from tests.service.test_jobs import ended, run, submitted

DATA: Final = random.Random(13).randbytes(5 * 1024 * 1024 + 3)


def files(tenant: Tenant, job: dict[str, Any], **query: Any) -> dict[str, str]:
    """Digests by names."""
    found = answered(tenant.http.get(f"/v1/jobs/{job['id']}/files", params=query))
    return {item["key"].partition(f"/{job['id']}/")[2]: item["digest"] for item in found["items"]}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_s2_18_s2_19_s2_21_files_go_in_and_come_out_in_their_areas(service: LiveService) -> None:
    tenant = service.tenant()
    answered(tenant.http.put("/v1/objects/shared/large.bin", content=DATA), 201)
    job = run(
        tenant,
        command="cat input/a.txt > output/a.txt; cp large.bin output/copy.bin; mkdir -p reports; "
        "echo r > reports/r.html; echo kept nowhere > other.txt",
        shell=True,
        files=[{"path": "a.txt", "content": "from the request"}, {"path": "large.bin", "object": "shared/large.bin"}],
        collect=["reports/**"],
    )
    assert job["state"] == "succeeded"
    assert files(tenant, job) == {
        "artifacts/reports/r.html": digest(b"r\n"),
        "input/a.txt": digest(b"from the request"),
        "output/a.txt": digest(b"from the request"),
        "output/copy.bin": digest(DATA),
    }
    assert list(files(tenant, job, area="output")) == ["output/a.txt", "output/copy.bin"]
    at = f"/v1/jobs/{job['id']}/files"
    assert tenant.http.get(f"{at}/output/copy.bin").content == DATA
    part = tenant.http.get(f"{at}/output/copy.bin", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, DATA[10:20])
    assert tenant.http.head(f"{at}/artifacts/reports/r.html").headers["content-length"] == "2"
    answered(tenant.http.put(f"{at}/artifacts/notes.txt", content=b"seen"), 201)
    refused(tenant.http.put(f"{at}/output/a.txt", content=b"other"), 422)
    refused(tenant.http.put(f"{at}/input/a.txt", content=b"other"), 422)
    refused(tenant.http.get(f"{at}/output/none"), 404)
    refused(tenant.http.get(f"{at}/attic/x"), 422)


@pytest.mark.parametrize("data", [b"[" * 900_000, b'{"command": "\xff"}', b'{"command": "\\ud800"}'])
def test_c7_a_template_that_is_written_to_break_its_reader_is_refused(tenant: Tenant, data: bytes) -> None:
    answered(tenant.http.put("/v1/objects/templates/hostile", content=data), 201)
    refused(tenant.http.post("/v1/jobs", json={"template": "hostile"}), 422, field="template")


def test_s2_75_files_of_a_job_are_its_tenants_alone(service: LiveService) -> None:
    mine, theirs = service.tenant(), service.tenant()
    job = run(theirs, command="echo x > output/x", shell=True, id="same-id")
    for at in ("", "/output/x"):
        refused(mine.http.get(f"/v1/jobs/{job['id']}/files{at}"), 404, "not_found")
    refused(mine.http.put(f"/v1/jobs/{job['id']}/files/artifacts/x", content=b"x"), 404, "not_found")
    assert mine.http.get("/v1/objects/jobs/same-id/output/x").status_code == 404
    own = run(mine, command="echo mine > output/x", shell=True, id="same-id")
    assert files(mine, own) == {"output/x": digest(b"mine\n")}
    assert files(theirs, job) == {"output/x": digest(b"x\n")}


def test_s2_23_shared_objects_are_read_and_not_written(service: LiveService) -> None:
    tenant = service.tenant()
    for name in ("a.csv", "deep/b.csv", "c.txt"):
        answered(tenant.http.put(f"/v1/objects/shared/{name}", content=name.encode()), 201)
    job = run(
        tenant,
        command="cd shared; find . -type f | sort; cat deep/b.csv; echo x > a.csv; echo $?; rm -f c.txt a.csv; echo $?",
        shell=True,
        shared=["**/*.csv"],
    )
    lines = job["result"]["stdout"]["text"].splitlines()
    assert lines[:3] == ["./a.csv", "./deep/b.csv", "deep/b.csv" + lines[2][10:]]
    assert "0" not in lines[3:]
    assert tenant.http.get("/v1/objects/shared/a.csv").content == b"a.csv"


def test_s2_22_a_job_is_made_from_a_template(service: LiveService) -> None:
    tenant = service.tenant()
    template = {"command": ["sh", "-c", "echo $WHO"], "environment": {"WHO": "template"}}
    answered(tenant.http.put("/v1/objects/templates/hello", content=json.dumps(template).encode()), 201)
    assert run(tenant, template="hello")["result"]["stdout"]["text"] == "template\n"
    refused(tenant.http.post("/v1/jobs", json={"template": "none"}), 422, field="template")


def test_s2_24_s2_40_a_file_comes_from_a_signed_address_or_is_refused_by_name(service: LiveService) -> None:
    tenant, other = service.tenant(), service.tenant()
    for each in (tenant, other):
        answered(each.http.put("/v1/objects/shared/x", content=each.name.encode()), 201)
    urls = [
        answered(each.http.post("/v1/objects/sign", json={"key": "shared/x"}), 201)["url"] for each in (tenant, other)
    ]
    job = run(tenant, command="cat x", files=[{"path": "x", "url": urls[0]}])
    assert job["result"]["stdout"]["text"] == tenant.name
    for file in (
        {"path": "x", "url": urls[1]},
        {"path": "x", "url": urls[0][:-1]},
        {"path": "x", "url": "https://elsewhere.example/x"},
        {"path": "x", "object": "shared/none"},
        {"path": "../x", "content": ""},
    ):
        problem = refused(tenant.http.post("/v1/jobs", json={"command": "true", "files": [file]}), 422)
        assert problem["field"].startswith("files[0]")


def test_s2_81_a_secret_is_in_the_jobs_environment_and_nowhere_else(service: LiveService) -> None:
    tenant = service.tenant()
    answered(tenant.http.put("/v1/secrets/API_TOKEN", json={"value": "hush-hush"}))
    job = run(tenant, command="echo ${#API_TOKEN} $API_TOKEN | cut -c1-6", shell=True, secrets=["API_TOKEN"])
    assert job["result"]["stdout"]["text"] == "9 hush\n"
    assert "hush-hush" not in json.dumps(job)
    assert "API_TOKEN" in json.dumps(answered(tenant.http.get("/v1/secrets")))
    assert "hush" not in json.dumps(answered(tenant.http.get("/v1/secrets")))
    without = run(tenant, command="env")
    assert "API_TOKEN" not in without["result"]["stdout"]["text"]
    records = b"".join(path.read_bytes() for path in service.data.glob("records.sqlite*"))
    assert b"hush-hush" not in records


@pytest.mark.parametrize("name", ["1X", "A-B", "A B", "x" * 129, "A%3DB", "Ä"])
def test_s2_81_a_secrets_name_is_one_of_a_variable(tenant: Tenant, name: str) -> None:
    refused(tenant.http.put(f"/v1/secrets/{name}", json={"value": "x"}), 422, field="name")


def test_s2_75_secrets_of_another_tenant_are_not_there(service: LiveService) -> None:
    mine, theirs = service.tenant(), service.tenant()
    answered(theirs.http.put("/v1/secrets/TOKEN", json={"value": "x"}))
    assert answered(mine.http.get("/v1/secrets"))["items"] == []
    refused(mine.http.delete("/v1/secrets/TOKEN"), 404)
    refused(mine.http.post("/v1/jobs", json={"command": "true", "secrets": ["TOKEN"]}), 422, field="secrets")
    body = {"command": "true", "secrets": ["TOKEN"], "schedule": "0 0 1 1 *"}
    refused(mine.http.post("/v1/jobs", json=body), 422, field="secrets")
    answered(theirs.http.post("/v1/jobs", json=body), 201)


def test_a_job_whose_input_is_gone_is_not_run_again(tenant: Tenant) -> None:
    answered(tenant.http.put("/v1/objects/shared/words.txt", content=b"a b"), 201)
    files = [{"path": "a.txt", "content": "a"}, {"path": "words.txt", "object": "shared/words.txt"}]
    job = run(tenant, command="cat input/a.txt words.txt", files=files)
    at = f"/v1/jobs/{job['id']}/rerun"
    again = answered(tenant.http.post(at, json={}), 202)
    assert ended(tenant, again)["result"]["stdout"]["text"] == "aa b"
    answered(tenant.http.put("/v1/objects/shared/words.txt", content=b"other"), 201)
    found = refused(tenant.http.post(at, json={}), 422, field="files[1]")
    assert "'shared/words.txt' is not what it was" in found["message"]
    tenant.http.delete("/v1/objects/shared/words.txt")
    found = refused(tenant.http.post(at, json={}), 422, field="files[1]")
    assert "'shared/words.txt' is gone" in found["message"]


def test_s2_78_what_is_done_with_jobs_is_recorded_once(service: LiveService) -> None:
    tenant = service.tenant()
    job = run(tenant, command="echo x > output/x", shell=True)
    at = f"/v1/jobs/{job['id']}"
    tenant.http.get(f"{at}/files/output/x")
    tenant.http.get(f"{at}/logs")
    waiting = submitted(tenant, command="sleep 600")
    tenant.http.post(f"/v1/jobs/{waiting['id']}/cancel")
    tenant.http.delete(at)
    found = answered(tenant.http.get("/v1/audit", params={"action": "jobs."}))["items"]
    done = [(each["action"], each["target"], each["detail"]) for each in reversed(found)]
    for wanted in (
        ("jobs.submit", f"jobs/{job['id']}", "202"),
        ("jobs.read", f"jobs/{job['id']}", "200"),
        ("jobs.files.read", f"jobs/{job['id']}/files/output/x", "200"),
        ("jobs.logs.read", f"jobs/{job['id']}/logs", "200"),
        ("jobs.submit", f"jobs/{waiting['id']}", "202"),
    ):
        assert done.count(wanted) == 1, (wanted, done)
    assert [each for each in done if each[0] == "jobs.cancel" and each[1] == f"jobs/{waiting['id']}/cancel"]
    assert [each for each in done if each[0] == "jobs.delete"] == [("jobs.delete", f"jobs/{job['id']}", "204")]


def test_deleting_a_job_deletes_its_files(service: LiveService) -> None:
    tenant = service.tenant()
    job = run(tenant, command="echo x > output/x", shell=True, files=[{"path": "a", "content": "a"}])
    assert tenant.http.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert answered(tenant.http.get("/v1/objects", params={"prefix": "jobs/"}))["items"] == []


def test_s2_37_outputs_are_kept_after_a_failure_and_a_timeout(tenant: Tenant) -> None:
    for command, more in (("exit 3", {}), ("sleep 60", {"timeout": "3s"})):
        job = run(tenant, command=f"echo so far > output/x; {command}", shell=True, **more)
        assert job["state"] in {"failed", "dead"}
        assert files(tenant, job) == {"output/x": digest(b"so far\n")}


def test_f8_files_with_hostile_names_are_kept_under_harmless_ones(service: LiveService) -> None:
    tenant = service.tenant()
    program = r"""
import os
tricky = "\u202etxt".encode()
for name in (b"new\nline", b"\x1b[31mred", b"\xff\xfe", b"..hidden", b"a\\x0ab", tricky, b"%2e%2e", b"<script>"):
    with open(b"output/" + name, "wb") as file:
        file.write(name)
os.symlink("/etc/passwd", "output/link")
"""
    job = run(tenant, code=program, runtime="python")
    assert job["state"] == "succeeded"
    found = files(tenant, job)
    assert len(found) == 8
    assert all(key.isprintable() for key in found)
    for key in found:
        response = tenant.http.get(f"/v1/jobs/{job['id']}/files/{quote(key)}")
        assert response.status_code == 200, key
        assert digest(response.content) == found[key]
