"""Objects by the clients and the command line, over ways that break."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from tests.serving import CuttingProxy, Service, serving

from casemate import AsyncClient, Client
from casemate.errors import Conflict, FileTransferError, InvalidInput, NotFound
from casemate.sdk import transfers

DATA: Final = random.Random(11).randbytes(20 * 1024 * 1024 + 5)
ATTEMPTS: Final = 200
WAIT_S: Final = 60.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("transfers") / "data") as started:
        yield started


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, service.key) as opened:
        yield opened


def command(
    service: Service, *words: str, stdin: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "CASEMATE_URL": service.url, "CASEMATE_KEY": service.key}
    return subprocess.run(
        [sys.executable, "-m", "casemate", *words],
        input=stdin,
        capture_output=True,
        env=environment,
        cwd=cwd,
        check=False,
    )


def shown(service: Service, *words: str, stdin: bytes = b"", cwd: Path | None = None) -> str:
    done = command(service, *words, stdin=stdin, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("size", [0, 1, 8 * 1024 * 1024, len(DATA)])
def test_s2_72_what_a_client_sends_it_gets_back(client: Client, tmp_path: Path, size: int) -> None:
    told: list[tuple[int, int | None]] = []
    path = tmp_path / "source"
    path.write_bytes(DATA[:size])
    stored = client.objects.upload("shared/it", path, progress=lambda done, total: told.append((done, total)))
    assert stored.size_bytes == size
    assert told[-1] == (size, size)
    assert client.objects.read("shared/it") == DATA[:size]
    assert client.objects.download("shared/it", tmp_path / "target") == size
    assert (tmp_path / "target").read_bytes() == DATA[:size]
    assert [each.key for each in client.objects.list("shared/it")] == ["shared/it"]
    client.objects.delete("shared/it")
    with pytest.raises(NotFound):
        client.objects.read("shared/it")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["source", "target"]


def test_s2_72_a_download_goes_on_where_it_was_cut_off(service: Service, client: Client) -> None:
    client.objects.upload("shared/cut", DATA)
    with CuttingProxy(service.url, seed=3, most_bytes=3_000_000) as proxy:
        proxy.cuts_left = 12
        with Client(proxy.url, service.key, attempts=ATTEMPTS) as cut_off:
            assert cut_off.objects.read("shared/cut") == DATA
        assert proxy.cuts >= 5


def test_s2_72_an_upload_sends_the_lost_part_again(service: Service, client: Client) -> None:
    with CuttingProxy(service.url, seed=5, most_bytes=9_000_000) as proxy:
        proxy.cuts_left = 6
        with Client(proxy.url, service.key, attempts=ATTEMPTS) as cut_off:
            cut_off.objects.upload("shared/cut-up", DATA)
        assert proxy.cuts >= 3
    assert client.objects.read("shared/cut-up") == DATA


def test_s2_72_asynchronous_clients_do_the_same(service: Service, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncClient(service.url, service.key) as client:
            stored = await client.objects.upload("shared/async", DATA)
            assert stored.size_bytes == len(DATA)
            assert await client.objects.read("shared/async") == DATA
            assert await client.objects.download("shared/async", tmp_path / "target") == len(DATA)
            found = [each.key async for each in client.objects.list("shared/async")]
            assert found == ["shared/async"]
            await client.secrets.set("ASYNC", "x")
            assert "ASYNC" in [each.name async for each in client.secrets.list()]
            assert (await client.audit.verify()).is_whole

    asyncio.run(main())
    assert (tmp_path / "target").read_bytes() == DATA


def test_a_download_that_fails_leaves_no_file(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        client.objects.download("shared/none", tmp_path / "target")
    with pytest.raises(FileTransferError, match="No such file"):
        client.objects.upload("shared/none", tmp_path / "none")
    with pytest.raises(InvalidInput):
        client.objects.upload("elsewhere/x", b"x")
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_replaced_while_it_comes_is_never_mixed(service: Service, client: Client) -> None:
    """The first piece is taken, then the way is cut and the object replaced."""
    client.objects.upload("shared/mixed", DATA)
    pieces = client.objects.iterate("shared/mixed")
    assert next(pieces)
    steps = transfers._Coming()
    steps.begin(head(len(DATA), '"one"', 200))
    steps.take(b"x" * 10)
    with pytest.raises(Conflict):
        steps.begin(head(len(DATA), '"two"', 200))
    with pytest.raises(Conflict):
        steps.begin(head(len(DATA), '"one"', 200))
    pieces.close()  # type: ignore[attr-defined]


def head(size: int, tag: str, status: int) -> Any:
    from casemate.sdk.requests import Head

    return Head(status=status, headers={"content-length": str(size), "etag": tag})


def test_the_command_line_moves_objects(service: Service, tmp_path: Path) -> None:
    (tmp_path / "in.bin").write_bytes(DATA)
    told = shown(service, "objects", "put", "in.bin", "shared/cli/in.bin", cwd=tmp_path)
    assert f"{len(DATA)} bytes" in told
    assert "shared/cli/in.bin" in shown(service, "objects", "list", "shared/cli/")
    assert str(len(DATA)) in shown(service, "objects", "get", "shared/cli/in.bin", "out.bin", cwd=tmp_path)
    assert (tmp_path / "out.bin").read_bytes() == DATA
    shown(service, "objects", "put", "-", "shared/cli/pipe", stdin=b"through a pipe")
    assert shown(service, "objects", "get", "shared/cli/pipe", "-") == "through a pipe"
    url = shown(service, "objects", "sign", "shared/cli/pipe", "--expires", "1m").strip()
    assert httpx2.get(url, timeout=WAIT_S).content == b"through a pipe"
    url = shown(service, "objects", "sign", "shared/cli/new", "--put", "--max", "1Ki").strip()
    assert httpx2.put(url, content=b"new", timeout=WAIT_S).status_code == 201
    shown(service, "objects", "delete", "shared/cli/pipe")
    gone = command(service, "objects", "get", "shared/cli/pipe", "-")
    assert (gone.returncode, b"not_found" in gone.stderr) == (125, True)
    listed = json.loads(shown(service, "objects", "list", "shared/cli/", "--json"))
    assert [each["key"] for each in listed] == ["shared/cli/in.bin", "shared/cli/new"]


def test_s2_81_the_command_line_sets_secrets_and_shows_none(service: Service, tmp_path: Path) -> None:
    assert "is set" in shown(service, "secrets", "set", "API_TOKEN", stdin=b"hush-hush\n")
    (tmp_path / "token").write_text("hush-hush")
    shown(service, "secrets", "set", "OTHER", "--from", str(tmp_path / "token"))
    listed = shown(service, "secrets", "list") + shown(service, "secrets", "list", "--json")
    assert "API_TOKEN" in listed
    assert "OTHER" in listed
    assert "hush" not in listed + shown(service, "audit", "list", "--json")
    shown(service, "secrets", "delete", "OTHER")
    assert command(service, "secrets", "delete", "OTHER").returncode == 125
    assert command(service, "secrets", "set", "not a name", stdin=b"x").returncode == 125


def test_s2_78_the_command_line_shows_the_audit_log_and_verifies_it(service: Service) -> None:
    shown(service, "objects", "put", "-", "shared/audited", stdin=b"x")
    assert "objects.write" in shown(service, "audit", "list", "--action", "objects.", "--limit", "5")
    assert "is whole" in shown(service, "audit", "verify")


def test_the_command_line_puts_a_new_master_key_before_the_old(tmp_path: Path) -> None:
    data, key = tmp_path / "data", ""
    for number in range(3):
        with serving(data) as service, Client(service.url, key or service.key) as client:
            key = key or service.key
            client.objects.upload(f"shared/{number}", b"x")
            assert [client.objects.read(f"shared/{each}") for each in range(number + 1)] == [b"x"] * (number + 1)
            assert f"{number + 2} generations" in shown(service, "objects", "rotate-key", "--data", str(data))
            assert command(service, "objects", "rotate-key", "--data", str(tmp_path)).returncode == 125
