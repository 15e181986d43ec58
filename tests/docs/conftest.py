"""What the pages show is shown to nobody's own package sets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from casemate.config import DATA_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def own_data_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA_VARIABLE, str(tmp_path_factory.mktemp("data")))
        yield
