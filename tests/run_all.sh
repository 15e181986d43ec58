#!/usr/bin/env bash
# Runs the suite in every kind of place that it is meant for, and repeats each part's summary, and what failed, at the end.
#   tests/run_all.sh [here|user|uml-{1..4}|uml-user-{1..4}|no-cgroup|warm]...
# Without arguments all but warm; PYTEST_ARGS is passed on.
set -euo pipefail
cd "$(dirname "$0")/.."

# Records, and jobs on a node that is made up, begin no sandbox: they are the same for every user and every kernel.
readonly ISOLATION=(
    tests/security tests/integration tests/packages
    --ignore-glob='*/integration/test_'{record,job,flows,audit_log,carried_out,delivery,tenancy}'*'
)
# A machine of User Mode Linux has one processor, so that several have about equal shares of the tests.
# What the kernel and its control groups decide; the rest is the same everywhere, and system calls are slow in there.
readonly UML_1=(tests/security/test_cpu.py)
readonly UML_2=(tests/security/test_memory.py)
readonly UML_3=(tests/security/test_{kernel,processes}.py)
readonly UML_4=(tests/integration/cgroups tests/integration/test_contract.py)
# Limits, for an ordinary user; the last has all that these have not.
readonly UML_USER_1=(tests/security/test_{cpu,items}.py tests/integration/test_contract.py)
readonly UML_USER_2=(tests/security/test_{files,memory,output,zygotes}.py)
readonly UML_USER_3=(tests/security/test_{pools,processes,tenants}.py)
readonly QUICK_COMPARISONS="not (test_is_as_natively or in_a_fork) or prints_a_line or exits_with_a_status or fails_uncaught"
readonly ORDINARY_UID=61234 # in nobody's passwd
readonly UML_LIMIT_S=${UML_LIMIT_S:-1200}
readonly PROCESSORS=$(nproc)
readonly WORKERS=$((PROCESSORS > 4 ? 6 : (PROCESSORS * 3 + 1) / 2)) # for more than half of the time a test waits
readonly MACHINES=$((2 * PROCESSORS)) # of User Mode Linux at once: they wait for the most part, too
readonly UML_SLOWNESS=20 # a process takes that many times longer there
readonly SHOWN_LINES=30 SHOWN_NAMES=20 SHOWN_COLUMNS=300 # of a part that failed, at the end
read -r -a more <<< "${PYTEST_ARGS:-}" || true
bundle=""
logs=.cache/test
mkdir -p "$logs"
declare -A behind=() # parts that run beside the others, and their processes

leave() { # also when interrupted
    local part
    for part in "${!behind[@]}"; do
        kill -TERM -- "-${behind[$part]}" 2> /dev/null || true
        wait "${behind[$part]}" 2> /dev/null || true
    done
    [[ -z $bundle ]] || rm -rf "$bundle"
}
trap leave EXIT
trap 'exit 130' INT TERM

python_for_everybody() { # not one below a private home
    local candidate
    for candidate in /usr/bin/python3 /usr/bin/python3.{11..15} /usr/local/bin/python3; do
        if [[ -x $candidate ]] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$candidate"
            return
        fi
    done
    tools/uv.sh python install --quiet --no-bin --install-dir "$bundle/python" 3.12 >&2
    UV_PYTHON_INSTALL_DIR="$bundle/python" tools/uv.sh python find --managed-python 3.12
}

make_bundle() { # the wheel, installed as a user has it, with the tests beside it, readable by everybody
    [[ -z $bundle ]] || return 0
    umask 022
    bundle=$(mktemp -d /tmp/casemate-test.XXXXXX)
    chmod 755 "$bundle"
    tools/uv.sh build --quiet --wheel --out-dir "$bundle/dist"
    tools/uv.sh export --quiet --frozen --no-emit-project --output-file "$bundle/requirements.txt"
    tools/uv.sh venv --quiet --no-project --python "$(python_for_everybody)" "$bundle/venv"
    tools/uv.sh pip install --quiet --link-mode copy --python "$bundle/venv/bin/python" \
        --requirements "$bundle/requirements.txt" "$bundle"/dist/*.whl
    # As pip does; whoever runs it may not write there.
    "$bundle/venv/bin/python" -m compileall -q "$bundle"/venv/lib/python3*/site-packages/casemate
    # Its user would build this part; it is the same for the same Node.
    cp -r src/casemate/_isolated_vm/built "$bundle"/venv/lib/python3*/site-packages/casemate/_isolated_vm/
    cp -r tests native pyproject.toml "$bundle/"
    chmod -R a+rX "$bundle"
    mkdir "$bundle/home" "$bundle/tmp"
    [[ $(id -u) -ne 0 ]] || chown $ORDINARY_UID:$ORDINARY_UID "$bundle/home" "$bundle/tmp"
}

