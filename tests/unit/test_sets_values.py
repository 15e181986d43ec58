"""What people and installers write about packages: names, requirements, configurations and lock files."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.cli.sets import split_packages
from casemate.egress.rules import HostRule
from casemate.errors import BuildFailed, InvalidInput
from casemate.model.packages import Locked, check_preload, check_set_name
from casemate.runtimes.registry import builtin_runtimes
from casemate.sets.installers import find_installer
from casemate.sets.installers.base import rule_of
from casemate.sets.installers.npm import LockFile, Npm, locked, project_of, settings_of
from casemate.sets.installers.pip import Pip, indexes_of, options_for, parse_options, requirements_of
from casemate.sets.installers.r import RPackages

SHA512 = "sha512-" + "A" * 86 + "=="


@pytest.mark.parametrize("name", ["science", "a", "py311", "our-own-set", "x" * 64])
def test_names_of_sets(name: str) -> None:
    assert check_set_name(name, {"python"}) == name


@pytest.mark.parametrize(
    "name", ["", "Science", "a b", "../x", "a/b", ".hidden", "-x", "x-", "a--b", "1a", "ä", "a\n", "x" * 65, "python"]
)
def test_bad_names_of_sets_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        check_set_name(name, {"python"})


def test_modules_to_preload_are_names_of_modules() -> None:
    assert check_preload(["numpy", "scipy.optimize", "@scope/x", "numpy"]) == ("numpy", "scipy.optimize", "@scope/x")
    for wrong in ("", "--eval", "a b", "a;b", "/etc/passwd", "'x'"):
        with pytest.raises(InvalidInput, match="preload"):
            check_preload([wrong])


def test_every_declared_installer_is_there() -> None:
    declared = {runtime.sets.installer for runtime in builtin_runtimes().values() if runtime.sets is not None}
    assert declared == {"pip", "npm", "r"}
    for name in declared:
        find_installer(name)
    with pytest.raises(InvalidInput):
        find_installer("other")


@pytest.mark.parametrize(
    ("words", "packages"),
    [
        (["numpy,scipy", "pandas"], ["numpy", "scipy", "pandas"]),
        (["pandas>=2,<3,scipy"], ["pandas>=2,<3", "scipy"]),
        (["a[x,y]==1, b"], ["a[x,y]==1", "b"]),
        (["@scope/a@^1,b"], ["@scope/a@^1", "b"]),
        ([",,"], []),
        ([], []),
    ],
)
def test_commas_between_and_within_requirements(words: list[str], packages: list[str]) -> None:
    assert split_packages(words) == packages


GOOD = {
    "pip": ["numpy", "numpy==1.26.4", "pandas >= 2, < 3", "a[x,y]~=1.0", "zope.interface", "a!=1.*", "a===1+local"],
    "npm": ["lodash", "@scope/name", "date-fns@^3", "a@1.x || 2", "a@latest", "a@>=1 <2"],
    "r": ["jsonlite", "data.table", "R6"],
}
BAD = {
    "pip": ["", "-r x", "--index-url=x", "./x", "/x.whl", "a @ file:///x", "git+https://x", "a;python_version>'3'",
            "a==", "a b", "a\nb", "http://x", "a[", "x" * 10 + "\0"],
    "npm": ["", "-g", "--x", "./x", "../x", "/x", "a@file:../x", "a@git+ssh://x", "a@http://x", "user/repo", "A",
            "@x", "a@npm:b", "a\nb", ".x", "_x"],
    "r": ["", "-x", "a-b", "a/b", "a_1", "1a", "a b", "x.", "$(x)"],
}  # fmt: skip


@pytest.mark.parametrize(("installer", "package"), [(name, each) for name, all_ in GOOD.items() for each in all_])
def test_packages_that_an_installer_takes(installer: str, package: str) -> None:
    assert find_installer(installer).check(package) == (package.replace(" ", "") if installer == "pip" else package)


@pytest.mark.parametrize(("installer", "package"), [(name, each) for name, all_ in BAD.items() for each in all_])
def test_options_paths_and_addresses_are_no_packages(installer: str, package: str) -> None:
    with pytest.raises(InvalidInput, match="packages"):
        find_installer(installer).check(package)


@given(st.text(max_size=60), st.sampled_from([Pip(), Npm(), RPackages()]))
def test_whatever_is_taken_cannot_be_read_as_an_option_or_a_path(text: str, installer: Pip | Npm | RPackages) -> None:
    try:
        taken = installer.check(text)
    except InvalidInput:
        return
    assert taken[0] not in "-./~"
    assert not set(taken) & set("\n\r\0\"'`$;:\\")
    assert taken.count("/") <= (installer.__class__ is Npm)


# pip ----------------------------------------------------------------------------------------------


def test_the_configuration_of_pip_is_read_as_it_prints_it() -> None:
    text = """
