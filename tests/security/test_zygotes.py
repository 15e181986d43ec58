"""Zygotes: what is forked from one shares nothing that it should not, and a nursery is shut in like a sandbox."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import casemate
from casemate import limits
from casemate.engine.drive import drive
from casemate.engine.execution import start_process
from casemate.engine.program import Command
from casemate.engine.run import prepare_code
from casemate.engine.warm import warm_key
from casemate.engine.zygote import start_zygote
from casemate.errors import LaunchError
from casemate.isolation import nursery as nurseries
from casemate.isolation.native import NativeSandbox
from casemate.isolation.nursery import CAP_SETGID, CAP_SETUID
from casemate.isolation.plan import uses_landlock
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.model.layers import Layer
from casemate.model.spec import Mount

SIBLINGS: Final = 12
PYTHON: Final = ("/usr/bin/python3", "-c")
CHANCE: Final = """
import os, random, tempfile, time, uuid
output = [random.random(), random.SystemRandom().random(), os.urandom(8).hex(), str(uuid.uuid1()), str(uuid.uuid4()),
          tempfile.mktemp()]
"""
STATE: Final = """
import os, signal, sys, threading
output = {
    "signals": [str(signal.getsignal(number)) for number in (2, 13, 14, 15, 17, 25)],
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "umask": os.umask(0), "cwd": os.getcwd(),
    "files": sorted(os.listdir("/proc/self/fd")), "work": os.listdir("."), "tmp": os.listdir("/tmp"),
    "environment": dict(os.environ), "modules": sorted(sys.modules), "path": sys.path,
    "threads": threading.active_count(), "left": hasattr(sys, "left"), "limit": sys.getrecursionlimit(),
    "shared": os.listdir("/dev/shm"),
}
"""
POISON: Final = """
import builtins, os, resource, signal, sys
sys.left = builtins.left = 1
sys.path.clear()
os.environ["LEFT"] = "1"
os.umask(0o777)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [10])
sys.setrecursionlimit(77_000)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for place in ("/work", "/tmp", "/dev/shm"):
    open(f"{place}/left", "w").close()
