"""Jobs on a node: what is staged is there and cannot be changed, everything that comes of it comes, nothing stays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec
import pytest
from tests.machine import left_running
from tests.networks import lacks_egress
from tests.service.jobbing import Check, Jobber, Seen, jobber
from tests.warm import open_engine

import casemate
from casemate import job_limits as bound
from casemate import service_limits
from casemate.cluster.messages import Answered, Cancel, FilePiece, Output, Phase, Refused, RunJob, Sampled
from casemate.limits import MIB
from casemate.model.layers import Layer
from casemate.model.network import NetworkPolicy
from casemate.model.result import Reason
from casemate.node.outbox import Outbox
from casemate.node.spool import Spool

FOREVER: Final = ("sleep", "infinity")
DEFAULT_VARIABLES: Final = {"PATH", "HOME", "USER", "LOGNAME", "LANG"}


@pytest.fixture(scope="module")
def engine() -> Iterator[casemate.Engine]:
    with open_engine() as opened:
        yield opened


@pytest.fixture
def check(engine: casemate.Engine, tmp_path: Path, slowness: float) -> Iterator[Check]:
    """Carry out a test with a node; afterwards nothing runs any more, and nothing is staged."""

    async def main(test: Callable[[Jobber], Awaitable[None]]) -> None:
        async with jobber(engine, tmp_path) as asking:
            await test(asking)
            assert list(asking.spool.iterdir()) == []

    yield lambda test: asyncio.run(main(test))
    assert left_running(engine, slowness) == []


def events_of(seen: Seen) -> str:
    return " ".join(event.detail for event in seen.ended.events)


def noted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> asyncio.Event:
    """Return an event that is set when somebody has called that method, on any thread."""
    called, loop, method = asyncio.Event(), asyncio.get_running_loop(), getattr(owner, name)

    def call(*args: object) -> object:
        try:
            return method(*args)
        finally:
            loop.call_soon_threadsafe(called.set)

    monkeypatch.setattr(owner, name, call)
    return called


# What goes in ----------------------------------------------------------------------------------------


def test_a_command_runs_with_its_files_and_leaves_files(check: Check) -> None:
    script = "cat data.csv input/data.csv shared/all.txt; echo word >&2; cp data.csv output/copy; echo x > kept.txt"

    async def test(node: Jobber) -> None:
        files = {"input/data.csv": b"1,2\n", "shared/all.txt": b"all\n"}
        seen = await node.run("sh", "-c", script, files=files, collect=("*.txt",), staged=2)
        assert seen.ended.ok
        assert seen.output == {"stdout": b"1,2\n1,2\nall\n", "stderr": b"word\n"}
        assert seen.files == {"kept.txt": b"x\n", "output/copy": b"1,2\n"}
        assert seen.digests["output/copy"] == hashlib.sha256(b"1,2\n").hexdigest()
        assert seen.phases == ["running", "collecting"]
        assert seen.ended.files == ()
        assert seen.ended.events == ()

    check(test)


def test_s2_9_words_arrive_as_they_are(check: Check) -> None:
    words = ("two words", "", "$HOME", "a'b\"c", "\\", "*", "é\n")

    async def test(node: Jobber) -> None:
        seen = await node.run("printf", "%s|", *words)
        assert seen.output["stdout"].decode() == "".join(f"{word}|" for word in words)

    check(test)


def test_s2_10_a_program_sees_its_own_variables_and_a_fixed_minimum(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_NODE", "seen")

    async def test(node: Jobber) -> None:
        seen = await node.run("env", "-0", environment={"OWN": "a b\n$c"})
        found = dict(line.split("=", 1) for line in seen.output["stdout"].decode().split("\0")[:-1])
        assert found.pop("OWN") == "a b\n$c"
        assert set(found) == DEFAULT_VARIABLES

    check(test)


def test_s2_17_files_have_their_content_and_may_be_executed_where_they_are_to_be(check: Check) -> None:
    data = bytes(range(256)) * 8192  # more than one piece

    async def test(node: Jobber) -> None:
        for offset in range(0, len(data), bound.PIECE_MAX_BYTES):
            await node.stage("j", "d/data.bin", data[offset : offset + bound.PIECE_MAX_BYTES], offset=offset)
        await node.stage(
            "j", "run.sh", b"#!/bin/sh\nsha256sum < d/data.bin; stat -L -c %a run.sh d/data.bin\n", mode=0o755
        )
        await node.stage("j", "empty")
        seen = await node.run("./run.sh", id="j", staged=3)
        digest, *modes = seen.output["stdout"].decode().split()
        assert (digest, modes) == (hashlib.sha256(data).hexdigest(), ["-", "555", "444"])

    check(test)


CHANGE: Final = """
import os, shutil
def attempt(name, action, *args):
    try:
        action(*args)
        print(name, "done")
    except OSError as error:
        print(name, os.strerror(error.errno))
