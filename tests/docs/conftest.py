"""What the pages show is shown to nobody's own package sets, and to a service of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from casemate.config import DATA_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def own_data_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA_VARIABLE, str(tmp_path_factory.mktemp("data")))
        yield


SERVICE_END_S = 30


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A service that has just been started for the first time: its address and the operator's key."""
    data = tmp_path_factory.mktemp("service") / "data"
    command = [sys.executable, "-m", "casemate", "serve", "--data", str(data), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            yield _announced(process.stderr)
        finally:
            process.terminate()
            process.communicate(timeout=SERVICE_END_S)


def _announced(lines: Iterator[str]) -> dict[str, str]:
    said = []
    key = ""
    for line in lines:
        said.append(line)
        key = line.split()[-1] if "operator's key" in line else key
        if "ready on " in line:
            return {"CASEMATE_URL": line.split()[-1], "CASEMATE_KEY": key}
    raise AssertionError("the service does not start:\n" + "".join(said))
