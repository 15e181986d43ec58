"""Notices on their way: signed, sent again, and to no address that is not for everybody."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.integration.records import with_tenant

from casemate import account_limits as bound
from casemate.errors import TooManyRequests
from casemate.model.signature import sign
from casemate.store import webhooks
from casemate.store.database import Database
from casemate.store.webhooks import Notice, Webhook
from casemate.tenancy.delivery import Delivery
from casemate.tenancy.destinations import configured
from casemate.tenancy.secrets import Signing, webhook_text
from casemate.tenancy.webhooks import Notices, Webhooks

WAIT_S = 60
SIGNING = Signing((b"a secret of the tests" * 2,))


class Receiver(ThreadingHTTPServer):
    """Takes what it is sent, and answers with the statuses that it was told, then with 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = self.server_address[1]
        self.statuses: list[int] = []
        self.elsewhere = ""
        self.taken: list[tuple[str, dict[str, str], bytes]] = []
        self.connected: list[tuple[str, int]] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connected.append(client_address)
        super().process_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.taken.append((self.path, headers, body))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", self.server.elsewhere or f"http://127.0.0.1:{self.server.port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "NOTICE_PAUSE_FIRST_S", 0.01)
    monkeypatch.setattr(bound, "NOTICE_PAUSE_MAX_S", 0.02)
    monkeypatch.setattr(bound, "NOTICE_LOOK_S", 0.05)


class World:
    """A tenant with a webhook, and what becomes of the events that are posted to it."""

    def __init__(self, database: Database, url: str, name: str = "one") -> None:
        self.database = database
        self.tenant_id = with_tenant(database, name)
        self.webhook = Webhook(id=f"whk_{name}", tenant_id=self.tenant_id, url=url, events=["*"], created_us=1)
        database.write_now(partial(webhooks.insert_webhook, webhook=self.webhook))
        self.notices = Notices()

    def post(self, kind: str = "job.failed", **payload: Any) -> None:
        self.database.write_now(lambda records: self.notices.post(records, self.tenant_id, kind, payload))

    def found(self) -> list[Notice]:
        page = self.database.read_now(partial(webhooks.list_notices, tenant_id=self.tenant_id, limit=200))
        return list(reversed(page.items))

    async def until(self, is_there: Callable[[list[Notice]], bool]) -> list[Notice]:
        async with asyncio.timeout(WAIT_S):
            while not is_there(found := await asyncio.to_thread(self.found)):
                pass
        return found


def ended(found: list[Notice]) -> bool:
    return all(each.state != "waiting" for each in found)


@asynccontextmanager
async def delivering(world: World, *hosts: str, **options: Any) -> AsyncIterator[Delivery]:
    async with Delivery(world.database, SIGNING, configured(hosts), **options) as running:
        world.notices.when_posted(running.wake)
        yield running


def delivered(world: World, *hosts: str, **options: Any) -> list[Notice]:
    """What has become of everything that was posted."""

    async def main() -> list[Notice]:
        async with delivering(world, *hosts, **options):
            return await world.until(ended)

    return asyncio.run(main())


def test_a_notice_comes_once_signed_and_whole(database: Database, receiver: Receiver) -> None:
    world = World(database, f"http://127.0.0.1:{receiver.port}/hook?x=1")
    world.post("job.dead", id="é")
    [notice] = delivered(world, f"127.0.0.1:{receiver.port}")
    assert (notice.state, notice.attempts, notice.problem) == ("delivered", 1, "")
    [(path, headers, body)] = receiver.taken
    assert path == "/hook?x=1"
    assert body == notice.body.encode()
    secret = webhook_text(SIGNING.notice_secrets(world.webhook.id)[0])
    assert headers["x-casemate-signature"] == sign(secret, headers["x-casemate-timestamp"], body)
    assert (headers["x-casemate-event"], headers["x-casemate-event-id"]) == ("job.dead", notice.event_id)
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert "authorization" not in headers


def test_what_is_not_taken_is_sent_again(database: Database, receiver: Receiver) -> None:
    world = World(database, f"http://127.0.0.1:{receiver.port}/")
    receiver.statuses = [500, 429, 404]
    world.post()
    told: list[str] = []
    [notice] = delivered(world, f"127.0.0.1:{receiver.port}", on_settled=told.append)
    assert (notice.state, notice.attempts) == ("delivered", 4)
    assert told[:3] == ["waiting"] * 3
    assert len({(body, headers["x-casemate-event-id"]) for _, headers, body in receiver.taken}) == 1


