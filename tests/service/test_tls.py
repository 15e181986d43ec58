"""TLS of the service itself: what goes over the wire can be read by nobody between."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.service.live import CONFIG

from casemate import Client
from casemate.errors import ServiceUnavailable

DAY: Final = dt.timedelta(days=1)
END_TIMEOUT_S: Final = 30


def certificate(directory: Path) -> tuple[Path, Path]:
    """One for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "casemate")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[1].write_bytes(key.private_bytes(*private))
    paths[1].chmod(0o600)
    return paths


def config(directory: Path) -> str:
    path, key = certificate(directory)
    return CONFIG.replace("[service]\n", f'[service]\ntls_certificate = "{path}"\ntls_key = "{key}"\n')


@contextmanager
def started(directory: Path, written: str) -> Iterator[subprocess.Popen[str]]:
    file = directory / "config.toml"
    file.write_text(written)
    words = ["serve", "--data", str(directory / "data"), "--port", "0", "--config", str(file)]
    with subprocess.Popen([sys.executable, "-m", "casemate", *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=END_TIMEOUT_S)


def announced(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Where it serves, and the operator's key."""
    assert process.stderr is not None
    key = ""
    for line in process.stderr:
        if "kept nowhere: " in line:
            key = line.rpartition(" ")[2].strip()
        if "ready on " in line:
            return line.rpartition(" ")[2].strip(), key
    raise AssertionError("it did not start")


def said_by(process: subprocess.Popen[str]) -> str:
    """What it has said, when it has ended for itself."""
    _, errors = process.communicate(timeout=END_TIMEOUT_S)
    assert process.returncode == 125
    return errors


def test_s2_28_everything_goes_by_tls_where_a_certificate_is_given(tmp_path: Path) -> None:
    with started(tmp_path, config(tmp_path)) as process:
        url, key = announced(process)
        assert url.startswith("https://")
        with Client(url, key, ca_file=str(tmp_path / "certificate.pem")) as client:
            client.objects.upload("shared/x", b"secret" * 100_000)
            assert client.objects.read("shared/x") == b"secret" * 100_000
            assert client.objects.sign("shared/x").url.startswith("https://")
        with Client(url, key, attempts=1) as client, pytest.raises(ServiceUnavailable):
            client.me()  # nobody has said that this certificate is to be believed
        check_wire(url)


def check_wire(url: str) -> None:
    """Neither plain HTTP nor a TLS that is too old is answered."""
    parts = urlsplit(url)
    assert parts.hostname
    address = (parts.hostname, parts.port or 0)
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not connection.recv(100).startswith(b"HTTP")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(address, timeout=30) as connection, pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(connection)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('tls_certificate = "/none/c.pem"', "service.tls_key"),
        ('tls_key = "/none/k.pem"', "service.tls_certificate"),
        ('tls_certificate = "c.pem"\ntls_key = "k.pem"', "absolute"),
    ],
)
def test_s2_28_half_of_a_certificate_is_refused(tmp_path: Path, written: str, said: str) -> None:
    with started(tmp_path, f"[service]\n{written}\n") as process:
        assert said in said_by(process)


def test_s2_28_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    written = config(tmp_path)
    (tmp_path / "key.pem").chmod(0o644)
    with started(tmp_path, written) as process:
        assert "open to others" in said_by(process)
