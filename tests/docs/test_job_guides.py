"""The guides name every scope of a key and every field of a job."""

from __future__ import annotations

import pytest
from tests.docs.pages import ROOT, code_spans, tables

from casemate.api.job_models import JobIn
from casemate.tenancy.scopes import SCOPES

GUIDES = ROOT / "docs" / "guides"


def first_cells(page: str, head: str) -> set[str]:
    found = next(rows[1:] for rows in tables(GUIDES / page) if rows[0][0] == head)
    return {word for row in found for word in code_spans(row[0])}


@pytest.mark.parametrize("scope", SCOPES)
def test_every_scope_is_in_the_guide_to_tenants(scope: str) -> None:
    assert scope in first_cells("tenants.md", "Scope")


@pytest.mark.parametrize("field", sorted(set(JobIn.model_fields) - {"image"}))
def test_every_field_of_a_job_is_in_the_guide_to_http(field: str) -> None:
    """But `image`, which has one value."""
    assert field in first_cells("http.md", "field")
