"""The other end of a sandbox's way out, for tests: it takes what comes, says what it was meant for, and notes it."""

from __future__ import annotations

import select
import socket
import threading
from types import TracebackType
from typing import Final, Self

from casemate.engine.drive import drive
from casemate.engine.engine import Engine
from casemate.errors import LayerMissing
from casemate.isolation import way
from casemate.isolation.native import NativeSandbox
from casemate.model.layers import Layer
from casemate.model.spec import SandboxSpec

TAKEN_BYTES: Final = 512


def lacks_egress(engine: Engine) -> bool:
    """Whether the kernel has no means for a way out, and says so."""
    try:
        drive(engine.start(SandboxSpec(network=True))).close()
    except LayerMissing as error:
        return error.layers == (Layer.EGRESS,)
    return False


class OtherEnd:
    """Answers every connection with the address that was meant, and every datagram with itself in capitals."""

    def __init__(self, sandbox: NativeSandbox, *, ipv6: bool) -> None:
        names = way.names(ipv6=ipv6)
        self._sockets = {socket.socket(fileno=fd): name for name, fd in zip(names, sandbox.way.take(), strict=True)}
        self.came: list[tuple[str, str, int]] = []
        self.buffers: list[int] = []
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([*self._sockets, self._woken], [], [])
            if self._woken in ready:
                return
            for listener in ready:
                self._take(listener, self._sockets[listener])

    def _take(self, listener: socket.socket, name: str) -> None:
        if name == "dns":
            data, sender = listener.recvfrom(TAKEN_BYTES)
            self.came.append((name, "", 0))
            listener.sendto(data.upper(), sender)
            return
        connection, _ = listener.accept()
        with connection:
            address, port = connection.getsockname()[:2]
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self.buffers.append(connection.getsockopt(socket.SOL_SOCKET, option))
            self.came.append((name, address, port))
            connection.sendall(f"{name} {address} {port}".encode())

    def close(self) -> None:
        """Close every socket: the network is gone. Idempotent."""
        self._wake.close()
        self._thread.join()
        self._woken.close()
        for listener in self._sockets:
            listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
