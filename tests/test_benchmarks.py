"""The benchmarks run, so that they are there when someone needs them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def printed(script, words):
    """Run a benchmark and return the cells of its tables' rows."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]


@pytest.mark.slow
def test_the_decoding_benchmark_prints_a_row_for_each_method():
    methods = ["greedy", "vcd", "dola", "avisc", "opera"]
    words = ["--shape", "tiny", "--rounds", "1", "--tokens", "3", "--batch", "2"]
    words += ["--methods", ",".join(methods)]
    rows = printed("decoding.py", words)
    assert {len(row) for row in rows} == {8}
    assert [row[0].removeprefix("| ") for row in rows[1:]] == methods


@pytest.mark.slow
def test_the_tuning_benchmark_prints_a_row_for_each_tuner():
    words = ["--layers", "2", "--width", "64", "--heads", "2", "--image", "56"]
    words += ["--rounds", "1", "--steps", "1", "--memory-rounds", "1", "--batches", "2"]
    rows = printed("tuning.py", words)
    assert {len(row) for row in rows} == {7}
    names = [row[0].removeprefix("| ") for row in rows]
    assert names == ["tuner, batch 2", "lora", "a3tune", "medalign", "eager"]
    # Every cell is measured but what lora has beyond lora.
    assert [cell for row in rows for cell in row[1:]].count("-") == 0


@pytest.mark.slow
def test_the_metrics_benchmark_prints_a_row_for_each_metric():
    for package in ("nltk", "rouge_score", "f1chexbert", "radgraph"):
        pytest.importorskip(package, reason="medbench[report,clinical] is not installed")
    metrics = ["rougeL/google", "meteor/nltk", "chexbert/labels", "radgraph/partial"]
    words = ["--shape", "tiny", "--rounds", "1", "--pairs", "4", "--metric", ",".join(metrics)]
    rows = printed("metrics.py", words)
    assert {len(row) for row in rows} == {6}
    assert [row[0].removeprefix("| ") for row in rows[1:]] == metrics


def test_the_simulation_prints_a_row_for_each_correlation():
    words = ["--simulations", "3", "--resamples", "200"]
    for case in ("12 images", "SLAKE open"):
        rows = printed("intervals.py", [*words, "--case", case])
        names = [tuple(cell.removeprefix("| ") for cell in row[:2]) for row in rows]
        shown = [(case, correlation) for correlation in ("none", "moderate", "strong")]
        assert names == [("case", "correlation"), *shown] * 7
        # Every rate has its error: of five tables all cells, of one all but the gap itself.
        rates = [row[2:] for start in (5, 9, 13, 17, 25) for row in rows[start : start + 3]]
        rates += [row[3:] for row in rows[21:24]]
        assert all(cell.count(" ± ") == 1 for row in rates for cell in row)


def test_the_simulation_sees_what_clustering_does():
    words = ["--simulations", "100", "--resamples", "200", "--case", "12 images"]
    rows = printed("intervals.py", words)
    strong = rows[7][2:]
    images, questions = (float(cell.split(" ± ")[0]) for cell in strong)
    assert questions < 70 < 80 < images


def test_the_simulated_answers_have_the_scores_that_are_said_to_be_true():
    module = runpy.run_path(str(ROOT / "benchmarks" / "intervals.py"))
    generator = np.random.default_rng(0)
    for name, case in module["CASES"].items():
        for effects in module["CORRELATIONS"].values():
            setting = module["Setting"](case, effects, resamples=1)
            levels, owns = (0, -0.4, case.level(case.score(0) - 0.1)), (0, effects.own, 3)
            drawn = [setting.answers(levels, generator, owns).mean(axis=1) for _ in range(400)]
            found, error = np.mean(drawn, axis=0), np.std(drawn, axis=0) / 400**0.5
            true = [case.score(0), case.score(-0.4), case.score(0) - 0.1]
            assert (abs(found - true) < 4 * error).all(), name
            assert (error < 0.01).all()


def test_the_hours_of_the_page_are_those_that_the_benchmark_simulates():
    rows = {row[0].removeprefix("| "): row[1:] for row in printed("hours.py", [])[1:]}
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    told = [line.strip("| ").split(" | ") for line in page.splitlines()]
    told = {
        one[0]: one[-3:] for one in told if one[0].startswith(("Table ", "Figure ")) and one[3:]
    }
    assert len(rows) == 16
    assert {name: [cell.strip(" |") for cell in row] for name, row in rows.items()} == {
        name: [cell.strip(" |") for cell in row] for name, row in told.items() if name in rows
    }
    # Half of the seconds for twice as many seeds.
    half = ["--answer", "0.35", "1", "--report", "1.5", "4", "--step", "0.125", "0.35"]
    again = printed("hours.py", [*half, "--seeds", "2"])[1:]
    assert {row[0].removeprefix("| "): row[-1] for row in again} == {
        name: row[-1] for name, row in rows.items()
    }
