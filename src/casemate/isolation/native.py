"""Sandboxes by the native launcher: their start, and the end that leaves nothing behind."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final
from weakref import WeakSet

from casemate import limits
from casemate.errors import CapacityError, CasemateError, InternalError, LaunchError, LayerMissing, SandboxClosed
from casemate.isolation.host import HostFacts, read_host_facts
from casemate.isolation.launcher import NO_ROOM, Launcher
from casemate.isolation.nursery import (
    NESTED_STEP,
    Nursery,
    check_nested_work,
    check_possible,
    make_nursery_plan,
    nested_pid,
    nursery_spec,
    seen_inside,
    spec_inside,
)
from casemate.isolation.plan import Surroundings, choose_processors, layers_in_force, make_plan, processors_wanted
from casemate.isolation.protocol import (
    EVERYTHING,
    CgroupKind,
    ReportKind,
    encode_signal,
    receive_tried,
)
from casemate.isolation.seccomp import WATCHED_NAMES
from casemate.isolation.stages import Refused, expect_stage, hang_up, kill_and_wait
from casemate.isolation.steps import LaunchPlan, Step, StepKind, encode_plan
from casemate.isolation.throttle import Throttle
from casemate.isolation.undertaker import Undertaker
from casemate.isolation.waiting import Steps, Wait, readable
from casemate.kernel.cgroup_types import CgroupLimits, CgroupRoot, CgroupUnavailable, RunCgroup
from casemate.kernel.descriptors import Owned, send_descriptors
from casemate.kernel.devices import make_devices
from casemate.kernel.hostids import HostIds, block_of
from casemate.model.layers import Layer
from casemate.model.resources import Limits
from casemate.model.result import MACHINE_BASE, Isolation
from casemate.model.spec import Mount, SandboxSpec

APPROXIMATE_WITHOUT_CGROUP: Final = ("memory", "cpu", "cpu_time", "processes")
KILL_STEP: Final = "ending the sandbox"


class NativeSandbox:
    """One running sandbox: its init, its cgroup, its work directory. Closing ends all of it.

    `listeners` are descriptors of the listening sockets that its spec asks for, and close with it. `way` are those of
    its way out, as `isolation.way` has them: whoever takes them is the network of this sandbox.
    """

    def __init__(
        self,
        *,
        control: socket.socket,
        pidfd: int,
        pid: int,
        work_fd: int,
        listeners: tuple[int, ...] = (),
        way: Owned,
        cgroup: RunCgroup | None,
        isolation: Isolation,
        limits: Limits,
        resources: ExitStack,
    ) -> None:
        self.pid = pid
        self.work_fd = work_fd
        self.listeners = listeners
        self.way = way
        self.cgroup = cgroup
        self.isolation = isolation
        self.limits = limits
        self.throttle = Throttle(self, limits.cpus)
        self._control = control
        self._control.settimeout(0)
        self._pidfd = pidfd
        self._resources = resources
        self._numbers = itertools.count(1)
        self._closing = threading.Lock()
        self._closed = False
        self._users = 0
        self._tried: dict[int, int] = {}

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def pidfd(self) -> int:
        """Becomes readable at the sandbox's end."""
        return self._pidfd

    def next_id(self) -> int:
        """A number for a process to be started, unique in this sandbox."""
        return next(self._numbers)

    def ask(self, message: bytes) -> Steps[socket.socket]:
        """As `request`, but waits while init is behind with earlier ones: it runs on the guest's processor share."""
        deadline_s = time.monotonic() + limits.REQUEST_TIMEOUT_S
        while True:
            try:
                return self.request(message)
            except _Behind:
                if not (yield Wait(write=(self._control.fileno(),), deadline_s=deadline_s)):
                    raise

    def request(self, message: bytes) -> socket.socket:
        """Send a request to init; the answers come on the returned socket, whose end means init's end.

        Never waits: raises CapacityError if init is so far behind that there is no room for another request.
        """
        ours, theirs = _socketpair()
        with theirs:
            try:
                self._send(message, theirs.fileno())
            except BaseException:
                ours.close()
                raise
        return ours

    def signal(self, spawn_id: int, number: int) -> bool:
        """Have init signal a process it started, or with id 0 everything; False if it cannot be told.

        Never waits and needs no free descriptor: the answer, which nobody wants, goes to a directory and is lost.
        """
        try:
            self._send(encode_signal(spawn_id, number), self.work_fd)
        except CasemateError:
            return False
        return True

    def _send(self, message: bytes, answer_fd: int) -> None:
        try:
            send_descriptors(self._control, message, [answer_fd])
        except BlockingIOError as error:
            raise _Behind("the sandbox takes no more requests for now") from error
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise InternalError("a request to the sandbox is too large") from error
            if error.errno in NO_ROOM:
                raise CapacityError(f"no room for another request: {error.strerror}") from error
            raise SandboxClosed("the sandbox has ended") from error

    def tried(self) -> dict[str, int]:
        """How often each watched system call was tried since this was asked last, by name. Never waits.

        Whatever has ended was told whole; of what was killed, at least half.
        """
        with self._closing:
            if self._closed:
                return {}
            told = receive_tried(self._control, WATCHED_NAMES)
            new = {number: count - self._tried.get(number, 0) for number, count in told.items()}
            self._tried |= told
        return {WATCHED_NAMES[number]: count for number, count in new.items() if count > 0}

    def is_alive(self) -> bool:
        """Whether init still runs; everything in a sandbox ends with it."""
        return not self._closed and not readable(self._pidfd, 0)

    def has_ended(self, within_s: float) -> bool:
        """Whether init is gone, or is so in a moment, for which the calling thread waits."""
        return self._closed or readable(self._pidfd, within_s)

    def ends(self, within_s: float) -> Steps[bool]:
        """Whether init is gone, or will be in a moment: its sockets close a little earlier than it ends."""
        yield Wait(read=(self._pidfd,), deadline_s=time.monotonic() + within_s)
        return not self.is_alive()

    def kill(self) -> None:
        """Kill everything inside at once. Idempotent; does not wait."""
        if not self._closed:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait_dead(self) -> None:
        """After `kill`: wait until the last process is gone. Raises LaunchError if one will not die."""
        if self._closed or readable(self._pidfd, limits.KILL_SOON_S):
            return
        self._kill_each()
        if not readable(self._pidfd, limits.KILL_TIMEOUT_S):
            raise _undying()

    def end(self) -> Steps[None]:
        """Kill everything inside and wait for it; files can still be read. Raises LaunchError."""
        self.kill()
        if (yield Wait(read=(self._pidfd,), deadline_s=time.monotonic() + limits.KILL_SOON_S)):
            return
        self._kill_each()
        if not (yield Wait(read=(self._pidfd,), deadline_s=time.monotonic() + limits.KILL_TIMEOUT_S)):
            raise _undying()

    def _kill_each(self) -> None:
        """The kernel does it at init's end, for which init needs a processor that others may keep busy."""
        if self.cgroup is not None:
            with suppress(CasemateError):
                self.cgroup.kill()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While somebody uses the descriptors they stay open: closed ones could soon be other files of ours."""
        with self._closing:
            if self._closed:
                raise SandboxClosed("the sandbox is closed")
            self._users += 1
        try:
            yield
        finally:
            with self._closing:
                self._users -= 1
                self._release()

    def close(self) -> None:
        """Kill, wait and release, or leave the release to whoever still uses it. Idempotent and bounded in time."""
        with self._closing:
            if self._closed:
                return
            self.kill()
            try:
                self.wait_dead()
            finally:
                self._closed = True
                self._release()

    def _release(self) -> None:
        if self._closed and not self._users:
            self._resources.close()


class NativeBackend:
    """Starts sandboxes on this machine with the launcher of one engine. Safe to use from many threads."""

    name = "native"

    def __init__(self, *, cgroups: CgroupRoot | CgroupUnavailable, host_ids: HostIds | None) -> None:
        self._cgroups = cgroups
        self._host_ids = host_ids
        self._host = read_host_facts()
        self._launcher = Launcher()
        self._undertaker = Undertaker()
        self._started: WeakSet[NativeSandbox] = WeakSet()
        self._starting = threading.Lock()
        self._closed = False
        self._turns = itertools.count()
        self._names = itertools.count(1)

    @property
    def host(self) -> HostFacts:
        return self._host

    @property
    def cgroups(self) -> CgroupRoot | CgroupUnavailable:
        return self._cgroups

    @property
    def launcher(self) -> Launcher:
        return self._launcher

    def bury(self, sandbox: NativeSandbox) -> None:
        """Kill a sandbox at once and release it when it is dead, without waiting for that here."""
        self._undertaker.bury(sandbox)

    def signal_everything(self, number: int) -> None:
        """Send a signal to every process in every sandbox."""
        for sandbox in self._running():
            sandbox.signal(EVERYTHING, number)

    def _running(self) -> list[NativeSandbox]:
        with self._starting:
            return list(self._started)

    def settle(self) -> None:
        """Wait until everything buried is released."""
        self._undertaker.settle()

    def close(self) -> None:
        """End the launcher and whatever it still runs."""
        with self._starting:
            self._closed = True
        try:
            self._undertaker.close()
        finally:
            self._launcher.close()
            for sandbox in self._running():  # the launcher's end may have come before one had tied its life to it
                sandbox.kill()

    def start_nursery(self, mounts: tuple[Mount, ...], *, limited: bool) -> Steps[NativeSandbox]:
        """A sandbox for a zygote that makes others with these mounts. Raises as `start` does.

        `limited`: what runs in it is not ours alone, so a cgroup has to hold it; LaunchError where there is none.
        """
        spec = nursery_spec(mounts)
        check_possible(self._host, self._cgroups, limited=limited)
        while True:
            try:
                return (yield from self._start_nursery(spec, self._host))
            except Refused as refused:
                self._learn(refused)

    def _start_nursery(self, spec: SandboxSpec, host: HostFacts) -> Steps[NativeSandbox]:
        with ExitStack() as stack:
            around, cgroup = self._surroundings(spec.limits, host, stack)
            plan = make_nursery_plan(spec, host, around, block_of(around.uid) if self._host_ids else range(0))
            control = yield from self._send(plan, cgroup, stack)
            return (yield from self._built(spec, plan, control, cgroup, (), stack))

    def start_within(self, nursery: Nursery, spec: SandboxSpec) -> Steps[NativeSandbox]:
        """Build one sandbox, with the same walls, by the zygote in a nursery. Raises as `start` does."""
        with ExitStack() as stack:
            stack.enter_context(nursery.used())
            inner = spec_inside(spec)
            around, cgroup = self._surroundings(spec.limits, nursery.host, stack)
            layers = _checked_layers(inner, nursery.host, around)
            plan = make_plan(inner, nursery.host, around)
            control = yield from self._send_within(nursery, plan, cgroup, stack)
            try:
                return (yield from self._built(spec, plan, control, cgroup, layers, stack, nested=True))
            except Refused as refused:
                raise LaunchError(NESTED_STEP, errno.EOPNOTSUPP, str(refused)) from refused

    def view_within(self, mounts: tuple[Mount, ...]) -> HostFacts:
        """The machine as a zygote sees it in a nursery with these mounts."""
        return seen_inside(self._host, mounts)

    def start(self, spec: SandboxSpec) -> Steps[NativeSandbox]:
        """Build one sandbox. Raises LayerMissing, CapacityError or LaunchError; then nothing is left."""
        # Ends: each refusal takes something out of the next plan, and a plan has only so much.
        while True:
            try:
                return (yield from self._start(spec, self._host))
            except Refused as refused:
                self._learn(refused, spec.inputs)
                is_wanted = refused.layer in spec.require and not refused.is_about(spec.inputs)
                if is_wanted or refused.layer is Layer.EGRESS:
                    raise LayerMissing([refused.layer]) from refused

    def _learn(self, refused: Refused, inputs: tuple[Mount, ...] = ()) -> None:
        """For all plans from now on. Two threads at once may forget one thing; then it is refused once more."""
        self._host = refused.without(self._host, inputs)

    def _start(self, spec: SandboxSpec, host: HostFacts) -> Steps[NativeSandbox]:
        with ExitStack() as stack:
            around, cgroup = self._surroundings(spec.limits, host, stack)
            layers = _checked_layers(spec, host, around)
            plan = make_plan(spec, host, around)
            control = yield from self._send(plan, cgroup, stack)
            return (yield from self._built(spec, plan, control, cgroup, layers, stack))

    def _built(  # noqa: PLR0917 - what one start has come to
        self,
        spec: SandboxSpec,
        plan: LaunchPlan,
        control: socket.socket,
        cgroup: RunCgroup | None,
        layers: tuple[Layer, ...],
        stack: ExitStack,
        *,
        nested: bool = False,
    ) -> Steps[NativeSandbox]:
        """The sandbox of a plan that was handed over, once it is there; what tells of a nested one may be hostile."""
        if cgroup is not None:
            cgroup.counters()  # opened while the launcher works, for whoever asks again
        started = yield from expect_stage(control, ReportKind.STARTED, plan, stack)
        pid = nested_pid(started.fds[0]) if nested else started.value
        stack.callback(kill_and_wait, started.fds[0])
        handed = stack.enter_context(ExitStack())
        ready = yield from expect_stage(control, ReportKind.READY, plan, handed)
        if nested:
            uid = self._host.uid if self._host_ids is None else plan.uid_outside
            check_nested_work(ready.fds[0], uid=uid, disk_bytes=spec.limits.disk_bytes)
        if cgroup is not None:
            cgroup.joined()
        handed.pop_all()
        way = Owned(ready.fds[1 + len(spec.listen) :])
        stack.callback(way.close)
        for fd in ready.fds[: 1 + len(spec.listen)]:
            stack.callback(os.close, fd)
        sandbox = NativeSandbox(
            control=control,
            pidfd=started.fds[0],
            pid=pid,
            work_fd=ready.fds[0],
            listeners=ready.fds[1 : 1 + len(spec.listen)],
            way=way,
            cgroup=cgroup,
            isolation=Isolation(
                backend=self.name,
                layers=layers,
                approximate=() if cgroup else APPROXIMATE_WITHOUT_CGROUP,
                base=Path(spec.base).name or MACHINE_BASE,
            ),
            limits=spec.limits,
            resources=stack.pop_all(),
        )
        with self._starting:
            self._started.add(sandbox)
            is_late = self._closed
        if is_late:
            sandbox.close()
            raise SandboxClosed("the engine is closed")
        return sandbox

    def _surroundings(self, wanted: Limits, host: HostFacts, stack: ExitStack) -> tuple[Surroundings, RunCgroup | None]:
        uid, gid = host.uid, host.gid
        if self._host_ids is not None:
            uid = gid = stack.enter_context(self._host_ids.lease()).value
        cpus = choose_processors(self._host.cpus, processors_wanted(wanted), next(self._turns))
        cgroup = None
        if not isinstance(self._cgroups, CgroupUnavailable):
            amounts = CgroupLimits(memory_bytes=wanted.memory_bytes, processes=wanted.processes, cpus=wanted.cpus)
            cgroup = self._cgroups.create(f"run-{next(self._names)}", amounts)
            stack.callback(cgroup.remove)
        return Surroundings(uid=uid, gid=gid, cpus=cpus, cgroup=cgroup is not None), cgroup

    def _send(self, plan: LaunchPlan, cgroup: RunCgroup | None, stack: ExitStack) -> Steps[socket.socket]:
        fds = cgroup.join_fds if cgroup else ()
        kind = CgroupKind.NONE
        if not isinstance(self._cgroups, CgroupUnavailable):
            kind = CgroupKind.JOIN if self._cgroups.version == "v1" else CgroupKind.INTO
        ours, theirs = _socketpair()
        stack.callback(hang_up, ours)
        with theirs:
            message = encode_plan(plan, cgroup_kind=kind, cgroup_fds=len(fds))
            yield from self._launcher.hand_over(message, [theirs.fileno(), *fds])
        return ours

    def _send_within(
        self, nursery: Nursery, plan: LaunchPlan, cgroup: RunCgroup | None, stack: ExitStack
    ) -> Steps[socket.socket]:
        """The zygote may neither open a cgroup of ours nor make device nodes: both come along."""
        fds = list(cgroup.open_procs()) if cgroup else []
        kind = CgroupKind.JOIN if cgroup else CgroupKind.NONE
        ours, theirs = _socketpair()
        stack.callback(hang_up, ours)
        with theirs, ExitStack() as lent:
            for fd in fds:
                lent.callback(os.close, fd)
            devices = [_devices(step, plan) for step in plan.steps if step.kind is StepKind.DEVICES]
            for fd in devices:
                lent.callback(os.close, fd)
            message = encode_plan(plan, cgroup_kind=kind, cgroup_fds=len(fds), devices_fds=len(devices))
            yield from nursery.hand_over(message, [theirs.fileno(), *fds, *devices])
        return ours


def _devices(step: Step, plan: LaunchPlan) -> int:
    _, attributes, size, inodes, nodes = step.arguments
    try:
        return make_devices(
            nodes,
            uid=plan.uid_outside,
            gid=plan.gid_outside,
            size_bytes=int(size),
            inodes=int(inodes),
            attributes=attributes,
        )
    except OSError as error:
        raise LaunchError("making the device nodes", error.errno or 0, error.strerror or "") from error


def _checked_layers(spec: SandboxSpec, host: HostFacts, around: Surroundings) -> tuple[Layer, ...]:
    layers = layers_in_force(spec, host, around)
    needless = () if spec.network else (Layer.EGRESS,)  # nothing leaves at all
    missing = sorted(spec.require.difference(layers, needless))
    if missing:
        raise LayerMissing(missing)
    return layers


class _Behind(CapacityError):
    """Init has not taken up earlier requests yet."""


def _undying() -> LaunchError:
    return LaunchError(KILL_STEP, 0, f"a process does not die within {limits.KILL_TIMEOUT_S} s")


def _socketpair() -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise CapacityError(f"no descriptor for a sandbox: {error.strerror}") from error
