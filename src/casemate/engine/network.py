"""The network of a sandbox: its way out is opened at the gateway before its program starts, and closed after it.

Without a gateway there is no network, and nothing starts that was to have one. A gateway that dies takes the network
with it: the program goes on and reaches nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec

from casemate import network_limits as bound
from casemate.egress.gateway import Sockets, Way
from casemate.egress.policy import Rules
from casemate.egress.settings import anywhere_of
from casemate.engine.background import in_thread
from casemate.engine.cancel import CancelToken, until_cancelled
from casemate.engine.request import NetworkLike, checked_mapping
from casemate.errors import InvalidInput, SandboxClosed
from casemate.isolation import way
from casemate.isolation.native import NativeSandbox
from casemate.isolation.waiting import Ready, Steps, Wait, open_event
from casemate.model.flow import Flow
from casemate.model.network import NO_NETWORK, NetworkPolicy
from casemate.model.result import Chunk, Event, Result
from casemate.model.units import parse_bytes

if TYPE_CHECKING:
    from casemate.engine.engine import Engine
    from casemate.engine.run import Run

E = TypeVar("E")
T = TypeVar("T")
BANDWIDTH: Final = "bandwidth"
"""In a mapping: bytes a second as people write them."""


def check_network(wanted: NetworkLike, table: Mapping[str, Any]) -> NetworkPolicy | None:
    """A policy as a value, from a mapping or a list of hosts; None: there is no network. Raises InvalidInput.

    `table` is the operator's configuration, which says what may be reached that is not public, whoever asks.
    """
    policy = wanted if isinstance(wanted, NetworkPolicy) else _policy(wanted)
    if policy is None or not policy.outbound:
        return None
    policy = msgspec.structs.replace(policy, anywhere=(*policy.anywhere, *anywhere_of(table)))
    Rules(policy)
    return policy


def with_proxy(policy: NetworkPolicy | None, env: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """The environment, with what tells programs of the proxy if the policy says so. The caller's own comes first."""
    if policy is None or not policy.proxy:
        return env
    return {**way.proxy_variables(), **checked_mapping(env, "env")}


def _policy(wanted: Mapping[str, Any] | Iterable[str] | None) -> NetworkPolicy | None:
    if wanted is None:
        return None
    if isinstance(wanted, str | bytes) or not isinstance(wanted, Iterable):
        raise InvalidInput("network", "must be a list of hosts, or a mapping", hint=f"write network=[{wanted!r:.80}]")
    fields = {"outbound": True, **(wanted if isinstance(wanted, Mapping) else {"allowed_hosts": tuple(wanted)})}
    if BANDWIDTH in fields:
        fields["bandwidth_bytes_per_s"] = parse_bytes(fields.pop(BANDWIDTH), field=f"network.{BANDWIDTH}")
    try:
        return msgspec.convert(fields, NetworkPolicy)
    except msgspec.ValidationError as error:
        raise InvalidInput("network", str(error)[:200]) from error