os.kill(1, signal.SIGINT)
os.kill(-1, signal.SIGSTOP) if os.fork() == 0 else os._exit(0)
"""


@pytest.fixture(scope="module")
def zygote_engine() -> Iterator[casemate.Engine]:
    """An engine that has zygotes also where nothing but Landlock is missing for them, as on other kernels of tests."""
    with casemate.Engine() as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr(nurseries, "uses_landlock", lambda _: True)
        opened._publish()
        assert casemate.run("pass", engine=opened).ok
        yield opened


@pytest.fixture
def forked(zygote_engine: casemate.Engine) -> Iterator[Any]:
    """Run Python in a fork of a zygote; fails if it was not one."""

    def run(code: str, **options: Any) -> casemate.Result:
        key = warm_key(prepare_code(zygote_engine, code, runtime="python", **options))
        assert zygote_engine.warm.keep(key, 2, limits.LAUNCH_TIMEOUT_S)
        assert not any(pool.problem for pool in zygote_engine.pools())
        before = sum(pool.hits for pool in zygote_engine.pools())
        result = casemate.run(code, engine=zygote_engine, **options)
        assert sum(pool.hits for pool in zygote_engine.pools()) == before + 1
        zygote_engine.warm.keep(key, 0, 0.0)
        return result

    yield run
    zygote_engine.rest()


def test_i9_siblings_do_not_draw_the_same_numbers(forked: Any) -> None:
    drawn = [forked(CHANCE).output for _ in range(SIBLINGS)]
    for values in zip(*drawn, strict=True):
        assert len(set(values)) == SIBLINGS


def test_i10_siblings_share_the_layout_and_the_hash_seed_of_a_generation_and_fresh_runs_do_not(
    forked: Any, zygote_engine: casemate.Engine
) -> None:
    code = "output = [hash('seed'), [line for line in open('/proc/self/maps') if 'libc' in line][0].split('-')[0]]"
    assert forked(code).output == forked(code).output
    fresh = casemate.run(code, engine=zygote_engine, fresh=True).output
    assert fresh[0] != forked(code).output[0]


def test_s16_what_a_fork_does_to_itself_reaches_neither_zygote_nor_sibling(forked: Any) -> None:
    before = forked(STATE).output
    forked(POISON, limits={"timeout": "1s"})
    assert forked(STATE).output == before
    assert before["left"] is False
    assert before["work"] == ["main.py"]


def test_s11_a_fork_that_kills_all_it_can_see_ends_alone(forked: Any, zygote_engine: casemate.Engine) -> None:
    result = forked("import os\nif os.fork():\n    os.wait()\nos.kill(-1, 9)\nos.kill(os.getpid(), 9)")
    assert result.signal == 9
    assert forked("output = 1").output == 1


@pytest.mark.limits
def test_a_fork_has_every_wall_of_a_new_sandbox(forked: Any, zygote_engine: casemate.Engine) -> None:
    """All but the watch over forbidden calls, which are refused there just the same."""
    new = casemate.run("pass", engine=zygote_engine, fresh=True).isolation
    walls = tuple(layer for layer in new.layers if layer is not Layer.WATCHED_CALLS)
    assert forked("pass").isolation == msgspec.structs.replace(new, layers=walls)


def test_a_fork_can_be_required_to_have_them(forked: Any, zygote_engine: casemate.Engine) -> None:
    layers = [str(layer) for layer in forked("pass").isolation.layers]
    assert forked("output = 1", require=layers).output == 1


TRIES: Final = """
import ctypes
call = ctypes.CDLL(None, use_errno=True).syscall
output = [(call(number, flags, 0, 0, 0, 0), ctypes.get_errno()) for number, flags in ((272, 1 << 28), (101, 0))]
"""


def test_s2_62_of_a_fork_namespaces_and_mounts_are_told_and_its_layers_say_that_not_all_is(
    forked: Any, zygote_engine: casemate.Engine
) -> None:
    result = forked(TRIES)
    assert result.output == [[-1, 1], [-1, 1]]
    assert Layer.WATCHED_CALLS not in result.isolation.layers
    is_watched = Layer.WATCHED_CALLS in casemate.run("pass", engine=zygote_engine, fresh=True).isolation.layers
    assert [event.detail for event in result.events] == (["unshare: 1 refused"] if is_watched else [])


@pytest.mark.limits
def test_a_fork_is_held_to_the_limits_of_its_own_run(forked: Any) -> None:
    assert forked("x = bytearray(2**30)", limits={"memory": "64Mi"}).reason in {"memory", "exception"}
    assert forked("while True: pass", limits={"timeout": "300ms"}).reason == "timeout"
    assert forked("open('x', 'wb').write(bytes(2**22))", limits={"disk": "1Mi"}).reason in {"disk", "exception"}


def test_no_descriptor_of_the_zygote_is_inherited(forked: Any) -> None:
    code = """
import os
output = [os.readlink(f"/proc/self/fd/{number}") for number in range(64) if os.path.exists(f"/proc/self/fd/{number}")]
"""
    assert {name.split(":")[0] for name in forked(code).output} == {"pipe"}


MAKE_NETWORKS: Final = """
import ctypes, os
libc = ctypes.CDLL(None)
assert libc.unshare(0x10000000) == 0
held = []
while libc.unshare(0x40000000) == 0:
    held.append(os.open("/proc/self/ns/net", os.O_RDONLY))
print(len(held))
"""


def test_s10_namespaces_that_a_zygote_makes_are_counted(nursery: NativeSandbox, zygote_engine: casemate.Engine) -> None:
    """As the kernel does it, for each user; the memory that they take it counts for nobody."""
    users = limits.UID_BLOCK_COUNT if zygote_engine.backend.host.uid == 0 else 1
    made = int(said_in(nursery, *PYTHON, MAKE_NETWORKS))
    assert 0 < made <= limits.NURSERY_NAMESPACES // users


OPEN_OWN: Final = """
import os
output = []
for name in ("exe", "root/../usr/bin/env", "cwd/../usr/bin/env"):
    try:
        os.close(os.open(f"/proc/self/{name}", os.O_RDONLY))
        output.append("opened")
    except OSError as error:
        output.append(error.errno)
"""


def test_f21_a_fork_cannot_lock_the_file_that_it_shares_with_its_siblings(
    forked: Any, zygote_engine: casemate.Engine
) -> None:
    """Which is the machine's; those of its own base it can."""
    if uses_landlock(zygote_engine.backend.host):  # otherwise there is no zygote, see the next test
        assert forked(OPEN_OWN).output == [errno.EACCES, "opened", "opened"]


