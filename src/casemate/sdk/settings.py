"""Where the service is and with which key it is asked: from arguments, or from the environment. Pure but for that."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from casemate.errors import ConfigError
from casemate.sdk import INSECURE_VARIABLE, KEY_VARIABLE, URL_VARIABLE

DEFAULT_URL: Final = "http://127.0.0.1:8700"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,1000}")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Checked. The key is shown by no repr."""

    url: str
    key: str
    is_loopback: bool

    def __repr__(self) -> str:
        return f"Settings(url={self.url!r}, key={masked(self.key)!r})"


def masked(key: str) -> str:
    """That there is a key, and no more."""
    return "***" if key else ""


def settings(url: str | None, key: str | None, *, insecure_http: bool, environment: Mapping[str, str]) -> Settings:
    """Arguments come before the environment. Raises ConfigError."""
    place = url if url is not None else environment.get(URL_VARIABLE) or DEFAULT_URL
    secret = (key if key is not None else environment.get(KEY_VARIABLE, "")).strip()
    if secret and not _KEY.fullmatch(secret):
        raise ConfigError("key", "is no key: it has blanks, or other than ASCII characters")
    checked, is_loopback, is_encrypted = _checked_url(place)
    allowed = insecure_http or environment.get(INSECURE_VARIABLE) == "1"
    if secret and not (is_encrypted or is_loopback or allowed):
        raise ConfigError(
            "url",
            f"{checked} would have the key sent unencrypted over a network",
            hint=f"use https; where the network is trusted, insecure_http=True or {INSECURE_VARIABLE}=1 allows it",
        )
    return Settings(url=checked, key=secret, is_loopback=is_loopback)


def _checked_url(url: str) -> tuple[str, bool, bool]:
    """The address without a slash at its end, whether it is this machine, and whether it is encrypted."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError("url", f"is no address: {error}") from error
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise ConfigError("url", f"{url[:200]!r} is no address of a service", hint=f"write it as {DEFAULT_URL}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError("url", "has more than a scheme, a host, a port and a path", hint="the key is given apart")
    place = f"[{host}]" if ":" in host else host
    base = f"{parts.scheme}://{place}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
    return base, _is_loopback(host), parts.scheme == "https"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
