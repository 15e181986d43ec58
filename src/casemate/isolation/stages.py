"""What a launcher reports of a start, stage by stage, and what failed, in words."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from contextlib import ExitStack, suppress
from typing import Final

import msgspec

from casemate import limits
from casemate.errors import InternalError, LaunchError
from casemate.isolation.host import HostFacts
from casemate.isolation.launcher import ENDS_HINT
from casemate.isolation.protocol import FAILED_STAGES, Report, ReportKind, Stage, receive_report
from casemate.isolation.steps import LaunchPlan, StepKind
from casemate.isolation.waiting import Steps, Wait, readable
from casemate.model.layers import Layer
from casemate.model.spec import Mount

WATCHING: Final = frozenset({StepKind.WATCH, StepKind.SECCOMP})
HANDED_OVER: Final = frozenset({StepKind.EXPOSE, StepKind.LISTEN})
OVERLAY_REFUSED: Final = frozenset({errno.EPERM, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP})
EGRESS_REFUSED: Final = frozenset(
    {errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL, errno.EPROTO}
)
"""By a kernel that lacks nf_tables, or a part of it."""

WATCH_REFUSED: Final = frozenset(
    {errno.EBUSY, errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EFAULT, errno.EOPNOTSUPP}
)
"""By a kernel without it, by a filter around us, or because another is being asked already."""

DEVICES_REFUSED: Final = frozenset({errno.EPERM, errno.EACCES})
"""To root, but that of a container without the right to make device nodes."""


class Refused(Exception):
    """What an additional layer needs cannot be done here; the next plan does without.

    For the private base `directory` is the one over which no overlay can be mounted.
    """

    def __init__(self, layer: Layer, directory: str = "") -> None:
        super().__init__(f"{layer} cannot be had here")
        self.layer = layer
        self.directory = directory

    def is_about(self, inputs: tuple[Mount, ...]) -> bool:
        """Whether it is about one of the inputs, which no other sandbox sees in any case."""
        return self.directory in {mount.source for mount in inputs}

    def without(self, host: HostFacts, inputs: tuple[Mount, ...]) -> HostFacts:
        """The machine as it is now known. Of what only some sandboxes need nothing is to be remembered."""
        if self.layer is Layer.EGRESS:
            return host
        if self.layer is Layer.WATCHED_CALLS:
            return msgspec.structs.replace(host, watched=())
        if self.layer is not Layer.PRIVATE_BASE:
            return msgspec.structs.replace(host, device_nodes=False)
        kin = {mount.source: mount.kin for mount in inputs if mount.kin}
        directory = kin.get(self.directory, self.directory)
        return msgspec.structs.replace(host, overlay_refused=host.overlay_refused | {directory})


def expect_stage(channel: socket.socket, kind: ReportKind, plan: LaunchPlan, stack: ExitStack) -> Steps[Report]:
    """The report that comes next in a start; its descriptors are closed with the stack.

    Raises Refused, LaunchError, or InternalError for what no launcher of ours says.
    """
    deadline_s = time.monotonic() + limits.LAUNCH_TIMEOUT_S
    ready = yield Wait(read=(channel.fileno(),), deadline_s=deadline_s)
    if not ready:
        raise LaunchError("launcher", errno.ETIMEDOUT, f"no answer within {limits.LAUNCH_TIMEOUT_S} s")
    report = receive_report(channel)
    if report is None:
        raise LaunchError("launcher", errno.EPIPE, "the sandbox ended while it was being built", hint=ENDS_HINT)
    for fd in report.fds:
        stack.callback(os.close, fd)
    if report.kind is not kind or len(report.fds) != _descriptors_with(kind, plan):
        raise _launch_error(report, plan)
    return report


def _descriptors_with(kind: ReportKind, plan: LaunchPlan) -> int:
    """How many descriptors come with a report of a start: a process's, or one for each step that hands one over."""
    return 1 if kind is ReportKind.STARTED else sum(step.kind in HANDED_OVER for step in plan.steps)


def _launch_error(report: Report, plan: LaunchPlan) -> Exception:
    """What failed, in words. A report of an unknown step is a mistake of ours."""
    problem = os.strerror(report.error)
    if report.kind is not ReportKind.FAILED or not min(Stage) <= report.value < len(plan.steps):
        return InternalError(f"unexpected report {report.kind} from the launcher")
    if report.value == Stage.DEVICES and report.error in DEVICES_REFUSED:
        return Refused(Layer.PRIVATE_DEVICES)
    if report.value < 0:
        hint = "run `casemate doctor`" if report.error in {errno.EPERM, errno.EACCES, errno.ENOSPC} else ""
        return LaunchError(FAILED_STAGES[report.value], report.error, problem, hint=hint)
    step = plan.steps[report.value]
    if step.kind is StepKind.OVERLAY and report.error in OVERLAY_REFUSED:
        source = plan.steps[step.arguments[0]].arguments[0]  # the sources are the first steps
        return Refused(Layer.PRIVATE_BASE, source)
    if step.kind in WATCHING and report.error in WATCH_REFUSED and _watches(plan):
        return Refused(Layer.WATCHED_CALLS)
    if step.kind is StepKind.NETLINK and report.error in EGRESS_REFUSED:
        return Refused(Layer.EGRESS)
    return LaunchError(str(step), report.error, problem)


def _watches(plan: LaunchPlan) -> bool:
    return any(step.kind is StepKind.WATCH for step in plan.steps)


def hang_up(control: socket.socket) -> None:
    """Close our end and wait until everybody has closed the other: without it, a start that is still going on ends.

    For a while, whatever still comes: a zygote could send without end.
    """
    deadline_s = time.monotonic() + limits.HANG_UP_TIMEOUT_S
    with control, suppress(OSError):
        control.shutdown(socket.SHUT_WR)
        while (left_s := deadline_s - time.monotonic()) > 0:
            control.settimeout(left_s)
            if not control.recv(1):
                return


def kill_and_wait(pidfd: int) -> None:
    """For every way out of a start that failed half-way. The end of a sandbox does it earlier itself."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    readable(pidfd, limits.KILL_TIMEOUT_S)
