"""The base of jobs: on a node, in a service, and on the command line."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.service.jobbing import Jobber, jobber
from tests.service.live import LiveService, Tenant, answered, serving

import casemate

HIDDEN = next(name for name in ("dpkg", "rpm", "apk", "mount") if shutil.which(name, path="/usr/bin:/bin:/sbin"))
"""A program of this machine that no base has by itself."""


# On a node ------------------------------------------------------------------------------------------


def on_a_node(engine: casemate.Engine, folder: Path, test: Callable[[Jobber], Any]) -> None:
    async def run() -> None:
        async with jobber(engine, folder) as node:
            await test(node)

    asyncio.run(run())


def test_s2_33_a_job_sees_the_base_that_it_is_given(engine: casemate.Engine, tmp_path: Path) -> None:
    async def test(node: Jobber) -> None:
        plain = await node.run("sh", "-c", f"command -v {HIDDEN} && echo there")
        assert b"there" in plain.output["stdout"]
        assert plain.ended.isolation.base == "machine"
        script = f"command -v {HIDDEN} || ls input > output/f"
        few = await node.run("sh", "-c", script, files={"input/x": b""}, base="minimal")
        assert few.files == {"output/f": b"x\n"}
        assert few.ended.isolation.base.startswith("minimal-")
        chosen = await node.run("sh", "-c", f"command -v {HIDDEN}", base="minimal", programs=(HIDDEN,))
        assert chosen.ended.ok
        assert chosen.ended.isolation.base != few.ended.isolation.base

    on_a_node(engine, tmp_path, test)


def test_s2_33_code_has_the_same_base_as_commands(engine: casemate.Engine, tmp_path: Path) -> None:
    async def test(node: Jobber) -> None:
        code = f"import shutil; print(shutil.which({HIDDEN!r}))"
        seen = await node.run(runtime="python", code=code, base="minimal")
        assert seen.output["stdout"] == b"None\n"

    on_a_node(engine, tmp_path, test)


def test_an_unknown_base_is_refused(engine: casemate.Engine, tmp_path: Path) -> None:
    async def test(node: Jobber) -> None:
        refusal = await node.refusal("true", base="other")
        assert (refusal.code, refusal.field) == ("invalid_input", "base")

    on_a_node(engine, tmp_path, test)


def test_a_base_that_cannot_be_made_refuses_the_job(engine: casemate.Engine, tmp_path: Path) -> None:
    async def test(node: Jobber) -> None:
        (tmp_path / "base").write_text("in the way")
        refusal = await node.refusal("true", base="minimal")
        assert refusal.code == "launch_failed"
        assert "the minimal base" in refusal.message
        assert 'base = "machine"' in refusal.hint
        assert (await node.run("true")).ended.ok

    on_a_node(engine, tmp_path, test)


# In a service ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tenant(service: LiveService) -> Tenant:
    return service.tenant()


def ended(tenant: Tenant, *command: str) -> dict[str, Any]:
    made = answered(tenant.http.post("/v1/jobs", json={"command": list(command)}), 202)
    found: dict[str, Any] = answered(tenant.http.get(f"/v1/jobs/{made['id']}", params={"wait": 60}))
    return found


def test_s2_33_jobs_have_a_minimal_base_which_their_record_names(tenant: Tenant) -> None:
    job = ended(tenant, "sh", "-c", f"command -v {HIDDEN} || echo none")
    assert job["result"]["stdout"]["text"] == "none\n"
    assert job["result"]["isolation"]["base"].startswith("minimal-")


def test_s2_33_who_calls_what_is_not_there_is_told_how_it_is_chosen(tenant: Tenant) -> None:
    job = ended(tenant, HIDDEN, "--version")
    assert (job["state"], job["exit_code"]) == ("failed", 127)
    message = job["result"]["error"]["message"]
    assert f"'{HIDDEN}' is not in the minimal base of jobs" in message
    assert "`programs`" in message
    assert 'base = "machine"' in message


def test_s2_33_all_of_the_machine_is_there_where_it_is_chosen(tmp_path: Path, slowness: float) -> None:
    config = '[jobs]\nbase = "machine"\n'
    with serving(tmp_path / "data", config=config, slowness=slowness) as service:
        job = ended(service.tenant(), "sh", "-c", f"command -v {HIDDEN} && echo there")
        assert job["exit_code"] == 0
        assert job["result"]["isolation"]["base"] == "machine"


# On the command line --------------------------------------------------------------------------------


def listed(folder: Path, config: str, *words: str, told: bool = False) -> str:
    file = folder / "casemate.toml"
    file.write_text(config)
    command = [sys.executable, "-m", "casemate", "jobs", "base", "--config", str(file), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr if told else done.stdout


def test_s2_33_the_content_of_the_base_is_listed(tmp_path: Path) -> None:
    found = json.loads(listed(tmp_path, "", "--json"))
    names = {Path(each["path"]).name: each["size_bytes"] for each in found["programs"]}
    assert names["ls"] > 0
    assert HIDDEN not in names
    assert any(Path(path).name == HIDDEN for path in found["hidden"]) or "/usr/sbin" in found["hidden"]
    lines = listed(tmp_path, f'[jobs]\nprograms = ["{HIDDEN}"]').splitlines()
    assert lines[0].split() == ["PROGRAM", "SIZE"]
    assert any(line.split()[0].endswith(f"/{HIDDEN}") for line in lines)


def test_a_program_that_is_chosen_and_not_there_is_named(tmp_path: Path) -> None:
    told = listed(tmp_path, f'[jobs]\nprograms = ["{HIDDEN}", "ffmpgg"]', told=True).splitlines()
    assert told[1:] == ["casemate: 'ffmpgg' is chosen, and not among them"]


def test_a_service_and_the_list_name_the_same_base(tenant: Tenant, tmp_path: Path) -> None:
    found = json.loads(listed(tmp_path, "", "--json"))
    assert ended(tenant, "true")["result"]["isolation"]["base"] == found["base"]


def test_nothing_is_listed_where_all_is_there(tmp_path: Path) -> None:
    config = '[jobs]\nbase = "machine"'
    assert json.loads(listed(tmp_path, config, "--json")) == {"base": "machine"}
    assert listed(tmp_path, config) == ""
