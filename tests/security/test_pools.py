"""Attacks where sandboxes are made ahead: on those that are ready, by programs that run beside or before them.

`make test-warm` runs all the other attacks in ready sandboxes; here stands what only a pool has: sandboxes and
interpreters that are already there while somebody hostile runs.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from tests.security.test_information import FILL, address_of_libc
from tests.security.test_information import LOOK as LOOK_AT_MEMORY
from tests.security.test_supervisor import SPOIL
from tests.security.test_tenants import BASE_FILE, EXHAUST, HOLD, LEAVE, LOOK, MOST, PLANT, PROBE, SAY, TAKE

import casemate
from casemate import Layer, Reason, Result
from casemate.engine.program import GUEST_MOUNT
from casemate.engine.run import prepare_code
from casemate.engine.warm import WarmSandbox, warm_key
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.kernel.processes import process_tree, read_stat
from casemate.model.spec import GUEST_DIRECTORY

Parse = Callable[[Result], "dict[str, str]"]
NotRun = Callable[[str, str], NoReturn]

RUNTIMES: Final = ("python", "node", "r", "bash")
WAITING: Final = ("python", "node", "r")
"""Those whose ready sandboxes have an interpreter that waits."""
WELL: Final = {"python": "print('well')", "node": "console.log('well')", "r": "cat('well\\n')", "bash": "echo well"}
SIBLINGS: Final = 100
SIBLINGS_AT_ONCE: Final = 10


class Pool:
    """Ready sandboxes of one engine, and runs that take one or fail the test."""

    def __init__(self, engine: casemate.Engine, limits_of_run: dict[str, Any]) -> None:
        self.engine = engine
        self.limits = limits_of_run

    def keep(self, count: int, runtime: str = "python", **wanted: Any) -> None:
        self.engine.keep_ready(runtime, count, limits={**self.limits, **wanted})

    def ready(self, runtime: str = "python", **wanted: Any) -> list[WarmSandbox]:
        key = warm_key(prepare_code(self.engine, "", runtime=runtime, limits={**self.limits, **wanted}))
        return [made.thing for made in self.engine.warm._pool._kinds[key].ready]

    def run(self, code: str, runtime: str = "python", **options: Any) -> Result:
        """In a sandbox that was ready before."""
        wanted = {**self.limits, **options.pop("limits", {})}
        misses = self._misses()
        result = casemate.run(code, runtime, engine=self.engine, limits=wanted, **options)
        assert self._misses() == misses, "it was not in a sandbox that was ready"
        return result

    def _misses(self) -> int:
        return sum(each.misses for each in self.engine.pools())

    def empty(self) -> None:
        for runtime in RUNTIMES:
            self.engine.warm.let_go(runtime)
        self.engine.rest()


@pytest.fixture(scope="module")
def pool_engine() -> Iterator[casemate.Engine]:
    with casemate.Engine() as opened:
        opened.keep_ready("bash", 1)
        opened.keep_ready("bash", 0)
        opened.rest()
        yield opened


@pytest.fixture
def pool(pool_engine: casemate.Engine, default_limits: dict[str, Any]) -> Iterator[Pool]:
    """Give ready sandboxes; at the end none of them is left, and no process but the launcher."""
    made = Pool(pool_engine, default_limits)
    yield made
    made.empty()
    launcher = pool_engine.backend.launcher.pid
    stats = {pid: read_stat(pid) for pid in process_tree(launcher)}
    assert [pid for pid, stat in stats.items() if stat and not stat.dead] == [launcher]


@pytest.fixture
def while_running(pool: Pool) -> Callable[..., Result]:
    """Run a program in a ready sandbox; at its first output do something out here, and then end its standard input."""

    def start(code: str, act: Callable[[], object], **options: Any) -> Result:
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as stdin, os.fdopen(write_fd, "wb") as held:

            def on_output(_: casemate.Chunk) -> None:
                if not held.closed:
                    act()
                    held.close()

            return pool.run(code, stdin=stdin, on_output=on_output, **options)

    return start


def interpreter_of(warm: WarmSandbox) -> int:
    return process_tree(warm.sandbox.pid)[1]


# I8 to I10: memory and chance ---------------------------------------------------------------------------


def test_i8_sandboxes_that_were_ready_while_another_filled_its_own_are_empty(pool: Pool, answers: Parse) -> None:
    pool.keep(3)
    assert pool.run(FILL).stdout.text == "filled\n"
    for _ in range(2):
        found = answers(pool.run(SAY + LOOK_AT_MEMORY))
        assert found.pop("pipe") == "EAGAIN"
        assert set(found.values()) == {"True"}


def test_i8_a_ready_interpreter_knows_nothing_of_the_program_before(pool: Pool) -> None:
    """Neither its code, its input, its variables nor its arguments are anywhere in its memory."""
    look = """
