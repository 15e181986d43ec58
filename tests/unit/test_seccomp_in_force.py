"""The compiled filter in force: what the kernel answers under it, and real programs that run under it."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

import pytest

from casemate.isolation.seccomp import compile_filter
from casemate.isolation.syscalls import NUMBERS, REFUSED

HIGH: Final = 0xDEADBEEF << 32
EPERM, ENOSYS, EINVAL = errno.EPERM, errno.ENOSYS, errno.EINVAL

# Installs the filter of a file and becomes another program; or, with `-`, reads lines of "entrance number args…" and
# prints what the kernel answers through that entrance.
LOADER: Final = textwrap.dedent(
    r"""
    #define _GNU_SOURCE
    #include <errno.h>
    #include <linux/filter.h>
    #include <linux/seccomp.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    static long enter(char entrance, long nr, unsigned long *a)
    {
        long answer;
        if (entrance == 'i')
            __asm__ volatile("int $0x80" : "=a"(answer) : "a"(nr), "b"(a[0]), "c"(a[1]), "d"(a[2]) : "memory");
        else {
            register long r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
            __asm__ volatile("syscall" : "=a"(answer)
                : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
        }
        return answer;
    }

    int main(int argc, char **argv)
    {
        static struct sock_filter code[4096];
        FILE *file = fopen(argv[1], "rb");
        if (argc < 3 || !file)
            return 120;
        struct sock_fprog program = { .len = fread(code, sizeof code[0], 4096, file), .filter = code };
        fclose(file);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
            return 121;
        if (strcmp(argv[2], "-")) {
            execvp(argv[2], argv + 2);
            return 122;
        }
        char entrance;
        long nr;
        unsigned long a[6];
        while (scanf(" %c %ld %lu %lu %lu %lu %lu %lu", &entrance, &nr, a, a + 1, a + 2, a + 3, a + 4, a + 5) == 8)
            printf("%ld\n", enter(entrance, nr, a));
        return 0;
    }
    """
)


class Confined:
    """Runs programs, or single system calls, under the compiled default filter."""

    def __init__(self, folder: Path) -> None:
        (folder / "loader.c").write_text(LOADER)
        self.loader = str(folder / "loader")
        self.filter = str(folder / "filter")
        warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-error=missing-field-initializers"]
        subprocess.run(["cc", "-O1", *warnings, "-o", self.loader, str(folder / "loader.c")], check=True, timeout=60)
        Path(self.filter).write_bytes(compile_filter())

    def program(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.loader, self.filter, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
        )

    def calls(self, *calls: tuple[str, int, tuple[int, ...]]) -> list[int]:
        lines = [
            f"{entrance} {number} " + " ".join(map(str, (*args, *[0] * 6)[:6])) for entrance, number, args in calls
        ]
        done = subprocess.run(
            [self.loader, self.filter, "-"],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return [int(line) for line in done.stdout.split()]


@pytest.fixture(scope="module")
def confined(tmp_path_factory: pytest.TempPathFactory) -> Confined:
    return Confined(tmp_path_factory.mktemp("seccomp"))


def test_the_kernel_answers_every_refused_call_as_the_filter_says(confined: Confined) -> None:
    refused = [(NUMBERS[name], group.errno or 0) for group in REFUSED for name in group.names]
    found = confined.calls(*(("s", number, ()) for number, _ in refused))
    assert found == [-code for _, code in refused]


def test_the_kernel_answers_checked_calls_as_the_filter_says(confined: Confined) -> None:
    cases = [
        ("clone", (0x10000000,), EPERM),
        ("clone", (0x7E020011 | HIGH,), EPERM),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 0x5412 | HIGH), EPERM),
        ("socket", (38, 5, 0), errno.EAFNOSUPPORT),
        ("socket", (40 | HIGH, 1, 0), errno.EAFNOSUPPORT),
        ("socket", (2, 3, 1), EPERM),
        ("socket", (2, 1, 262), errno.EPROTONOSUPPORT),
        ("socket", (16, 3, 6), errno.EAFNOSUPPORT),
        ("socketpair", (2, 1, 0), errno.EAFNOSUPPORT),
        ("personality", (0x0400000,), EPERM),
        ("fcntl", (0, 1024, 0), EPERM),
        ("prctl", (35, 1, 0), EPERM),
        ("madvise", (0, 4096, 12), EINVAL),
        ("seccomp", (1, 8, 0), EINVAL),
        ("setsockopt", (0, 6, 31), errno.ENOPROTOOPT),
        ("setrlimit", (4, 1), 0),
        ("prlimit64", (0, 4, 1, 0), 0),
        ("prlimit64", (0, 4, 1 << 32, 1), EPERM),
        ("prlimit64", (1, 7, 1, 0), EPERM),
        ("setpriority", (0, 1, 19), EPERM),
        ("setpriority", (2, 0, 19), EPERM),
        ("sched_setscheduler", (1 | HIGH, 5, 0), EPERM),
    ]
    found = confined.calls(*(("s", NUMBERS[name], args) for name, args, _ in cases))
    assert found == [-code for _, _, code in cases]


def test_the_kernel_knows_no_other_entrance_and_no_unknown_number(confined: Confined) -> None:  # K9 K11 N15
    i386 = [("i", number, (38, 5, 0)) for number in (20, 24, 102, 120, 359, 11)]
    x32 = [("s", number | 0x40000000, ()) for number in (39, 41, 59, 512, 520)]
    unknown = [("s", number, ()) for number in (337, 423, 512, 600, -1)]
    found = confined.calls(*i386, *x32, *unknown)
    assert found == [-ENOSYS] * (len(i386) + len(x32) + len(unknown))


def test_the_kernel_still_does_what_is_allowed(confined: Confined) -> None:
    getpid, getuid = confined.calls(("s", NUMBERS["getpid"], ()), ("s", NUMBERS["geteuid"], ()))
    assert getpid > 0
    assert getuid >= 0


PYTHON: Final = """
import os, resource, shutil, socket, subprocess, sys, tempfile, threading
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
subprocess.run([sys.executable, "-I", "-c", "print(1)"], check=True)
a, b = socket.socketpair(); a.sendall(b"x"); assert b.recv(1) == b"x"
server = socket.create_server(("127.0.0.1", 0)); client = socket.create_connection(server.getsockname())
folder = tempfile.mkdtemp(dir="."); open(folder + "/one", "w").write("x" * 100000)
shutil.copyfile(folder + "/one", folder + "/two"); assert os.path.getsize(folder + "/two") == 100000
with open(folder + "/one", "rb") as file: assert client.sendfile(file) == 100000
resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.sync()
"""

NODE: Final = """
const fs = require('fs'), net = require('net'), assert = require('assert'), { Worker } = require('worker_threads');
fs.writeFileSync('one.js', 'x'.repeat(100000)); fs.copyFileSync('one.js', 'two.js');
assert(fs.statSync('two.js').size === 100000);
require('child_process').execFileSync('/bin/true');
new Worker('require("worker_threads").parentPort.postMessage(1)', { eval: true }).on('message', () => {
  const server = net.createServer(c => { c.end(); server.close() }).listen(0, '127.0.0.1', () => {
    net.connect(server.address().port, '127.0.0.1').resume(); fs.watch('.', () => {}).close() }) });
"""

BASH: Final = "set -e; x=$(echo one | cat | tr o O); [ $x = One ]; ls / >f; cp f g; cmp f g; ulimit -c 0; sync"
R: Final = "x <- system('echo 1', intern = TRUE); stopifnot(x == '1', solve(diag(9)) == diag(9))"
PERL: Final = "my $x = `echo 1`; open my $f, '>', 'p' or die; print $f $x; close $f; fork // die; wait"
GCC: Final = "echo 'int main(void){return 7;}' >a.c && cc -O2 -pipe a.c -o a && ./a; [ $? = 7 ]"
GIT: Final = """
export GIT_CONFIG_GLOBAL=/dev/null HOME=$PWD; git init -q r && cd r && echo x >x && git add x &&
git -c user.name=n -c user.email=e@e.e commit -qm m && git gc -q && git log --oneline | grep -q m
"""
COREUTILS: Final = "head -c 300000 /dev/zero | cat >z && cp z y && mv y x && cmp z x && sort x | wc && mkfifo p"

PROGRAMS: Final = {
    "python": (sys.executable, "-I", "-c", PYTHON),
    "bash": ("bash", "-c", BASH),
    "node": ("node", "-e", NODE),
    "r": ("Rscript", "--vanilla", "-e", R),
    "perl": ("perl", "-e", PERL),
    "gcc": ("sh", "-c", GCC),
    "git": ("sh", "-c", GIT),
    "coreutils": ("sh", "-c", COREUTILS),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_real_programs_run_under_the_filter(confined: Confined, name: str, tmp_path: Path) -> None:
    assert shutil.which(PROGRAMS[name][0])
    done = confined.program(*PROGRAMS[name], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr.strip()