attempt("write", open, "input/data", "w")
attempt("append", open, "data", "ab")
attempt("make", open, "input/new", "w")
attempt("delete", os.unlink, "input/data")
attempt("chmod", os.chmod, "input/data", 0o777)
attempt("rename", os.rename, "input/data", "input/other")
attempt("move away", os.rename, "input", "elsewhere")
attempt("remove", os.rmdir, "shared")
attempt("write shared", open, "shared/common", "w")
attempt("touch", os.utime, "input/data")
attempt("link", os.link, "input/data", "output/link")
"""


def test_s2_76_inputs_cannot_be_changed(check: Check) -> None:
    async def test(node: Jobber) -> None:
        files = {"input/data": b"original", "shared/common": b"common"}
        seen = await node.run("python3", "-c", CHANGE, files=files)
        lines = seen.output["stdout"].decode().splitlines()
        assert len(lines) == CHANGE.count("attempt(") - 1
        assert [line for line in lines if line.endswith(" done")] == []
        assert seen.files == {}

    check(test)


def test_s2_76_what_was_staged_stays_as_it_was_while_a_program_runs(check: Check) -> None:
    script = "rm -rf input shared data; chmod -R 777 input; echo spoilt > input/data; echo; exec sleep infinity"

    async def test(node: Jobber) -> None:
        await node.stage("j", "data", b"original")
        (run,) = node.spool.iterdir()
        async with aclosing(node.bus.call(job("sh", "-c", script, id="j"))) as answers:
            async for answer in answers:
                if isinstance(answer, Output) and answer.chunk.stream == "stdout":
                    break
            staged = run / "input/data"
            assert staged.read_bytes() == b"original"
            assert stat.S_IMODE(staged.stat().st_mode) == 0o444
            async for _ in node.bus.call(Cancel(id="j")):
                pass
            async for _ in answers:
                pass

    check(test)


def job(*argv: str, **values: object) -> RunJob:
    given = {"id": "j", "tenant": "t", "request_id": "r", "argv": argv, **values}
    return RunJob(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["../../etc/x", "/abs", "a/../../b", "", ".", "nul\0", "n" * 300])
def test_f8_the_node_refuses_hostile_names_once_more(check: Check, tmp_path: Path, path: str) -> None:
    async def test(node: Jobber) -> None:
        answer = await node.stage("j", path, b"x")
        assert isinstance(answer, Refused)
        assert answer.code == "invalid_input"

    check(test)
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["spool"]


def test_what_is_staged_can_be_taken_back(check: Check) -> None:
    async def test(node: Jobber) -> None:
        await node.stage("j", "data", b"x")
        assert len(list(node.spool.iterdir())) == 1
        for _ in range(2):
            assert isinstance(await node.unstage("j"), Answered)
        assert list(node.spool.iterdir()) == []

    check(test)


def test_a_job_whose_files_are_not_there_does_not_begin(check: Check) -> None:
    async def test(node: Jobber) -> None:
        refusal = await node.refusal("true", staged=1)
        assert (refusal.code, refusal.message) == (
            "node_unavailable",
            "1 files were staged for the run, and 0 are there",
        )

    check(test)


def test_a_refused_job_leaves_nothing_staged(check: Check) -> None:
    async def test(node: Jobber) -> None:
        refusal = await node.refusal(files={"input/data": b"x"}, limits={"memory": "much"}, id="j")
        assert refusal.field == "limits.memory"

    check(test)


def test_a_node_without_a_place_for_files_runs_jobs_that_have_none(engine: casemate.Engine) -> None:
    from casemate.cluster.memory import MemoryBus
    from casemate.cluster.messages import Ended, StageFile
    from casemate.node.daemon import Node

    async def main() -> None:
        bus = MemoryBus(Node(engine).handle)
        asked = StageFile(id="s", tenant="t", run="j", area="input", path="f", offset=0, data=b"")
        (refusal,) = [each async for each in bus.call(asked)]
        assert isinstance(refusal, Refused)
        answers = [each async for each in bus.call(job("true"))]
        assert isinstance(answers[-1], Ended)
        await bus.close()

    asyncio.run(main())


# What comes out --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reason", "exit_code"),
    [("exit 3", Reason.EXIT, 3), ("kill -9 $$", Reason.SIGNAL, None), ("exec /nowhere", Reason.EXIT, 127)],
)
def test_s2_37_what_was_written_is_collected_after_a_failure(
    check: Check, script: str, reason: Reason, exit_code: int | None
) -> None:
    async def test(node: Jobber) -> None:
        seen = await node.run("sh", "-c", f"echo kept > output/f; {script}")
        assert (seen.ended.ok, seen.ended.reason, seen.ended.exit_code) == (False, reason, exit_code)
        assert seen.files == {"output/f": b"kept\n"}

    check(test)


def test_s2_11_at_its_limit_a_job_is_ended_with_its_whole_tree(check: Check, engine: casemate.Engine) -> None:
    script = "echo kept > output/f; setsid -f sleep 1000; (trap '' TERM; sleep 1000) & nohup sleep 1000 & wait"

    async def test(node: Jobber) -> None:
        seen = await node.run("sh", "-c", script, limits={"timeout": 2})
        assert seen.ended.reason is Reason.TIMEOUT
        assert seen.files == {"output/f": b"kept\n"}

    check(test)


def test_s2_32_whoever_cancels_has_the_files_and_leaves_nothing(check: Check) -> None:
    async def test(node: Jobber) -> None:
        seen = Seen()
        script = "echo kept > output/f; setsid -f sleep 1000; echo ready; sleep 1000"
        async for answer in node.bus.call(job("sh", "-c", script)):
            seen.take(answer)
            if seen.output["stdout"] and not seen.phases[1:]:
                async for _ in node.bus.call(Cancel(id="j")):
                    pass
        assert seen.ended.reason is Reason.CANCELLED
        assert seen.files == {"output/f": b"kept\n"}

    check(test)


def test_s2_32_a_job_that_nobody_waits_for_ends(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(node: Jobber) -> None:
        forgotten = noted(monkeypatch, Spool, "forget")
        await node.stage("j", "data", b"x")
        async with aclosing(node.bus.call(job("sh", "-c", "echo; exec sleep 1000"))) as answers:
            async for answer in answers:
                if isinstance(answer, Output):
                    break
        await forgotten.wait()

    check(test)


def test_s2_29_s2_57_two_runs_share_no_file_process_or_id(check: Check) -> None:
    script = "id -u; ls -A . /tmp output; ps -e -o pid= | wc -l; echo left > /tmp/left; echo left > left"

    async def test(node: Jobber) -> None:
        first, second = [(await node.run("sh", "-c", script)).output["stdout"] for _ in range(2)]
        assert first == second

    check(test)


def test_s2_55_s2_56_only_the_work_areas_can_be_written(check: Check) -> None:
    script = """
    for place in /work /work/output /tmp /home/guest; do echo x > $place/f && echo $place; done
    for place in / /usr /etc /usr/bin /opt /var /run; do (echo x > $place/f) 2>/dev/null && echo $place; done
    true
    """

    async def test(node: Jobber) -> None:
        seen = await node.run("sh", "-c", script)
        assert seen.output["stdout"].decode().split() == ["/work", "/work/output", "/tmp", "/home/guest"]

    check(test)


@pytest.mark.parametrize("place", ["output/big", "/tmp/big", "big"])
def test_s2_49_writing_over_the_disk_limit_fails_and_is_the_reason(check: Check, place: str) -> None:
    async def test(node: Jobber) -> None:
        limits = {"disk": "4Mi", "memory": "256Mi"}
        seen = await node.run("dd", "if=/dev/zero", f"of={place}", "bs=1M", "count=8", limits=limits)
        assert seen.ended.reason is Reason.DISK
        assert (await node.run("sh", "-c", "head -c 3000000 /dev/zero > output/f", limits=limits)).ended.ok

    check(test)


def test_s2_59_a_result_tells_what_was_used(check: Check) -> None:
    async def test(node: Jobber) -> None:
        script = "head -c 1000000 /dev/zero > output/f; head -c 1G /dev/zero | wc -c"  # many ticks of the kernel
        used = (await node.run("sh", "-c", script)).ended.usage
        assert used.wall_s > 0
        assert used.cpu_user_s + used.cpu_system_s > 0
        assert used.memory_peak_bytes
        assert (used.disk_bytes or 0) >= 1_000_000

    check(test)


def test_s2_36_a_running_job_tells_what_it_uses(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "SAMPLE_PERIOD_S", 0.05)

    async def test(node: Jobber) -> None:
        seen = Seen()
        async for answer in node.bus.call(job("sh", "-c", "sleep 1000 & sleep 1000")):
            seen.take(answer)
            if isinstance(answer, Sampled) and answer.processes == 3:
                async for _ in node.bus.call(Cancel(id="j")):
                    pass
        walls = [each.wall_s for each in seen.samples]
        assert walls == sorted(walls)
        assert all(each.memory_bytes > 0 for each in seen.samples)

    check(test)


def test_s2_62_an_event_tells_of_a_limit_that_was_met(check: Check) -> None:
    async def test(node: Jobber) -> None:
        forks = "for _ in range(20):\n    try:\n        os.fork() or signal.pause()\n    except OSError: pass"
        code = f"import os, signal\n{forks}"
        seen = await node.run("python3", "-c", code, limits={"processes": 8, "timeout": 3})
        assert "process-limit" in [event.kind for event in seen.ended.events]

    check(test)


def test_s2_62_an_event_tells_of_forbidden_system_calls(check: Check, engine: casemate.Engine) -> None:
    if Layer.WATCHED_CALLS not in casemate.execute(["true"], engine=engine).isolation.layers:
        pytest.skip("layer watched-calls: this kernel has no notifier of seccomp")
    tries = "import ctypes; call = ctypes.CDLL(None); [call.ptrace(16, 1, 0, 0) for _ in '123']; call.unshare(1 << 28)"

    async def test(node: Jobber) -> None:
        seen = await node.run("python3", "-c", tries)
        told = [(event.kind, event.detail) for event in seen.ended.events]
        assert told == [("syscall", "ptrace: 3 refused"), ("syscall", "unshare: 1 refused")]

    check(test)


def test_s2_62_an_event_tells_of_forbidden_system_calls_of_code(check: Check, engine: casemate.Engine) -> None:
    """Also once a zygote could have been forked for it, or a sandbox was made ahead."""
    if Layer.WATCHED_CALLS not in casemate.execute(["true"], engine=engine).isolation.layers:
        pytest.skip("layer watched-calls: this kernel has no notifier of seccomp")

    async def test(node: Jobber) -> None:
        for _ in range(4):
            seen = await node.run(runtime="python", code="import ctypes\nctypes.CDLL(None).ptrace(16, 1, 0, 0)")
            assert [event.detail for event in seen.ended.events] == ["ptrace: 1 refused"]

    check(test)


# Networks --------------------------------------------------------------------------------------------

REACH: Final = """
import socket, sys
for place in sys.argv[1:]:
    try:
        socket.create_connection(place.split(","), timeout=10).recv(1)
    except OSError as error:
        print(place, error.strerror, flush=True)
