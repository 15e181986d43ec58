"""Tiny packages for every installer, made on the spot: the same bytes each time, and nobody's code but ours."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)

Files = Mapping[str, str | bytes]


def encoded(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def wheel(
    folder: Path, name: str, version: str, files: Files, *, requires: tuple[str, ...] = (), raw: bool = False
) -> Path:
    """A wheel; `raw` takes names as they are, and no RECORD covers them."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    entries = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{entry},{digest_of(data)},{len(encoded(data))}\n" for entry, data in entries.items())
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in {**entries, f"{info}/RECORD": "" if raw else record + f"{info}/RECORD,,\n"}.items():
            member = zipfile.ZipInfo(entry, EPOCH)
            member.external_attr = 0o100644 << 16
            archive.writestr(member, encoded(data), zipfile.ZIP_DEFLATED)
    return path


def digest_of(data: str | bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(encoded(data)).digest()).rstrip(b"=").decode()


def tarball(
    path: Path, files: Files, *, programs: tuple[str, ...] = (), links: Mapping[str, str] | None = None
) -> Path:
    """A gzipped tar of these files; `programs` may be executed, `links` are symbolic."""
    with tarfile.open(path, "w:gz") as archive:
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, content in files.items():
            data = encoded(content)
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755 if name in programs else 0o644
            archive.addfile(member, io.BytesIO(data))
    return path


def source_package(folder: Path, name: str, version: str, backend: str) -> Path:
    """A source distribution whose build runs `backend`, a module with the hooks of PEP 517, and needs nothing else."""
    root = f"{name}-{version}"
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {f"{root}/pyproject.toml": project, f"{root}/PKG-INFO": metadata, f"{root}/backend.py": backend}
    return tarball(folder / f"{root}.tar.gz", files)


BACKEND = """
import base64, hashlib, os, zipfile
{code}
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    findings = attack()
    info = "{name}-{version}.dist-info"
    entries = {{
        "{name}.py": "findings = " + repr(findings),
        info + "/METADATA": "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n",
        info + "/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    record = "".join(f"{{entry}},,\\n" for entry in [*entries, info + "/RECORD"])
    filename = "{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, filename), "w") as archive:
        for entry, data in {{**entries, info + "/RECORD": record}}.items():
            archive.writestr(entry, data)
    return filename
"""
"""A backend that makes a wheel of what its `attack()` finds out."""


def npm_tarball(
    folder: Path, name: str, version: str, files: Files, *, links: Mapping[str, str] | None = None, **more: object
) -> Path:
    """A tarball as `npm pack` makes them; `more` goes into its package.json."""
    manifest = json.dumps({"name": name, "version": version, "main": "index.js", **more})
    inner = {f"package/{path}": data for path, data in {"package.json": manifest, **files}.items()}
    plain = name.removeprefix("@").replace("/", "-")
    return tarball(folder / f"{plain}-{version}.tgz", inner, links=links)


def integrity_of(path: Path) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def r_tarball(
    folder: Path, name: str, version: str, files: Files, *, imports: str = "", programs: tuple[str, ...] = ()
) -> Path:
    """A source package of R."""
    description = (
        f"Package: {name}\nVersion: {version}\nTitle: Test\nDescription: A test.\nLicense: MIT\n"
        f"Author: Nobody\nMaintainer: Nobody <nobody@example.org>\n{f'Imports: {imports}' if imports else ''}\n"
    )
    inner = {f"{name}/{path}": data for path, data in {"DESCRIPTION": description, **files}.items()}
    programs = tuple(f"{name}/{each}" for each in programs)
    return tarball(folder / f"{name}_{version}.tar.gz", inner, programs=programs)
