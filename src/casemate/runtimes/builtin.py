"""The runtimes that come with Casemate. A user's configuration declares more, with the same keys, in TOML.

A module rather than a TOML file: reading one of those takes longer than the rest of a command line's start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from casemate.model.runtime import Ability, Channel, PackageSets, Runtime
from casemate.model.spec import GUEST_DIRECTORY

_PYTHON_SETS: Final = PackageSets(installer="pip", target="/opt/packages", environment={"PYTHONPATH": "/opt/packages"})
_NODE_SETS: Final = PackageSets(installer="npm", target="/node_modules")
"""At the root, where every module of Node's, of either kind, finds packages without being told."""

_R_SETS: Final = PackageSets(installer="r", target="/opt/packages", environment={"R_LIBS": "/opt/packages"})

_NODE_MEMORY_ERRORS: Final = (
    "Array buffer allocation failed",
    "JavaScript heap out of memory",
    "process out of memory",
)

_ISOLATE_GLOBALS: Final = """
    AggregateError Array ArrayBuffer BigInt BigInt64Array BigUint64Array Boolean DataView Date Error EvalError
    FinalizationRegistry Float16Array Float32Array Float64Array Function Int16Array Int32Array Int8Array Intl Iterator
    JSON Map Math Number Object Promise Proxy RangeError ReferenceError Reflect RegExp Set String Symbol SyntaxError
    TypeError URIError Uint16Array Uint32Array Uint8Array Uint8ClampedArray WeakMap WeakRef WeakSet atob btoa console
    decodeURI decodeURIComponent encodeURI encodeURIComponent escape eval isFinite isNaN parseFloat parseInt unescape
"""

_BASH_SYNTAX: Final = r"""
if said=$(bash -n /dev/stdin 2>&1); then
    output='{"valid": true, "message": "", "line": null, "column": null}'
else
    said=${said%%$'\n'*}
    line=null
    if [[ $said =~ ^[^:]*:\ line\ ([0-9]+):\ (.*) ]]; then
        line=${BASH_REMATCH[1]} said=${BASH_REMATCH[2]}
    fi
    said=${said//[[:cntrl:]]/ }
    said=${said//\\/\\\\}
    said=${said//\"/\\\"}
    output="{\"valid\": false, \"message\": \"$said\", \"line\": $line, \"column\": null}"
fi
"""

BUILTIN: Final[Mapping[str, Runtime]] = {
    "python": Runtime(
        interpreter=("engine", "python3"),
        command=("{interpreter}", "-S", "{guest}/python.py"),
        session=("{interpreter}", "-S", "{guest}/python_session.py"),
        runner=("{interpreter}", "-S", "{guest}/python_runner.py", "{zygote}"),
        channel=Channel.FRAMES,
        aliases=("py", "python3"),
        extensions=(".py",),
        filename="main.py",
        packages=("python3",),
        interactive=("{interpreter}", "-q"),
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
        memory_errors=("MemoryError", "Unable to allocate"),
        waits=True,
        zygote=("{interpreter}", "-S", "{guest}/zygote.py", "{zygote}"),
        early_variables=("PYTHON", "OPENSSL_", "SSL_"),
        abilities=(Ability.FUNCTION, Ability.CHECK),
        sets=_PYTHON_SETS,
        debug=("console", "profile", "steps"),
    ),
    "node": Runtime(
        interpreter=("node", "nodejs"),
        command=("{interpreter}", "--experimental-vm-modules", "--require", "{guest}/node.js", "{guest}/program"),
        channel=Channel.FRAMES,
        waits=True,
        early_variables=("NODE_", "UV_", "OPENSSL_", "SSL_"),
        abilities=(Ability.FUNCTION, Ability.CONTEXT, Ability.RICH, Ability.CHECK),
        extensions=(".js", ".mjs", ".cjs"),
        filename="main.js",
        memory_errors=_NODE_MEMORY_ERRORS,
        copies=(".mjs",),
        packages=("nodejs",),
        interactive=("{interpreter}",),
        sets=_NODE_SETS,
        debug=("console", "profile"),
    ),
    "javascript": Runtime(
        interpreter=("node", "nodejs"),
        command=("{interpreter}", "--no-node-snapshot", "{guest}/isolate.js", "{addon}/isolated_vm.node"),
        channel=Channel.ISOLATE,
        aliases=("js",),
        filename="main.js",
        packages=("nodejs",),
        limits={"memory": "16Mi", "timeout": "500ms"},
        addon="_isolated_vm",
        globals=tuple(_ISOLATE_GLOBALS.split()),
        instead="node",
        abilities=(Ability.FUNCTION, Ability.CONTEXT, Ability.RICH, Ability.CHECK),
        debug=("console", "profile", "steps"),
    ),
    "r": Runtime(
        interpreter=("R",),
        command=("{interpreter}", "--no-echo", "--no-restore", "--no-environ", "--no-init-file", "-e", "#"),
        runner=(
            *("{interpreter}", "--no-echo", "--no-restore", "--no-environ", "--no-site-file", "--no-init-file"),
            *("-f", "{guest}/r_runner.R", "--args", "{zygote}"),
        ),
        harness_environment={"R_PROFILE": f"{GUEST_DIRECTORY}/r.R"},
        channel=Channel.FRAMES,
        waits=True,
        early_variables=("R_", "EDITOR", "PAGER", "TAR"),
        abilities=(Ability.FUNCTION, Ability.CHECK),
        aliases=("R",),
        extensions=(".R", ".r"),
        filename="main.R",
        memory_errors=("cannot allocate", "vector memory", "memory exhausted"),
        paths=("/etc/R",),
        packages=("r-base-core",),
        sets=_R_SETS,
        interactive=("{interpreter}", "--no-save", "--quiet"),
    ),
    "bash": Runtime(
        interpreter=("bash",),
        command=("{interpreter}", "{code}"),
        harness_environment={"BASH_ENV": f"{GUEST_DIRECTORY}/bash.sh"},
        channel=Channel.TEXT,
        aliases=("sh", "shell"),
        extensions=(".sh", ".bash"),
        filename="main.sh",
        memory_errors=("cannot allocate", "Cannot allocate memory", "memory exhausted", "MemoryError"),
        packages=("bash",),
        interactive=("{interpreter}", "--norc"),
        syntax=_BASH_SYNTAX,
    ),
}
