"""Building the addon of the isolates: what is missing is named, and so is what to install."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from casemate.errors import RuntimeUnavailable
from casemate.runtimes import addon, interpreter
from casemate.runtimes.builtin import BUILTIN

RUNTIME = BUILTIN["javascript"]


def test_a_runtime_whose_addon_is_not_built_says_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "PACKAGE", tmp_path)
    unbuilt = msgspec.structs.replace(RUNTIME, addon="nothing")
    with pytest.raises(RuntimeUnavailable) as caught:
        interpreter.find_interpreter("unbuilt", unbuilt)
    assert caught.value.hint == "python3 -m casemate.runtimes.addon"


def test_the_lock_pins_every_package_by_its_hash() -> None:
    lock = json.loads((addon.DIRECTORY / "package-lock.json").read_text())
    wanted = json.loads((addon.DIRECTORY / "package.json").read_text())["dependencies"]
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert packages[f"node_modules/{addon.MODULE}"]["version"] == wanted[addon.MODULE]
    assert all(each["integrity"].startswith("sha512-") for each in packages.values())
    assert not any("resolved" in each for each in packages.values())


def test_without_node_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(addon.BuildError, match="apt-get install nodejs npm"):
        addon.node()


def test_missing_tools_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(addon.BuildError, match=r"not installed: npm, g\+\+, make, python3; .*apt-get install"):
        addon.require_tools()


def test_headers_are_those_beside_the_interpreter(tmp_path: Path) -> None:
    header = tmp_path / addon.HEADER
    header.parent.mkdir(parents=True)
    header.touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "node").touch()
    assert addon.headers(str(tmp_path / "bin" / "node")) == tmp_path


def test_a_step_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(addon.BuildError, match=r"(?s)sh -c .* failed:.*the reason"):
        addon.run(["sh", "-c", "echo the reason >&2; exit 3"], tmp_path, {"PATH": "/usr/bin:/bin"})


def test_the_main_program_fails_with_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert addon.main() == 1
    assert capsys.readouterr().err.startswith("casemate: the runtime javascript cannot be built: node is not installed")


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    made, target = tmp_path / "made", tmp_path / "built"
    for content in (b"one", b"two"):
        made.write_bytes(content)
        assert addon.install(made, target).read_bytes() == content
    assert [path.name for path in target.iterdir()] == [addon.FILE]
