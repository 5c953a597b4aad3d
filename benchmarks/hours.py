"""GPU hours that the papers' tables and figures take, by simulation from the benchmarks' rates.

    python benchmarks/hours.py                                   # by docs/performance.md
    python benchmarks/hours.py --answer 0.9 1.1 --step 0.3 0.35  # seconds, measured on your GPU

A cell costs its questions x seconds of a greedy answer x the method's cost against greedy; an
adapter its training samples x epochs x seconds of a sample x the tuner's cost against LoRA, once
for all methods on top of it. Costs are drawn between the lowest and the highest round that
`benchmarks/decoding.py` and `benchmarks/tuning.py` measured, seconds between the bounds given;
figures are medians of many draws with the range of nine tenths of them.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medbench import canonical, plugins, spec
from medbench.figures.layout import read as read_figure
from medbench.figures.layout import shipped as figures
from medbench.tables.layout import read as read_table

# Cost of a whole answer against greedy's and of a step against lora's: lowest and highest of the
# rounds, docs/performance.md (batch 8; batch 1 for training).
COSTS = {
    "greedy": (1.0, 1.0),
    "beam": (1.51, 2.04),
    "vcd": (1.54, 1.97),
    "dola": (1.16, 1.46),
    "avisc": (1.52, 1.86),
    "m3id": (1.12, 1.68),
    "damro": (1.04, 1.58),
    "pai": (1.19, 1.49),
    "opera": (5.26, 5.84),
    "controlmllm": (5.28, 6.83),
    "lora": (1.0, 1.0),
    "a3tune": (0.98, 1.22),
    "medalign": (0.90, 0.99),
}
# They pick tokens otherwise, or see another image or none: the passes are greedy's.
LIKE_GREEDY = ("nucleus", "blind", "shuffled")
# Seconds of a greedy answer and of a training sample for a model of 7 billion weights in 16 bit on
# one GPU, batch 1: a guess, wide on purpose, since nothing here ran on one. A report is longer.
ANSWER, REPORT, STEP = (0.7, 2.0), (3.0, 8.0), (0.25, 0.7)
SIZES = Path(__file__).parents[1] / "results" / "paper" / "a3tune-table6.csv"
NAMES = {
    "Medical VQA / SLAKE": "slake",
    "Medical VQA / VQA-RAD": "vqa_rad",
    "Medical VQA / PathVQA": "pathvqa",
    "Medical VQA / IU-Xray": "iu_xray",
    "Medical VQA / OmniMedVQA": "omnimedvqa",
    "Report Generation / IU-Xray": "iu_xray_report",
    "Report Generation / MIMIC-CXR": "mimic_cxr",
}
DRAWS = 4000


@dataclass(frozen=True)
class Seconds:
    """Bounds of what one greedy answer, one report and one training sample take."""

    answer: tuple[float, float]
    report: tuple[float, float]
    step: tuple[float, float]


def main() -> None:
    """Read the command line, simulate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("answer", ANSWER), ("report", REPORT), ("step", STEP)):
        parser.add_argument(f"--{name}", type=float, nargs=2, default=default)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    seconds = Seconds(tuple(options.answer), tuple(options.report), tuple(options.step))
    print("| what | runs | adapters | GPU hours |\n|---|---|---|---|")
    for name, cells in (*tables(), *figure_cells()):
        answers, adapters = len(cells), len(set(filter(None, map(adapter, cells))))
        hours = simulate(cells, seconds) * options.seeds
        low, middle, high = np.percentile(hours, [5, 50, 95])
        print(
            f"| {name} | {answers * options.seeds} | {adapters * options.seeds} "
            f"| {middle:.0f} ({low:.0f}-{high:.0f}) |"
        )


Cell = tuple[str, str, str]


def tables() -> list[tuple[str, list[Cell]]]:
    """Return the papers' tables and the cells (method, task, backbone) that fill each."""
    found = []
    for number in (1, 2, 3, 4, 5, 8, 9, 10, 11, 12):
        layout = read_table(str(number))
        cells = {
            (row.method, column.task, row.backbone)
            for row in layout.rows
            for column in layout.columns
            if can_run(row.method, column.task)
        }
        found.append((f"Table {number}", sorted(cells)))
    return found


def figure_cells() -> list[tuple[str, list[Cell]]]:
    """Return the papers' ablations and the cells that fill each."""
    found = []
    for number in figures():
        layout = read_figure(number)
        methods = [f"{layout.method}[{layout.parameter}={one}]" for one in layout.values]
        methods += [one.method for one in layout.points] + [layout.reference]
        cells = {(method, layout.task, "llava_med") for method in methods if method}
        found.append((f"Figure {number}", sorted(cells)))
    return found


def can_run(method: str, task: str) -> bool:
    """Say whether a task offers regions where a method needs them."""
    offers = plugins.get("task", spec.parse(task).name).attributes.get("offers", ())
    needs = [
        need
        for one in spec.parse_chain(method)
        for need in plugins.get("method", one.name).attributes.get("needs", ())
    ]
    return "roi" not in needs or "roi" in offers


def adapter(cell: Cell) -> Cell | None:
    """Return what of a cell decides which adapter it has; None without one."""
    method, task, backbone = cell
    tuner = spec.parse_chain(method)[0]
    if plugins.get("method", tuner.name).role != "tuner":
        return None
    return canonical.method(str(tuner), task), spec.parse(task).name, backbone


def simulate(cells: list[Cell], seconds: Seconds) -> np.ndarray:
    """Return hours, one a draw."""
    draw = np.random.default_rng(0)
    sizes = numbers()
    # What a machine takes for an answer is the same in all cells.
    rates = {
        name: draw.uniform(*getattr(seconds, name), DRAWS) for name in ("answer", "report", "step")
    }
    costs = defaultdict(lambda: np.ones(DRAWS))
    costs |= {name: draw.uniform(*bounds, DRAWS) for name, bounds in COSTS.items()}
    total = np.zeros(DRAWS)
    for method, task, _ in cells:
        name, chain = spec.parse(task).name, spec.parse_chain(method)
        last = chain[-1].name
        decoder = last if last in COSTS and last not in ("lora", "a3tune", "medalign") else "greedy"
        kind = "report" if name in ("iu_xray_report", "mimic_cxr") else "answer"
        total += sizes[name]["Test"] * rates[kind] * costs[decoder]
    for key in set(filter(None, map(adapter, cells))):
        name = key[1]
        epochs = plugins.get("task", name).attributes["tuning"]["epochs"]
        tuner = key[0].partition("[")[0]
        total += sizes[name]["Training"] * epochs * rates["step"] * costs[tuner]
    return total / 3600


def numbers() -> dict[str, dict[str, int]]:
    """Return questions by task and split, as the paper counts them."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    with SIZES.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            head, _, split = line["column"].rpartition(" / ")
            found[NAMES[head]][split] = int(line["value"])
    return found


if __name__ == "__main__":
    main()
