"""From a declaration and code to a command, files and a channel, and back from a reply to an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import limits
from casemate.engine.execution import Outcome
from casemate.engine.program import Program, make_program
from casemate.engine.results import Answer, read_answer
from casemate.engine.supervise import Counted
from casemate.errors import InvalidInput
from casemate.model.result import GuestError, Reason, Stream
from casemate.model.runtime import Channel, Runtime
from casemate.model.spec import RESERVED_NAMES
from casemate.model.values import FRAME_HEAD, frame
from casemate.runtimes.interpreter import Interpreter

NOTHING = Stream()
INTERPRETER = Interpreter(host_path="/usr/bin/tool", path="/usr/bin/tool")
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=20)
FILE_NAMES = TEXTS.filter(lambda name: name not in RESERVED_NAMES)


def runtime(channel: Channel, **more: Any) -> Runtime:
    words = ("{interpreter}", "-x", "{guest}/tool.x", "{harness}", "{code}", "{unknown}", "a{code}b")
    return Runtime(**{"interpreter": ("tool",), "command": words, "channel": channel, **more})


def program_of(declared: Runtime, **changes: Any) -> Program:
    given_: dict[str, Any] = {
        "code": "the code",
        "filename": "main.x",
        "arguments": ("one", "two"),
        "environment": {"HOME": "/home/guest"},
        "value": None,
        "stdin": None,
    }
    return make_program(declared, INTERPRETER, **{**given_, **changes})


def request_of(program: Program) -> dict[str, Any]:
    message = program.command.request
    assert message is not None
    assert FRAME_HEAD.unpack_from(message) == (len(message) - FRAME_HEAD.size,)
    decoded: dict[str, Any] = json.loads(message[FRAME_HEAD.size :])
    return decoded


def outcome(
    reply: bytes = b"",
    *,
    overflow: bool = False,
    stopped: Reason | None = None,
    wait_status: int = 0,
    stderr: Stream = NOTHING,
) -> Outcome:
    return Outcome(
        stopped=stopped,
        wait_status=wait_status,
        exec_errno=0,
        stdout=Stream(),
        stderr=stderr,
        reply=reply,
        reply_overflow=overflow,
        wall_s=0.0,
        counted=Counted(),
    )


def test_words_of_a_command_are_filled_in_and_unknown_ones_stay() -> None:
    argv = program_of(runtime(Channel.TEXT)).command.argv
    assert argv == (
        *("/usr/bin/tool", "-x", "/opt/casemate/guest/tool.x", "/code/.harness", "/code/main.x", "{unknown}"),
        *("a/code/main.xb", "one", "two"),
    )


@given(FILE_NAMES | st.sampled_from(["{harness}", "{interpreter}", "{code}", "\\1", "a b"]))
def test_a_file_name_is_never_read_as_a_placeholder(filename: str) -> None:
    program = program_of(runtime(Channel.TEXT), filename=filename)
    assert program.command.argv[4] == f"/code/{filename}"
    assert str(program.files[0].path) == f"/code/{filename}"


def test_an_input_that_nobody_could_read_is_refused() -> None:
    with pytest.raises(InvalidInput, match="input: this runtime takes none"):
        program_of(runtime(Channel.NONE), value=b"null")


def test_with_frames_all_goes_in_the_request_and_no_file_is_needed() -> None:
    program = program_of(runtime(Channel.FRAMES), value=b'{"a": [1]}')
    assert program.files == ()
    assert request_of(program) == {
        "code": "the code",
        "filename": "main.x",
        "args": ["one", "two"],
        "env": {},
        "live": False,
        "has_input": True,
        "input": {"a": [1]},
    }
    assert "two" not in program.command.argv


@given(TEXTS, st.lists(TEXTS), st.none() | st.integers() | st.lists(TEXTS))
def test_a_request_says_what_it_was_given(code: str, arguments: list[str], value: Any) -> None:
    encoded = None if value is None else json.dumps(value).encode()
    said = request_of(program_of(runtime(Channel.FRAMES), code=code, arguments=tuple(arguments), value=encoded))
    assert (said["code"], said["args"], said["input"]) == (code, arguments, value)
    assert said["has_input"] == (value is not None)


def test_the_input_null_is_an_input() -> None:
    said = request_of(program_of(runtime(Channel.FRAMES), value=b"null"))
    assert (said["has_input"], said["input"]) == (True, None)


def test_with_text_the_code_is_a_file_and_the_input_is_on_a_pipe_of_its_own() -> None:
    program = program_of(runtime(Channel.TEXT), value=b"[1]")
    assert [(str(file.path), file.data) for file in program.files] == [("/code/main.x", b"the code")]
    assert program.command.request == b"[1]"
    assert program.command.environment["CASEMATE_INPUT"] == "/dev/fd/3"
    assert program.command.environment["CASEMATE_OUTPUT"] == "/dev/fd/4"


def test_with_text_no_input_is_an_empty_pipe_and_no_variable() -> None:
    program = program_of(runtime(Channel.TEXT))
    assert program.command.request == b""
    assert "CASEMATE_INPUT" not in program.command.environment


def test_without_a_channel_there_is_only_the_file() -> None:
    program = program_of(runtime(Channel.NONE))
    assert program.command.request is None
    assert set(program.command.environment) == {"HOME"}
    assert read_answer(program, outcome(b"ignored")) == Answer()


def test_a_declared_harness_lies_beside_the_code_and_its_environment_is_set() -> None:
    program = program_of(runtime(Channel.TEXT, harness="the harness", harness_environment={"MODE": "x"}))
    assert {str(file.path): file.data for file in program.files} == {
        "/code/.harness": b"the harness",
        "/code/main.x": b"the code",
    }
    assert program.command.environment["MODE"] == "x"


# Answers ------------------------------------------------------------------------------------------

FRAMES = program_of(runtime(Channel.FRAMES, memory_errors=("OutOfMemory",)))
TEXT = program_of(runtime(Channel.TEXT))
ERROR = {"type": "TypeError", "message": "no", "traceback": "at 1"}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ({"kind": "value", "output": [1]}, Answer(output=[1])),
        ({"kind": "none"}, Answer()),
        ({"kind": "exception", "error": ERROR}, Answer(error=GuestError(**ERROR))),
        ({"kind": "invalid", "error": ERROR}, Answer(error=GuestError(**ERROR), invalid=True)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_replies_become_answers(reply: dict[str, Any], answer: Answer) -> None:
    assert read_answer(FRAMES, outcome(frame(reply))) == answer


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (GuestError(type="OutOfMemory", message=""), True),
        (GuestError(type="Error", message="OutOfMemory: 10 bytes"), True),
        (GuestError(type="Error", message="no OutOfMemory"), False),
    ],
)
def test_an_error_tells_of_refused_memory(error: GuestError, told: bool) -> None:
    ended = outcome(frame({"kind": "exception", "error": error}), wait_status=256)
    assert read_answer(FRAMES, ended).out_of_memory == told


@pytest.mark.parametrize(
    ("stderr", "told"),
    [
        (Stream(head=b"x: OutOfMemory, sorry\n"), True),
        (Stream(head=b"OutOfMemory", tail=b"something else"), False),
        (Stream(head=b"OutOfMemory" + bytes(limits.LAST_WORDS_BYTES)), False),
        (Stream(), False),
    ],
)
def test_a_program_without_an_error_tells_of_refused_memory_with_its_last_words(stderr: Stream, told: bool) -> None:
    assert read_answer(FRAMES, outcome(wait_status=6, stderr=stderr)).out_of_memory == told
    assert not read_answer(FRAMES, outcome(wait_status=0, stderr=stderr)).out_of_memory


@given(st.binary(max_size=60), st.sampled_from([None, Reason.TIMEOUT]))
def test_any_reply_becomes_an_answer(reply: bytes, stopped: Reason | None) -> None:
    for program in (FRAMES, TEXT):
        answer = read_answer(program, outcome(reply, stopped=stopped))
        assert isinstance(answer, Answer)
        assert not (stopped and answer.problem)


@pytest.mark.parametrize("program", [FRAMES, TEXT])
def test_an_output_over_the_bound_is_invalid(program: Program) -> None:
    answer = read_answer(program, outcome(b"x" * 10, overflow=True))
    assert answer.invalid
    assert "larger than" in answer.problem


def test_half_a_reply_is_a_problem_unless_we_ended_the_program_ourselves() -> None:
    half = frame({"kind": "none"})[:-1]
    assert read_answer(FRAMES, outcome(half)).problem == "incomplete"
    assert read_answer(FRAMES, outcome(half, stopped=Reason.TIMEOUT)) == Answer()
