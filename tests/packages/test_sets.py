"""Package sets from end to end, with packages made on the spot: nothing here needs the Internet."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.packages.making import BACKEND, integrity_of, npm_tarball, r_tarball, source_package, wheel

import casemate

if TYPE_CHECKING:
    from tests.packages.conftest import Serve

FAILS_WITHIN_S = 45.0


def tiny(folder: Path, version: str = "1.0") -> Path:
    helper = wheel(folder, "helper", "2.0", {"helper.py": "value = 42\n"})
    assert helper.exists()
    module = f"import helper\nversion = {version!r}\nvalue = helper.value\n"
    return wheel(folder, "tiny", version, {"tiny/__init__.py": module}, requires=("helper>=2",))


def output_of(engine: casemate.Engine, code: str, runtime: str) -> object:
    result = casemate.run(code, runtime, engine=engine)
    assert result.ok, result.stderr.text
    return result.output


# From directories ---------------------------------------------------------------------------------


def test_a_set_is_a_runtime_with_its_packages_and_what_those_need(
    sets: casemate.Sets, engine: casemate.Engine, folder: Path
) -> None:
    tiny(folder)
    phases: list[str] = []
    made = sets.build("ours", ["tiny"], preload=["tiny"], source=str(folder), progress=phases.append)
    assert phases == ["resolving", "installing", "importing", "publishing"]
    assert [(each.name, each.version) for each in made.manifest.lock] == [("helper", "2.0"), ("tiny", "1.0")]
    assert made.manifest.left_out == ()
    assert made.flows == ()
    assert output_of(engine, "import tiny; output = [tiny.value, tiny.__file__]", "ours") == [
        42,
        "/opt/packages/tiny/__init__.py",
    ]
    assert engine.runtimes.get("ours").preload == ("tiny",)
    with casemate.Sandbox("ours", engine=engine) as sandbox:
        assert sandbox.run("import tiny; output = tiny.version").output == "1.0"
    without = casemate.run("import tiny", "python", engine=engine)
    assert without.error is not None
    assert without.error.type == "ModuleNotFoundError"


def test_the_same_packages_make_the_same_set(sets: casemate.Sets, folder: Path) -> None:
    tiny(folder)
    one = sets.build("one", ["tiny"], source=str(folder))
    other = sets.build("other", ["tiny"], source=str(folder))
    assert one.digest == other.digest
    assert [each.name for each in sets.list()] == ["one", "other"]


def test_bytecode_is_there_and_tells_where_the_module_lies(
    sets: casemate.Sets, engine: casemate.Engine, folder: Path
) -> None:
    wheel(folder, "failing", "1", {"failing.py": "def f():\n    raise ValueError('x')\n"})
    sets.build("ours", ["failing"], source=str(folder))
    code = "import failing, os; output = os.path.exists(failing.__cached__); failing.f()"
    result = casemate.run(code, "ours", engine=engine)
    assert result.error is not None
    assert '"/opt/packages/failing.py", line 2' in result.stderr.text


def test_sources_are_built_without_a_network(sets: casemate.Sets, engine: casemate.Engine, folder: Path) -> None:
    source_package(folder, "made", "3", BACKEND.format(code="def attack(): return 'built'", name="made", version="3"))
    made = sets.build("ours", ["made"], source=str(folder))
    assert made.manifest.lock[0].file == "made-3-py3-none-any.whl"
    assert output_of(engine, "import made; output = made.findings", "ours") == "built"


def test_modules_of_node_of_both_kinds(sets: casemate.Sets, engine: casemate.Engine, folder: Path) -> None:
    npm_tarball(folder, "@ours/helper", "1.0.0", {"index.js": "exports.value = 42;"})
    npm_tarball(
        folder,
        "tiny",
        "2.0.0",
        {"index.js": "exports.value = require('@ours/helper').value;"},
        dependencies={"@ours/helper": "^1"},
        scripts={"postinstall": "echo 'exports.made = true;' > made.js"},
    )
    made = sets.build("ours", ["tiny"], runtime="node", preload=["tiny"], source=str(folder))
    assert [(each.name, each.version) for each in made.manifest.lock] == [("@ours/helper", "1.0.0"), ("tiny", "2.0.0")]
    assert output_of(engine, "output = [require('tiny').value, require('tiny/made').made]", "ours") == [42, True]
    assert output_of(engine, "import tiny from 'tiny'; globalThis.output = tiny.value;", "ours") == 42


@pytest.mark.slow
def test_sources_of_r_and_what_they_need(sets: casemate.Sets, engine: casemate.Engine, folder: Path) -> None:
    namespace = {"NAMESPACE": "export(value)\n"}
    r_tarball(folder, "helper", "1.0", {**namespace, "R/a.R": "value <- function() 42\n"})
    body = "value <- function() helper::value() + 1\n"
    r_tarball(folder, "tiny", "1.1", {**namespace, "R/a.R": body}, imports="helper")
    r_tarball(folder, "other", "9", namespace)
    made = sets.build("ours", ["tiny"], runtime="r", preload=["tiny"], source=str(folder))
    assert [(each.name, each.version) for each in made.manifest.lock] == [("helper", "1.0"), ("tiny", "1.1")]
    assert output_of(engine, "output <- tiny::value()", "ours") == 43


@pytest.mark.slow
def test_packages_of_debian_are_unpacked(
    sets: casemate.Sets, engine: casemate.Engine, folder: Path, tmp_path: Path
) -> None:
    library = tmp_path / "deb" / "usr" / "lib" / "R" / "site-library"
    library.mkdir(parents=True)
    source = r_tarball(tmp_path, "tiny", "1.1", {"NAMESPACE": "export(v)\n", "R/a.R": "v <- function() 7\n"})
    subprocess.run(["R", "CMD", "INSTALL", f"--library={library}", source], check=True, capture_output=True)
    control = tmp_path / "deb" / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        "Package: r-cran-tiny\nVersion: 1.1-1\nArchitecture: all\nMaintainer: Nobody <n@example.org>\nDescription: x\n"
    )
    subprocess.run(["dpkg-deb", "--build", tmp_path / "deb", folder / "r-cran-tiny_1.1-1_amd64.deb"], check=True)
    made = sets.build("ours", ["tiny"], runtime="r", source=str(folder))
    assert [each.name for each in made.manifest.lock] == ["r-cran-tiny"]
    assert output_of(engine, "output <- tiny::v()", "ours") == 7


def test_a_set_can_be_read_by_guests_whatever_the_umask(
    sets: casemate.Sets, engine: casemate.Engine, folder: Path
) -> None:
    tiny(folder)
    before = os.umask(0o077)
    try:
        sets.build("ours", ["tiny"], source=str(folder))
    finally:
        os.umask(before)
    assert output_of(engine, "import tiny; output = tiny.value", "ours") == 42


def test_certificates_that_are_configured_and_not_there_are_named(
    sets: casemate.Sets, monkeypatch: pytest.MonkeyPatch, only_index: Callable[[str], None]
) -> None:
    only_index("https://index.example")
    monkeypatch.setenv("PIP_CERT", "/no/such/certificates.pem")
    with pytest.raises(casemate.BuildFailed, match=r"/no/such/certificates\.pem"):
        sets.build("ours", ["tiny"])


# From an index ------------------------------------------------------------------------------------


def index_of(*paths: Path) -> dict[str, bytes | Callable[[], bytes]]:
    pages: dict[str, bytes | Callable[[], bytes]] = {}
    for path in paths:
        name = path.name.split("-")[0]
        link = f'<a href="/files/{path.name}">{path.name}</a>\n'.encode()
        pages[f"/simple/{name}/"] = b"<!DOCTYPE html>" + link
        pages[f"/files/{path.name}"] = path.read_bytes()
    return pages


def test_the_callers_index_is_reached_through_the_proxy_and_nothing_else(
    sets: casemate.Sets, folder: Path, serve: Serve, only_index: Callable[[str], None]
) -> None:
    address = serve(index_of(tiny(folder), folder / "helper-2.0-py3-none-any.whl"))
    only_index(address)
    made = sets.build("ours", ["tiny"], preload=["tiny"])
    assert [each.name for each in made.manifest.lock] == ["helper", "tiny"]
    assert {f"http://{flow.host}:{flow.port}" for flow in made.flows} == {address}
    assert all(flow.allowed and not flow.problem for flow in made.flows)


def test_files_on_a_host_that_nobody_configured_are_refused_and_named(
    sets: casemate.Sets, folder: Path, serve: Serve, only_index: Callable[[str], None]
) -> None:
    elsewhere = serve(index_of(tiny(folder)))
    name = "tiny-1.0-py3-none-any.whl"
    only_index(serve({"/simple/tiny/": f'<!DOCTYPE html><a href="{elsewhere}/files/{name}">{name}</a>'.encode()}))
    with pytest.raises(casemate.BuildFailed, match="fetching") as caught:
        sets.build("ours", ["tiny"])
    assert elsewhere.removeprefix("http://") in caught.value.hint
    assert sets.list() == ()


def test_a_registry_of_npm_is_reached_through_the_proxy(
    sets: casemate.Sets, engine: casemate.Engine, folder: Path, serve: Serve, only_index: Callable[[str], None]
) -> None:
    path = npm_tarball(folder, "tiny", "1.2.0", {"index.js": "exports.value = 5;"})
    pages: dict[str, bytes | Callable[[], bytes]] = {f"/npm/tiny/-/{path.name}": path.read_bytes()}
    address = serve(pages)
    dist = {"tarball": f"{address}/npm/tiny/-/{path.name}", "integrity": integrity_of(path)}
    versions = {"1.2.0": {"name": "tiny", "version": "1.2.0", "dist": dist}}
    pages["/npm/tiny"] = json.dumps({"name": "tiny", "dist-tags": {"latest": "1.2.0"}, "versions": versions}).encode()
    only_index(address)
    made = sets.build("ours", ["tiny@^1"], runtime="node")
    assert made.manifest.lock[0].hash == integrity_of(path)
    assert {f"http://{flow.host}:{flow.port}" for flow in made.flows} == {address}
    assert output_of(engine, "output = require('tiny').value", "ours") == 5


# Changing and removing ----------------------------------------------------------------------------


def test_an_update_follows_the_recipe_and_old_sandboxes_keep_the_old_set(
    sets: casemate.Sets, engine: casemate.Engine, folder: Path
) -> None:
    tiny(folder)
    old = sets.build("ours", ["tiny"], source=str(folder))
    with casemate.Sandbox("ours", engine=engine) as sandbox:
        tiny(folder, "1.1")
        new = sets.update("ours")
        assert new.digest != old.digest
        assert sandbox.run("import tiny; output = tiny.version").output == "1.0"
        assert output_of(engine, "import tiny; output = tiny.version", "ours") == "1.1"
        assert Path(old.source_path).is_dir()


def test_a_removed_set_is_no_runtime_any_more_and_its_files_go_when_nobody_uses_them(
    sets: casemate.Sets, engine: casemate.Engine, folder: Path, store: Path
) -> None:
    tiny(folder)
    made = sets.build("ours", ["tiny"], source=str(folder))
    assert output_of(engine, "output = 1", "ours") == 1
    sets.remove("ours")
    with pytest.raises(casemate.UnknownRuntime):
        casemate.run("output = 1", "ours", engine=engine)
    assert Path(made.source_path).is_dir()
    engine.runtimes.close()
    assert sets.sweep() == (made.digest,)
    assert list((store / "sets").iterdir()) == []


def test_what_is_kept_ready_of_a_set_follows_its_update_and_can_be_given_up_when_it_is_removed(
    sets: casemate.Sets, engine: casemate.Engine, folder: Path
) -> None:
    tiny(folder)
    sets.build("ours", ["tiny"], source=str(folder))
    with casemate.Engine(engine.config) as keeping:
        keeping.keep_ready("ours", 1)
        tiny(folder, "1.1")
        sets.update("ours")
        keeping.keep_ready("ours", 1)
        assert output_of(keeping, "import tiny; output = tiny.version", "ours") == "1.1"
        assert [(each.label, each.hits) for each in keeping.pools()] == [("ours", 0), ("ours", 1)]
        sets.remove("ours")
        with pytest.raises(casemate.UnknownRuntime):
            keeping.keep_ready("ours", 2)
        keeping.keep_ready("ours", 0)
        keeping.rest()
        assert [each.ready for each in keeping.pools()] == [0, 0]


def test_a_set_whose_files_were_changed_is_refused_and_an_update_mends_it(
    sets: casemate.Sets, engine: casemate.Engine, folder: Path
) -> None:
    tiny(folder)
    made = sets.build("ours", ["tiny"], source=str(folder))
    module = Path(made.source_path, "helper.py")
    module.chmod(0o644)
    module.write_text("value = 666\n")
    with pytest.raises(casemate.SetDamaged, match="changed"):
        casemate.run("import helper", "ours", engine=engine)
    with pytest.raises(casemate.SetDamaged, match="changed"):
        sets.get("ours", check=True)
    assert sets.update("ours").digest == made.digest
    assert output_of(engine, "import tiny; output = tiny.value", "ours") == 42


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"name": "Bad Name", "packages": ["tiny"]}, "name"),
        ({"name": "python", "packages": ["tiny"]}, "name"),
        ({"name": "py", "packages": ["tiny"]}, "name"),
        ({"name": "ours", "packages": []}, "packages"),
        ({"name": "ours", "packages": ["./tiny"]}, "packages"),
        ({"name": "ours", "packages": ["tiny"], "runtime": "bash"}, "runtime"),
        ({"name": "ours", "packages": ["tiny"], "runtime": "cobol"}, "runtime"),
        ({"name": "ours", "packages": ["tiny"], "preload": ["-x"]}, "preload"),
        ({"name": "ours", "packages": ["tiny"], "allow": ["http://x"]}, "allow"),
        ({"name": "ours", "packages": ["tiny"], "source": "/no/such/place"}, "from"),
        ({"name": "ours", "packages": ["tiny"], "limits": {"size": 1}}, "limits.size"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_starts(
    sets: casemate.Sets, arguments: dict[str, object], field: str
) -> None:
    name, packages = arguments.pop("name"), arguments.pop("packages")
    with pytest.raises(casemate.InvalidInput) as caught:
        sets.build(name, packages, **arguments)  # type: ignore[arg-type]  # wrong on purpose, some of it
    assert caught.value.field == field
    assert sets.list() == ()


def test_a_package_that_is_not_there_fails_with_what_the_installer_said(sets: casemate.Sets, folder: Path) -> None:
    tiny(folder)
    with pytest.raises(casemate.BuildFailed, match="resolving") as caught:
        sets.build("ours", ["tiny", "missing"], source=str(folder))
    assert "missing" in caught.value.log


def test_what_cannot_be_imported_ahead_of_time_makes_no_set(sets: casemate.Sets, folder: Path) -> None:
    tiny(folder)
    with pytest.raises(casemate.BuildFailed, match="importing: 'tinny' cannot be imported") as caught:
        sets.build("ours", ["tiny"], preload=["tiny", "tinny"], source=str(folder))
    assert caught.value.log == "ModuleNotFoundError: No module named 'tinny'"
    assert sets.list() == ()


def test_a_package_of_node_that_cannot_be_imported_is_named(sets: casemate.Sets, folder: Path) -> None:
    npm_tarball(folder, "tiny", "1.0.0", {"index.js": ""})
    with pytest.raises(casemate.BuildFailed, match="importing: 'tinny' cannot be imported") as caught:
        sets.build("ours", ["tiny"], runtime="node", preload=["tiny", "tinny"], source=str(folder))
    assert "probe.mjs:" not in caught.value.log


def test_a_package_of_r_that_cannot_be_imported_is_named(sets: casemate.Sets, folder: Path) -> None:
    r_tarball(folder, "tiny", "1.0", {"NAMESPACE": "export(f)\n", "R/f.R": "f <- function() 1\n"})
    with pytest.raises(casemate.BuildFailed, match="importing: 'tinny' cannot be imported") as caught:
        sets.build("ours", ["tiny"], runtime="r", preload=["tiny", "tinny"], source=str(folder))
    assert "tinny" in caught.value.log


@pytest.mark.parametrize("runtime", ["python", "node"])
def test_an_index_that_cannot_be_reached_is_named(
    sets: casemate.Sets, only_index: Callable[[str], None], runtime: str
) -> None:
    with socket.socket() as kept:  # bound, so that nobody else listens there, and not listening either
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        only_index(f"http://127.0.0.1:{port}")
        started_s = time.monotonic()
        with pytest.raises(casemate.BuildFailed, match=f"fetching: 127.0.0.1:{port} could not be reached") as caught:
            sets.build("ours", ["tiny"], runtime=runtime)
    assert "Connection refused" in caught.value.hint
    assert time.monotonic() - started_s < FAILS_WITHIN_S


def test_a_set_is_no_base_of_another_and_a_language_is_no_set(sets: casemate.Sets, folder: Path) -> None:
    tiny(folder)
    sets.build("ours", ["tiny"], source=str(folder))
    with pytest.raises(casemate.InvalidInput, match="'ours' is a package set"):
        sets.build("more", ["tiny"], runtime="ours", source=str(folder))
    with pytest.raises(casemate.InvalidInput, match="'python' is a built-in runtime"):
        sets.get("python")


def test_a_set_that_exists_is_updated_and_not_built(sets: casemate.Sets, folder: Path) -> None:
    tiny(folder)
    sets.build("ours", ["tiny"], source=str(folder))
    with pytest.raises(casemate.InvalidInput, match="exists"):
        sets.build("ours", ["tiny"], source=str(folder))
    for call in (sets.get, sets.update, sets.remove):
        with pytest.raises(casemate.InvalidInput, match="no package set"):
            call("theirs")


def test_limits_of_a_build_hold(sets: casemate.Sets, folder: Path) -> None:
    wheel(folder, "large", "1", {"large.txt": "x" * 3_000_000})
    with pytest.raises(casemate.BuildFailed) as caught:
        sets.build("ours", ["large"], source=str(folder), limits={"disk": "2Mi"})
    assert "--disk" in caught.value.hint
    with pytest.raises(casemate.BuildFailed, match="timeout"):
        sets.build("ours", ["large"], source=str(folder), limits={"timeout": "50ms"})
