#!/usr/bin/env bash
# Runs uv: the one named in UV, the one on PATH, or one of our own in .cache/uv, which it installs if there is none.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
own="$root/.cache/uv"

say() { printf 'casemate: %s\n' "$*" >&2; }

bootstrap() {
    say "uv is not installed; putting it into .cache/uv"
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        "$root/tools/packages.sh" bootstrap
    fi
    python3 -m venv "$own"
    "$own/bin/pip" install --quiet --disable-pip-version-check uv
}

if [[ -n ${UV:-} ]]; then
    exec "$UV" "$@"
elif command -v uv >/dev/null; then
    exec uv "$@"
fi
[[ -x $own/bin/uv ]] || bootstrap
exec "$own/bin/uv" "$@"