:env:.index-url='https://env.example/simple'
global.index-url='https://user:word@index.example:8443/simple'
global.extra-index-url='https://more.example/simple\\nfile:///opt/simple'
download.timeout='3'
nonsense
broken='x
number=3
"""
    options = parse_options(text)
    assert options["global.extra-index-url"] == "https://more.example/simple\nfile:///opt/simple"
    assert "number" not in options
    found = indexes_of(options_for("wheel", options), default="https://default.example/simple", files_host="f.example")
    assert found.urls == ("https://env.example/simple", "https://more.example/simple")
    assert found.rules == (HostRule("env.example", anywhere=True), HostRule("more.example", anywhere=True))


def test_only_the_default_index_has_its_files_elsewhere() -> None:
    default = "https://default.example/simple"
    found = indexes_of({}, default=default, files_host="files.example")
    assert [rule.host for rule in found.rules] == ["default.example", "files.example"]
    with pytest.raises(BuildFailed, match="network"):
        indexes_of({"index-url": "file:///opt/simple"}, default=default, files_host="files.example")


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_of_pip(text: str) -> None:
    assert all(isinstance(value, str) for value in parse_options(text).values())


@given(st.text(max_size=100))
def test_any_address_has_a_rule_or_none_or_is_refused(url: str) -> None:
    try:
        rule = rule_of(url)
    except InvalidInput:
        return
    assert rule is None or url.lower().startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://index.example/simple", HostRule("index.example", 443, anywhere=True)),
        ("http://index.example:8080", HostRule("index.example", 8080, anywhere=True)),
        ("HTTP://user:pass@Index.Example/x", HostRule("index.example", 80, anywhere=True)),
        ("http://[::1]:3141/root", HostRule("::1", 3141, anywhere=True)),
        ("file:///opt/simple", None),
        ("/opt/simple", None),
    ],
)
def test_addresses_of_indexes(url: str, rule: HostRule | None) -> None:
    assert rule_of(url) == rule


def test_wheels_are_locked_by_name_version_and_hash(tmp_path: Path) -> None:
    (tmp_path / "Some_Thing.x-1.0+local-2-py3-none-any.whl").write_bytes(b"wheel")
    (found,) = Pip().lock(tmp_path)
    assert (found.name, found.version) == ("some-thing-x", "1.0+local")
    assert requirements_of([found]).startswith("some-thing-x==1.0+local --hash=sha256:")


@pytest.mark.parametrize("name", ["x.txt", "x-1.whl", "x-1-py3-none-any.whl.exe", "-x-1-py3-none-any.whl", "x 1.whl"])
def test_a_file_that_is_no_wheel_cannot_be_locked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BuildFailed, match="no wheel"):
        Pip().lock(tmp_path)


# npm ----------------------------------------------------------------------------------------------


def test_registries_of_npm_and_no_secrets() -> None:
    lines, rules = settings_of(
        {
            "registry": "https://registry.example/",
            "@ours:registry": "http://own.example:4873/",
            "//own.example/:_authToken": "secret",
            "proxy": "http://elsewhere",
            "strict-ssl": False,
            "cache": "/root/.npm",
        }
    )
    assert rules == (HostRule("registry.example", anywhere=True), HostRule("own.example", 4873, anywhere=True))
    assert "secret" not in "".join(lines)
    assert "elsewhere" not in "".join(lines)
    assert "strict-ssl=false" in lines


@pytest.mark.parametrize("value", ["file:///x", "https://x/\nfoo=bar", "https://x/ y"])
def test_a_registry_that_cannot_be_passed_on_is_refused(value: str) -> None:
    with pytest.raises(BuildFailed):
        settings_of({"registry": value})


def test_what_npm_is_to_install() -> None:
    wanted = json.loads(project_of(["a", "@s/b@^1", "c@latest"]))["dependencies"]
    assert wanted == {"a": "*", "@s/b": "^1", "c": "latest"}


def test_a_lock_file_of_npm() -> None:
    entry = {"version": "1.0.0", "resolved": "https://x/a-1.0.0.tgz", "integrity": SHA512, "other": [1]}
    packages = {"": {}, "node_modules/a": entry, "node_modules/a/node_modules/@s/b": {**entry, "resolved": ""}}
    assert locked(json.dumps({"packages": packages, "x": 1}).encode()) == (
        Locked(name="@s/b", version="1.0.0", file="@s/b@1.0.0", hash=SHA512),
        Locked(name="a", version="1.0.0", file="a-1.0.0.tgz", hash=SHA512),
    )


@pytest.mark.parametrize("entry", [{}, {"version": "1"}, {"version": "1", "integrity": "md5-x"}, {"integrity": SHA512}])
def test_a_package_without_a_hash_is_refused(entry: dict[str, str]) -> None:
    with pytest.raises(BuildFailed, match="no hash"):
        locked(json.dumps({"packages": {"node_modules/a": entry}}).encode())


@given(st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), st.recursive(
    st.none() | st.text(max_size=5) | st.integers(), lambda inner: st.dictionaries(
        st.sampled_from(["packages", "node_modules/a", "version", "integrity"]), inner))))  # fmt: skip
def test_any_bytes_are_a_lock_file_or_refused(data: bytes) -> None:
    try:
        found = locked(data)
    except BuildFailed:
        return
    assert len(found) <= len(msgspec.json.decode(data, type=LockFile).packages)


# R ------------------------------------------------------------------------------------------------


def test_packages_of_r_are_locked_from_their_files(tmp_path: Path) -> None:
    for name in ("r-cran-jsonlite_1.8.4+dfsg-1_amd64.deb", "tiny_1.2.tar.gz", "PACKAGES"):
        (tmp_path / name).write_bytes(b"x")
    found = RPackages().lock(tmp_path)
    assert [(each.name, each.version) for each in found] == [("r-cran-jsonlite", "1.8.4+dfsg-1"), ("tiny", "1.2")]
    (tmp_path / "other.zip").write_bytes(b"x")
    with pytest.raises(BuildFailed, match="neither"):
        RPackages().lock(tmp_path)
