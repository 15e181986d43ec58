"""The attacks of `casemate selftest` that only the outside can judge: what they used up, what they brought out."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from casemate.model.layers import Layer
from casemate.model.result import Reason, Result
from casemate.model.units import format_duration

QUICK_S: Final = 5.0


class Exhaustion(msgspec.Struct, frozen=True, kw_only=True):
    """One attack: its code, the limits it meets, and the reason that it must end with."""

    name: str
    tried: str
    code: str
    wall: Layer = Layer.LIMITS
    limits: dict[str, Any] = {}
    collect: tuple[str, ...] = ()
    reasons: frozenset[Reason] = frozenset()


def judge(attack: Exhaustion, result: Result) -> tuple[bool, str]:
    """Whether the wall held, and how one can tell."""
    if attack.reasons:
        return (
            result.reason in attack.reasons,
            f"{result.reason} after {format_duration(round(result.usage.wall_s, 3))}",
        )
    if attack.collect:
        return not result.files, f"{len(result.files)} files collected"
    if result.output is not None:
        return False, "the output is what it wanted it to be"
    return result.ok and result.usage.wall_s < QUICK_S, f"ended after {format_duration(round(result.usage.wall_s, 3))}"


EXHAUSTIONS: Final = (
    Exhaustion(
        name="time",
        tried="Sleep for ever, deaf to every signal",
        code="import signal, time\nfor n in range(1, 65):\n try: signal.signal(n, signal.SIG_IGN)\n"
        " except (OSError, ValueError): pass\nwhile True: time.sleep(60)",
        limits={"timeout": "500ms"},
        reasons=frozenset({Reason.TIMEOUT}),
    ),
    Exhaustion(
        name="processor",
        tried="Keep a processor busy",
        code="import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        limits={"cpu_time": "300ms", "timeout": "20s"},
        reasons=frozenset({Reason.CPU}),
    ),
    Exhaustion(
        name="memory",
        tried="Take all memory",
        code="held = []\nwhile True: held.append(bytearray(1 << 20))",
        limits={"memory": "64Mi", "timeout": "20s"},
        reasons=frozenset({Reason.MEMORY}),
    ),
    Exhaustion(
        name="fork-bomb",
        tried="Start processes without end",
        code="import os, time\nwhile True:\n if os.fork() == 0: time.sleep(60)",
        limits={"processes": 16, "timeout": "20s"},
        reasons=frozenset({Reason.PROCESSES}),
    ),
    Exhaustion(
        name="disk",
        tried="Fill the disk",
        code="with open('/work/big', 'wb') as file:\n while True: file.write(bytes(1 << 16))",
        limits={"disk": "1Mi", "timeout": "20s"},
        reasons=frozenset({Reason.DISK}),
    ),
    Exhaustion(
        name="inodes",
        tried="Make files without end",
        code="n = 0\nwhile True:\n open(f'/tmp/{n}', 'w').close(); n += 1",
        limits={"inodes": 100, "timeout": "20s"},
        reasons=frozenset({Reason.DISK}),
    ),
    Exhaustion(
        name="output",
        tried="Print without end",
        code="import sys\nwhile True: sys.stdout.write('x' * 65536)",
        limits={"output": "1Mi", "timeout": "20s"},
        reasons=frozenset({Reason.OUTPUT}),
    ),
    Exhaustion(
        name="daemon",
        tried="Leave a daemon that holds stdout",
        wall=Layer.PID_NAMESPACE,
        code="import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0: time.sleep(600)\n os._exit(0)",
        limits={"timeout": "20s"},
    ),
    Exhaustion(
        name="link-out",
        tried="Have a link to a file of the machine's collected",
        wall=Layer.OWN_ROOT,
        code="import os\nos.symlink('/etc/passwd', 'out.txt')\nos.symlink('/', 'root')",
        collect=("**",),
    ),
    Exhaustion(
        name="false-reply",
        tried="Answer in the harness's place",
        wall=Layer.PID_NAMESPACE,
        code="import os\nfor fd in range(3, 64):\n"
        ' try: os.write(fd, b\'\\0\\0\\0\\x1f{"kind":"value","output":"false"}\')\n except OSError: pass\n',
    ),
)
