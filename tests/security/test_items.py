"""Attacks by items of one function: on the runner that forks them, on the items after them, and on what they leave."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

import casemate
from casemate import Item, ItemResult, Reason, Source

Call = Callable[..., list[ItemResult]]

SECRET: Final = "casemate-of-the-other-item"
PARENT_IN_R: Final = "as.integer(strsplit(readLines('/proc/self/stat'), ' ')[[1L]][4L])"


@pytest.fixture
def kept() -> Iterator[casemate.Engine]:
    """An engine that keeps runners from call to call."""
    with casemate.Engine() as opened:
        yield opened


@pytest.fixture
def call(kept: casemate.Engine, default_limits: dict[str, Any]) -> Call:
    """Call a source with these data, one after the other in one runner; the results are in their order."""

    def start(runtime: str, code: str, *data: Any, **limits: Any) -> list[ItemResult]:
        source = Source(runtime=runtime, code=textwrap.dedent(code), limits={**default_limits, **limits})
        return [result for each in data for _, result in casemate.run_items(kept, source, [Item(data=each)])]

    return start


def outputs(results: list[ItemResult]) -> list[Any]:
    assert all(each.success for each in results), [(each.reason, each.error, each.stderr) for each in results]
    return [each.output for each in results]


def only_the_second_failed(results: list[ItemResult]) -> Reason:
    assert [each.success for each in results] == [True, False, True], results
    return results[1].reason


# On the runner ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "attack"),
    [
        ("python", "import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(60)"),
        ("python", "import os, time\nos.kill(-1, 9)\ntime.sleep(60)"),
        ("r", f"tools::pskill({PARENT_IN_R}, 9); Sys.sleep(60)"),
    ],
)
def test_p8_an_item_that_ends_its_runner_is_the_only_one_blamed(call: Call, language: str, attack: str) -> None:
    opening, closing = ("if input == 1:\n", "") if language == "python" else ("if (input == 1) {\n", "\n}")
    body = textwrap.indent(attack, "    ")
    results = call(language, f"{opening}{body}{closing}\noutput = 'fine'", 0, 1, 2)
    assert only_the_second_failed(results) is Reason.LOST


@pytest.mark.parametrize(
    ("language", "attack"),
    [("python", "import os\n    os.kill(os.getppid(), 19)"), ("r", f"tools::pskill({PARENT_IN_R}, 19)")],
)
def test_p6_an_item_that_stops_its_runner_is_out_of_time_alone(call: Call, language: str, attack: str) -> None:
    code = f"if input == 1:\n    {attack}" if language == "python" else f"if (input == 1) {attack}"
    results = call(language, f"{code}\noutput = 'fine'", 0, 1, 2, timeout="1s")
    assert only_the_second_failed(results) is Reason.TIMEOUT


def test_i1_a_runner_shows_nothing_of_itself(call: Call) -> None:
    code = """
        import os
        def seen(path):
            try:
                (os.listdir if path.endswith(("fd", "task")) else lambda name: open(name, "rb").read(1))(path)
            except OSError as error:
                return error.errno
            return 0
        output = [seen(f"/proc/{os.getppid()}/{name}") for name in ("mem", "maps", "environ", "fd", "fd/3", "fd/4")]
    """
    (found,) = outputs(call("python", code, 1))
    assert 0 not in found


def test_p11_k19_an_item_cannot_trace_its_runner(call: Call) -> None:
    code = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        output = [libc.ptrace(16, os.getppid(), 0, 0), libc.ptrace(0x4206, os.getppid(), 0, 0)]
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
        output.append(libc.process_vm_readv(os.getppid(), vector, 1, vector, 1, 0))
    """
    assert outputs(call("python", code, 1)) == [[-1, -1, -1]]


def test_i7_an_item_has_none_of_the_runners_descriptors(call: Call) -> None:
    code = "import os\noutput = sorted(int(name) for name in os.listdir('/proc/self/fd'))"
    (found,) = outputs(call("python", code, 1))
    assert set(found) - {0, 1, 2, 63} <= {3}  # the directory that is being listed


