"""A minimal base in sandboxes: what is not known is not there, whoever makes them and however."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

import casemate
from casemate import limits
from casemate.engine.drive import drive
from casemate.engine.run import Run, prepare_code, prepare_command, run_alone
from casemate.engine.warm import warm_key
from casemate.errors import LayerMissing
from casemate.model.layers import Layer
from casemate.model.result import Result
from casemate.node.base import Base, known
from casemate.node.bases import Bases, interpreters_of


@pytest.fixture(scope="module")
def bases(engine: casemate.Engine, tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases") / "base", lambda: interpreters_of(engine.runtimes))


@pytest.fixture(scope="module")
def base(bases: Bases, engine: casemate.Engine) -> Base:
    made = bases.get(())
    try:
        drive(run_alone(engine, within(prepare_command(engine, ["true"]), bases.mask_of(made))))
    except LayerMissing:
        pytest.skip("no overlay can be mounted on this machine")
    return made


@pytest.fixture(scope="module")
def mask(bases: Bases, base: Base) -> str:
    return bases.mask_of(base)


def within(run: Run, mask: str) -> Run:
    return msgspec.structs.replace(run, spec=msgspec.structs.replace(run.spec, base=mask))


def ran(engine: casemate.Engine, mask: str, *argv: str) -> Result:
    return drive(run_alone(engine, within(prepare_command(engine, argv), mask)))


WALK = "for place in / /usr /bin /lib /opt; do find $place -xdev -perm /6000 -type f 2> /dev/null; done; echo end"


def test_s2_33_no_file_that_gives_rights_can_be_reached(engine: casemate.Engine, mask: str) -> None:
    assert ran(engine, mask, "sh", "-c", WALK).stdout.text == "end\n"


def test_s2_33_nothing_is_there_that_builds_installs_debugs_or_administers(engine: casemate.Engine, mask: str) -> None:
    names = sorted(known().hidden_programs - known().programs)
    script = 'for name; do command -v "$name"; done; find /usr /opt -type f -perm /111 2> /dev/null'
    found = ran(engine, mask, "sh", "-c", script, "sh", *names).stdout.text.split("\n")
    assert len(found) > 100
    assert {Path(path).name for path in found} & set(names) == set()


def test_s2_33_the_list_is_what_a_sandbox_sees(engine: casemate.Engine, base: Base, mask: str) -> None:
    seen = ran(engine, mask, "sh", "-c", "ls -A /usr/bin /usr/local/bin 2> /dev/null").stdout.text
    found = {line for line in seen.splitlines() if line and not line.startswith("/")}
    places = ("/usr/bin", "/usr/local/bin")
    assert found == {Path(each.path).name for each in base.programs if str(Path(each.path).parent) in places}
    assert {"sh", "ls", "cat", "tar", "sed"} <= found


def test_s2_33_the_programs_of_the_list_run(engine: casemate.Engine, mask: str) -> None:
    script = "echo b a | tr ' ' '\\n' | sort | sed s/a/c/ > f; tar -cf t.tar f; gzip t.tar; tar -tzf t.tar.gz; cat f"
    assert ran(engine, mask, "bash", "-c", script).stdout.text == "f\nc\nb\n"


def test_the_base_is_named_by_the_result(engine: casemate.Engine, base: Base, mask: str) -> None:
    assert ran(engine, mask, "true").isolation.base == f"minimal-{base.digest}"
    assert casemate.execute(["true"], engine=engine).isolation.base == "machine"


SUMS = {
    "python": "import json, ssl, sqlite3; print(6 * 7)",
    "bash": "echo $((6 * 7))",
    "node": "console.log(6 * 7)",
    "r": "cat(6 * 7)",
}


@pytest.mark.parametrize("runtime", SUMS)
def test_languages_have_all_that_they_need(engine: casemate.Engine, mask: str, runtime: str) -> None:
    run = prepare_code(engine, SUMS[runtime], runtime=runtime)
    result = drive(run_alone(engine, within(run, mask)))
    assert result.stdout.text.split() == ["42"]
    assert result.stderr.text == ""


LOOK = 'import shutil; print([shutil.which(name) for name in ("gcc", "apt-get", "git", "mount")])'


def test_one_that_was_made_ahead_has_the_same_base(mask: str) -> None:
    with casemate.Engine() as engine:
        run = within(prepare_code(engine, LOOK, runtime="python"), mask)
        assert engine.warm.keep(warm_key(run), 1, limits.LAUNCH_TIMEOUT_S)
        result = drive(run_alone(engine, run))
        assert result.stdout.text == "[None, None, None, None]\n"
        assert result.isolation.base == Path(mask).name
        assert sum(pool.hits for pool in engine.pools()) == 1


def test_what_is_made_for_one_base_serves_no_other(engine: casemate.Engine, mask: str) -> None:
    run = prepare_command(engine, ["true"])
    assert warm_key(run) != warm_key(within(run, mask))


def test_s2_33_all_of_the_machine_can_be_chosen(engine: casemate.Engine) -> None:
    names = [name for name in ("gcc", "git", "apt-get", "mount") if shutil.which(name, path="/usr/bin")]
    result = casemate.execute(["sh", "-c", 'for name; do command -v "$name"; done', "sh", *names], engine=engine)
    assert [Path(line).name for line in result.stdout.text.splitlines()] == names


def test_without_an_overlay_nothing_runs_instead_of_with_everything(
    engine: casemate.Engine, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = engine.backend.host
    tops = {f"{mask}/{entry.name}" for entry in host.base if not entry.link}
    refused = msgspec.structs.replace(host, overlay_refused=host.overlay_refused | tops)
    monkeypatch.setattr(engine.backend, "_host", refused)
    with pytest.raises(LayerMissing) as caught:
        ran(engine, mask, "true")
    assert caught.value.layers == (Layer.PRIVATE_BASE,)
    assert 'base = "machine"' in caught.value.hint
    assert casemate.execute(["true"], engine=engine).ok
