"""The demo: real macros in three languages over real measurements, every run in a sandbox of its own.

The data are the grass-plant CO2 uptake measurements that come with R, exported by an R script that runs in
a sandbox like everything else. One macro needs numpy, scipy and pandas: the demo installs them, in sandboxes too, as
the package set `science`, which stays for later runs. Results go to demo/out/results.json.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import casemate

DEMO: Final = Path(__file__).parent
MACROS: Final = DEMO / "macros"
RESULTS: Final = DEMO / "out" / "results.json"
LANGUAGES: Final = {"python": ".py", "javascript": ".js", "r": ".R"}
SHORT: Final = {"python": "py", "javascript": "js", "r": "R"}
MEASUREMENTS: Final = 84
SET: Final = "science"
PACKAGES: Final = ("numpy", "scipy", "pandas")
MIB: Final = 1024 * 1024
WIDTH: Final = 100
TOLERANCE: Final = 1e-9
"""How far the languages may differ, relatively: they round sums in different orders."""

FIT_TOLERANCE: Final = 1e-6
"""How far scipy's curves may differ from the macros' own, relatively: it stops at another place."""

Plant = dict[str, Any]


class Timed(NamedTuple):
    """A run's Result and how long it took from request to Result, in seconds."""

    language: str
    result: casemate.Result
    total_s: float


class Timing(NamedTuple):
    """How long the runs of one language took, and the most memory that one of them used."""

    runs: int
    request_to_result_median_s: float
    program_median_s: float
    memory_peak_bytes: int | None


class Hostile(NamedTuple):
    """A macro that means harm, and how it has to end."""

    name: str
    language: str
    intent: str
    ending: casemate.Reason


HOSTILE: Final = (
    Hostile("read_shadow.py", "python", "reads /etc/shadow", casemate.Reason.EXCEPTION),
    Hostile("endless.js", "javascript", "loops for ever", casemate.Reason.TIMEOUT),
)
HOSTILE_TIMEOUT: Final = "500ms"


class DemoFailed(Exception):
    """Something came out other than it must; the text says what."""


# Running --------------------------------------------------------------------------------------------


def run_macro(engine: casemate.Engine, name: str, language: str, value: object) -> Timed:
    """One macro over one value, in a sandbox of its own."""
    path = MACROS / f"{name}{LANGUAGES[language]}"
    started_s = time.perf_counter()
    result = casemate.run(path.read_text(), language, input=value, filename=path.name, engine=engine)
    total_s = time.perf_counter() - started_s
    if not result.ok:
        raise DemoFailed(f"{path.name} ended with {result.reason}:\n{result.stderr.text}")
    return Timed(language, result, total_s)


def export_plants(engine: casemate.Engine) -> list[Plant]:
    """The measurements, by plant."""
    path = DEMO / "export.R"
    result = casemate.run(path.read_text(), "r", filename=path.name, engine=engine)
    columns = result.output
    if not result.ok or not isinstance(columns, dict):
        raise DemoFailed(f"{path.name} ended with {result.reason} and no data:\n{result.stderr.text}")
    plants: dict[str, Plant] = {}
    for name, kind, treatment, conc, uptake in zip(*columns.values(), strict=True):
        new: Plant = {"plant": name, "type": kind, "treatment": treatment, "conc": [], "uptake": []}
        plant = plants.setdefault(name, new)
        plant["conc"].append(conc)
        plant["uptake"].append(uptake)
    if (count := sum(len(plant["uptake"]) for plant in plants.values())) != MEASUREMENTS:
        raise DemoFailed(f"{path.name} exported {count} measurements, not {MEASUREMENTS}")
    return list(plants.values())


def run_all(engine: casemate.Engine, name: str, values: Sequence[object]) -> list[Timed]:
    """One macro in every language over every value, as many at once as there are processors."""
    jobs = [(language, value) for value in values for language in LANGUAGES]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda job: run_macro(engine, name, *job), jobs))


def find_set(engine: casemate.Engine) -> tuple[casemate.PackageSet, float]:
    """The package set of the demo, and how many seconds building it took, 0 if it was there already."""
    sets = casemate.Sets(engine)
    try:
        found = sets.get(SET)
    except casemate.InvalidInput:
        found = None
    if found is not None and {each.name for each in found.manifest.lock}.issuperset(PACKAGES):
        return found, 0.0
    if found is not None:
        raise DemoFailed(f"the package set {SET!r} has no {', '.join(PACKAGES)}; remove it and try again")
    print(f"Installing {', '.join(PACKAGES)} as the package set {SET!r}, in sandboxes:", end="", flush=True)
    started_s = time.perf_counter()
    made = sets.build(SET, PACKAGES, preload=PACKAGES, progress=lambda phase: print(f" {phase} …", end="", flush=True))
    took_s = time.perf_counter() - started_s
    print(f" done in {took_s:.1f} s.")
    return made, took_s