def test_attempts_come_to_an_end(database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", 3)
    world = World(database, f"http://127.0.0.1:{receiver.port}/")
    receiver.statuses = [500] * 9
    world.post()
    [notice] = delivered(world, f"127.0.0.1:{receiver.port}")
    assert (notice.state, notice.attempts, notice.problem) == ("failed", 3, "answered 500")
    assert len(receiver.taken) == 3


def test_a_receiver_that_is_gone_for_good_is_asked_once(database: Database, receiver: Receiver) -> None:
    world = World(database, f"http://127.0.0.1:{receiver.port}/")
    receiver.statuses = [410]
    world.post()
    [notice] = delivered(world, f"127.0.0.1:{receiver.port}")
    assert (notice.state, notice.attempts) == ("failed", 1)


def test_redirections_are_not_followed(database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", 2)
    world = World(database, f"http://127.0.0.1:{receiver.port}/")
    receiver.statuses = [302, 302]
    world.post()
    [notice] = delivered(world, f"127.0.0.1:{receiver.port}")
    assert "redirects are not followed" in notice.problem
    assert {path for path, _, _ in receiver.taken} == {"/"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_n5_a_receiver_that_leads_elsewhere_lets_nothing_of_ours_be_reached(
    database: Database, receiver: Receiver, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", 1)
    with socket.create_server(("127.0.0.1", 0)) as internal:
        internal.setblocking(False)
        receiver.statuses = [status]
        receiver.elsewhere = f"http://127.0.0.1:{internal.getsockname()[1]}/latest/meta-data"
        world = World(database, f"http://127.0.0.1:{receiver.port}/")
        world.post()
        [notice] = delivered(world, f"127.0.0.1:{receiver.port}")
        assert (notice.state, notice.problem) == ("failed", f"answered {status}; redirects are not followed")
        with pytest.raises(BlockingIOError):
            internal.accept()


class PublicHost:
    """Stands for a client, and for a host on the Internet that sends whoever asks to the metadata of a cloud."""

    def __init__(self) -> None:
        self.asked: list[httpx2.Request] = []

    def build_request(self, *said: Any, **more: Any) -> httpx2.Request:
        return httpx2.Request(*said, **more)

    async def send(self, request: httpx2.Request, *, follow_redirects: bool, **_: Any) -> httpx2.Response:
        assert not follow_redirects
        self.asked.append(request)
        return httpx2.Response(307, headers={"Location": "http://169.254.169.254/latest/"})

    async def aclose(self) -> None:
        """Nothing is open."""


def test_n5_a_name_that_changes_between_attempts_is_looked_at_each_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, host = "93.184.215.14", PublicHost()
    answers = [[public], ["169.254.169.254"], ["10.0.0.1", public, "::1"], ["::ffff:127.0.0.1"], ["2002:7f00:1::"], []]
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", len(answers))
    monkeypatch.setattr(Delivery, "_opened", lambda _: host)
    world = World(database, "https://changing.example/hook")
    world.post()
    [notice] = delivered(world, resolve=lambda *_: answers.pop(0))
    assert (notice.state, notice.problem) == ("failed", "changing.example leads to no public address")
    assert [str(request.url) for request in host.asked] == [f"https://{public}/hook"] * 2
    assert {request.headers["host"] for request in host.asked} == {"changing.example"}
    assert {request.extensions["sni_hostname"] for request in host.asked} == {"changing.example"}


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1", "64:ff9b::7f00:1", "224.0.0.1"],
)
def test_a_name_that_leads_to_us_is_not_connected_to(
    database: Database, receiver: Receiver, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", 1)
    world = World(database, f"https://public.example:{receiver.port}/")
    world.post()
    [notice] = delivered(world, resolve=lambda *_: [address])
    assert notice.problem == "public.example leads to no public address"
    assert receiver.connected == []


def test_the_address_that_was_checked_is_connected_to(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up once: what it is a moment later does not matter."""
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", 1)
    world = World(database, f"http://changing.internal:{receiver.port}/")
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    world.post()
    [notice] = delivered(world, f"changing.internal:{receiver.port}", resolve=resolve)
    assert notice.state == "delivered"
    assert asked == [("changing.internal", receiver.port)]
    [(_, headers, _)] = receiver.taken
    assert headers["host"] == f"changing.internal:{receiver.port}"


def test_a_name_of_the_configuration_is_for_its_port_alone(database: Database, receiver: Receiver) -> None:
    world = World(database, f"http://127.0.0.1:{receiver.port}/")
    world.post()

    async def main() -> list[Notice]:
        async with delivering(world, "127.0.0.1:1"):
            return await world.until(lambda found: found[0].attempts > 0)

    [notice] = asyncio.run(main())
    assert "must begin with https://" in notice.problem
    assert receiver.connected == []


def test_a_receiver_that_says_nothing_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        world = World(database, f"http://127.0.0.1:{port}/")
        world.post()
        [notice] = delivered(world, f"127.0.0.1:{port}", timeout_s=0.2)
    assert notice.problem == "no answer within 0.2 s"


def test_an_answer_without_end_is_not_read(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=answer)
        thread.start()
        world = World(database, f"http://127.0.0.1:{port}/")
        world.post()
        [notice] = delivered(world, f"127.0.0.1:{port}")
        thread.join(WAIT_S)
    assert notice.state == "delivered"


def test_tls_is_proven_for_the_name_and_not_for_the_address(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver speaks no TLS: whoever stands at the address gets nothing of the notice."""
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", 1)
    world = World(database, f"https://public.example:{receiver.port}/")
    world.post()
    [notice] = delivered(world, f"public.example:{receiver.port}", resolve=lambda *_: ["127.0.0.1"])
    assert notice.problem.startswith("cannot be reached")
    assert receiver.taken == []


def certified(directory: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """An authority, and what a server of these names speaks with, that it has signed."""
    own = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of the tests")])
    begin = datetime.now(UTC) - timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(own, hashes.SHA256())
    )
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


@pytest.fixture
def secured(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """One that speaks TLS, as hooks.internal and as its address."""
    certificate, context = certified(tmp_path, "hooks.internal", "127.0.0.1")
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", 1)
    return receiver


@pytest.mark.parametrize(("name", "state"), [("hooks.internal", "delivered"), ("other.internal", "failed")])
def test_a_certificate_is_for_the_name_and_not_for_the_address(
    database: Database, secured: Receiver, name: str, state: str
) -> None:
    world = World(database, f"https://{name}:{secured.port}/")
    world.post()
    [notice] = delivered(world, f"*.internal:{secured.port}", resolve=lambda *_: ["127.0.0.1"])
    assert notice.state == state, notice.problem
    assert len(secured.taken) == (state == "delivered")
    assert (state == "delivered") is not ("CERTIFICATE_VERIFY_FAILED" in notice.problem)


def test_what_was_not_sent_when_the_service_died_is_sent_by_the_next(database: Database, receiver: Receiver) -> None:
    world = World(database, f"http://127.0.0.1:{receiver.port}/")
    for number in range(5):
        world.post(number=number)

    async def main() -> None:
        async with delivering(world, f"127.0.0.1:{receiver.port}", resolve=lambda *_: threading.Event().wait(0.2)):
            pass  # and gone again, in the midst of it

    asyncio.run(main())
    assert {each.state for each in world.found()} == {"waiting"}
    assert {each.state for each in delivered(world, f"127.0.0.1:{receiver.port}")} == {"delivered"}
    assert len({headers["x-casemate-event-id"] for _, headers, _ in receiver.taken}) == 5


def test_a_tenant_whose_receivers_hang_holds_up_no_other(database: Database, receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        slow = World(database, f"http://127.0.0.1:{port}/", "slow")
        for _ in range(100):
            slow.post()
        quick = World(database, f"http://127.0.0.1:{receiver.port}/", "quick")
        quick.post()

        async def main() -> list[Notice]:
            hosts = (f"127.0.0.1:{port}", f"127.0.0.1:{receiver.port}")
            async with delivering(quick, *hosts):
                return await quick.until(ended)

        assert [each.state for each in asyncio.run(main())] == ["delivered"]
    assert {each.state for each in slow.found()} == {"waiting"}


def test_what_cannot_be_written_down_is_sent_again_though_not_at_once(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from casemate.errors import RecordsUnavailable

    settle = webhooks.settle
    failures = [RecordsUnavailable("full", "the disk is full")]

    def failing(*arguments: Any, **named: Any) -> bool:
        if failures:
            raise failures.pop()
        return settle(*arguments, **named)

    monkeypatch.setattr(webhooks, "settle", failing)
    world = World(database, f"http://127.0.0.1:{receiver.port}/")
    world.post()
    [notice] = delivered(world, f"127.0.0.1:{receiver.port}")
    assert notice.state == "delivered"
    assert len(receiver.taken) == 2


def test_a_mistake_of_ours_counts_as_an_attempt(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "NOTICE_ATTEMPTS_MAX", 3)
    world = World(database, f"http://127.0.0.1:{receiver.port}/")

    def mistaken(host: str, port: int) -> list[str]:
        raise KeyError(host, port)

    world.post()
    [notice] = delivered(world, f"127.0.0.1:{receiver.port}", resolve=mistaken)
    assert (notice.state, notice.attempts, receiver.taken) == ("failed", 3, [])
    assert notice.problem == "cannot be sent: a mistake of ours"


def test_what_finds_no_room_is_told_in_the_log_and_to_whoever_tries(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "NOTICES_WAITING_A_TENANT_MAX", 1)
    world = World(database, "https://hooks.example.com/")
    trying = Webhooks(database, world.notices, configured(()))
    with structlog.testing.capture_logs() as logged:
        world.post("job.failed")
        assert logged == []
        world.post("job.dead")
        with pytest.raises(TooManyRequests):
            asyncio.run(trying.test(world.tenant_id, world.webhook.id))
    assert [(each["log_level"], each["kind"], each["count"]) for each in logged] == [
        ("warning", "job.dead", 1),
        ("warning", "test", 1),
    ]
    assert [each.kind for each in world.found()] == ["job.failed"]