def test_s4_an_item_writes_no_frame_that_is_taken_for_the_runners(call: Call) -> None:
    code = """
        import os
        if input == 1:
            forged = (73).to_bytes(4, "big") + b"\\x05" + bytes(72)
            for fd in range(1024):
                try:
                    os.write(fd, forged)
                except OSError:
                    pass
            os._exit(0)
        output = "fine"
    """
    assert only_the_second_failed(call("python", code, 0, 1, 2)) is Reason.VALIDATION


def test_m10_signals_that_the_runner_keeps_waiting_take_no_room_from_later_items(call: Call) -> None:
    code = """
        import os, signal
        for _ in range(2000):
            try:
                os.kill(os.getppid(), signal.SIGRTMAX)
            except OSError:
                pass
        output = len(signal.sigpending())
        signal.setitimer(signal.ITIMER_REAL, 60)
    """
    assert outputs(call("python", code, 0, 1, 2)) == [0, 0, 0]


# On the items after it ----------------------------------------------------------------------------


def test_i8_nothing_of_an_item_is_found_in_the_memory_of_the_next(call: Call) -> None:
    code = """
        import os
        secret = "casemate-of-" + "the-other-item"
        if input:
            print(input)
            output = input
        else:
            found = 0
            with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
                for line in maps.read().splitlines():
                    place, modes = line.split()[:2]
                    if "r" not in modes or "[v" in line:
                        continue
                    first, last = (int(each, 16) for each in place.split("-"))
                    memory.seek(first)
                    try:
                        data = memory.read(last - first)
                    except OSError:
                        continue
                    found += data.count((secret[:-1] + "m-").encode())
            output = found
    """
    mark = f"{SECRET}-"
    results = call("python", code, f"{mark}{'x' * 20000}", "", timeout="30s")
    assert outputs(results)[1] == 0


def test_i8_what_an_item_leaves_in_files_is_gone_for_the_next(call: Call) -> None:
    code = """
        import os, socket
        places = ("/work", "/tmp", "/dev/shm", "/home/guest", "/code", "/var/tmp")
        output = [os.listdir(place) for place in places] + [os.stat(place).st_mode & 0o7777 for place in places]
        for place in places[:5]:
            os.makedirs(place + "/a/b")
            with open(place + "/a/b/c", "w") as file:
                file.write("secret")
            os.symlink("/etc", place + "/link")
            os.mkfifo(place + "/a/fifo")
            socket.socket(socket.AF_UNIX).bind(place + "/a/socket")
            os.chmod(place + "/a/b", 0)
            os.chmod(place, 0o700)
            os.utime(place, (12345, 12345))
    """
    fresh, *later = outputs(call("python", code, 0, 1, 2))
    assert fresh[:6] == [[]] * 6
    assert later == [fresh, fresh]


def test_too_many_files_to_remove_cost_the_runner_and_no_item(call: Call, kept: casemate.Engine) -> None:
    code = "import os\noutput = len(os.listdir('/tmp'))\nfor n in range(3000): open(f'/tmp/{n}', 'w').close()"
    before = kept.runners.status().retired.get("distrusted", 0)
    assert outputs(call("python", code, 0, 1)) == [0, 0]
    assert kept.runners.status().retired["distrusted"] == before + 2


@pytest.mark.parametrize("kind", ["shmget(7, 4096, 0o1600)", "semget(7, 1, 0o1600)", "msgget(7, 0o1600)"])
def test_m5_objects_of_system_v_are_not_there_for_the_next(call: Call, kind: str) -> None:
    only_found = kind.replace("0o1600", "0o600")
    code = f"import ctypes\nlibc = ctypes.CDLL(None)\noutput = libc.{only_found}\nlibc.{kind}"
    assert outputs(call("python", code, 0, 1)) == [-1, -1]


def test_a_port_that_an_item_has_used_is_free_for_the_next(call: Call) -> None:
    code = """
        import socket
        listener, client = socket.socket(), socket.socket()
        listener.bind(("127.0.0.1", 5555))
        listener.listen()
        client.connect(("127.0.0.1", 5555))
        server = listener.accept()[0]
        server.close()
        output = client.recv(1).decode()
    """
    assert outputs(call("python", code, 0, 1, 2)) == ["", "", ""]


