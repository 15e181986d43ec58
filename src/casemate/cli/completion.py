"""`casemate completion`: the script that teaches a shell to ask us what may come next."""

from __future__ import annotations

from typing import Final

from casemate.cli.arguments import Parsed, UsageError
from casemate.cli.messages import show

BASH: Final = """\
_casemate() {
    local kind
    local -a words
    mapfile -t words < <("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    kind=${words[0]:-:words}
    COMPREPLY=("${words[@]:1}")
    case $kind in
        :files) compopt -o default ;;
        :directories) compopt -o dirnames ;;
    esac
}
complete -F _casemate casemate
"""
ZSH: Final = """\
#compdef casemate
_casemate() {
    local -a lines
    lines=("${(@f)$("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    case $lines[1] in
        :files) _files ;;
        :directories) _files -/ ;;
        *) compadd -- "${(@)lines[2,-1]}" ;;
    esac
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _casemate casemate
"""
FISH: Final = """\
function __casemate_complete
    set -l before (commandline -opc)
    set -l answer ($before[1] complete -- $before[2..-1] (commandline -ct) 2>/dev/null)
    switch $answer[1]
        case :files
            __fish_complete_path (commandline -ct)
        case :directories
            __fish_complete_directories (commandline -ct)
        case '*'
            printf '%s\\n' $answer[2..-1]
    end
end
complete -c casemate -f -a '(__casemate_complete)'
"""
SCRIPTS: Final = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def command(parsed: Parsed) -> int:
    """Print it."""
    shell = parsed.words[0] if parsed.words else ""
    if shell not in SCRIPTS:
        raise UsageError("completion", "give one of " + ", ".join(sorted(SCRIPTS)))
    show([SCRIPTS[shell].rstrip("\n")])
    return 0
