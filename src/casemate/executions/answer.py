"""A Result in few words, for callers that want a value or one text that says why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from casemate.model.result import JsonValue, Reason, Result

TEXTS: Final[Mapping[Reason, str]] = {
    Reason.TIMEOUT: "Execution timeout",
    Reason.CPU: "CPU time limit exceeded",
    Reason.MEMORY: "Memory limit exceeded",
    Reason.PROCESSES: "Process limit exceeded",
    Reason.DISK: "Disk limit exceeded",
    Reason.OUTPUT: "Output limit exceeded",
    Reason.VALIDATION: "Invalid output format",
    Reason.DENIED: "Operation not permitted",
    Reason.CANCELLED: "Execution cancelled",
    Reason.LOST: "Worker crashed or became unresponsive",
    Reason.INTERNAL: "An internal error occurred while processing the request",
}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. `stack` is there only if it was asked for, and the program had an error with one."""

    success: bool
    output: JsonValue = None
    error: str | None = None
    stack: str | None = None
    execution_time_ms: float = 0.0
    memory_used_bytes: int | None = None

    def document(self) -> dict[str, Any]:
        """For JSON: what it means, and nothing else."""
        found: dict[str, Any] = {"success": self.success}
        found |= {"output": self.output} if self.success else {"error": self.error}
        if self.stack is not None:
            found["stack"] = self.stack
        return {**found, "executionTime": self.execution_time_ms, "memoryUsed": self.memory_used_bytes}


def answer(result: Result, *, with_stack: bool = False) -> Answer:
    """The Result as a value, or as one text."""
    trace = result.error.traceback if result.error is not None and with_stack else ""
    return Answer(
        success=result.ok,
        output=result.output if result.ok else None,
        error=None if result.ok else error_text(result),
        stack=trace or None,
        execution_time_ms=round(result.usage.wall_s * 1000, 3),
        memory_used_bytes=result.usage.memory_peak_bytes,
    )


def error_text(result: Result) -> str:
    """Why it failed: what the program says of its own error, otherwise which limit or rule it met."""
    if result.reason in TEXTS:
        return TEXTS[result.reason]
    if result.error is not None:
        return result.error.message or result.error.type
    if result.signal is not None:
        return f"Worker exited with signal {result.signal}"
    return f"Worker exited with code {result.exit_code}"