sys.stdin.read(1)
"""


def test_s2_14_s2_61_a_job_with_a_network_tells_what_it_tries_to_reach(check: Check, engine: casemate.Engine) -> None:
    if lacks_egress(engine):
        pytest.skip("layer egress: this kernel has no nf_tables with tproxy")
    policy = NetworkPolicy(outbound=True, allowed_hosts=("server.test",))

    async def test(node: Jobber) -> None:
        seen = Seen()
        argv = ("python3", "-c", REACH, "10.0.0.1,80", "169.254.169.254,80")
        async for answer in node.bus.call(job(*argv, network=policy)):
            seen.take(answer)
        assert [(flow.host, flow.allowed, flow.reason) for flow in seen.flows] == [
            ("10.0.0.1", False, "address"),
            ("169.254.169.254", False, "address"),
        ]
        assert seen.ended.flows == ()
        assert [event.kind for event in seen.ended.events] == ["network-refused"]

    check(test)


def test_s2_61_a_running_job_s_flows_come_while_it_runs(check: Check, engine: casemate.Engine) -> None:
    if lacks_egress(engine):
        pytest.skip("layer egress: this kernel has no nf_tables with tproxy")
    policy = NetworkPolicy(outbound=True)

    async def test(node: Jobber) -> None:
        seen = Seen()
        argv = ("python3", "-c", REACH + "import time; time.sleep(1000)", "10.0.0.1,80")
        async for answer in node.bus.call(job(*argv, network=policy)):
            seen.take(answer)
            if seen.flows and seen.result is None:
                async for _ in node.bus.call(Cancel(id="j")):
                    pass
        assert seen.ended.reason is Reason.CANCELLED
        assert [flow.host for flow in seen.flows] == ["10.0.0.1"]

    check(test)


def test_s2_51_a_job_without_a_policy_has_no_network(check: Check) -> None:
    async def test(node: Jobber) -> None:
        for policy in (NetworkPolicy(), NetworkPolicy(allowed_hosts=("*",))):
            seen = await node.run("python3", "-c", REACH, "10.0.0.1,80", network=policy)
            assert seen.output["stdout"] == b"10.0.0.1,80 Network is unreachable\n"
            assert seen.flows == []

    check(test)


# Code of a runtime -----------------------------------------------------------------------------------


def test_code_of_a_runtime_is_run_as_a_job(check: Check) -> None:
    code = "import os; print(open('data').read(), os.environ['A']); open('output/f', 'w').write('x'); output = [1]"

    async def test(node: Jobber) -> None:
        for files in ({"input/data": b"given"}, {}):
            text = "open('data', 'w').write('made'); " if not files else ""
            seen = await node.run(runtime="python", code=text + code, environment={"A": "b"}, files=files)
            assert seen.ended.output == [1]
            assert seen.output["stdout"].split()[1:] == [b"b"]
            assert seen.files == {"output/f": b"x"}

    check(test)


def test_an_isolate_has_its_output_and_no_files(check: Check) -> None:
    async def test(node: Jobber) -> None:
        seen = await node.run(runtime="javascript", code="output = 1 + 1")
        assert seen.ended.output == 2
        refusal = await node.refusal(runtime="javascript", code="output = 1", files={"input/data": b"x"})
        assert refusal.field == "files"

    check(test)


def test_a_job_is_a_command_or_code(check: Check) -> None:
    async def test(node: Jobber) -> None:
        assert (await node.refusal("true", runtime="python", code="1")).field == "argv"
        assert (await node.refusal()).field == "argv"

    check(test)


# More than there is room for ---------------------------------------------------------------------------


def test_nothing_that_a_job_prints_is_dropped(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_limits, "CALL_WINDOW_BYTES", 128 * 1024)
    monkeypatch.setattr(service_limits, "CALL_TAKEN_STEP_BYTES", 32 * 1024)
    size_bytes = 24 * MIB

    async def test(node: Jobber) -> None:
        seen = await node.run("head", "-c", str(size_bytes), "/dev/zero", limits={"output": "64Mi", "timeout": 100})
        assert seen.ended.ok
        assert len(seen.output["stdout"]) == size_bytes

    check(test)


def resident_bytes() -> int:
    found = re.search(r"^VmRSS:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def test_what_a_job_prints_and_leaves_is_not_the_nodes_memory(check: Check) -> None:
    """Both ends of the bus are this process; whoever asks throws everything away."""
    script = "head -c 268435456 /dev/zero; head -c 67108864 /dev/zero > output/f"
    limits = {"output": "1Gi", "memory": "256Mi", "disk": "128Mi", "cpu": 2, "timeout": 100}

    async def test(node: Jobber) -> None:
        await node.run("true")
        before_bytes, most_bytes, taken_bytes = resident_bytes(), 0, 0
        async for answer in node.bus.call(job("sh", "-c", script, limits=limits)):
            taken_bytes += len(answer.chunk.data) if isinstance(answer, Output) else 0
            taken_bytes += len(answer.data) if isinstance(answer, FilePiece) else 0
            most_bytes = max(most_bytes, resident_bytes())
        assert taken_bytes == (256 + 64) * MIB
        assert most_bytes - before_bytes < 32 * MIB

    check(test)


def test_s2_11_the_limit_on_time_holds_while_nobody_takes_the_output(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_limits, "CALL_WINDOW_BYTES", 128 * 1024)
    monkeypatch.setattr(service_limits, "CALL_TAKEN_STEP_BYTES", 32 * 1024)

    async def test(node: Jobber) -> None:
        seen, has_ended = Seen(), noted(monkeypatch, Outbox, "end")
        async with aclosing(node.bus.call(job("yes", limits={"timeout": 1, "output": "1Ti"}))) as answers:
            async for answer in answers:
                seen.take(answer)
                if seen.output["stdout"]:
                    break
            await has_ended.wait()
            async for answer in answers:
                seen.take(answer)
        assert seen.ended.reason is Reason.TIMEOUT
        assert len(seen.output["stdout"]) == seen.ended.stdout.total_bytes

    check(test)


def test_a_job_that_is_cancelled_among_its_files_ends_and_the_last_is_not_whole(check: Check) -> None:
    script = "echo x > output/a; head -c 67108864 /dev/zero > output/b"

    async def test(node: Jobber) -> None:
        seen = Seen()
        limits = {"disk": "128Mi", "memory": "256Mi"}
        async with aclosing(node.bus.call(job("sh", "-c", script, limits=limits))) as answers:
            async for answer in answers:
                seen.take(answer)
                if isinstance(answer, FilePiece) and answer.path == "output/b" and answer.offset == 0:
                    async for _ in node.bus.call(Cancel(id="j")):
                        pass
        assert seen.ended.reason is Reason.CANCELLED
        assert list(seen.digests) == ["output/a"]

    check(test)


def test_a_job_whose_files_nobody_takes_is_given_up(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "OUTBOX_STALL_MAX_S", 0.01)
    script = "head -c 67108864 /dev/zero > output/b"

    async def test(node: Jobber) -> None:
        has_ended = noted(monkeypatch, Outbox, "end")
        limits = {"disk": "128Mi", "memory": "256Mi"}
        async with aclosing(node.bus.call(job("sh", "-c", script, limits=limits))) as answers:
            assert isinstance(await anext(answers), Phase)
            await has_ended.wait()
            last = [each async for each in answers][-1]
        assert isinstance(last, Refused)
        assert last.code == "no_capacity"

    check(test)


# Hostile outputs ---------------------------------------------------------------------------------------


def test_f9_f10_f16_links_are_not_followed(check: Check, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host")
    script = f"""
    cd output; ln -s {secret} a; ln -s ../../../../../../etc/passwd b; ln -s {tmp_path} d
    ln -s /proc/self/root/etc/hostname p; ln -s /proc/1/environ q;
    ln -s /proc/self/fd/3 r; ln -s ../input/data s; ln -s ../input t; echo x > f
    """

    async def test(node: Jobber) -> None:
        seen = await node.run("sh", "-c", script, files={"input/data": b"x"}, collect=("**",))
        assert seen.files == {"output/f": b"x\n"}
        assert events_of(seen) == "8 left out: symbolic link"
        secret.unlink()

    check(test)


def test_f13_f14_f15_what_is_no_regular_file_is_passed_over(check: Check) -> None:
    script = (
        "import os, socket; os.chdir('output'); os.mkfifo('fifo'); "
        "socket.socket(socket.AF_UNIX).bind('socket'); open('f', 'w').write('x')\n"
        "try:\n    os.mknod('null', 0o20666, os.makedev(1, 3))\nexcept OSError as error: print(error.strerror)"
    )

    async def test(node: Jobber) -> None:
        seen = await node.run("python3", "-c", script)
        assert seen.files == {"output/f": b"x"}
        assert seen.output["stdout"] == b"Operation not permitted\n"
        assert events_of(seen) == "2 left out: not a regular file"

    check(test)


def test_f17_a_sparse_file_that_says_more_than_the_disk_holds_is_left_out(check: Check) -> None:
    script = "truncate -s 3M output/a; truncate -s 1P output/b; truncate -s 2M output/c; echo x > output/d"

    async def test(node: Jobber) -> None:
        seen = await node.run("sh", "-c", script, limits={"disk": "4Mi"})
        assert {path: len(data) for path, data in seen.files.items()} == {
            "output/a": 3 * MIB,
            "output/b": 0,  # no file can be made larger than the disk
            "output/d": 2,
        }
        assert events_of(seen) == "1 left out: too large"

    check(test)


def test_f18_there_are_no_more_files_than_the_bound(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "COLLECT_FILES_MAX", 7)

    async def test(node: Jobber) -> None:
        seen = await node.run("sh", "-c", "cd output; touch $(seq 100)")
        assert len(seen.files) == 7
        assert events_of(seen) == "the rest left out: too many files"

    check(test)


def test_f19_a_deep_tree_is_collected_to_a_depth(check: Check) -> None:
    script = "cd output; for i in $(seq 100); do echo x > f; mkdir d; cd d; done"

    async def test(node: Jobber) -> None:
        seen = await node.run("sh", "-c", script)
        assert 10 < len(seen.files) < 100
        assert "directory too deep" in events_of(seen)

    check(test)


def test_f24_odd_names_come_back_as_text(check: Check) -> None:
    script = "import os\nos.chdir('output')\nfor n in (b'a\\xff', b'new\\nline', b'-rf', b'\\xc3\\xa9'): open(n, 'w')"

    async def test(node: Jobber) -> None:
        seen = await node.run("python3", "-c", script)
        names = {"output/a\\xff", "output/new\nline", "output/-rf", "output/é"}
        assert set(seen.files) == set(seen.digests) == names
        assert json.loads(json.dumps(sorted(names))) == sorted(seen.files)

    check(test)


def test_f28_files_without_any_right_are_collected(check: Check) -> None:
    script = "mkdir -p output/d; echo x > output/d/f; chmod 0 output/d/f output/d output ."

    async def test(node: Jobber) -> None:
        assert (await node.run("sh", "-c", script)).files == {"output/d/f": b"x\n"}

    check(test)


def test_the_output_directory_may_be_replaced_by_anything(check: Check) -> None:
    async def test(node: Jobber) -> None:
        for script in ("rmdir output", "rmdir output; echo x > output", "rmdir output; ln -s /etc output"):
            seen = await node.run("sh", "-c", script)
            assert seen.ended.ok
            assert seen.files in ({}, {"output": b"x\n"})

    check(test)


def test_f2_no_path_of_the_machine_shows_where_it_need_not(
    check: Check, engine: casemate.Engine, tmp_path: Path
) -> None:
    async def test(node: Jobber) -> None:
        seen = await node.run("cat", "/proc/self/mountinfo", files={"input/data": b"x"})
        assert b" /work/input ro,nosuid,nodev" in seen.output["stdout"]
        is_hidden = str(tmp_path / "spool") not in engine.backend.host.overlay_refused
        assert is_hidden == (str(tmp_path).encode() not in seen.output["stdout"])

    check(test)


def test_s2_76_inputs_are_there_where_no_overlay_can_be(
    check: Check, engine: casemate.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(node: Jobber) -> None:
        host = engine.backend.host
        refused = msgspec.structs.replace(host, overlay_refused=host.overlay_refused | {str(node.spool)})
        monkeypatch.setattr(engine.backend, "_host", refused)
        seen = await node.run("sh", "-c", "cat data; echo x > input/data", files={"input/data": b"given"})
        assert seen.output["stdout"] == b"given"
        assert b"Read-only" in seen.output["stderr"]
        assert engine.backend.host is refused

    check(test)


def test_s2_58_what_is_on_the_machine_cannot_be_seen(check: Check, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    async def test(node: Jobber) -> None:
        marker.write_text("x")
        seen = await node.run("cat", str(marker))
        assert not seen.ended.ok
        assert b"No such file" in seen.output["stderr"]
        marker.unlink()

    check(test)


def test_s2_31_s2_54_jobs_reach_neither_each_other_nor_the_machine_and_nothing_reaches_them(check: Check) -> None:
    listen = "import socket; s = socket.create_server(('0.0.0.0', 27123)); print('up', flush=True); s.accept()"
    connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))"

    async def test(node: Jobber) -> None:
        async with aclosing(node.bus.call(job("python3", "-c", listen))) as answers:
            async for answer in answers:
                if isinstance(answer, Output):
                    break
            assert b"refused" in (await node.run("python3", "-c", connect, "127.0.0.1", "27123")).output["stderr"]
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", 27123)
            async for _ in node.bus.call(Cancel(id="j")):
                pass
            assert [each async for each in answers][:1] == [Phase(id="j", phase="collecting")]
        with socket.create_server(("127.0.0.1", 0)) as ours:
            port = str(ours.getsockname()[1])
            for address in ("127.0.0.1", "192.0.2.1"):
                seen = await node.run("python3", "-c", connect, address, port)
                assert re.search(rb"refused|unreachable", seen.output["stderr"])

    check(test)


def test_s2_30_a_greedy_job_is_ended_and_others_are_not(check: Check) -> None:
    greedy = {
        Reason.MEMORY: ("python3", "-c", "x = bytearray(1 << 30)\nfor i in range(0, 1 << 30, 4096): x[i] = 1"),
        Reason.DISK: ("dd", "if=/dev/zero", "of=big", "bs=1M", "count=64"),
        Reason.PROCESSES: ("python3", "-c", "import os, signal\nwhile True: os.fork() or signal.pause()"),
        Reason.CPU: ("sh", "-c", "while :; do :; done"),
    }
    limits = {"memory": "128Mi", "disk": "16Mi", "processes": 32, "cpu_time": 0.5, "timeout": 60}

    async def test(node: Jobber) -> None:
        both = [node.run(*argv, limits=limits) for argv in greedy.values()]
        both += [node.run("sh", "-c", "echo done > output/f", limits=limits) for _ in greedy]
        seen = await asyncio.gather(*both)
        ended = [each.ended for each in seen[: len(greedy)]]
        assert not any(each.ok for each in ended)
        if not ended[0].isolation.approximate:  # otherwise a refused allocation is the program's own error
            assert [each.reason for each in ended] == list(greedy)
        assert [each.files for each in seen[len(greedy) :]] == [{"output/f": b"done\n"}] * len(greedy)

    check(test)


BASE: Final = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
INSTALL: Final = """
for tool in "apt-get -y install hello" "dpkg --unpack /work/input/x.deb"; do
    command -v ${tool%% *} > /dev/null && $tool > /dev/null 2>&1 && echo "$tool works"
done
for file in $(find /usr/bin /usr/sbin -perm /6000 -type f); do
    case $(head -c 4 $file | tail -c 3) in ELF) LD_SHOW_AUXV=1 timeout -s KILL 0.5 $file --help 2>/dev/null;; esac
done | grep -aE '^AT_(SECURE|E?[UG]ID)' | sort -u
grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
"""


def test_s2_33_s2_46_what_the_base_has_gives_no_rights_and_installs_nothing(check: Check) -> None:
    async def test(node: Jobber) -> None:
        seen = await node.run("sh", "-c", INSTALL, files={"input/x.deb": b"!<arch>\n"})
        found = {"".join(line.split()) for line in seen.output["stdout"].decode().splitlines()}
        allowed = {"AT_SECURE:0", "AT_UID:1000", "AT_EUID:1000", "AT_GID:1000", "AT_EGID:1000"}
        rights = {"CapEff:0000000000000000", "CapBnd:0000000000000000", "NoNewPrivs:1"}
        assert rights <= found <= allowed | rights
        top = set((await node.run("ls", "-A", "/")).output["stdout"].decode().split())
        assert top <= BASE | {"code", "dev", "etc", "home", "mnt", "opt", "proc", "run", "tmp", "var", "work"}

    check(test)
