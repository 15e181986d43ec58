"""Which commands and hosts the operator lets jobs ask for. Pure; a refusal names the word.

None of it is what keeps a job within its bounds: that is the sandbox, and the gateway for what leaves it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from casemate.egress.policy import parse_pattern
from casemate.errors import NotAllowed
from casemate.executions.patterns import find_forbidden
from casemate.job_limits import SCANNED_MAX_CHARS, WORDS_SCANNED_MAX, WRAPPED_WORDS_MAX
from casemate.jobs.config import JobSettings
from casemate.jobs.shelltext import Simple, commands_of, program_of, script_of, unquoted_signs
from casemate.model.job import JobSpec
from casemate.model.network import NetworkPolicy
from casemate.model.spec import BASE_ENVIRONMENT

SHELL: Final = "/bin/sh"
_PLACES: Final = frozenset(BASE_ENVIRONMENT["PATH"].split(":"))
_LEADS_ASTRAY: Final = re.compile(r"PATH|LD_\w+|BASH_ENV|ENV|IFS|PYTHON\w*|PERL\w*|NODE_\w+|GCONV_PATH")
"""Variables with which an allowed command would run others."""

_SHELL_RUNTIMES: Final = frozenset({"bash", "sh"})
_WRAPPERS: Final = frozenset(
    {"env", "nice", "nohup", "timeout", "exec", "command", "builtin", "xargs", "stdbuf", "setsid", "eval", "busybox"}
)
_DOWNLOADERS: Final = frozenset({"curl", "wget"})
_INTERPRETERS: Final = frozenset({"sh", "bash", "dash", "ksh", "zsh", "python", "python3", "perl", "ruby", "node"})
_DANGEROUS: Final = frozenset(
    {
        *("sudo", "su", "doas", "pkexec", "passwd", "chpasswd", "useradd", "usermod", "userdel", "visudo"),
        *("shutdown", "reboot", "halt", "poweroff", "init", "telinit", "systemctl", "kexec"),
        *("mount", "umount", "swapon", "swapoff", "losetup", "mkswap", "mkfs", "fdisk", "sfdisk", "parted", "wipefs"),
        *("insmod", "rmmod", "modprobe", "chroot", "pivot_root", "nsenter", "unshare", "setcap"),
        *("iptables", "ip6tables", "nft", "docker", "podman", "kubectl", "crontab", "at"),
    }
)
_DEVICE: Final = re.compile(r"/dev/(?:sd|hd|vd|xvd|nvme|mmcblk|loop|dm-|mapper/|mem$|kmem|port$)")
_SYSTEM: Final = re.compile(
    r"/(?:\*|(?:etc|usr|bin|sbin|lib|lib64|boot|var|root|home|dev|proc|sys|opt|srv)(?:/\*?)?)?|~/?|/\.\*?"
)
_SYSTEM_FILE: Final = re.compile(r"/(?:etc|boot|proc/sys|sys)/.*|/proc/sysrq-trigger")
_ACCOUNTS: Final = re.compile(r"/etc/(?:g?shadow-?|sudoers)|/root/\.ssh|/proc/(?:1|self)/(?:mem|root)")
_NETWORK_FILE: Final = re.compile(r"/dev/(?:tcp|udp)/")
_BOMB: Final = re.compile(r"(?<![\w:.])([\w:.]{1,64})\s{0,8}\(\)\s{0,8}\{([^{}]{0,400})\}\s{0,8};?\s{0,8}\1")
"""A function that is called behind its end; nothing in the pattern can be tried in very many ways."""


def check_policy(spec: JobSpec, command: str, settings: JobSettings) -> None:
    """Raise NotAllowed for what the operator's policy forbids. `command`: as it was written, if that was one text."""
    if settings.allowed_commands:
        _check_allowed(spec, command, settings.allowed_commands)
    text = spec.code or " ".join(spec.argv)
    for found in find_forbidden(text, settings.denied):
        raise NotAllowed("code" if spec.code else "command", f"{found.pattern!r} is denied here")
    if settings.refuse_dangerous:
        _check_dangerous(spec)
    check_network(spec.network, settings)


# What is allowed ----------------------------------------------------------------------------------


def _check_allowed(spec: JobSpec, command: str, allowed: Sequence[str]) -> None:
    hint = "allowed here: " + ", ".join(allowed)
    if spec.code:
        if spec.runtime not in allowed:
            raise NotAllowed("runtime", f"{spec.runtime!r} is not among the allowed commands", hint=hint)
    else:
        _check_program(spec.argv[0], allowed, hint)
        if command and not spec.shell and (word := unquoted_signs(command)):
            problem = f"{word[:80]!r} means something to a shell, and this command has none"
            raise NotAllowed("command", problem, hint="quote it, or give the command as a list of words")
    for name in (*spec.environment, *spec.secrets):
        if _LEADS_ASTRAY.fullmatch(name):
            raise NotAllowed(f"environment.{name}", "may lead an allowed command to others", hint="leave it out")