# A file's tests stay together; those about what engines share come afterwards, with nothing beside them.
in_parallel() { # python, marks, what else pytest is given
    local python=$1 marks=$2 status=0
    shift 2
    "$python" -m pytest --numprocesses $WORKERS --dist loadfile -m "${marks:+($marks) and }not alone" \
        "$@" || status=$?
    "$python" -m pytest -m "${marks:+($marks) and }alone" "$@" || [[ $? -eq 5 ]] || status=1 # 5: there is none
    return $status
}

here() {
    in_parallel .venv/bin/python "" "$@"
}

user() {
    (
        cd "$bundle"
        setpriv --reuid=$ORDINARY_UID --regid=$ORDINARY_UID --clear-groups env --ignore-environment \
            PATH="$bundle/venv/bin:/usr/local/bin:/usr/bin:/bin" HOME="$bundle/home" TMPDIR="$bundle/tmp" LANG=C.UTF-8 \
            PYTHONDONTWRITEBYTECODE=1 "$BASH" -c "WORKERS=$WORKERS; $(declare -f in_parallel); in_parallel \"\$@\"" - \
            venv/bin/python "" -k "$QUICK_COMPARISONS" "${ISOLATION[@]}" tests/differential/test_programs.py "$@"
    )
}

or_none_wanted() { # exit status: that no test is found is well where PYTEST_ARGS choose
    [[ $1 -eq 5 && ${#more[@]} -gt 0 ]] || return "$1"
}

on_machine() { # what it is given
    tests/uml/run.sh --limit "$UML_LIMIT_S" -- \
        env CASEMATE_TEST_SLOWNESS=$UML_SLOWNESS PYTHONDONTWRITEBYTECODE=1 \
        .venv/bin/python -m pytest -m "not slow and not soak" --timeout 300 "$@" \
        || or_none_wanted $?
}

uml_1() { on_machine "${UML_1[@]}" "$@"; }
uml_2() { on_machine "${UML_2[@]}" "$@"; }
uml_3() { on_machine "${UML_3[@]}" "$@"; }
uml_4() { on_machine "${UML_4[@]}" "$@"; }

on_users_machine() { # what it is given
    (
        cd "$bundle"
        tests/uml/run.sh --limit "$UML_LIMIT_S" --share "$bundle" --user $ORDINARY_UID -- \
            env PATH="$bundle/venv/bin:/usr/local/bin:/usr/bin:/bin" \
            CASEMATE_TEST_SLOWNESS=$UML_SLOWNESS PYTHONDONTWRITEBYTECODE=1 \
            venv/bin/python -m pytest -m "limits and not slow" --timeout 300 "$@" \
            || or_none_wanted $?
    )
}

uml_user_1() { on_users_machine "${UML_USER_1[@]}" "$@"; }
uml_user_2() { on_users_machine "${UML_USER_2[@]}" "$@"; }
uml_user_3() { on_users_machine "${UML_USER_3[@]}" "$@"; }

uml_user_4() {
    local others=("${UML_USER_1[@]}" "${UML_USER_2[@]}" "${UML_USER_3[@]}")
    on_users_machine "${ISOLATION[@]}" "${others[@]/#/--ignore=}" "$@"
}

no_cgroup() {
    CASEMATE_CGROUP=none in_parallel .venv/bin/python limits "${ISOLATION[@]}" "$@"
}

warm() { # what is about starts that are new, or about engines themselves, is left out
    CASEMATE_TEST_WARM=1 in_parallel .venv/bin/python "" tests/security \
        --deselect tests/security/test_packages.py -k "not test_supervisor and not launcher and not isolate" "$@"
}

title() {
    case $1 in
        here) echo "as user $(id -u) on this machine, all tests" ;;
        user) echo "isolation, the installed wheel, as an ordinary user" ;;
        uml-[1-4]) echo "isolation, User Mode Linux with cgroup v2, as root" ;;
        uml-user-[1-4]) echo "limits, User Mode Linux with a delegated cgroup, as an ordinary user" ;;
        no-cgroup) echo "limits, without cgroups" ;;
        warm) echo "the attacks once more, in sandboxes that were made ahead" ;;
        *) echo "unknown part: $1" >&2; exit 2 ;;
    esac
}

