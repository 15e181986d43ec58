"""Makes docs/reference/api.md: every operation of the service, from the document that it serves itself.

python tools/api_reference.py            write the page
python tools/api_reference.py --check    exit with 1 if the page is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from casemate.api.app import openapi_document

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "api.md"
HEAD: Final = """# HTTP API

Every operation of the [service](../guides/service.md). The service itself serves all of this with every field, as
OpenAPI, at `/openapi.json`; tests hold its answers to that document. [Tenants and keys](../guides/tenants.md) says
which scopes there are, [functions in a service](../guides/service-functions.md) how functions are published and called.

Keys go with each request, as `Authorization: Bearer cm_…`. Every error is one JSON object of the type
`application/problem+json`, with `code`, `message`, `hint`, `field` where one is wrong, and `request_id`; the codes are
those of the [errors](python.md#errors). What is another tenant's is not there: 404. A POST with an `Idempotency-Key` is
done once for its API key, however often it is sent within a day; answers that hold a secret are not kept. Parameters
and fields that are unknown are refused. Lists have `limit` and `cursor`, and answer with `next_cursor`.

This page is made by `tools/api_reference.py`.
"""


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    parts = [HEAD]
    for tag in dict.fromkeys(operation["tags"][0] for _, _, operation in _operations(document)):
        parts += [f"## {tag.capitalize()}\n", "| operation | what it does | takes | answers |", "|---|---|---|---|"]
        parts += [_row(*each) for each in _operations(document) if each[2]["tags"][0] == tag]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _row(method: str, path: str, operation: dict[str, Any]) -> str:
    what = f"{operation['summary']}. {_first_paragraph(operation.get('description', ''))}".strip()
    taken = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
    body = _schema(operation.get("requestBody", {}))
    takes = ", ".join([*([body] if body else []), *(f"`{name}`" for name in taken)])
    good = [status for status in operation["responses"] if status < "300"]
    answers = " ".join(filter(None, [", ".join(good), _schema(operation["responses"][good[0]])]))
    return f"| `{method} {path}` | {what} | {takes} | {answers} |"


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split()).replace("|", "\\|")


def _schema(holder: dict[str, Any]) -> str:
    for content in holder.get("content", {}).values():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name:
            return f"`{name}`"
    return ""


def main(arguments: list[str]) -> int:
    """Write the page, or check it; the exit status."""
    text = page(openapi_document())
    if arguments == ["--check"]:
        return int(not PAGE.exists() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
