#!/usr/bin/env bash
# Installs the system packages that are missing: `packages.sh run` what a run needs, `packages.sh dev` what the tests need.
# With root and apt-get it installs and says so; otherwise it prints the command and goes on, because a machine without
# R can still run Python. Something counts as present when the program or file is there, wherever it came from.
set -euo pipefail

set_name=${1:?usage: packages.sh bootstrap|run|dev}
python_version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo 3)
[[ ! -x /usr/bin/python3 ]] || python_version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# package=the program, or the file, that shows that it is there
bootstrap_packages=('python3-venv=/usr/lib/python3*/ensurepip/__init__.py')
run_packages=(
    python3=python3
    gcc=gcc
    'libc6-dev=/usr/lib*/libc.a /usr/lib*/*/libc.a'
    nodejs=node
    npm=npm
    'libnode-dev=/usr/include/node/node.h /usr/local/include/node/node.h'
    g++=g++
    make=make
    r-base-core=Rscript
)
dev_packages=(
    bubblewrap=bwrap
    chromium=chromium
    curl=curl
    iproute2=ip
    jq=jq
    "libpython$python_version-testsuite=/usr/lib/python$python_version/test/test_json"
    libjson-perl=/usr/share/perl5/JSON.pm
    lua5.4=lua5.4
    nftables=nft
    'lua-cjson=/usr/lib/*/lua/5.4/cjson.so'
    perl=perl
    'postgresql=/usr/lib/postgresql/*/bin/postgres'
    user-mode-linux=linux.uml
    util-linux=setpriv
    valgrind=valgrind
    wrk=wrk
)

present() { # a program's name, or file patterns, any of which will do
    case $1 in
        /*) compgen -G "$1" >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

any_present() {
    local probe
    set -f
    for probe in $1; do
        if present "$probe"; then set +f; return 0; fi
    done
    set +f
    return 1
}

missing() {
    local entry
    for entry in "$@"; do
        any_present "${entry#*=}" || printf '%s\n' "${entry%%=*}"
    done
}

install() {
    local command=(apt-get install --yes --no-install-recommends "$@")
    if ! command -v apt-get >/dev/null; then
        printf 'casemate: missing here (names of the Debian packages): %s\n' "$*" >&2
    elif [[ $(id -u) -ne 0 ]]; then
        printf 'casemate: missing here; to install: sudo %s\n' "${command[*]}" >&2
    else
        printf 'casemate: installing %s\n' "$*" >&2
        export DEBIAN_FRONTEND=noninteractive
        apt-get update --quiet=2
        "${command[@]}" --quiet=2 >&2
    fi
}

declare -n packages="${set_name}_packages"
mapfile -t wanted < <(missing "${packages[@]}")
[[ ${#wanted[@]} -eq 0 ]] || install "${wanted[@]}"
