"""What Casemate is measured against: the bare program, bubblewrap, sandlock, and the floor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.measure import Action

FLOOR_SOURCE: Final = Path(__file__).parent / "floor.c"
BASE_LINKS: Final = ("bin", "lib", "lib64", "sbin")
NULL: Final = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
SANDLOCK_READABLE: Final = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")


def process(*argv: str) -> Action:
    """A program as the cheapest call starts it, with nothing to read or write, waited for."""
    path = shutil.which(argv[0]) or argv[0]

    def run() -> None:
        pid = os.posix_spawn(path, list(argv), {"PATH": os.environ["PATH"]}, file_actions=NULL)
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise RuntimeError(f"{argv} ends with wait status {status}")

    return run


def bubblewrap(*argv: str, more: Sequence[str] = ()) -> Action:
    """bubblewrap as its manual shows it: all namespaces, the machine's /usr, own /proc, /dev and /tmp."""
    return process(*bubblewrap_command(*argv, more=more))


def bubblewrap_command(*argv: str, more: Sequence[str] = ()) -> list[str]:
    links: list[str] = []
    for name in BASE_LINKS:
        if (path := Path("/") / name).is_symlink():
            links += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            links += ["--ro-bind", str(path), str(path)]
    walls = ("--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--chdir", "/")
    view = ("--ro-bind", "/usr", "/usr", *links, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")
    return ["bwrap", *walls, *view, *more, *argv]


def sandlock(*argv: str) -> Action | None:
    """The sandlock package around a program, or None where it does not work."""
    try:
        from sandlock import Sandbox
    except ImportError:
        return None
    readable = [path for path in SANDLOCK_READABLE if Path(path).exists()]

    def run() -> None:
        result = Sandbox(fs_readable=readable, clean_env=True).run(list(argv))
        if not result.success:
            raise RuntimeError(f"sandlock: {result}")

    return run if works(run) else None


def works(action: Action) -> bool:
    """Whether this peer runs here at all."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever a peer raises, it is then left out, visibly
        print(f"left out: {error}", file=sys.stderr)
        return False
    return True


def build_floor(directory: Path) -> Callable[[], None]:
    """Compile the floor and return what runs it once."""
    program = directory / "floor"
    subprocess.run(["gcc", "-O2", "-static", "-o", str(program), str(FLOOR_SOURCE)], check=True)
    run = process(str(program))

    def once() -> None:
        run()

    return once
