"""The simple commands in a text for a POSIX shell, as far as can be seen without running it. Pure.

It serves to find what somebody did not mean to write, and to say so in time. Whoever wants to hide a command from it
can; what a command may do is bounded by the sandbox, not by this.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Final, NamedTuple

SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
_SEPARATORS: Final = ";&|()\n`{}"
_BLANKS: Final = " \t\r"
_INNER: Final = re.compile(r"\$\(|`")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*\+?=.*", re.DOTALL)
_KEYWORDS: Final = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "time", "in"})
_META: Final = frozenset(";&|<>()$`\n*?[]{}~#!")
_ESCAPED_IN_QUOTES: Final = frozenset('"\\$`')
DEPTH_MAX: Final = 4
"""Of texts for a shell within others."""


class Simple(NamedTuple):
    """One simple command: its words, where it is redirected to, and whether it reads from the one before it."""

    words: tuple[str, ...]
    targets: tuple[str, ...] = ()
    is_piped: bool = False


def commands_of(text: str, depth: int = 0) -> Iterator[Simple]:
    """The simple commands in the order of the text, those of inner texts after the one they are within."""
    for found in _grouped(_tokens(text)):
        yield found
        if depth < DEPTH_MAX:
            for inner in _inner_texts(found.words):
                yield from commands_of(inner, depth + 1)


def program_of(word: str) -> str:
    """The name of a program, whatever directory it is asked for in."""
    return word.rpartition("/")[2]


def script_of(words: tuple[str, ...]) -> str | None:
    """The text that a command hands to a shell with `-c`, if it does that."""
    if not words or program_of(words[0]) not in SHELLS:
        return None
    for at, word in enumerate(words[1:-1], start=1):
        if word.startswith("-") and not word.startswith("--") and "c" in word:
            return words[at + 1]
    return None


def _inner_texts(words: tuple[str, ...]) -> Iterator[str]:
    script = script_of(words)
    if script is not None:
        yield script
    for word in words:
        if word != script and _INNER.search(word):
            yield word


def _tokens(text: str) -> list[str]:
    """Words without their quotes, and runs of what separates them. What cannot be read so is cut at every sign."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=_SEPARATORS + "<>")
    lexer.whitespace = _BLANKS
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        return [each for each in re.split(r"([;&|()\n`{}<>]+)|[ \t\r'\"]+", text) if each]


def _grouped(tokens: list[str]) -> Iterator[Simple]:
    words: list[str] = []
    targets: list[str] = []
    is_piped = goes_to = False
    for each in tokens:
        if each and set(each) <= set(_SEPARATORS + "<>"):
            goes_to = bool({"<", ">"} & set(each))
            if not goes_to:
                if words or targets:
                    yield Simple(_bare(words), tuple(targets), is_piped)
                words, targets, is_piped = [], [], each[0] == "|" and each[:2] != "||"
        elif goes_to:
            targets.append(each)
            goes_to = False
        else:
            words.append(each)
    if words or targets:
        yield Simple(_bare(words), tuple(targets), is_piped)


def _bare(words: list[str]) -> tuple[str, ...]:
    """Without the variables that are set for it, and the words of the shell that stand before it."""
    for at, word in enumerate(words):
        if word not in _KEYWORDS and not _ASSIGNMENT.fullmatch(word) and word != "$":
            return tuple(words[at:])
    return ()


def unquoted_signs(text: str) -> str:
    """The first word in which something stands unquoted that would mean something to a shell; empty if there is none.

    Of what follows `$`, `*` and the like nothing is tried: a shell may do something with them, and that is enough.
    """
    start, at, quote = 0, 0, ""
    while at < len(text):
        char = text[at]
        if char == "\\" and (not quote or (quote == '"' and text[at + 1 : at + 2] in _ESCAPED_IN_QUOTES)):
            at += 1
        elif quote:
            if quote == '"' and char in "$`":
                return _word_at(text, start)
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _META:
            return _word_at(text, start)
        elif char.isspace():
            start = at + 1
        at += 1
    return ""


def _word_at(text: str, start: int) -> str:
    return text[start:].split(maxsplit=1)[0] if text[start:].strip() else "newline"