def test_where_landlock_keeps_nobody_from_its_files_there_is_no_zygote(
    zygote_engine: casemate.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = warm_key(prepare_code(zygote_engine, "", runtime="python")).zygote_key()
    assert key is not None
    backend = zygote_engine.backend
    monkeypatch.setattr(nurseries, "uses_landlock", uses_landlock)
    monkeypatch.setattr(backend, "_host", msgspec.structs.replace(backend.host, landlock_abi=0))
    with pytest.raises(LaunchError, match="no Landlock"):
        drive(start_zygote(backend, key))


WATCHES: Final = """
import ctypes
libc, taken = ctypes.CDLL(None), 0
while libc.inotify_init1(0) >= 0:
    taken += 1
with open("/proc/sys/user/max_inotify_watches") as file:
    output = [taken, int(file.read())]
"""


def test_x4_watches_that_a_fork_uses_up_its_siblings_still_have(forked: Any) -> None:
    """The kernel counts them for the user of the nursery as well."""
    taken = forked(WATCHES).output
    for name, each in zip(("max_user_instances", "max_user_watches"), taken, strict=True):
        most = int(Path("/proc/sys/fs/inotify", name).read_text())
        assert 0 < each <= max(1, most // limits.ZYGOTE_FORKS_MAX)


@pytest.fixture
def nursery(zygote_engine: casemate.Engine) -> Iterator[NativeSandbox]:
    key = warm_key(prepare_code(zygote_engine, "", runtime="python")).zygote_key()
    assert key is not None
    sandbox = drive(zygote_engine.backend.start_nursery(key.mounts, limited=False))
    yield sandbox
    sandbox.close()


def said_in(nursery: NativeSandbox, *argv: str) -> str:
    """What a program in a nursery prints."""
    command = Command(argv=argv, environment={"PATH": "/usr/bin:/bin"}, cwd="/tmp")
    waiting = drive(start_process(nursery, command))
    try:
        with open(waiting.spawned.fds[0], closefd=False) as stdout:
            return stdout.read()
    finally:
        waiting.close()


def test_a_nursery_has_no_rights_but_to_choose_among_the_ids_of_sandboxes(
    nursery: NativeSandbox, zygote_engine: casemate.Engine
) -> None:
    status = dict(line.split(":\t", 1) for line in said_in(nursery, "cat", "/proc/self/status").splitlines())
    allowed = 1 << CAP_SETUID | 1 << CAP_SETGID if zygote_engine.backend.host.uid == 0 else 0
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == allowed, name
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_a_nursery_shows_nothing_of_the_machine_but_the_base(nursery: NativeSandbox) -> None:
    shown = set(said_in(nursery, "ls", "-A", "/").split())
    assert not shown & {"root", "home", "var", "srv", "sys", "boot", "work"}
    assert said_in(nursery, "ls", "-A", "/opt/casemate/native").split() == ["casemate-launcher", "casemate-zygote.so"]
    assert said_in(nursery, "cat", "/proc/net/dev").count(":") == 1
    assert not said_in(nursery, "sh", "-c", "echo x > /usr/x; echo x > /etc/x; ls /usr/x /etc/x 2> /dev/null")


def test_a_fork_of_nothing_is_refused(zygote_engine: casemate.Engine) -> None:
    with casemate.Sandbox("bash", engine=zygote_engine) as opened:
        sandbox = opened._session.sandbox
        command = Command(argv=(), environment={}, cwd="/work", stdin=b"", request=b"", forked=True)
        with pytest.raises(LaunchError) as caught:
            drive(start_process(sandbox, command))
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "starts threads"),
        ("import mmap\nkept = mmap.mmap(-1, 4096)", "memory in which forks would meet"),
        ("raise ImportError('not on\\x1b[2J this machine')", r"not on\\x1b\[2J this machine"),
        ("import os; os._exit(0)", "without a word"),
        ("print('x' * 2**20)\nimport sys; sys.exit('too much')", "too much"),
    ],
)
def test_packages_that_make_no_zygote_are_told_of(
    zygote_engine: casemate.Engine, tmp_path: Path, code: str, why: str
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "ahead.py").write_text(code)
    key = warm_key(prepare_code(zygote_engine, "", runtime="python")).zygote_key()
    assert key is not None
    wanted = msgspec.structs.replace(
        key,
        preload=("ahead",),
        mounts=(*key.mounts, Mount(str(tmp_path), "/opt/packages")),
        environment=(*key.environment, ("PYTHONPATH", "/opt/packages")),
    )
    if isinstance(zygote_engine.backend.cgroups, CgroupUnavailable):
        why = "no cgroup would limit it"
    with pytest.raises(LaunchError, match=why):
        drive(start_zygote(zygote_engine.backend, wanted))
    zygote_engine.backend.settle()
