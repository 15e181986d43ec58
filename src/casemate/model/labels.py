"""Labels: what tenants call their things, to find them again."""

from __future__ import annotations

from collections.abc import Mapping

from casemate.errors import InvalidInput
from casemate.service_limits import LABEL_MAX_CHARS, LABELS_MAX


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise InvalidInput for more labels, or longer ones, than the records take."""
    if len(labels) > LABELS_MAX:
        raise InvalidInput("labels", f"are more than {LABELS_MAX}")
    for name, value in labels.items():
        if not name or max(len(name), len(value)) > LABEL_MAX_CHARS:
            problem = f"has no name, or more than {LABEL_MAX_CHARS} characters in its name or value"
            raise InvalidInput(f"labels.{name[:LABEL_MAX_CHARS]}", problem)
