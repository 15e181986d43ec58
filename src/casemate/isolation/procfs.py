"""What the sandbox sees of /proc: its own processes, its own limits, and nothing of the machine."""

from __future__ import annotations

from typing import Final

from casemate import limits as bound
from casemate.model.resources import Limits

OPEN_FILES: Final = frozenset({"consoles", "crypto", "devices", "dma", "execdomains", "filesystems", "misc", "version"})
"""Entries that say nothing about other users of the machine. Any entry that is not listed is masked,
so what a newer kernel adds is closed until somebody looked at it."""

OPEN_DIRECTORIES: Final = frozenset({"sys", "sysvipc"})
"""`sys` is made read-only, `sysvipc` is the sandbox's own."""

_SLIM_FIELDS: Final = ("processor", "vendor_id", "model name", "cpu MHz", "cache size")


def masked(entries: tuple[str, ...], allowed: frozenset[str]) -> tuple[str, ...]:
    """The entries that must not show what the machine's say."""
    return tuple(name for name in entries if name not in allowed and name not in SYNTHETIC)


def meminfo(limits: Limits) -> str:
    """The memory limit as the machine's memory."""
    total = limits.memory_bytes // 1024
    rows = [("MemTotal", total), ("MemFree", total), ("MemAvailable", total), ("Buffers", 0), ("Cached", 0)]
    rows += [("SwapCached", 0), ("Active", 0), ("Inactive", 0), ("SwapTotal", 0), ("SwapFree", 0), ("Shmem", 0)]
    return "".join(f"{name + ':':<15}{value:>9} kB\n" for name, value in rows)


def stat(cpus: int) -> str:
    """One line for each visible processor; counters are zero."""
    names = ["cpu ", *(f"cpu{number}" for number in range(min(cpus, bound.CPUINFO_LISTED_MAX)))]
    lines = "".join(f"{name} 0 0 0 0 0 0 0 0 0 0\n" for name in names)
    return lines + "intr 0\nctxt 0\nbtime 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"


def cpuinfo(host_text: str, cpus: int) -> str:
    """The machine's description of its first processors, as many as the sandbox may use.

    Beyond a few the blocks are shortened: all processors of a machine have the same long flag list.
    """
    blocks = [block for block in host_text.split("\n\n") if block.strip()]
    if not blocks:
        return ""
    first = blocks[0]
    count = min(cpus, bound.CPUINFO_LISTED_MAX)
    shown = [_numbered(first if n < bound.CPUINFO_FULL_MAX else _slim(first), n) for n in range(count)]
    return "\n\n".join(shown) + "\n\n"


def _slim(block: str) -> str:
    return "\n".join(line for line in block.splitlines() if line.split(":")[0].strip() in _SLIM_FIELDS)


def _numbered(block: str, number: int) -> str:
    lines = block.splitlines()
    return "\n".join(f"processor\t: {number}" if line.split(":")[0].strip() == "processor" else line for line in lines)


SYNTHETIC: Final = frozenset({"cpuinfo", "meminfo", "stat", "loadavg", "uptime", "swaps", "cmdline"})
"""Entries that are replaced by a text of ours."""


def synthetic(host_cpuinfo: str, limits: Limits, cpus: int) -> dict[str, str]:
    """The texts that stand in for the machine's own, by name of the entry."""
    return {
        "cpuinfo": cpuinfo(host_cpuinfo, cpus),
        "meminfo": meminfo(limits),
        "stat": stat(cpus),
        "loadavg": "0.00 0.00 0.00 1/1 1\n",
        "uptime": "1.00 1.00\n",
        "swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
        "cmdline": "\n",
    }