def run_population(engine: casemate.Engine, plants: Sequence[Plant]) -> Timed:
    """The macro that needs packages, over all plants."""
    path = MACROS / "population.py"
    started_s = time.perf_counter()
    result = casemate.run(path.read_text(), SET, input=list(plants), filename=path.name, engine=engine)
    total_s = time.perf_counter() - started_s
    if not result.ok or not isinstance(result.output, dict):
        raise DemoFailed(f"{path.name} ended with {result.reason}:\n{result.stderr.text}")
    return Timed(SET, result, total_s)


# Checking -------------------------------------------------------------------------------------------


def numbers(value: object) -> Iterator[float]:
    """All numbers in a JSON value, objects in the order of their keys."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from numbers(value[key])
    elif isinstance(value, int | float):
        yield float(value)


def largest_difference(outputs: Iterable[object]) -> float:
    """The largest relative difference between the languages' answers to one question."""
    columns: Iterable[tuple[float, ...]] = zip(*(tuple(numbers(output)) for output in outputs), strict=True)
    return max((max(column) - min(column)) / (max(map(abs, column)) or 1.0) for column in columns)


def by_question(runs: Sequence[Timed]) -> list[dict[str, Any]]:
    """The answers of all languages, question by question."""
    width = len(LANGUAGES)
    parts = [runs[start : start + width] for start in range(0, len(runs), width)]
    return [{run.language: run.result.output for run in part} for part in parts]


def check_agreement(questions: Iterable[dict[str, Any]]) -> float:
    """The largest difference anywhere. Raises DemoFailed if it is too large, or not a number."""
    worst = max(largest_difference(question.values()) for question in questions)
    if not worst <= TOLERANCE or math.isnan(worst):
        raise DemoFailed(f"the languages differ by {worst:.1e}")
    return worst


def check_population(plants: Sequence[Plant], fits: Sequence[dict[str, Any]], run: Timed) -> float:
    """How far scipy's curves are from the macros' own at most. Raises DemoFailed if that is too far."""
    output: Any = run.result.output
    pairs = [(fit["python"], output["fits"][plant["plant"]]) for plant, fit in zip(plants, fits, strict=True)]
    worst: float = max(abs(theirs[what] / ours[what] - 1) for ours, theirs in pairs for what in ("vmax", "k"))
    if not worst <= FIT_TOLERANCE:
        raise DemoFailed(f"scipy's curves differ by {worst:.1e}")
    return worst


# Showing --------------------------------------------------------------------------------------------


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their cells, numbers to the right."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    for row in [head, ["─" * width for width in widths], *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  " + "  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    print()


def show_fits(plants: Sequence[Plant], fits: Sequence[dict[str, Any]]) -> None:
    """One line per plant, the languages side by side."""
    print("Saturation of CO2 uptake, uptake = Vmax · conc / (K + conc), a sandbox for each plant and language:\n")
    head = [f"{what} {SHORT[language]}" for what in ("Vmax", "K") for language in LANGUAGES]
    rows = []
    for plant, fit in zip(plants, fits, strict=True):
        cells = [f"{fit[language][what]:.3f}" for what in ("vmax", "k") for language in LANGUAGES]
        maximum, r_squared = fit["python"]["maximum"], fit["python"]["r_squared"]
        rows.append([plant["plant"], plant["treatment"], f"{maximum:.1f}", *cells, f"{r_squared:.3f}"])
    show_table(["plant", "treatment", "max", *head, "R²"], rows)


def show_treatments(answers: dict[str, Any]) -> None:
    """Chilled against non-chilled plants, a line per language."""
    print("Chilled against non-chilled plants, uptake in µmol/m² s:\n")
    rows = []
    for language, answer in answers.items():
        groups = [answer["chilled"], answer["nonchilled"]]
        cells = [f"{group[what]:.4f}" for what in ("mean_uptake", "mean_maximum") for group in groups]
        rows.append([language, *cells, f"{100 * answer['change']:+.2f} %"])
    show_table(["language", "chilled", "non-chilled", "max chilled", "max non-chilled", "change"], rows)


def show_set(made: casemate.PackageSet) -> None:
    """What the package set consists of."""
    packages = ", ".join(f"{each.name} {each.version}" for each in made.manifest.lock)
    size = f"{made.manifest.files} files, {made.manifest.size_bytes / MIB:.0f} MiB"
    print(textwrap.fill(f"Package set {made.name} {made.digest[:12]}, {size}: {packages}.", WIDTH) + "\n")