import re
found = []
for line in open("/proc/self/maps"):
    start, end = (int(word, 16) for word in line.split()[0].split("-"))
    if "r" in line.split()[1] and "[v" not in line:
        with open("/proc/self/mem", "rb") as memory:
            memory.seek(start)
            found.append(bool(re.search(b"SECRE[T]-OF-ANOTHE[R]", memory.read(end - start))))
print(len(found) > 20, any(found))
"""
    pool.keep(2)
    secret = "SECRET-OF-ANOTHER"
    assert pool.run(f"x = {secret!r}", input=secret, env={"X": secret}, args=[secret], stdin=secret).ok
    told = pool.run(look)
    assert told.stdout.text == "True False\n", told.stderr.text


RANDOM_OF: Final = {
    "python": """
import os, random, secrets, tempfile, uuid
print(random.random(), os.urandom(8).hex(), uuid.uuid1(), uuid.uuid4(), secrets.token_hex(8), tempfile.mktemp(),
      open("/proc/sys/kernel/random/uuid").read().strip())
""",
    "node": "console.log(Math.random(), require('crypto').randomUUID())",
    "r": "cat(runif(1, 0, 1e9), basename(tempfile()))",
    "bash": "echo $RANDOM$RANDOM$RANDOM$SRANDOM $(mktemp -u)",
}


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_i9_random_numbers_of_siblings_that_were_ready_together_differ(pool: Pool, runtime: str) -> None:
    number = SIBLINGS if runtime == "python" else SIBLINGS_AT_ONCE
    told = []
    for _ in range(number // SIBLINGS_AT_ONCE):
        pool.keep(SIBLINGS_AT_ONCE, runtime)
        told += [pool.run(RANDOM_OF[runtime], runtime).stdout.text.split() for _ in range(SIBLINGS_AT_ONCE)]
    assert all(told)
    for values in zip(*told, strict=True):
        assert len(set(values)) == number


@pytest.mark.parametrize("runtime", ["node", "r"])
def test_i10_addresses_of_ready_interpreters_differ(pool: Pool, not_run: NotRun, runtime: str) -> None:
    if {address_of_libc(Path("/proc/self/maps").read_text())} == {address_of_libc(maps_of_a_new_process())}:
        not_run("I10", "this kernel does not randomise addresses")
    pool.keep(3, runtime)
    told = {address_of_libc(Path(f"/proc/{interpreter_of(each)}/maps").read_text()) for each in pool.ready(runtime)}
    assert len(told) == 3


def maps_of_a_new_process() -> str:
    return subprocess.check_output(["cat", "/proc/self/maps"], text=True)


def test_i10_who_wants_other_addresses_than_its_siblings_asks_for_a_fresh_interpreter(pool: Pool) -> None:
    code = "print(open('/proc/self/maps').read())"
    pool.keep(2)
    told = {address_of_libc(pool.run(code).stdout.text)}
    for _ in range(2):
        fresh = casemate.run(code, engine=pool.engine, fresh=True, limits=pool.limits)
        told.add(address_of_libc(fresh.stdout.text))
    assert len(told) == 3


# S3: what is ready is killed, or kills itself -------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_s3_ready_sandboxes_whose_init_was_killed_are_replaced(pool: Pool, runtime: str) -> None:
    pool.keep(2, runtime)
    for each in pool.ready(runtime):
        os.kill(each.sandbox.pid, signal.SIGKILL)
        each.sandbox.wait_dead()
    result = casemate.run(WELL[runtime], runtime, engine=pool.engine, limits=pool.limits)
    assert (result.reason, result.stdout.text) == (Reason.EXIT, "well\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("runtime", WAITING)
def test_s3_ready_interpreters_that_were_killed_are_replaced(pool: Pool, runtime: str, number: signal.Signals) -> None:
    pool.keep(2, runtime)
    for each in pool.ready(runtime):
        os.kill(interpreter_of(each), number)
    result = casemate.run(WELL[runtime], runtime, engine=pool.engine, limits=pool.limits)
    assert (result.reason, result.stdout.text) == (Reason.EXIT, "well\n")


END_BADLY: Final = {
    "by a signal": ("import os; os.kill(os.getpid(), 9)", {Reason.SIGNAL}),
    "by a fault": ("import ctypes; ctypes.string_at(0)", {Reason.SIGNAL}),
    "with everything killed": ("import os; os.kill(-1, 9)", {Reason.SIGNAL, Reason.EXCEPTION}),
    "with all descriptors used": ("import os\nwhile True: os.dup(0)", {Reason.EXCEPTION}),
    "with all memory used": (
        "x = [bytearray(1 << 20) for _ in range(1 << 12)]",
        {Reason.MEMORY, Reason.EXCEPTION, Reason.SIGNAL},
    ),
    "with all processes used": ("import os, signal\nwhile True: os.fork() or signal.pause()", {Reason.PROCESSES}),
    "never": ("while True: pass", {Reason.TIMEOUT}),
}


@pytest.mark.limits
@pytest.mark.parametrize("how", END_BADLY)
def test_s3_however_a_program_ends_those_that_are_ready_are_well(pool: Pool, how: str, slowness: float) -> None:
    code, reasons = END_BADLY[how]
    wanted: dict[str, Any] = {"memory": "64Mi", "processes": 16}
    pool.keep(2, **wanted)
    timeout = {"timeout": 0.5 * slowness} if how == "never" else {}
    assert pool.run(code, limits={**wanted, **timeout}).reason in reasons
    assert pool.run(WELL["python"], limits=wanted).stdout.text == "well\n"


def test_p7_a_program_that_kills_everybody_reaches_no_ready_sandbox(pool: Pool) -> None:
    pool.keep(3)
    others = [each for each in pool.ready()[1:] if each.is_alive()]
    pool.run("import os\nfor pid in {*range(9999)} - {os.getpid()}:\n  try: os.kill(pid, 9)\n  except OSError: 0")
    assert [each.is_alive() for each in others] == [True, True]


# S11: what keeps a control group ----------------------------------------------------------------------


def test_s11_zombies_and_daemons_of_a_pooled_run_keep_no_control_group(pool: Pool) -> None:
    root = pool.engine.backend.cgroups
    code = """
