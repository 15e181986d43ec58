"""The pages of the documentation, and their blocks of code as a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
GAP = "…"


class Block(NamedTuple):
    """A fenced block: where it begins, its language, its other words (`file=…`), its text."""

    line: int
    language: str
    options: dict[str, str]
    text: str


def pages() -> list[Path]:
    """All pages, the README first."""
    top = sorted(ROOT.glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


def name(path: Path) -> str:
    """A page's path in the project, for the names of tests."""
    return str(path.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page in their order. A fence that is not closed fails."""
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    for number, line in lines:
        opening = FENCE.match(line)
        if opening is None:
            continue
        inner: list[str] = []
        for _, content in lines:
            if content.strip() == "```":
                break
            inner.append(content.removeprefix(opening["indent"]))
        else:
            raise AssertionError(f"{name(page)}:{number}: the block is not closed")
        language, *words = opening["info"].split() or [""]
        options = dict(word.partition("=")[::2] for word in words)
        yield Block(number, language, options, "".join(f"{each}\n" for each in inner))


def prose(page: Path) -> str:
    """A page without its blocks of code; the lines keep their numbers."""
    inside = False
    kept = []
    for line in page.read_text().splitlines():
        fence = FENCE.match(line) is not None
        kept.append("" if inside or fence else line)
        inside = inside != fence
    return "\n".join(kept)


def tables(page: Path) -> Iterator[list[list[str]]]:
    """The tables of a page, each as rows of cells, the head first."""
    rows: list[list[str]] = []
    for line in [*prose(page).splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows:
            yield [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
            rows = []


def code_spans(text: str) -> set[str]:
    """What stands between single backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))


def agrees(shown: str, output: str) -> bool:
    """Whether an output is what a page shows; `…` alone in a line stands for any lines, within one for anything."""
    pattern = ""
    for line in shown.rstrip().splitlines():
        text = re.escape(line.rstrip()).replace(GAP, ".*?")
        pattern += r"(?:.*\n)*?" if line.strip() == GAP else text + r"\n"
    lines = "".join(f"{line.rstrip()}\n" for line in output.rstrip().splitlines())
    return re.fullmatch(pattern, lines) is not None
