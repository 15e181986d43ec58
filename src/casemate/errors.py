"""The one exception tree of Casemate.

    CasemateError                  every error of ours; what the guest does wrong is a Result instead
    ├── InvalidInput               a value the caller gave is wrong; names the field
    │   ├── UnknownRuntime         no runtime of that name is declared
    │   ├── NotAllowed             the service's policy for commands and hosts forbids it; names the word
    │   └── ConfigError            a configuration file or variable is wrong; names the key
    ├── LayerMissing               a required isolation layer cannot be enforced here; names the layers
    ├── RuntimeUnavailable         the runtime is declared but its interpreter is not installed
    ├── LaunchError                the sandbox could not be built; names the step and the errno
    ├── SandboxClosed              the sandbox has ended or was closed
    │   └── StateLost              the interpreter that kept the variables has ended; the sandbox may go on
    ├── BuildFailed                a package set could not be made; quotes the installer
    ├── SetDamaged                 a package set is not what it was when it was made
    ├── FileTransferError          a file could not be moved into or out of the sandbox
    ├── CapacityError              this machine has no more of something (descriptors, ids, cgroups)
    ├── Unauthenticated            the service does not know the key, or there is none
    ├── PermissionDenied           the key may not do that; names the scope
    ├── AddressRefused             a signed address has expired, was changed, or is for something else
    ├── NotFound                   there is no such thing, or it is another tenant's
    ├── Conflict                   it contradicts what is there already
    ├── TooManyRequests            over a rate or a quota; says when to try again
    ├── BudgetExceeded             the tenant has used up what it may use; names the budget
    ├── ServiceUnavailable         a part of the service is down, or it is shutting down
    │   ├── NodeUnavailable        there is no node to ask; nothing was started
    │   ├── NodeLost               the node ended before it had answered
    │   └── RecordsUnavailable     the records cannot be read or written just now
    │       └── RecordsDamaged     the records are not what was written
    ├── ServiceError               the service answered with something that this client has no class for
    └── InternalError              a mistake of ours

Each class has a stable `code`; messages say what happened, hints say what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final


class CasemateError(Exception):
    """The root: `code` is stable, `hint` may be empty, `retryable` says whether trying again can help."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.request_id = ""
        """Of the request to a service that was answered with this; the service's log has it, too."""

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class InvalidInput(CasemateError):
    """A value the caller gave is wrong; nothing was started. `field` names it.

    The message may quote what the caller gave: it stays one line and says nothing to a terminal.
    """

    code = "invalid_input"
    http_status = 422

    def __init__(self, field: str, problem: str, *, hint: str = "") -> None:
        message = f"{field}: {problem}"
        super().__init__("".join(char if char.isprintable() else ascii(char)[1:-1] for char in message), hint=hint)
        self.field = field


class UnknownRuntime(InvalidInput):
    """No runtime of that name is declared."""

    code = "unknown_runtime"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__("runtime", f"unknown runtime {name!r}", hint="known: " + ", ".join(sorted(known)))


class NotAllowed(InvalidInput):
    """What was asked for is well written, but the service's policy forbids it; the message names the word."""

    code = "not_allowed"
    http_status = 403


class ConfigError(InvalidInput):
    """A configuration file or environment variable is wrong; `field` is its key."""

    code = "invalid_config"


class LayerMissing(CasemateError):
    """The run asks for isolation layers that cannot be enforced on this machine."""

    code = "layer_missing"
    http_status = 503

    def __init__(
        self, layers: Iterable[str], *, hint: str = "`casemate doctor` says why, and whether something would mend it"
    ) -> None:
        self.layers = tuple(layers)
        super().__init__("isolation layer not available: " + ", ".join(self.layers), hint=hint)


class RuntimeUnavailable(CasemateError):
    """The runtime is declared but its interpreter is not on this machine."""

    code = "runtime_unavailable"
    http_status = 503


class LaunchError(CasemateError):
    """The sandbox could not be built. `step` is the failing step, `errno` the kernel's answer (0 if none)."""

    code = "launch_failed"
    retryable = True

    def __init__(self, step: str, errno: int, message: str, *, hint: str = "") -> None:
        super().__init__(f"{step}: {message}", hint=hint)
        self.step = step
        self.errno = errno


class SandboxClosed(CasemateError):
    """The sandbox has ended (closed, killed, or lost) and cannot take this request."""

    code = "sandbox_closed"
    http_status = 409