@pytest.mark.parametrize("call_name", ["nice", "limits"])
def test_settings_of_the_runner_that_an_item_changes_hold_for_no_other(call: Call, call_name: str) -> None:
    change = {
        "nice": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "limits": "resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (1000, 1000))",
    }[call_name]
    code = f"""
        import os, resource
        output = [os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_FSIZE) == (1000, 1000)]
        {change}
    """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert outputs(call("python", code, 0, 1)) == [[own, False]] * 2


def test_an_open_file_is_shared_with_no_other_item(call: Call) -> None:
    code = """
        import fcntl, os
        output = [fcntl.fcntl(0, fcntl.F_GETOWN), fcntl.fcntl(0, fcntl.F_GETFL) & os.O_APPEND]
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, os.O_APPEND)
    """
    assert outputs(call("python", code, 0, 1)) == [[0, 0], [0, 0]]


# On what it leaves running --------------------------------------------------------------------------


def test_p4_a_daemon_does_not_outlive_its_item(call: Call) -> None:
    code = """
        import os, signal, time
        output = sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) > 1) == [os.getpid()]
        if os.fork() == 0:
            os.setsid()
            for number in range(1, 64):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            if os.fork() == 0:
                while True:
                    time.sleep(0.001)
            os._exit(0)
    """
    assert outputs(call("python", code, 0, 1, 2)) == [True, True, True]


def test_p4_a_daemon_in_r_does_not_outlive_its_item(call: Call) -> None:
    code = "output <- length(grep('^[0-9]+$', list.files('/proc')))\nsystem('setsid sleep 100 &')"
    first, *later = outputs(call("r", code, 0, 1, 2))
    assert later == [first, first]


@pytest.mark.limits
def test_p1_a_fork_bomb_costs_its_own_item(call: Call) -> None:
    code = """
        import os
        if input == 1:
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
        output = "fine"
    """
    assert only_the_second_failed(call("python", code, 0, 1, 2, timeout="2s", processes=30)) is Reason.TIMEOUT


@pytest.mark.limits
@pytest.mark.parametrize("language", ["python", "r"])
def test_m1_memory_without_end_costs_its_own_item(call: Call, language: str) -> None:
    code = {
        "python": "x = []\nwhile input == 1:\n    x.append(bytearray(1 << 20))\noutput = 'fine'",
        "r": "x <- list()\nwhile (input == 1) x[[length(x) + 1L]] <- rep(1, 131072)\noutput <- 'fine'",
    }[language]
    assert only_the_second_failed(call(language, code, 0, 1, 2, memory="128Mi")) is Reason.MEMORY


@pytest.mark.limits
def test_m2_memory_of_helpers_costs_its_own_item(call: Call) -> None:
    code = """
        import os
        if input == 1:
            for _ in range(4):
                if os.fork() == 0:
                    x = []
                    while True:
                        x.append(bytearray(1 << 20))
            os.wait()
            while True:
                pass
        output = "fine"
    """
    assert only_the_second_failed(call("python", code, 0, 1, 2, memory="128Mi", timeout="20s")) is Reason.MEMORY


@pytest.mark.limits
def test_processor_time_is_counted_for_each_item(call: Call, slowness: float) -> None:
    code = "while input == 1: pass\noutput = 'fine'"
    assert only_the_second_failed(call("python", code, 0, 1, 2, cpu_time=0.3 + 0.1 * (slowness - 1))) is Reason.CPU


def test_runners_serve_one_tenant(kept: casemate.Engine, default_limits: dict[str, Any]) -> None:
    source = Source(runtime="python", code="output = input", limits=default_limits)
    for tenant in ("left", "right", "left"):
        outputs([result for _, result in casemate.run_items(kept, source, [Item(data=tenant)], tenant=tenant)])
    assert {each.tenant: each.runs for each in kept.runners.status().workers if each.tenant} == {"left": 2, "right": 1}
