"""What both clients have in common where they meet the HTTP library, which is imported when a client is made."""

from __future__ import annotations

import inspect
import random
import secrets
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from casemate import __version__
from casemate.errors import ConfigError, InvalidInput
from casemate.sdk.exchange import Context
from casemate.sdk.problems import clean
from casemate.sdk.requests import Failure
from casemate.sdk.retry import Policy
from casemate.sdk.settings import Settings
from casemate.service_limits import SDK_CONNECT_TIMEOUT_S, SDK_CONNECTIONS_MAX, SDK_SILENCE_MAX_S

if TYPE_CHECKING:
    import httpx2


def client_options(settings: Settings, ca_file: str | None) -> dict[str, Any]:
    """How a client of the HTTP library is made. Nothing is decompressed: what comes is as large as it says."""
    import httpx2

    headers = {"User-Agent": f"casemate/{__version__}", "Accept-Encoding": "identity"}
    if settings.key:
        headers["Authorization"] = f"Bearer {settings.key}"
    return {
        "base_url": settings.url,
        "headers": headers,
        "timeout": timeouts(SDK_SILENCE_MAX_S),
        "limits": httpx2.Limits(max_connections=SDK_CONNECTIONS_MAX, max_keepalive_connections=SDK_CONNECTIONS_MAX),
        "trust_env": not settings.is_loopback,  # proxies are for what is elsewhere
        "verify": _trusted(ca_file) if settings.url.startswith("https:") else True,
    }


def _trusted(ca_file: str | None) -> ssl.SSLContext:
    """The authorities of the system, or those of a file and no others."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError("ca_file", f"cannot be read: {error.strerror or error}") from error


def timeouts(silence_max_s: float) -> httpx2.Timeout:
    """For a request after which the service may be silent for so long."""
    import httpx2

    return httpx2.Timeout(
        connect=SDK_CONNECT_TIMEOUT_S, read=silence_max_s, write=SDK_SILENCE_MAX_S, pool=SDK_SILENCE_MAX_S
    )


def failure_of(error: httpx2.TransportError) -> Failure:
    """What an error of the HTTP library says, and whether the service may have seen the request."""
    import httpx2

    unsent = httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.UnsupportedProtocol
    what = clean(str(error)) or type(error).__name__
    if isinstance(error, httpx2.ReadTimeout):
        what = "it said nothing for too long"
    return Failure(message=f"the service does not answer: {what}", sent=not isinstance(error, unsent))


def new_context(attempts: int) -> Context:
    """Chance and keys by the system."""
    if attempts < 1:
        raise InvalidInput("attempts", "must be 1 or more")
    policy = Policy(attempts_max=attempts)
    return Context(policy=policy, chance=random.SystemRandom().random, new_key=lambda: secrets.token_hex(16))


def as_method(method: Callable[..., Any], build: Callable[..., Any], gives: str = "{}") -> None:
    """Have a method say of itself what the function does that makes its requests, and what it gives instead of them."""
    method.__doc__ = build.__doc__
    method.__name__ = build.__name__
    found = inspect.signature(build)
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    inner = str(found.return_annotation).partition("[")[2].removesuffix("]")
    method.__signature__ = found.replace(  # type: ignore[attr-defined]
        parameters=[self, *found.parameters.values()], return_annotation=gives.format(inner)
    )