def show_population(run: Timed, worst: float) -> None:
    """The groups of plants, and what chilling changes."""
    print("All plants at once with numpy, scipy and pandas, means of the groups:\n")
    output: Any = run.result.output
    head = ["type", "treatment", "uptake", "Vmax", "K"]
    rows = [
        [group["type"], group["treatment"], *(f"{group[what]:.3f}" for what in ("mean_uptake", "vmax", "k"))]
        for group in output["groups"]
    ]
    show_table(head, rows)
    for name, test in output["chilling"].items():
        print(f"  {name}: chilling changes Vmax by {test['difference']:+.2f}, t = {test['t']:.2f}, p = {test['p']:.4f}")
    times = f"request to Result {1000 * run.total_s:.0f} ms, of it the program {1000 * run.result.usage.wall_s:.0f} ms"
    print(f"\n  scipy's curves and the macros' own differ by at most {worst:.1e}; {times}.\n")


def timings(runs: Sequence[Timed]) -> dict[str, Timing]:
    """The timing of each language."""
    found = {}
    for language in LANGUAGES:
        own = [run for run in runs if run.language == language]
        peaks = [run.result.usage.memory_peak_bytes or 0 for run in own]
        found[language] = Timing(
            runs=len(own),
            request_to_result_median_s=statistics.median(run.total_s for run in own),
            program_median_s=statistics.median(run.result.usage.wall_s for run in own),
            memory_peak_bytes=max(peaks) or None,
        )
    return found


def show_timings(found: Mapping[str, Timing]) -> None:
    """A line per language, with medians in milliseconds and the peak in MiB."""
    rows = []
    for language, timing in found.items():
        times = [f"{1000 * seconds:.0f}" for seconds in timing[1:3]]
        memory = f"{timing.memory_peak_bytes / MIB:.0f} MiB" if timing.memory_peak_bytes else "-"
        rows.append([language, str(timing.runs), *times, memory])
    show_table(["language", "runs", "request to Result, ms", "of it the program", "most memory"], rows)


def show_isolation(isolation: casemate.Isolation) -> None:
    """The walls around every run."""
    print(textwrap.fill(f"Walls around every run: {', '.join(isolation.layers)}.", WIDTH, break_on_hyphens=False))
    if isolation.approximate:
        print(f"Held approximately, for want of a control group: {', '.join(isolation.approximate)}.")
    print()


def show_hostile(engine: casemate.Engine) -> list[dict[str, Any]]:
    """Two macros that mean harm, and what became of them. Raises DemoFailed if one got through."""
    print("Two hostile macros:\n")
    found = []
    for macro in HOSTILE:
        code = (MACROS / "hostile" / macro.name).read_text()
        result = casemate.run(
            code, macro.language, filename=macro.name, limits={"timeout": HOSTILE_TIMEOUT}, engine=engine
        )
        if result.reason is not macro.ending:
            raise DemoFailed(f"{macro.name} ended with {result.reason}, not {macro.ending}")
        why = result.error.message if result.error else f"killed after {1000 * result.usage.wall_s:.0f} ms"
        print(f"  {macro.name:<16} {macro.intent:<18} → {result.reason}: {why}")
        found.append({"macro": macro.name, "reason": result.reason, "why": why, "wall_s": result.usage.wall_s})
    print()
    return found


def demonstrate(engine: casemate.Engine) -> dict[str, Any]:
    """Everything, shown; the results as one JSON value."""
    plants = export_plants(engine)
    print(f"\n{MEASUREMENTS} measurements of {len(plants)} plants, exported by R in a sandbox.\n")
    runs = run_all(engine, "saturation", plants)
    fits = by_question(runs)
    show_fits(plants, fits)
    compared = run_all(engine, "treatment", [plants])
    treatments = by_question(compared)
    show_treatments(treatments[0])
    worst = check_agreement([*fits, *treatments])
    print(f"The three languages agree: the largest relative difference is {worst:.1e}.\n")
    times = timings([*runs, *compared])
    show_timings(times)
    science, built_s = find_set(engine)
    show_set(science)
    population = run_population(engine, plants)
    differing = check_population(plants, fits, population)
    show_population(population, differing)
    isolation = runs[0].result.isolation
    show_isolation(isolation)
    hostile = show_hostile(engine)
    return {
        "plants": [{**plant, "fits": fit} for plant, fit in zip(plants, fits, strict=True)],
        "treatments": treatments[0],
        "largest_relative_difference": worst,
        "population": {
            "output": population.result.output,
            "largest_relative_difference": differing,
            "request_to_result_s": population.total_s,
            "set": {"digest": science.digest, "built_s": built_s, "size_bytes": science.manifest.size_bytes},
        },
        "timings": {language: timing._asdict() for language, timing in times.items()},
        "isolation": {"layers": list(isolation.layers), "approximate": list(isolation.approximate)},
        "hostile": hostile,
    }


def main() -> int:
    """Run the demo; the exit status."""
    try:
        with casemate.Engine() as engine:
            results = demonstrate(engine)
    except (DemoFailed, casemate.CasemateError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    print(f"All of it as JSON: {os.path.relpath(RESULTS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
