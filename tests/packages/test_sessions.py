"""Figures and data frames of the real libraries, in an interpreter that stays and in copies of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import casemate
from casemate.config import load_config

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
BUILD_LIMIT_S = 280

pytestmark = [pytest.mark.slow, pytest.mark.timeout(BUILD_LIMIT_S)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[casemate.Engine]:
    """An engine with one set, from the index of this machine's pip."""
    ours = load_config()
    places = msgspec.structs.replace(ours.engine, data_directory=str(tmp_path_factory.mktemp("data")))
    with casemate.Engine(msgspec.structs.replace(ours, engine=places)) as opened:
        casemate.Sets(opened).build("science", ["matplotlib", "pandas"])
        yield opened


@pytest.fixture
def session(engine: casemate.Engine) -> Iterator[casemate.Sandbox]:
    limits = {"memory": "2Gi", "timeout": "60s"}
    with casemate.Sandbox("science", stateful=True, engine=engine, limits=limits) as opened:
        yield opened


def displays(result: casemate.Result) -> Any:
    assert result.ok, (result.reason, result.error)
    return result.displays


def everyone(session: casemate.Sandbox, copies: list[casemate.Fork]) -> list[casemate.Sandbox | casemate.Fork]:
    return [session, *copies]


def test_open_figures_are_shown_as_png_and_svg_and_closed(session: casemate.Sandbox) -> None:
    code = """
import matplotlib.pyplot as plt
plt.plot([1, 2, 3])
plt.title("first")
plt.show()
plt.figure()
plt.bar([1, 2], [3, 4])
None
"""
    result = session.run(code)
    assert result.stderr.text == ""
    found = displays(result)
    assert [each.kind for each in found] == ["figure", "figure"]
    for each in found:
        assert each.png.startswith(PNG_HEAD)
        width, height = struct.unpack_from(">II", each.png, 16)
        assert width > 100
        assert height > 100
        assert each.svg.lstrip().startswith("<?xml")
        assert "<svg" in each.svg
    assert session.run("plt.get_fignums()").displays[0].json == []


def test_a_figure_that_is_a_value_is_shown_once(session: casemate.Sandbox) -> None:
    found = displays(session.run("import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\nfigure"))
    assert [(each.kind, each.png is not None) for each in found] == [("result", True)]


def test_figures_are_shown_also_when_the_code_fails(session: casemate.Sandbox) -> None:
    result = session.run("import matplotlib.pyplot as plt\nplt.plot([1])\n1 / 0")
    assert result.reason is casemate.Reason.EXCEPTION
    assert [each.kind for each in result.displays] == ["figure"]


def test_a_data_frame_is_shown_as_text_html_and_json(session: casemate.Sandbox) -> None:
    code = (
        "import pandas as pd\nframe = pd.DataFrame({'name': ['a', None], 'n': [1, 2], 'x': [0.5, float('nan')]})\nframe"
    )
    (found,) = displays(session.run(code))
    assert "name" in found.text
    assert found.html.lstrip().startswith("<div")
    assert "<table" in found.html
    assert found.json == {"name": ["a", None], "n": [1, 2], "x": [0.5, None]}


def test_of_a_large_frame_no_part_passes_for_the_whole(session: casemate.Sandbox) -> None:
    (found,) = displays(session.run("import pandas as pd\npd.DataFrame({'n': range(10**6)})"))
    assert found.json is None
    assert "1000000 rows" in found.html


def test_random_states_of_numpy_differ_between_copies(session: casemate.Sandbox) -> None:
    session.run("import numpy as np\nnp.random.seed(1)\ndata = np.ones(10**6)")
    copies = session.fork(3)
    found = [displays(each.run("float(np.random.random())"))[0].json for each in everyone(session, copies)]
    assert len(set(found)) == 4
    assert [displays(each.run("float(data.sum())"))[0].json for each in copies] == [1e6] * 3