import os
for _ in range(8):
    if os.fork() == 0:
        os._exit(0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import time
        time.sleep(600)
    os._exit(0)
print("left")
"""
    pool.keep(2)
    assert pool.run(code).stdout.text == "left\n"
    pool.empty()
    if isinstance(root, CgroupUnavailable):
        return
    groups = [path for base in root.search_paths for path in Path(base).glob(f"{Path(root.path).name}/run-*")]
    assert groups == []


def test_s11_a_stranger_in_the_group_of_a_ready_sandbox_does_not_keep_it(pool: Pool) -> None:
    pool.keep(1)
    group = pool.ready()[0].sandbox.cgroup
    if group is None:
        assert isinstance(pool.engine.backend.cgroups, CgroupUnavailable), "without control groups none can be left"
        return
    places = [Path(path) for path in group._driver.directories]  # type: ignore[attr-defined]
    with subprocess.Popen(["sleep", "600"]) as stranger:
        for place in places:
            (place / "cgroup.procs").write_text(str(stranger.pid))
        pool.empty()
        assert not any(place.exists() for place in places)
        assert stranger.wait() == -signal.SIGKILL


# S16: poisoning what others come from ---------------------------------------------------------------------

STATE: Final = """
import os, resource, signal, subprocess, sys, time
names = ("Sig", "Shd", "Umask", "Seccomp", "NoNew", "Cap")
status = [line for line in open("/proc/self/status") if line.startswith(names)]
print(*status, os.getcwd(), os.nice(0), os.getpgrp() == os.getsid(0), sorted(os.environ))
print([resource.getrlimit(number) for number in range(16)])
print([(fd, os.path.exists(f"/proc/self/fd/{fd}")) for fd in range(64)])
print(sorted(vars(__import__("builtins"))), sorted(sys.modules), sys.path, sys.getrecursionlimit(), len(sys.meta_path))
print([sorted(os.listdir(top)) for top in ("/tmp", "/dev/shm", "/home/guest", "/work")], open("/proc/locks").read())
"""
POISON: Final = (
    SPOIL
    + """
import builtins, fcntl, sys
builtins.print, builtins.open, builtins.mine = None, None, 1
sys.path.insert(0, "/tmp")
sys.modules["json"] = sys.modules["os"] = None
sys.setrecursionlimit(99)
sys.meta_path.clear()
import posix
fd = posix.open("/usr/bin/true", 0)
fcntl.flock(fd, fcntl.LOCK_EX)
posix.write(posix.open("/tmp/sitecustomize.py", 65, 0o666), b"raise SystemExit('poisoned')")
"""
)


def test_s16_a_poisoned_interpreter_colours_none_that_was_ready_or_is_made_later(pool: Pool) -> None:
    pool.keep(1)
    before = pool.run(STATE)
    assert before.ok, before.stderr.text
    pool.keep(2)
    pool.run(POISON)
    assert pool.run(STATE).stdout.text == before.stdout.text
    pool.keep(2)
    assert pool.run(STATE).stdout.text == before.stdout.text


@pytest.mark.parametrize("runtime", WAITING)
def test_s16_files_that_an_interpreter_runs_at_its_start_run_in_no_other(pool: Pool, runtime: str) -> None:
    """C13 for those that are ready: they have started before the files are there, and the next ones never see them."""
    evil = {
        "sitecustomize.py": "raise SystemExit('poisoned')",
        ".Rprofile": "stop('poisoned')",
        "package.json": "{poisoned",
        "json.py": "raise SystemExit('poisoned')",
    }
    pool.keep(2, runtime)
    pool.run(WELL[runtime], runtime, files=evil)
    for _ in range(2):
        assert pool.run(WELL[runtime], runtime).stdout.text == "well\n"
        pool.keep(2, runtime)


def test_s16_the_offset_of_a_file_of_the_callers_is_not_shared(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"first line\nsecond line\n")
    pool.keep(3)
    for code, expected in (("print(input())", "first line\n"), ("import sys; print(sys.stdin.read())", None)):
        with path.open("rb") as file:
            told = pool.run(code, stdin=file).stdout.text
        assert told == (expected or "first line\nsecond line\n\n")
    assert pool.run("import sys; print(repr(sys.stdin.read()))").stdout.text == "''\n"


# X1 to X4, X7: between tenants --------------------------------------------------------------------------


def test_x1_nothing_that_a_run_leaves_is_in_one_that_was_ready_or_is_made_later(pool: Pool, answers: Parse) -> None:
    pool.keep(2)
    for _ in range(2):
        answers(pool.run(LEAVE))
        found = answers(pool.run(LOOK))
        tops = {found.pop(top) for top in ("/tmp", "/dev/shm", "/home/guest", "/var/tmp", "/work")}
        assert tops == {"[]", "['main.py']"}
        assert {found.pop(f"{name} listed") for name in ("shm", "sem", "msg")} == {"0"}
        assert {found.pop("abstract"), found.pop("port")} == {"ECONNREFUSED"}
        assert found.pop("processes") == "[]"
        found.pop("scratch")
        assert set(found.values()) <= {"ENOENT", "ENOSYS"}
        pool.keep(2)


def test_x2_two_that_were_ready_together_do_not_meet(
    pool: Pool, while_running: Callable[..., Result], answers: Parse, not_run: NotRun
) -> None:
    pool.keep(2)
    if Layer.PRIVATE_BASE not in pool.ready()[0].sandbox.isolation.layers:
        not_run("X2", "this kernel lets no user namespace mount an overlay, so base files are shared")
    neighbours: list[Result] = []
    held = answers(while_running(HOLD, lambda: neighbours.append(pool.run(PROBE))))
    seen = answers(neighbours[0])
    assert {held["lock"], held["record lock"]} == {"OK"}
    assert held["events"] == "[]"
    assert {held["visitor"], held["packet"]} == {"EAGAIN"}
    assert {seen[name] for name in ("lock", "record lock", "bind")} == {"OK"}
    assert {seen["abstract"], seen["port"]} == {"ECONNREFUSED"}
    assert {seen[name] for name in ("/tmp/held", "/dev/shm/held", "/work/held")} == {"ENOENT"}
    assert seen["segment"] in {"ENOENT", "ENOSYS"}
    assert {seen["locks"]} == {""}
    assert seen["processes"] == "[]"


HASH: Final = f"import hashlib; print(hashlib.sha256(open('{BASE_FILE}', 'rb').read()).hexdigest())"


def test_x3_pages_of_base_files_are_unchanged_in_one_that_was_ready(
    pool: Pool, compiled: Callable[[str], bytes]
) -> None:
    before = hashlib.sha256(Path(BASE_FILE).read_bytes()).hexdigest()
    attack = f"""
import os, subprocess
os.chmod("/code/probe", 0o755)
print(subprocess.run(["/code/probe", "{BASE_FILE}"], capture_output=True, text=True).stdout)
"""
    pool.keep(3)
    assert pool.run(HASH).stdout.text.strip() == before
    assert "race\tover" in pool.run(attack, files={"/code/probe": compiled("pages")}).stdout.text
    assert pool.run(HASH).stdout.text.strip() == before
    assert hashlib.sha256(Path(BASE_FILE).read_bytes()).hexdigest() == before


def uid_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid"))


def test_x4_every_ready_sandbox_is_another_user_of_the_machine(pool: Pool, not_run: NotRun) -> None:
    pool.keep(4)
    ready = pool.ready()
    uids = {uid_of(interpreter_of(each)) for each in ready}
    if Layer.HOST_UID not in ready[0].sandbox.isolation.layers:
        assert uids == {os.geteuid()}
        not_run("X4", "an ordinary user has no other users to lend")
    assert len(uids) == 4
    assert 0 not in uids


@pytest.mark.limits
@pytest.mark.parametrize("name", ["processes", "descriptors", "pending signals", "inotify instances", "terminals"])
def test_x4_what_one_uses_up_those_that_are_ready_still_have(
    pool: Pool, while_running: Callable[..., Result], name: str
) -> None:
    code = TAKE.format(how=EXHAUST[name])
    wanted: dict[str, Any] = {"processes": 24, "open_files": 512, "memory": "128Mi"}
    pool.keep(2, **wanted)
    second: list[Result] = []
    first = while_running(code, lambda: second.append(pool.run(code, limits=wanted)), limits=wanted)
    taken, then = int(first.stdout.text), int(second[0].stdout.text)
    assert 0 < taken <= MOST[name]
    assert then >= taken * 0.9


def test_x7_what_is_planted_in_package_directories_is_in_no_other(pool: Pool, answers: Parse) -> None:
    pool.keep(2)
    assert set(answers(pool.run(PLANT)).values()) <= {"EROFS", "EACCES"}
    for _ in range(2):
        imported = pool.run("import planted")
        assert imported.error is not None
        assert imported.error.type == "ModuleNotFoundError"
        pool.keep(2)


# X12: compiled code ---------------------------------------------------------------------------------------

REPLACE_BYTECODE: Final = (
    SAY
    + f"""
for folder, folders, names in os.walk("{GUEST_DIRECTORY}"):
    attempt(folder, open, folder + "/planted.pyc", "wb")
    for name in names:
        path = os.path.join(folder, name)
        attempt(path, open, path, "r+b")
        attempt("remove " + path, os.unlink, path)
        attempt("replace " + path, os.rename, "/work/main.py", path)
        attempt("date " + path, os.utime, path, (0, 0))
"""
)


def digest_of_harness() -> str:
    files = sorted(path for path in Path(GUEST_MOUNT.source).rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def test_x12_bytecode_of_the_harness_cannot_be_replaced_for_others(pool: Pool, answers: Parse) -> None:
    """It is all the code that is compiled once and run by everybody."""
    pool.keep(2)
    before = digest_of_harness()
    found = answers(pool.run(REPLACE_BYTECODE))
    assert len(found) > 20
    assert set(found.values()) <= {"EROFS", "EACCES", "EPERM", "EXDEV"}
    assert digest_of_harness() == before
    assert pool.run(WELL["python"]).stdout.text == "well\n"


def test_x12_one_source_with_other_values_is_another_program(pool: Pool) -> None:
    """Nothing is looked up by its source: the same text has its own name, input and arguments each time."""
    code = "import sys; output = [input, sys.argv[1:], __file__]"
    for runtime_input, name in ((1, "a.py"), (2, "b.py")):
        pool.keep(1)
        result = pool.run(code, input=runtime_input, args=[name], filename=name)
        assert result.output == [runtime_input, [name], f"/work/{name}"]