if [[ $# -gt 0 ]]; then
    parts=("$@")
elif [[ $(id -u) -eq 0 ]]; then
    parts=(here user uml-{1..4} uml-user-{1..4} no-cgroup)
else
    parts=(here uml-{1..4} uml-user-{1..4} no-cgroup) # `here` is as an ordinary user
fi
failures=() # parts
report=()

what_failed() { # part: names with reasons, below as much of the tracebacks' beginning as a log's last lines hold
    local log=$logs/$1.log names
    names=$(grep -aE '^(FAILED|ERROR) ' "$log" | head -n $SHOWN_NAMES || true)
    printf '\n##### %s: what failed\n' "$1"
    if [[ -z $names ]]; then # it ended before pytest could say anything
        tail -n $SHOWN_LINES "$log"
    else
        awk -v "left=$SHOWN_LINES" \
            '/^=+ .* =+$/ { shown = /^=+ (ERRORS|FAILURES) =+$/ } shown && left-- > 0' "$log"
        printf '%s\n' "$names"
    fi | cut -c "-$SHOWN_COLUMNS"
}

conclude() { # part, seconds, exit status: one line for the end
    local summary
    summary=$(grep -aE '(passed|failed|error|errors|deselected|no tests ran).* in [0-9.]+s' "$logs/$1.log" | tr -d '=' | paste -sd+ || true)
    [[ $3 -eq 0 ]] || failures+=("$1")
    report+=("$(printf '%-10s %4ss  exit %-3s  %s' "$1" "$2" "$3" "${summary:-no summary}")")
}

run_part() { # in view, with its output kept as well
    local started=$SECONDS status=0
    "${1//-/_}" "${more[@]}" 2>&1 | tee "$logs/$1.log" || status=$?
    conclude "$1" $((SECONDS - started)) "$status"
}

start_part() { # beside the others, in a process group of its own; what it says is shown when it has ended
    rm -f "$logs/$1.end"
    set -m
    (
        trap - EXIT
        begun=$SECONDS status=0
        "${1//-/_}" "${more[@]}" > "$logs/$1.log" 2>&1 < /dev/null || status=$?
        printf '%s %s\n' $((SECONDS - begun)) "$status" > "$logs/$1.end"
    ) &
    set +m
    behind[$1]=$!
}

await_part() {
    local seconds=0 status=125
    wait "${behind[$1]}" || true
    unset "behind[$1]"
    cat "$logs/$1.log"
    read -r seconds status < "$logs/$1.end" || true
    conclude "$1" "$seconds" "$status"
}

# Machines of User Mode Linux run at the same time, and beside nothing that measures time.
machines=()
for part in "${parts[@]}"; do
    title "$part" > /dev/null # an unknown part is refused before anything runs
    [[ $part != @(user|uml-user*) ]] || make_bundle # here, not in a subshell, so that it is made once and removed
    [[ $part != uml* ]] || machines+=("$part")
done
for part in "${parts[@]}"; do
    if [[ $part == uml* && (${#machines[@]} -gt 1 || -n ${behind[$part]:-}) ]]; then
        while [[ ${#machines[@]} -gt 0 && ${#behind[@]} -lt $MACHINES ]]; do
            start_part "${machines[0]}"
            machines=("${machines[@]:1}")
        done
        printf '\n##### %s: %s\n' "$part" "$(title "$part")"
        printf 'at the same time: %s\n' "${!behind[*]}"
        await_part "$part"
    else
        printf '\n##### %s: %s\n' "$part" "$(title "$part")"
        run_part "$part"
    fi
done
printf '\n##### all parts\n'
printf '%s\n' "${report[@]}"
for part in "${failures[@]}"; do what_failed "$part"; done
exit $((${#failures[@]} > 0))
