#!/usr/bin/env bash
# Runs a command in User Mode Linux: another kernel, with cgroup v2, over this machine's own files (read-only).
#   tests/uml/run.sh [--limit SECONDS] [--user UID] [--share DIRECTORY]... -- COMMAND ARG...
# Its output is shown while it comes, its exit status is ours; 124 when the time is over, 125 when the machine failed.
# --share: a directory below /tmp, /run or /var/tmp (each a fresh tmpfs in there) that the command needs to read.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
limit_s=600
memory=${UML_MEMORY:-2G}
uid=""
share=("$PWD" "$here")

while [[ $# -gt 0 ]]; do
    case $1 in
        --limit) limit_s=$2; shift 2 ;;
        --user) uid=$2; shift 2 ;;
        --share) share+=("$(realpath "$2")"); shift 2 ;;
        --) shift; break ;;
        *) echo "run.sh: unknown argument: $1" >&2; exit 125 ;;
    esac
done
[[ $# -gt 0 ]] || { echo "run.sh: no command given" >&2; exit 125; }
command -v linux.uml >/dev/null || { echo "run.sh: linux.uml is missing (Debian: user-mode-linux)" >&2; exit 125; }

out=$(mktemp -d)
pid=""
leave() { # also when interrupted: the machine is in a process group of its own
    [[ -z $pid ]] || kill "$pid" 2>/dev/null || true
    rm -rf "$out"
}
trap leave EXIT
trap 'exit 130' INT TERM
chmod 755 "$out"
{
    printf 'cd %q\n' "$PWD"
    printf '%s' "exec "
    [[ -z $uid ]] || printf '%q ' "$here/as_user.sh" "$uid"
    printf '%q ' "$@"
} > "$out/command"
printf '%s\n' "${share[@]}" | sort -u > "$out/share"
: > "$out/output"

machine=(
    linux.uml root=/dev/root rootfstype=hostfs ro "mem=$memory" "init=$here/init.sh" "UML_OUT=$out"
    "uml_dir=$out/" con=null con0=null,fd:1 quiet loglevel=3
)
timeout --kill-after=10 "$limit_s" "${machine[@]}" < /dev/null > "$out/console" 2>&1 &
pid=$!
tail --follow --lines=+1 --sleep-interval=0.2 --pid="$pid" "$out/output" &
shown=$!
ended=0
wait "$pid" || ended=$? # unlike a foreground command, a wait ends at once when a signal comes
wait "$shown"
pid=""

if [[ -s $out/status ]]; then
    exit "$(< "$out/status")"
fi
echo "run.sh: the machine ended without an answer (status $ended); its console:" >&2
tail --lines=40 "$out/console" >&2
[[ $ended -eq 124 || $ended -eq 137 ]] && exit 124
exit 125
