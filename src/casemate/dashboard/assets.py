"""The files that pages load: styles, scripts and what is vendored. They are in the wheel and come from nowhere else."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import Final

import msgspec
from starlette.responses import Response

from casemate.errors import NotFound

_HERE: Final = Path(__file__).parent
FOLDERS: Final = (_HERE / "static", _HERE / "vendor")
_SERVED: Final = frozenset({".css", ".js", ".svg"})
_DIGEST_CHARS: Final = 16
_FOREVER: Final = "public, max-age=31536000, immutable"


class Asset(msgspec.Struct, frozen=True):
    """One file."""

    data: bytes
    media_type: str
    digest: str


class Assets:
    """All of them, read once."""

    def __init__(self) -> None:
        self._found = {path.name: _read(path) for folder in FOLDERS for path in folder.iterdir() if _is_served(path)}

    def address(self, name: str) -> str:
        """Where a page finds it; another content has another address."""
        return f"/assets/{name}?v={self._found[name].digest}"

    def response(self, name: str) -> Response:
        """The file. Raises NotFound."""
        asset = self._found.get(name)
        if asset is None:
            raise NotFound("there is no such file")
        return Response(asset.data, media_type=asset.media_type, headers={"Cache-Control": _FOREVER})


def _is_served(path: Path) -> bool:
    return path.suffix in _SERVED


def _read(path: Path) -> Asset:
    data = path.read_bytes()
    media_type = mimetypes.types_map[path.suffix]
    return Asset(data, media_type, hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS])
