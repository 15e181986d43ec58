"""An engine with a place of its own for package sets, and servers that are indexes on this machine's loopback."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

import casemate
from casemate.config import Config, load_config

Serve = Callable[[Mapping[str, bytes | Callable[[], bytes]]], str]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    ours = load_config()
    engine = msgspec.structs.replace(ours.engine, data_directory=str(tmp_path / "data"))
    return msgspec.structs.replace(ours, engine=engine)


@pytest.fixture
def engine(config: Config) -> Iterator[casemate.Engine]:
    with casemate.Engine(config) as opened:
        yield opened


@pytest.fixture
def sets(engine: casemate.Engine) -> casemate.Sets:
    return casemate.Sets(engine)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where the sets are."""
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where packages are made."""
    found = tmp_path / "packages"
    found.mkdir()
    return found


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve these pages by path on a free port of loopback; returns its address."""
    with ExitStack() as stack:

        def start(pages: Mapping[str, bytes | Callable[[], bytes]]) -> str:
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    page = pages.get(self.path)
                    self.send_response(200 if page is not None else 404)
                    body = page() if callable(page) else page or b""
                    self.send_header("Content-Type", "text/html" if body.startswith(b"<") else "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *_: object) -> None:
                    """Nothing is printed."""

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield start


@pytest.fixture
def only_index(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Configure pip and npm as a caller would, with one index and nothing of this machine's."""

    def use(address: str) -> None:
        for name in [name for name in os.environ if name.startswith(("PIP_", "npm_config_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple/")
        monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
        monkeypatch.setenv("npm_config_registry", f"{address}/npm/")
        monkeypatch.setenv("npm_config_userconfig", os.devnull)

    return use