class Network:
    """One sandbox's. Its flows come by another thread; `fd` is readable when there are any that nobody has taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._way: Way | None = None
        self._flows: list[Flow] = []
        self._dropped = 0
        self._refused = 0
        self._sent_bytes = 0
        self._received_bytes = 0
        self._is_over = False
        self.fd = open_event()

    def open(self, engine: Engine, policy: NetworkPolicy, sandbox: NativeSandbox) -> Steps[None]:
        """Open it; without blocking. Raises InvalidInput or LaunchError."""
        gateways, names = engine.gateways, way.names(ipv6=engine.backend.host.ipv6)

        def opened() -> Way:
            return gateways.open(policy, _sockets(names, sandbox.way.take()), self._took)

        self._way = yield from in_thread(opened, Way.close)

    def _took(self, flow: Flow) -> None:
        with self._lock:
            if self._is_over:
                return
            self._sent_bytes += flow.sent_bytes
            self._received_bytes += flow.received_bytes
            self._refused += not flow.allowed
            if len(self._flows) < bound.FLOWS_KEPT_MAX:
                self._flows.append(flow)
                os.eventfd_write(self.fd, 1)
            else:
                self._dropped += 1

    def fresh(self) -> Generator[Any, Ready, None]:
        """The flows since the last call, among the other items of steps."""
        with self._lock:
            found, self._flows = self._flows, []
        for flow in found:  # noqa: UP028 - whoever takes them sends something back, which no list can take
            yield flow

    def close(self) -> Steps[None]:
        """End it, without blocking; then its totals are there."""
        if (opened := self._way) is not None:
            yield from in_thread(opened.close)
            with self._lock:
                self._sent_bytes = max(self._sent_bytes, opened.sent_bytes)
                self._received_bytes = max(self._received_bytes, opened.received_bytes)
                self._dropped += opened.untold_flows

    def leave(self) -> None:
        """End it and release what it holds. Nobody waits for that. Idempotent."""
        with self._lock:
            was_over, self._is_over = self._is_over, True
            if not was_over:
                os.close(self.fd)
        if not was_over and self._way is not None:
            threading.Thread(target=self._way.close, name="casemate-way", daemon=True).start()

    def told(self, result: Result) -> Result:
        """The same Result with what has come to its end since the last."""
        with self._lock:
            flows, self._flows = tuple(self._flows), []
            events = tuple(self._events(result.usage.wall_s))
            usage = msgspec.structs.replace(
                result.usage, network_sent_bytes=self._sent_bytes, network_received_bytes=self._received_bytes
            )
            self._dropped = self._refused = self._sent_bytes = self._received_bytes = 0
        return msgspec.structs.replace(result, usage=usage, flows=flows, events=(*result.events, *events))

    def _events(self, at_s: float) -> Iterable[Event]:
        if self._refused:
            yield Event(kind="network-refused", detail=f"{self._refused} attempts", at_s=at_s)
        if self._dropped:
            yield Event(kind="flows-dropped", detail=f"{self._dropped} beyond what is kept", at_s=at_s)
        if self._way is not None and self._way.failed:
            yield Event(kind="network-lost", detail="the gateway has ended, and the network with it", at_s=at_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


def _sockets(names: Sequence[str], fds: Sequence[int]) -> Sockets:
    if not fds:
        raise SandboxClosed("the sandbox is closed")
    return Sockets(**dict(zip(names, fds, strict=True)))


def connected(
    engine: Engine,
    run: Run,
    sandbox: NativeSandbox,
    steps: Generator[Wait | E, Ready, Result],
    cancel: CancelToken | None,
) -> Generator[Wait | Chunk | E, Ready, Result]:
    """The steps of a run in a sandbox whose way out is open meanwhile; flows between them, if the run tells them."""
    policy = run.network or NO_NETWORK
    with closing(steps), Network() as network:
        yield from until_cancelled(network.open(engine, policy, sandbox), cancel)
        result = yield from _with_flows(steps, network) if run.tells_flows else steps
        yield from network.close()
        if run.tells_flows:
            yield from network.fresh()
        return network.told(result)


def _with_flows(steps: Generator[Wait | E, Ready, T], network: Network) -> Generator[Wait | E, Ready, T]:
    """The same steps, and flows in between."""
    try:
        item = next(steps)
        while True:
            ready = yield from _awaited(item, network) if isinstance(item, Wait) else _passed_on(item)
            item = steps.send(ready)
    except StopIteration as stop:
        value: T = stop.value
        return value


def _passed_on(item: E) -> Generator[E, Ready, Ready]:
    return (yield item)


def _awaited(wait: Wait, network: Network) -> Generator[Wait | Any, Ready, Ready]:
    wider = msgspec.structs.replace(wait, read=(*wait.read, network.fd))
    while True:
        ready: Ready = yield wider
        if network.fd not in ready:
            return ready
        os.eventfd_read(network.fd)
        yield from network.fresh()
        is_late = wait.deadline_s is not None and time.monotonic() >= wait.deadline_s  # also while flows come and come
        if len(ready) > 1 or is_late:
            return ready - {network.fd}