def _check_program(word: str, allowed: Sequence[str], hint: str) -> None:
    directory, slash, name = word.rpartition("/")
    if word in allowed or (name in allowed and (not slash or directory in _PLACES)):
        return
    raise NotAllowed("command", f"{word[:80]!r} is not among the allowed commands", hint=hint)


# What is dangerous --------------------------------------------------------------------------------


def _check_dangerous(spec: JobSpec) -> None:
    if spec.code and spec.runtime not in _SHELL_RUNTIMES:
        return
    field = "code" if spec.code else "command"
    text = spec.code or script_of(spec.argv)
    for word in _dangers(spec.argv, text):
        hint = "nothing that a job is for needs it; an operator can turn this check off"
        raise NotAllowed(field, f"{word[:80]!r} is a dangerous operation", hint=hint)


def _dangers(argv: tuple[str, ...], text: str | None) -> Iterator[str]:
    if argv:
        yield from _in_command(Simple(argv))
    if text is None:
        return
    text = text[:SCANNED_MAX_CHARS]
    for found in _BOMB.finditer(text):
        if "&" in found[2].partition("|")[2]:
            yield found[0]
    before = Simple(())
    for simple in commands_of(text):
        yield from _in_command(simple)
        yield from _in_targets(simple)
        if simple.is_piped and _starts(before, _DOWNLOADERS) and _starts(simple, _INTERPRETERS):
            yield f"{before.words[0]} | {simple.words[0]}"
        before = simple


def _starts(simple: Simple, programs: frozenset[str]) -> bool:
    return bool(simple.words) and program_of(simple.words[0]) in programs


def _in_command(simple: Simple) -> Iterator[str]:
    words = simple.words[:WORDS_SCANNED_MAX]
    yield from _in_words(words)
    if words and program_of(words[0]) in _WRAPPERS:
        for at in range(1, min(len(words), WRAPPED_WORDS_MAX)):
            yield from _in_words(words[at:])


def _in_words(words: tuple[str, ...]) -> Iterator[str]:
    """What is dangerous about one command and its arguments."""
    if not words:
        return
    program, arguments = program_of(words[0]), words[1:]
    if program in _DANGEROUS or program.startswith("mkfs."):
        yield words[0]
    if program == "rm" and _is_recursive(arguments):
        yield from (f"rm {word}" for word in arguments if _SYSTEM.fullmatch(word) or word == "--no-preserve-root")
    if program in {"chmod", "chown", "chgrp"} and _is_recursive(arguments):
        yield from (f"{program} {word}" for word in arguments if _SYSTEM.fullmatch(word))
    if program in {"nc", "ncat", "netcat"}:
        yield from (f"{program} {word}" for word in arguments if word in {"-e", "-c", "--exec", "--sh-exec"})
    for word in arguments:
        place = word.partition("=")[2] if program == "dd" else word
        if _DEVICE.match(place) or _ACCOUNTS.match(place):
            yield word


def _is_recursive(arguments: Sequence[str]) -> bool:
    return any(
        word == "--recursive" or (word.startswith("-") and not word.startswith("--") and {"r", "R"} & {*word})
        for word in arguments
    )


def _in_targets(simple: Simple) -> Iterator[str]:
    for target in simple.targets:
        if any(each.match(target) for each in (_DEVICE, _SYSTEM_FILE, _ACCOUNTS, _NETWORK_FILE)):
            yield target


# What may be reached ------------------------------------------------------------------------------


def check_network(asked: NetworkPolicy, settings: JobSettings) -> None:
    """Raise NotAllowed for a host beyond those that the operator lists, if any are listed; InvalidInput for none."""
    listed = [parse_pattern(each, "jobs.allowed_hosts") for each in settings.allowed_hosts]
    for host in asked.allowed_hosts if listed else ():
        wanted = parse_pattern(host, "network.allowed_hosts")
        if not any(each.includes(wanted) for each in listed):
            hint = "allowed here: " + ", ".join(settings.allowed_hosts)
            raise NotAllowed("network.allowed_hosts", f"{host[:80]!r} is not among the allowed hosts", hint=hint)


def narrowed(asked: NetworkPolicy, settings: JobSettings) -> NetworkPolicy:
    """As it is run: who names no hosts gets those that the operator lists, and blocked ports stay blocked.

    What may be reached that is not public, only the operator says, and not here.
    """
    hosts = asked.allowed_hosts or settings.allowed_hosts
    ports = tuple(sorted({*asked.blocked_ports, *settings.blocked_ports}))
    hosts = hosts if asked.outbound else ()
    return msgspec.structs.replace(asked, allowed_hosts=hosts, blocked_ports=ports, anywhere=())
