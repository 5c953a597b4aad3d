"""The benchmarks run, so that they are there when someone needs them."""

import os
import subprocess
import sys
from pathlib import Path

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
    words += ["--rounds", "1", "--steps", "1", "--memory-rounds", "1", "--batches", "1,2"]
    rows = printed("tuning.py", words)
    assert {len(row) for row in rows} == {7}
    names = [row[0].removeprefix("| ") for row in rows]
    tuners = ["lora", "a3tune", "medalign", "eager"]
    assert names == ["tuner, batch 1", *tuners, "tuner, batch 2", *tuners]
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
    for case in ("few images", "SLAKE open"):
        rows = printed("intervals.py", [*words, "--case", case])
        names = [tuple(cell.removeprefix("| ") for cell in row[:2]) for row in rows]
        shown = [(case, correlation) for correlation in ("none", "moderate", "strong")]
        assert names == [("case", "correlation"), *shown] * 6
        # Every rate has its error.
        assert all(cell.count(" ± ") == 1 for row in rows[5:8] for cell in row[2:])
