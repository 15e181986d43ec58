# The BASH_ENV of a program that is run as `bash FILE ARGS…`: bash reads this first and then runs the program as ever, so
# $0, $@, BASH_SOURCE, messages, `set -e`, `return` and traps are those of any script.
#
# `input` holds the JSON text of the input from descriptor 3, if there is one. What `output` holds when the program ends,
# its EXIT trap included, goes to descriptor 4. Other programs inherit neither descriptor.

unset -v BASH_ENV CASEMATE_INPUT CASEMATE_OUTPUT

# One character tells an input from none without starting a process.
if IFS= read -r -N 1 -u 3 input; then
    input+=$(< /dev/fd/3)
else
    unset -v input
fi
exec 3<&-

# A program that does not mention `output` has none: nothing else of ours is then in its way.
IFS= read -r -d '' REPLY < "$0"
if [[ $REPLY == *output* ]]; then
    # Bash cannot be told to close a descriptor for other programs. It does so with its own copy of one that a
    # redirection replaces for a while, and a duplicate of such a copy is closed for them, too.
    exec 63>&4
    {
        for REPLY in {10..62}; do
            if [[ /dev/fd/$REPLY -ef /dev/fd/63 ]]; then
                exec 63>&"$REPLY"
                break
            fi
        done
    } 4>&-

    __casemate_end() {
        { builtin local -; builtin set +eux; } 2> /dev/null
        if [[ $BASHPID == "$$" && -v output ]]; then
            { builtin printf %s "$output" >&63; } 2> /dev/null
        fi
        return 0
    }

    # Whether `trap` is asked for something that has to do with EXIT.
    __casemate_is_exit() {
        (($#)) || return 0
        builtin local word
        for word in "$@"; do
            [[ ${word^^} != @(-P|0|EXIT|SIGEXIT) ]] || return 0
        done
        return 1
    }

    # The program's EXIT trap comes first, and then ours; asking for traps shows the program's alone.
    trap() {
        { builtin local -; builtin set +eux; } 2> /dev/null
        if ! __casemate_is_exit "$@"; then
            builtin trap "$@" # the last command of all: a DEBUG trap is at work from here on
        elif [[ $BASHPID == "$$" ]]; then
            __casemate_trap "$@"
        elif (($#)) && [[ $1 != -p ]]; then
            builtin trap "$@"
        else
            __casemate_list_traps "$@"
        fi
    }

    __casemate_trap() {
        if [[ -v __casemate_exit ]]; then
            builtin trap -- "$__casemate_exit" EXIT
        else
            builtin trap - EXIT
        fi
        builtin trap "$@"
        builtin local status=$? words
        builtin eval "words=($(builtin trap -p EXIT))"
        if ((${#words[@]})); then
            __casemate_exit=${words[2]}
        else
            unset -v __casemate_exit
        fi
        builtin trap -- "${__casemate_exit-}$__casemate_trap_end" EXIT
        return "$status"
    }

    # In a subshell, where the traps that are shown are those that it does not have any more.
    __casemate_list_traps() {
        builtin local shown status
        shown=$(builtin trap "$@")
        status=$?
        if [[ -v __casemate_exit ]]; then
            shown=${shown/"$__casemate_trap_end"/}
        else
            shown=${shown#"trap -- '$__casemate_trap_end' EXIT"}
            shown=${shown#$'\n'}
        fi
        [[ -z $shown ]] || builtin printf '%s\n' "$shown"
        return "$status"
    }

    __casemate_trap_end=$'\n{ __casemate_end; } 2> /dev/null'
    builtin trap "$__casemate_trap_end" EXIT
fi
exec 4>&-
unset -v REPLY
# Last, so that $_ is what it is natively at the start of a program.
: "$BASH"
