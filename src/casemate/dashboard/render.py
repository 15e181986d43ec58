"""How values look on a page. Whatever a program has said is text there: escaped, bounded, and nothing in it acts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape

from casemate.dashboard.assets import Assets
from casemate.service_limits import GIB, KIB, MIB, PAGE_LABEL_MAX_CHARS, PAGE_TEXT_MAX_CHARS

TEMPLATES: Final = Path(__file__).parent / "templates"
NOT_KNOWN: Final = "\N{EN DASH}"
_ASCII: Final = 0x80
_CARET: Final = 0x40
"""From a control character to the letter that terminals show for it: `^[` is Escape."""

_UNSEEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""What would move the cursor, hide something, or turn the direction of reading."""

_MILLISECOND_S: Final = 0.001
_SECOND_S: Final = 1.0
_MINUTE_S: Final = 60.0
_TREND_WIDTH: Final = 112
_TREND_HEIGHT: Final = 24
_LINE_POINTS_MIN: Final = 2


def visible(text: object, chars_max: int = PAGE_TEXT_MAX_CHARS) -> str:
    """A text of which every character can be seen; its middle is left out where it is too long."""
    found = "" if text is None else str(text)
    if len(found) > chars_max:
        half = chars_max // 2
        found = f"{found[:half]}\n… {len(found) - 2 * half} characters are left out here …\n{found[-half:]}"
    return _UNSEEN.sub(_sign, found.replace("\r\n", "\n"))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"^{chr(code ^ _CARET)}" if code < _ASCII else f"[U+{code:04X}]"


def label(text: object) -> str:
    """A short text, in one line."""
    found = visible(text, PAGE_LABEL_MAX_CHARS + 1).replace("\n", "␊")
    return found if len(found) <= PAGE_LABEL_MAX_CHARS else f"{found[:PAGE_LABEL_MAX_CHARS]}…"


def as_json(value: object) -> str:
    """A value for people to read."""
    return visible(json.dumps(value, indent=2, ensure_ascii=False))


def seconds(value: float | None) -> str:
    """A duration in the unit that fits."""
    if value is None:
        return NOT_KNOWN
    if value < _MILLISECOND_S:
        return f"{value * 1_000_000:.0f} µs"
    if value < _SECOND_S:
        return f"{value * 1000:.3g} ms"
    if value < _MINUTE_S:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def microseconds(value: float | None) -> str:
    """The same of microseconds."""
    return seconds(None if value is None else value / 1_000_000)


def size(value: float | None) -> str:
    """Bytes in the unit that fits; an unknown size is a dash."""
    if value is None:
        return NOT_KNOWN
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{int(value)} B"


def moment(value: str | None) -> str:
    """A time of the API's without its fraction."""
    return NOT_KNOWN if not value else value[:19].replace("T", " ")


def lasted(document: Mapping[str, Any]) -> float | None:
    """How long an execution took, from its acceptance on, as far as that is known."""
    began, ended = document.get("started_at") or document.get("created_at"), document.get("ended_at")
    if not began or not ended:
        return None
    return max(0.0, (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds())


def trend(moments: Sequence[Mapping[str, Any]]) -> Markup:
    """What something held over time, as a small line; nothing where that is not known."""
    values = [int(each.get("memory_bytes") or 0) for each in moments]
    if len(values) < _LINE_POINTS_MIN:
        return escape(NOT_KNOWN)
    low, high = min(values), max(values)
    step, height = _TREND_WIDTH / (len(values) - 1), max(1, high - low)
    points = " ".join(
        f"{number * step:.1f},{_TREND_HEIGHT - 2 - (value - low) / height * (_TREND_HEIGHT - 4):.1f}"
        for number, value in enumerate(values)
    )
    return Markup(
        '<svg class="trend" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{} to {}">'
        '<polyline points="{}"/></svg>'
    ).format(_TREND_WIDTH, _TREND_HEIGHT, size(low), size(high), points)


def environment(assets: Assets) -> jinja2.Environment:
    """The templates, with everything escaped that they are given."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "visible": visible,
        "label": label,
        "as_json": as_json,
        "seconds": seconds,
        "microseconds": microseconds,
        "size": size,
        "moment": moment,
    }
    found.globals |= {"asset": assets.address, "lasted": lasted, "trend": trend}
    return found
