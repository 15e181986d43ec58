"""Looking up names for the gateway: the operator's file of hosts, the machine's, then its name servers. Bounded.

What is found is kept for a while, so that the address which a sandbox was told and the one that is connected to come
from one lookup. Whether an address may be connected to is not decided here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
import dns.rrset
import msgspec

from casemate import network_limits as bound
from casemate.egress.rules import normal_host

SYSTEM_HOSTS: Final = "/etc/hosts"


class Unresolved(Exception):
    """There is no address; the text says why."""


class _Kept(msgspec.Struct, frozen=True):
    addresses: tuple[str, ...]
    problem: str
    until_s: float


class HostsFile:
    """Addresses by name, read again whenever the file has changed. One that cannot be read has no names.

    It is opened at once: later the process may have no right to. One that is put in its place then is not seen, unless
    everybody may read it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = _opened(path)
        self._version: tuple[int, ...] = ()
        self._names: dict[str, tuple[str, ...]] = {}

    def find(self, name: str) -> tuple[str, ...]:
        with suppress(OSError):
            about = self._current()
            version = (about.st_ino, about.st_mtime_ns, about.st_size)
            if version != self._version:
                data = os.pread(self._fd, bound.HOSTS_FILE_MAX_BYTES, 0)
                self._names = parse_hosts(data.decode("utf-8", "replace"))
                self._version = version
        return self._names.get(name, ())

    def _current(self) -> os.stat_result:
        """Of the file that is open, after a look whether there is another one in its place."""
        with suppress(OSError):
            about = Path(self._path).stat()
            if self._fd < 0 or not os.path.samestat(about, os.fstat(self._fd)):
                found = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                if self._fd >= 0:
                    os.close(self._fd)
                self._fd = found
        return os.fstat(self._fd)


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Lines of an address and names; whatever is no such thing is passed over."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        with suppress(ValueError):
            text_of = str(ip_address(address))
            for name in filter(None, map(normal_host, names)):
                found.setdefault(name, []).append(text_of)
    return {name: tuple(dict.fromkeys(addresses)) for name, addresses in found.items()}


class Names:
    """Resolves for all sandboxes of a gateway."""

    def __init__(self, files: Iterable[HostsFile], resolvers: tuple[str, ...] = ()) -> None:
        self._files = tuple(files)
        self._servers = resolvers
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._kept: dict[str, _Kept] = {}
        self._room = asyncio.Semaphore(bound.LOOKUPS_MAX)

    def is_kept(self, name: str) -> bool:
        """Whether it is known, so that nobody needs to be asked."""
        kept = self._kept.get(name)
        return (kept is not None and kept.until_s > time.monotonic()) or bool(self._in_files(name))

    async def find(self, name: str) -> tuple[str, ...]:
        """The addresses of a name in its normal form; at least one. Raises Unresolved."""
        found = self._in_files(name)
        if found:
            return found
        kept = self._kept.get(name)
        if kept is None or kept.until_s <= time.monotonic():
            kept = await self._asked(name)
            self._keep(name, kept)
        if not kept.addresses:
            raise Unresolved(kept.problem)
        return kept.addresses

    def _in_files(self, name: str) -> tuple[str, ...]:
        return next(filter(None, (file.find(name) for file in self._files)), ())

    def _keep(self, name: str, kept: _Kept) -> None:
        self._kept.pop(name, None)
        while len(self._kept) >= bound.NAMES_KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = kept

    async def _asked(self, name: str) -> _Kept:
        async with self._room:
            answers = await asyncio.gather(*(self._question(name, kind) for kind in ("A", "AAAA")))
        found = [str(record.address) for answer in answers if not isinstance(answer, str) for record in answer]
        ages = [float(answer.ttl) for answer in answers if not isinstance(answer, str) and answer]
        problem = next((answer for answer in answers if isinstance(answer, str)), f"{name} has no address")
        kept_s = min(max(min(ages), bound.NAME_KEPT_MIN_S), bound.NAME_KEPT_MAX_S) if ages else bound.NAME_FAILED_KEPT_S
        addresses = tuple(dict.fromkeys(found))[: bound.ADDRESSES_MAX]
        return _Kept(addresses, problem, time.monotonic() + kept_s)

    async def _question(self, name: str, kind: str) -> dns.rrset.RRset | str:
        """The records of one kind, maybe none; or what went wrong."""
        try:
            answer = await self._asking().resolve(
                dns.name.from_text(name), kind, raise_on_no_answer=False, lifetime=bound.LOOKUP_TIMEOUT_S, search=False
            )
        except dns.resolver.NXDOMAIN:
            return f"{name} does not exist"
        except (dns.exception.DNSException, OSError) as error:
            return f"{name} cannot be looked up: {type(error).__name__}"
        return (
            answer.rrset if answer.rrset is not None else dns.rrset.RRset(answer.qname, answer.rdclass, answer.rdtype)
        )

    def _asking(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            self._resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            self._resolver.cache = None
            if self._servers:
                self._resolver.nameservers = list(self._servers)
        return self._resolver
