"""From a host that a rule allows to a connected socket: one lookup, every address checked, and that very one used."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress

from casemate import network_limits as bound
from casemate.egress.bucket import Bucket
from casemate.egress.judge import Reason, Refused
from casemate.egress.names import Names, Unresolved
from casemate.egress.policy import Rules, address_of


class Unreachable(Exception):
    """It is allowed and does not answer."""


class Connector:
    """Connects for one sandbox."""

    def __init__(self, rules: Rules, names: Names, now_s: float) -> None:
        self._rules = rules
        self._names = names
        self._new_names = Bucket(bound.DNS_NAMES_PER_S, bound.DNS_NAMES_BURST, now_s)
        self._room = asyncio.Semaphore(bound.WAY_LOOKUPS_MAX)
        self._loop = asyncio.get_running_loop()

    async def admitted(self, host: str) -> list[str]:
        """The addresses that a host may lead to. Raises Refused, and Unreachable where it has none."""
        if address_of(host) is not None:
            found: tuple[str, ...] = (host,)
        else:
            self._check_length(host)
            if not self._names.is_kept(host) and not self._new_names.take(1, self._loop.time()):
                raise Refused(Reason.LIMIT, "too many names were looked up")
            try:
                async with self._room:
                    found = await self._names.find(host)
            except Unresolved as error:
                raise Unreachable(str(error)) from error
        admitted = [address for address in found if self._admits(host, address)]
        if not admitted:
            raise Refused(Reason.ADDRESS, f"{host} leads to an address that is not public")
        return admitted

    def _check_length(self, host: str) -> None:
        grant = self._rules.allows(host, None)
        if grant is not None and len(grant.below) > bound.DNS_BELOW_MAX_CHARS:
            raise Refused(Reason.LIMIT, "a name that is longer than any host's")

    def _admits(self, host: str, address: str) -> bool:
        if not self._rules.admits(host, address):
            return False
        return self._rules.is_anywhere(host, address) or not is_own(address)

    async def connect(self, host: str, port: int, preferred: str = "") -> tuple[socket.socket, str]:
        """A connected socket and the address; `preferred` is tried first where it is one of the host's."""
        addresses = sorted(await self.admitted(host), key=lambda address: address != preferred)
        problem = ""
        with suppress(TimeoutError):
            async with asyncio.timeout(bound.CONNECT_TIMEOUT_S):
                for address in addresses:
                    try:
                        return await self._connected(address, port), address
                    except OSError as error:
                        said = os.strerror(error.errno) if error.errno else "it does not answer"
                        problem = f"{address} cannot be reached: {said}"
        raise Unreachable(problem or f"{host} does not answer")

    async def _connected(self, address: str, port: int) -> socket.socket:
        found = address_of(address)
        sock = socket.socket(socket.AF_INET6 if found and found.version == 6 else socket.AF_INET)  # noqa: PLR2004
        try:
            sock.setblocking(False)  # noqa: FBT003 - the method's own form
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(bound.CONNECT_ADDRESS_TIMEOUT_S):
                await self._loop.sock_connect(sock, (str(found), port))
        except BaseException:
            sock.close()
            raise
        return sock


def is_own(address: str) -> bool:
    """Whether an address is one of this machine: what is sent there has that address itself as its source."""
    found = address_of(address)
    if found is None:
        return True
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6  # noqa: PLR2004
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(found), 9))  # sends nothing
        except OSError as error:
            return error.errno not in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}
        return str(address_of(str(probe.getsockname()[0]))) == str(found)
