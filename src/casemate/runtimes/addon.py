"""Builds what the isolates' worker needs: `python3 -m casemate.runtimes.addon`.

It is a native addon for the machine's own Node, compiled from the source that `_isolated_vm/package-lock.json` pins by
its hash. Scripts of packages are not run and no ready binary is fetched. `make setup` does it in a source tree; after
the installation of a wheel, somebody who may write to the package's directory calls it once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from casemate.runtimes.builtin import BUILTIN
from casemate.runtimes.interpreter import ADDON_BUILT, PACKAGE

DIRECTORY: Final = PACKAGE / BUILTIN["javascript"].addon
PINNED: Final = ("package.json", "package-lock.json")
MODULE: Final = "isolated-vm"
FILE: Final = "isolated_vm.node"
TOOLS: Final = ("npm", "g++", "make", "python3")
PACKAGES: Final = "nodejs npm libnode-dev g++ make python3"
HEADER: Final = Path("include/node/node.h")
TIMEOUT_S: Final = 1200.0
SHOWN_LINES: Final = 12
TRIAL: Final = (
    "const {ivm} = require(process.argv[1]); const isolate = new ivm.Isolate({memoryLimit: 8});"
    "if (isolate.createContextSync().evalSync('6 * 7') !== 42) process.exit(1)"
)


class BuildError(Exception):
    """It cannot be built here; the message says why and what to install."""


def node() -> str:
    """The interpreter that the runtime will use."""
    for name in BUILTIN["javascript"].interpreter:
        if found := shutil.which(name):
            return found
    raise BuildError(f"node is not installed; to install what is needed: apt-get install {PACKAGES}")


def headers(program: str) -> Path:
    """The directory with the headers that belong to the interpreter: nothing is fetched for that."""
    prefixes = (Path(program).resolve().parent.parent, Path("/usr"))
    for prefix in prefixes:
        if (prefix / HEADER).is_file():
            return prefix
    raise BuildError(f"there is no {HEADER} beside {program}: apt-get install libnode-dev, or Node's own package")


def require_tools() -> None:
    """Raise BuildError naming all that is missing."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        raise BuildError(f"not installed: {', '.join(missing)}; to install it: apt-get install {PACKAGES}")


def run(argv: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
    """One step. Raises BuildError with the last that the program said."""
    done = subprocess.run(
        argv, cwd=directory, env={**environment}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-SHOWN_LINES:])
        raise BuildError(f"{' '.join(argv[:4])} failed:\n{last}")


def build(target: Path = DIRECTORY / ADDON_BUILT) -> Path:
    """Fetch, compile, try, and put it in its place in one step. Raises BuildError."""
    program, prefix = node(), headers(node())
    require_tools()
    environment = {**os.environ, "npm_config_update_notifier": "false"}
    with tempfile.TemporaryDirectory(prefix="casemate-addon-") as name:
        directory = Path(name)
        for pinned in PINNED:
            shutil.copy(DIRECTORY / pinned, directory / pinned)
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], directory, environment)
        jobs = str(len(os.sched_getaffinity(0)))
        gyp = ["node-gyp", "rebuild", "--release", "-j", jobs, f"--nodedir={prefix}"]
        run(["npm", "explore", MODULE, "--", *gyp], directory, environment)
        made = directory / "node_modules" / MODULE / "out" / FILE
        if strip := shutil.which("strip"):
            run([strip, "--strip-debug", str(made)], directory, environment)
        run([program, "--no-node-snapshot", "-e", TRIAL, str(made)], directory, environment)
        return install(made, target)


def install(made: Path, target: Path) -> Path:
    """Replace the file as a whole: workers may have the old one open."""
    target.mkdir(mode=0o755, exist_ok=True)
    unfinished = target / f".{FILE}.{os.getpid()}"
    shutil.copyfile(made, unfinished)
    unfinished.chmod(0o755)
    return unfinished.replace(target / FILE)


def main() -> int:
    """The exit status; 1 where it cannot be built."""
    try:
        print(build())  # noqa: T201  (the path is what a caller asks for)
    except (BuildError, OSError, subprocess.TimeoutExpired) as error:
        print(f"casemate: the runtime javascript cannot be built: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
