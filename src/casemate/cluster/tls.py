"""TLS of the service itself, for whom no proxy stands before it."""

from __future__ import annotations

import ssl
from pathlib import Path

from casemate.errors import ConfigError
from casemate.service_config import Service

_OTHERS = 0o077


def tls_context(service: Service) -> ssl.SSLContext | None:
    """With the certificate and key of the configuration; None: without TLS. Raises ConfigError."""
    if not service.tls_certificate:
        return None
    _check_key(Path(service.tls_key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(service.tls_certificate, service.tls_key)
    except (OSError, ssl.SSLError) as error:
        problem = f"{service.tls_certificate} and its key cannot be used: {error.strerror or error}"
        raise ConfigError("service.tls_certificate", problem) from error
    return context


def _check_key(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError("service.tls_key", f"{path} cannot be read: {error.strerror}") from error
    if mode & _OTHERS:
        raise ConfigError("service.tls_key", f"{path} is open to others", hint=f"chmod 600 {path}")
