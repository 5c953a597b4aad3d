"""`medbench rescore`: further scores of finished runs, beside those that are there."""

import json
import shutil
import sys

import pytest

from medbench import store
from tests.runs.lacking import LACKING

LETTERS = '''"""Letters."""

from dataclasses import dataclass

from medbench.metric import Metric


@dataclass(frozen=True)
class Letters(Metric):
    """Number of letters, at most so many, by so many.

    Args:
        most: of letters.
    """

    name = "letters"
    kinds = ("open", "closed")
    golden = (("abc", "", 0.3),)

    most: int = 10

    def items(self, rows):
        return [min(self.most, len(row["output"])) / self.most for row in rows]
'''
FAILING = LACKING.replace("lacking", "failing").replace("Lacking", "Failing").replace(
    'raise UnavailableError("a package is missing", "It is nowhere.", "Install it.")',
    'raise ValueError(f"cannot read {rows[0]}")',
).replace('golden = (("abc", "", 0.3),)', "")  # fmt: skip


@pytest.fixture
def runs(place, medbench):
    """Run three seeds of one method and return their folders."""
    words = ("--task", "mini", "--backbone", "toy", "--method", "nucleus", "--seeds", "0-2")
    code, _, err = medbench("run", *words)
    assert code == 0, err
    return sorted((place / "results" / "runs" / "mini" / "toy" / "nucleus").iterdir())


@pytest.fixture
def letters(place, plugin):
    plugin("metrics", "letters", LETTERS)


def read(folder):
    return json.loads((folder / "scores.json").read_text()), store.read_rows(folder)


def test_a_metric_in_a_file_scores_a_run_and_others_stay(runs, letters, medbench):
    before, rows = read(runs[0])
    code, out, err = medbench("rescore", runs[0], "--metric", "letters")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == str(runs[0])
    assert out.split()[1:3] == ["letters", f"{100 * sum_of(rows):.2f}"]
    after, scored = read(runs[0])
    assert {name: score for name, score in after["scores"].items() if name != "letters"} == before[
        "scores"
    ]
    assert after["scores"]["letters"]["n"] == len(rows)
    for row, again in zip(rows, scored, strict=True):
        assert again.pop("scores") == {**row.pop("scores"), "letters": len(row["output"]) / 10}
        assert again == row
    assert {k: v for k, v in after.items() if k != "scores"} == {
        k: v for k, v in before.items() if k != "scores"
    }


def sum_of(rows):
    return sum(min(10, len(row["output"])) / 10 for row in rows) / len(rows)


def test_the_same_scores_again_leave_the_same_bytes(runs, medbench):
    before = [(runs[0] / name).read_bytes() for name in (store.SAMPLES, store.SCORES)]
    assert medbench("rescore", runs[0])[0] == 0
    assert before == [(runs[0] / name).read_bytes() for name in (store.SAMPLES, store.SCORES)]


def test_parameters_stand_in_the_name(runs, letters, medbench):
    assert medbench("rescore", runs[0], "--metric", "letters[most=5],letters[most=10]")[0] == 0
    assert {"letters[most=5]", "letters"} <= set(read(runs[0])[0]["scores"])


def test_runs_by_key_and_by_a_folder_above_them(place, runs, letters, medbench):
    code, out, _ = medbench("rescore", "results/runs/mini", "--metric", "letters", "--json")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["folder"] for one in found] == [str(run.relative_to(place)) for run in runs]
    code, out, _ = medbench("rescore", runs[1].name, runs[2], "--metric", "letters")
    assert code == 0
    assert len([line for line in out.splitlines() if not line.startswith(" ")]) == 2


def test_scores_are_compared_in_tables_like_others(runs, letters, medbench):
    medbench("rescore", *runs, "--metric", "letters")
    code, out, _ = medbench("table", "--metric", "letters")
    assert code == 0
    assert "(3 seeds)" in out


def test_what_is_missing_is_told_and_the_others_are_scored(runs, letters, plugin, medbench):
    plugin("metrics", "lacking", LACKING)
    code, out, err = medbench("rescore", runs[0], "--metric", "lacking,letters")
    assert code == 1
    assert err == "not scored: lacking: a package is missing; Install it.\n"
    assert "letters" in out
    scores = read(runs[0])[0]
    assert scores["unscored"] == {
        "lacking": ["a package is missing", "It is nowhere.", "Install it."]
    }
    assert "letters" in scores["scores"]