class StateLost(SandboxClosed):
    """The interpreter whose variables stay between calls has ended, and they with it."""

    code = "state_lost"


class BuildFailed(CasemateError):
    """A package set could not be made. `log` is the end of what the installer said; it may be hostile text."""

    code = "build_failed"
    http_status = 422

    def __init__(self, message: str, *, log: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log = log


class SetDamaged(CasemateError):
    """A package set is not what it was when it was made: nothing runs with it."""

    code = "set_damaged"
    http_status = 503


class FileTransferError(CasemateError):
    """A file could not be moved into or out of the sandbox; the message names the path inside.

    `errno` is the kernel's answer (0 if the refusal is ours).
    """

    code = "file_transfer"
    http_status = 422

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class CapacityError(CasemateError):
    """This machine has no more of something that a sandbox needs."""

    code = "no_capacity"
    http_status = 503
    retryable = True


class Unauthenticated(CasemateError):
    """The service does not know the key, or was given none."""

    code = "unauthenticated"
    http_status = 401


class PermissionDenied(CasemateError):
    """The key may not do that. `scope` is what it lacks, or is denied."""

    code = "permission_denied"
    http_status = 403

    def __init__(self, scope: str, *, hint: str = "") -> None:
        super().__init__(f"the key lacks the scope {scope}", hint=hint)
        self.scope = scope


class AddressRefused(CasemateError):
    """A signed address has expired, was changed, or is for something else."""

    code = "address_refused"
    http_status = 403


class NotFound(CasemateError):
    """There is no such thing, or it is another tenant's: nobody can tell which."""

    code = "not_found"
    http_status = 404


class Conflict(CasemateError):
    """What is asked contradicts what is there already."""

    code = "conflict"
    http_status = 409


class TooManyRequests(CasemateError):
    """Over a rate or a quota. `retry_after_s` says when to try again."""

    code = "too_many_requests"
    http_status = 429
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class BudgetExceeded(CasemateError):
    """The tenant has used up what it may use; the message names the budget."""

    code = "budget_exceeded"
    http_status = 402


class ServiceUnavailable(CasemateError):
    """A part of the service is down, or it is shutting down."""

    code = "unavailable"
    http_status = 503
    retryable = True


class NodeUnavailable(ServiceUnavailable):
    """There is no node to ask. Nothing was started."""

    code = "node_unavailable"


class NodeLost(ServiceUnavailable):
    """The node ended, or the way to it, before it had answered."""

    code = "node_lost"
    retryable = False


class RecordsUnavailable(ServiceUnavailable):
    """The records cannot be read or written just now: nothing was.

    `problem` is `full`, `locked`, `io`, `slow`, `busy` or `closed`.
    """

    code = "records_unavailable"

    def __init__(self, problem: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problem = problem


class RecordsDamaged(RecordsUnavailable):
    """The records are not what was written, or no records at all. `problem` is `damaged`."""

    code = "records_damaged"
    retryable = False


class ServiceError(CasemateError):
    """The service answered with an error that this client has no class for, or with something that is no answer.

    `service_code` and `status` are as they came; both are empty or 0 if nothing of the kind came.
    """

    code = "service"
    http_status = 502

    def __init__(self, message: str, *, service_code: str = "", status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.service_code = service_code
        self.status = status


class InternalError(CasemateError):
    """A mistake of ours. Please report it."""

    code = "internal"


# Errors of another process ------------------------------------------------------------------------

_FACTS: Final[Mapping[str, object]] = {
    "layers": (),
    "step": "",
    "errno": 0,
    "log": "",
    "scope": "",
    "field": "",
    "retry_after_s": 1.0,
    "problem": "",
    "service_code": "",
    "status": 0,
}
"""What some errors have besides, where the other side does not say it."""


def classes_by_code() -> dict[str, type[CasemateError]]:
    """The tree below its root: nothing that another process says names a class that is not written here."""
    found: dict[str, type[CasemateError]] = {}
    waiting: list[type[CasemateError]] = [CasemateError]
    while waiting:
        for each in waiting.pop().__subclasses__():
            if each.__module__ == __name__:
                found[each.code] = each
                waiting.append(each)
    return found


def of_another_process(kind: type[CasemateError], message: str, hint: str) -> CasemateError:
    """An error of that class in words that are ready, with facts that are for the caller to fill in."""
    error = kind.__new__(kind)
    CasemateError.__init__(error, message, hint=hint)
    for name, value in _FACTS.items():
        setattr(error, name, value)
    return error
