"""Compiles native/ into what stands beside the Python package: the static launcher, and the library of zygotes.

Hatchling calls the hook for wheels and editable installs; `python hatch_build.py` does the same by hand.
Static, because the launcher is executed in a root that has no C library; warnings are errors, because it is the wall.
The library is the same code, for interpreters to load.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

NATIVE_DIRECTORY: Final = "native"
LAUNCHER: Final = Path("src/casemate/_native/casemate-launcher")
LIBRARY: Final = LAUNCHER.with_name("casemate-zygote.so")
FLAGS: Final = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
KINDS: Final = {
    LAUNCHER: (("-static",), ("zygote.c", "runner.c")),
    LIBRARY: (("-shared", "-fPIC", "-fvisibility=hidden"), ("main.c",)),
}
"""What is made: its own flags, and the sources that only the other one has."""

COMPILERS: Final = ("gcc", "cc", "clang")
WHEEL_TAG: Final = "py3-none-linux_x86_64"
PROBE: Final = '#include <stdio.h>\n#include <linux/seccomp.h>\nint main(void) { return puts("") < 0; }\n'
INSTALL_HINT: Final = (
    "install a C compiler with the static C library and the kernel headers "
    "(Debian, Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc glibc-static kernel-headers; "
    "Alpine: apk add gcc musl-dev linux-headers), or name a compiler in CC"
)


class NativeBuildError(Exception):
    """The launcher could not be built; the message says what to install or what the compiler said."""


def compiler() -> list[str]:
    """Return the command of the C compiler: CC if it is set, else the first that is installed."""
    if chosen := shlex.split(os.environ.get("CC", "")):
        if shutil.which(chosen[0]) is None:
            raise NativeBuildError(f"the compiler named in CC is not installed: {chosen[0]}; {INSTALL_HINT}")
        return chosen
    for name in COMPILERS:
        if shutil.which(name) is not None:
            return [name]
    raise NativeBuildError(f"no C compiler found; {INSTALL_HINT}")


def require_static_linking(command: list[str]) -> None:
    """Tell a missing static C library from a mistake in our own source, before compiling that."""
    arguments = [*command, "-static", "-x", "c", "-o", os.devnull, "-"]
    probe = subprocess.run(arguments, input=PROBE, capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        raise NativeBuildError(f"{command[0]} cannot link a static program; {INSTALL_HINT}\n{probe.stderr.strip()}")


def is_current(target: Path, inputs: list[Path]) -> bool:
    """Say whether the target is newer than everything that it is made from."""
    if not os.access(target, os.X_OK):
        return False
    built_ns = target.stat().st_mtime_ns
    return all(path.stat().st_mtime_ns < built_ns for path in inputs)


def compile_native(sources: list[Path], target: Path, flags: tuple[str, ...]) -> None:
    """Compile beside the target and rename, so that nobody ever executes half of it."""
    command = compiler()
    if "-static" in flags:
        require_static_linking(command)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    arguments = [*command, *FLAGS, *flags, "-o", str(unfinished), *map(str, sources)]
    built = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise NativeBuildError(f"{shlex.join(arguments)} failed:\n{built.stderr.strip()}")
    unfinished.chmod(0o755)
    unfinished.replace(target)


def build_native(root: Path) -> list[Path]:
    """Bring what is made of native/ below `root` up to date and return the paths."""
    native = root / NATIVE_DIRECTORY
    sources = sorted(native.glob("*.c"))
    if not sources:
        raise NativeBuildError(f"there is no C source in {native}: the source tree is incomplete")
    inputs = [*sources, *sorted(native.glob("*.h")), root / "hatch_build.py"]
    for name, (flags, without) in KINDS.items():
        if not is_current(root / name, inputs):
            compile_native([source for source in sources if source.name not in without], root / name, flags)
    return [root / name for name in KINDS]


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run by hand: the compiler is all that is needed
    pass
else:

    class LauncherHook(BuildHookInterface[Any]):
        """Build the launcher before the files of a wheel or an editable install are gathered."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 (hatchling's signature)
            """Compile, and mark the wheel as one for this platform with any Python 3."""
            if self.target_name != "wheel":
                return
            build_native(Path(self.root))
            build_data["pure_python"] = False
            build_data["tag"] = WHEEL_TAG


if __name__ == "__main__":
    try:
        print(*build_native(Path(__file__).resolve().parent), sep="\n")
    except NativeBuildError as error:
        sys.exit(f"casemate: {error}")