def test_a_task_whose_metric_lacks_something_runs_all_the_same(place, plugin, medbench):
    plugin("metrics", "lacking", LACKING)
    plugin("tasks", "poor", (place / "tasks" / "mini.py").read_text().replace(
        '"closed/paper", ', '"lacking", "closed/paper", ').replace('"mini"', '"poor"').replace(
        "class Mini", "class Poor"))  # fmt: skip
    words = ("run", "--task", "poor", "--backbone", "toy", "--method", "greedy")
    code, out, err = medbench(*words)
    assert code == 0
    assert "will not be scored: lacking: a package is missing; Install it." in err
    assert "not scored: lacking" in out
    (folder,) = (place / "results" / "runs" / "poor" / "toy" / "greedy").iterdir()
    assert f"medbench rescore {folder.relative_to(place)}" in out
    scores, _ = read(folder)
    assert "closed/paper" in scores["scores"] and "lacking" in scores["unscored"]
    # Once it is there, the same words that were printed score it.
    plugin("metrics", "lacking", LETTERS.replace("letters", "lacking"))
    code, out, err = medbench("rescore", folder)
    assert (code, err) == (0, "")
    scores, _ = read(folder)
    assert "lacking" in scores["scores"] and scores["unscored"] == {}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--metric", "closed/papre"), "no metric named 'closed/papre'"),
        (("--metric", "closed/paper[x=1]"), "closed/paper has no parameter 'x'"),
        (("--metric", "closed/paper", "--python", "nowhere"), "no Python at nowhere"),
    ],
)
def test_what_cannot_be_meant(runs, medbench, words, told):
    code, out, err = medbench("rescore", runs[0], *words)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == told


def test_no_such_run(runs, medbench, tmp_path):
    code, _, err = medbench("rescore", "nowhere")
    assert code == 2 and err.startswith("no run at 'nowhere'")
    same = runs[0].name[:1]
    for run in runs:
        shutil.copytree(run, run.parent / f"{same}{run.name}")
    code, _, err = medbench("rescore", same)
    assert code == 2 and f"'{same}' may be any of" in err


def test_an_unfinished_run_is_not_scored(runs, medbench):
    (runs[0] / store.SCORES).unlink()
    code, _, err = medbench("rescore", runs[0])
    assert code == 2
    assert "is not finished" in err
    assert "medbench run --method nucleus" in err


def test_texts_of_restricted_tasks_are_withheld(runs, plugin, medbench):
    plugin("metrics", "failing", FAILING)
    run = json.loads((runs[0] / store.RUN).read_text())
    output = store.read_rows(runs[0])[0]["output"]
    with pytest.raises(ValueError, match="cannot read"):
        medbench("rescore", runs[0], "--metric", "failing")
    run["data"]["restricted"] = True
    (runs[0] / store.RUN).write_text(json.dumps(run))
    code, _, err = medbench("rescore", runs[0], "--metric", "failing")
    assert code == 1
    assert err.startswith("not scored: failing: failing failed; Look at the same with a task")
    assert output not in err
    assert read(runs[0])[0]["unscored"]["failing"][:2] == [
        "failing failed",
        "ValueError; its words are withheld, since the task is restricted.",
    ]


@pytest.mark.parametrize("number", [1, 3])
def test_a_package_that_fails_does_not_lose_the_other_metrics(
    number, runs, letters, plugin, medbench
):
    broken = 'raise UserError("radgraph failed", "KeyError: 0", "Report it.")'
    text = FAILING.replace("UnavailableError", "UserError")
    plugin("metrics", "failing", text.replace('raise ValueError(f"cannot read {rows[0]}")', broken))
    code, _, err = medbench("rescore", *runs[:number], "--metric", "failing,letters")
    assert (code, err) == (1, "not scored: failing: radgraph failed; Report it.\n")
    for run in runs[:number]:
        content, _ = read(run)
        assert "letters" in content["scores"] and "failing" not in content["scores"]
        assert content["unscored"] == {"failing": ["radgraph failed", "KeyError: 0", "Report it."]}


def test_what_one_run_fails_over_does_not_lose_the_others(runs, plugin, medbench):
    some = (
        'if any(row["output"] == "bad" for row in rows):\n'
        '            raise UserError("a bad text", "", "Take another.")\n'
        "        return Measured([0.5] * len(rows))"
    )
    text = FAILING.replace("UnavailableError", "UserError").replace(
        "Metric\n", "Measured, Metric\n", 1
    )
    plugin("metrics", "failing", text.replace('raise ValueError(f"cannot read {rows[0]}")', some))
    path = runs[1] / store.SAMPLES
    rows = store.read_rows(runs[1])
    next(row for row in rows if row["kind"] == "open")["output"] = "bad"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = medbench("rescore", *runs, "--metric", "failing")
    assert code == 1
    done = ["failing" in read(run)[0]["scores"] for run in runs]
    assert done == [True, False, True]


def test_another_python_is_asked_for_nothing_it_need_not_do(runs, letters, medbench):
    # Metrics that are rules alone are computed here.
    code, _, _ = medbench("rescore", runs[0], "--metric", "letters", "--python", sys.executable)
    assert code == 0
