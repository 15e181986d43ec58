"""The demo as a user sees it: real macros over real measurements, each in a sandbox, and hostile ones stopped."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import casemate
from casemate.config import DATA_VARIABLE

DEMO = Path(__file__).parents[2] / "demo"
LANGUAGES = {"python": ".py", "javascript": ".js", "r": ".R"}
LIMIT_S = 280
GROUPS = {("Mississippi", "chilled"), ("Mississippi", "nonchilled"), ("Quebec", "chilled"), ("Quebec", "nonchilled")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The demo, run once as `make demo` does on a fresh machine, with its results written where it always does."""
    return subprocess.run(
        [sys.executable, DEMO / "demo.py"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        cwd=DEMO.parent,
        env={**os.environ, DATA_VARIABLE: str(tmp_path_factory.mktemp("data"))},
    )


@pytest.fixture(scope="module")
def results(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (finished.returncode, finished.stderr) == (0, "")
    found: dict[str, Any] = json.loads((DEMO / "out" / "results.json").read_text())
    return found


@pytest.fixture(scope="module")
def engine() -> Iterator[casemate.Engine]:
    with casemate.Engine(warm=False) as opened:
        yield opened


def test_it_ends_well_and_shows_every_plant(finished: subprocess.CompletedProcess[str]) -> None:
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    for plant in ("Qn1", "Qn2", "Qn3", "Qc1", "Qc2", "Qc3", "Mn1", "Mn2", "Mn3", "Mc1", "Mc2", "Mc3"):
        assert sum(line.strip().startswith(plant) for line in lines) == 1


def test_the_data_are_the_measurements_of_r(results: dict[str, Any]) -> None:
    plants = results["plants"]
    assert len(plants) == 12
    assert sum(len(plant["uptake"]) for plant in plants) == 84
    assert {plant["treatment"] for plant in plants} == {"chilled", "nonchilled"}
    assert plants[0] == {
        **plants[0],
        "plant": "Qn1",
        "type": "Quebec",
        "uptake": [16, 30.4, 34.8, 37.2, 35.3, 39.2, 39.7],
    }


def test_the_languages_agree_on_every_plant(results: dict[str, Any]) -> None:
    for plant in results["plants"]:
        assert set(plant["fits"]) == set(LANGUAGES)
        first, *others = plant["fits"].values()
        assert first["maximum"] == max(plant["uptake"])
        for other in others:
            assert other == pytest.approx(first, rel=1e-9)


def test_the_fit_is_the_best_there_is(results: dict[str, Any]) -> None:
    def error(plant: dict[str, Any], vmax: float, k: float) -> float:
        pairs = zip(plant["conc"], plant["uptake"], strict=True)
        return math.fsum((uptake - vmax * conc / (k + conc)) ** 2 for conc, uptake in pairs)

    for plant in results["plants"]:
        vmax, k = plant["fits"]["python"]["vmax"], plant["fits"]["python"]["k"]
        least = error(plant, vmax, k)
        for a, b in ((1.001, 1), (0.999, 1), (1, 1.001), (1, 0.999), (1.001, 1.001), (0.999, 0.999)):
            assert error(plant, vmax * a, k * b) > least


def test_chilled_plants_take_up_less(results: dict[str, Any]) -> None:
    for answer in results["treatments"].values():
        assert answer["chilled"]["plants"] == answer["nonchilled"]["plants"] == 6
        assert answer["chilled"]["mean_uptake"] == pytest.approx(23.7833, abs=1e-4)
        assert answer["nonchilled"]["mean_uptake"] == pytest.approx(30.6429, abs=1e-4)


def test_packages_are_installed_and_used(finished: subprocess.CompletedProcess[str], results: dict[str, Any]) -> None:
    assert "Installing numpy, scipy, pandas as the package set 'science'" in finished.stdout
    population = results["population"]
    assert population["set"]["built_s"] > 0
    assert {(group["type"], group["treatment"]) for group in population["output"]["groups"]} == GROUPS
    assert population["output"]["chilling"]["Mississippi"]["p"] < 0.05 < population["output"]["chilling"]["Quebec"]["p"]
    assert population["largest_relative_difference"] < 1e-6


def test_every_run_had_a_sandbox_of_its_own_and_is_timed(results: dict[str, Any]) -> None:
    assert "seccomp" in results["isolation"]["layers"]
    for timing in results["timings"].values():
        assert timing["runs"] == 13
        assert 0 < timing["program_median_s"] < timing["request_to_result_median_s"]


def test_hostile_macros_are_stopped(results: dict[str, Any]) -> None:
    assert [(macro["macro"], macro["reason"]) for macro in results["hostile"]] == [
        ("read_shadow.py", "exception"),
        ("endless.js", "timeout"),
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_macro_runs_alone(engine: casemate.Engine, language: str) -> None:
    code = (DEMO / "macros" / f"saturation{LANGUAGES[language]}").read_text()
    conc = [50.0, 100.0, 200.0, 400.0, 800.0]
    plant = {"conc": conc, "uptake": [40 * each / (150 + each) for each in conc]}
    result = casemate.run(code, language, input=plant, engine=engine)
    assert result.output == pytest.approx({"maximum": 640 / 19, "vmax": 40, "k": 150, "r_squared": 1}, rel=1e-9)
