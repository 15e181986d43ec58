"""Lines of jobs' logs: cut, levelled, found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import InvalidInput, RecordsDamaged
from casemate.job_limits import LOG_LINE_MAX_BYTES
from casemate.jobs.log_lines import Cut, Splitter
from casemate.jobs.log_pieces import packed, size_of, unpacked, words_in
from casemate.jobs.log_rules import LogRules
from casemate.model.job_log import JobLine, asked_words, has_words, line_of, said_level, words_of


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"\n", b"a\nb", "é✓𝄞".encode(), b"x" * 20_000])))
def test_lines_are_what_came_however_it_was_cut(pieces: list[bytes]) -> None:
    splitter = Splitter()
    cuts: list[Cut] = []
    offset = 0
    for piece in pieces:
        cuts += splitter.feed(piece, offset)
        offset += len(piece)
    cuts += splitter.release(whole=True)
    assert b"".join(cut.data + (b"" if cut.partial else b"\n") for cut in cuts) == b"".join(pieces)
    assert [cut.offset for cut in cuts] == sorted(cut.offset for cut in cuts)
    assert all(len(cut.data) <= LOG_LINE_MAX_BYTES and not cut.left_out for cut in cuts)


@given(st.text(max_size=200), st.integers(0, 50), st.integers(1, 30))
def test_whoever_looks_for_the_beginnings_of_words_finds_the_line(text: str, at: int, length: int) -> None:
    words = sorted(words_of(text))
    if words:
        wanted = asked_words(words[at % len(words)][:length])
        assert has_words(f"before {text} after", wanted)
        assert has_words(text, wanted)


def test_colours_do_not_hide_words_and_levels() -> None:
    assert words_of("\x1b[1;31merror\x1b[0m: dïsk_9") == {"error", "dïsk_9"}
    assert said_level("\x1b[33mWARN\x1b[0m slow") == "warning"


@pytest.mark.parametrize(
    ("text", "stream", "level"),
    [
        ("2030-01-01 ERROR it broke", "stdout", "error"),
        ("[info] well", "stderr", "info"),
        ('{"msg": "x", "level": "WARN"}', "stdout", "warning"),
        ('{"msg": "error"}', "stdout", "info"),
        ("no errors at all", "stdout", "info"),
        ("error.log was opened", "stdout", "info"),
        ("Traceback", "stderr", "error"),
        ("x" * 80 + " error", "stdout", "info"),
        ("DEBUG: 1", "stderr", "debug"),
    ],
)
def test_a_line_has_the_level_that_it_says(text: str, stream: str, level: str) -> None:
    line = line_of(text.encode(), seq=1, attempt=1, stream=stream, at_us=0, offset=0, partial=False)
    assert line.level == level


@given(st.lists(st.binary(max_size=100)), st.booleans())
def test_pieces_are_unpacked_as_they_were_packed(texts: list[bytes], partial: bool) -> None:
    lines = [
        line_of(text, seq=at, attempt=1, stream="stdout", at_us=at, offset=0, partial=partial)
        for at, text in enumerate(texts)
    ]
    assert unpacked(packed(lines)) == unpacked(packed(lines, is_final=True)) == lines
    assert size_of(lines) == sum(len(text) + (not partial) for text in texts)
    assert words_in(lines) == {word for line in lines for word in words_of(line.readable)}


@pytest.mark.parametrize("data", [b"", b"x", packed([])[:-3], packed([])[:8] + b"\xff" * 20])
def test_a_damaged_piece_is_refused(data: bytes) -> None:
    with pytest.raises(RecordsDamaged):
        unpacked(data)


def test_a_piece_that_is_not_ours_is_refused() -> None:
    line = JobLine(seq=1, attempt=1, stream="stdout", at_us=0, offset=0, text="x")
    import gzip

    with pytest.raises(RecordsDamaged):
        unpacked(gzip.compress(b'{"seq": "1"}\n'))
    assert unpacked(packed([line])) == [line]


@pytest.mark.parametrize("text", ["", "***", " ".join(f"w{number}" for number in range(17))])
def test_what_nobody_can_look_for_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="text"):
        asked_words(text)


def test_s2_66_rules_for_a_runtime_come_before_those_for_a_kind() -> None:
    rules = LogRules(days=7, of={"python": 30, "code": 14, "scheduled": 3})
    assert rules.kept_days("python", "code") == 30
    assert rules.kept_days("node", "code") == 14
    assert rules.kept_days("", "scheduled") == 3
    assert rules.kept_days("", "command") == 7
