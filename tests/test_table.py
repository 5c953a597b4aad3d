"""Tables: what stands beside what, and that the formats say the same."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from medbench import table, table_text
from medbench.errors import UserError
from medbench.store import RunRecord

TASK = {"name": "slake", "parameters": {"closed_rule": "paper"}, "version": 1, "samples": "a" * 64}


def score(value, n=355, groups=96, margin=0.05):
    low, high = (None, None) if margin is None else (value - margin, value + margin)
    return {"value": value, "low": low, "high": high, "n": n, "groups": groups, "notes": {}}


def run(method, value, *, seed=0, preset="matched", state="complete", limit=None, **more):
    """Return a run with a paper and a strict score and an attention one."""
    task = {**TASK, **more.pop("task_identity", {})}
    identity = {
        "engine": 1,
        "task": task,
        "backbone": {"name": "toy", "dtype": more.pop("dtype", "float32")},
        "decoder": {"name": method, "source": more.pop("source", "b" * 64)},
        "adapter": f"adapter-{seed}",
        "preset": preset,
        "seed": seed,
        "limit": limit,
        "batch_size": 16,
    }
    scores = more.pop("scores", None) or {
        "closed/paper": score(value),
        "closed/strict": score(value - 0.1),
        "coverage/sum": score(0.5, margin=None),
    }
    facts = {"task": "slake", "backbone": "toy", **more}
    return RunRecord(
        folder=Path("x"),
        method=method,
        key=f"{method}-{seed}-{identity['backbone']['dtype']}",
        seed=seed,
        preset=preset,
        state=state,
        limit=limit,
        scores=scores,
        identity=identity,
        **facts,
    )


def shown(one):
    """Return {(method or method (note), task, metric): value} of a table."""
    return {
        (f"{row.method} ({row.note})" if row.note else row.method, column.task, column.metric): (
            cell.value
        )
        for (row, column), cell in one.cells.items()
    }


def test_methods_down_and_headline_metrics_across():
    (one,) = table.arrange([run("vcd", 0.6), run("greedy", 0.5)])
    assert [row.method for row in one.rows] == ["greedy", "vcd"]
    assert [column.metric for column in one.columns] == ["closed/paper", "closed/strict"]
    assert shown(one)["vcd", "slake", "closed/strict"] == pytest.approx(0.5)


def test_metrics_asked_for():
    (one,) = table.arrange([run("vcd", 0.6)], ["coverage", "closed/PAPER"])
    assert [column.metric for column in one.columns] == ["closed/paper", "coverage/sum"]
    with pytest.raises(UserError) as caught:
        table.arrange([run("vcd", 0.6)], ["closd/paper"])
    assert caught.value.why == "Did you mean closed/paper?"


def test_a_task_without_headline_metrics_shows_all():
    scores = {"bleu4/nltk": score(0.1), "rouge_l/nltk": score(None, margin=None)}
    (one,) = table.arrange([run("vcd", 0.6, scores=scores)])
    assert [column.metric for column in one.columns] == ["bleu4/nltk"]


def test_partial_runs_stand_apart_and_limits_do_not_mix():
    runs = [
        run("vcd", 0.6),
        run("vcd", 0.9, state="partial", limit=20),
        run("pai", 0.8, state="partial", limit=40),
        run("pai", 0.7, state="partial", missing_images=3),
    ]
    whole, partial = table.arrange(runs)
    assert not whole.partial
    assert shown(whole) == {
        ("vcd", "slake", "closed/paper"): 0.6,
        ("vcd", "slake", "closed/strict"): 0.5,
    }
    assert partial.partial
    assert {(c.limit, c.missing_images) for c in partial.columns} == {(20, 0), (40, 0), (None, 3)}
    text = table_text.as_text([whole, partial])
    assert text.count("PARTIAL") == 1
    assert "slake, first 20" in text
    assert "slake, 3 left out" in text
    assert "left samples out" in text


def test_presets_stand_apart():
    matched, published = table.arrange([run("vcd", 0.6), run("vcd", 0.7, preset="published")])
    assert (matched.preset, published.preset) == ("matched", "published")
    assert table_text.caption(published)[0].startswith("Preset published: each method")


@pytest.mark.parametrize(
    "other",
    [{"version": 2}, {"parameters": {"closed_rule": "dataset"}}, {"samples": "c" * 64}],
)
def test_another_version_or_rule_or_data_is_another_column(other):
    (one,) = table.arrange([run("vcd", 0.6), run("vcd", 0.7, task_identity=other)])
    assert len(one.rows) == 1
    assert len(one.columns) == 4
    heads = table_text.as_csv([one]).splitlines()
    assert len(set(heads)) == 5
    first_line = table_text.as_text([one]).splitlines()[0].split("  ")
    names = [name.strip() for name in first_line if name.strip()]
    assert len(set(names)) == 2


def test_a_task_with_its_defaults_written_out_is_the_same_column():
    (one,) = table.arrange([run("a", 0.6, task="slake[closed_rule=paper]"), run("b", 0.7)])
    assert {column.task for column in one.columns} == {"slake"}
    assert len(one.columns) == 2


def test_seeds_are_averaged_and_their_spread_shown():
    (one,) = table.arrange([run("vcd", value, seed=i) for i, value in enumerate((0.5, 0.6, 0.7))])
    (row,) = one.rows
    cell = one.cells[row, one.columns[0]]
    assert cell.value == pytest.approx(0.6)
    assert cell.spread == pytest.approx(0.1)
    assert (cell.low, cell.high) == (pytest.approx(0.55), pytest.approx(0.65))
    assert cell.seeds == (0, 1, 2)
    text = table_text.as_text([one])
    assert "60.00 [55.00, 65.00] ± 10.00 (3 seeds)" in text
    assert "standard deviation between seeds" in text
    assert "95 % interval over the images" in text


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged():
    runs = [
        run("vcd", 0.5),
        run("vcd", 0.7, seed=1),
        run("vcd", 0.6, dtype="bfloat16"),
    ]
    (one,) = table.arrange(runs)
    values = {name: value for (name, _, metric), value in shown(one).items() if "paper" in metric}
    assert values == {
        "vcd (backbone.dtype=float32)": pytest.approx(0.6),
        "vcd (backbone.dtype=bfloat16)": 0.6,
    }
    (one,) = table.arrange([run("vcd", 0.5), run("vcd", 0.6, source="c" * 64)])
    assert [row.note for row in one.rows] == ["decoder.source=bbbbbbbb", "decoder.source=cccccccc"]


def test_two_runs_of_one_seed_are_told_apart_by_their_keys():
    (one,) = table.arrange([run("vcd", 0.5), replace(run("vcd", 0.6), key="other")])
    assert {row.note for row in one.rows} == {"vcd-0-float32", "other"}


def test_the_best_is_that_of_a_backbone_and_column():
    runs = [
        run("a", 0.5),
        run("b", 0.6),
        run("c", 0.6),
        run("a", 0.9, backbone="other"),
    ]
    (one,) = table.arrange(runs)
    best = {(r.backbone, r.method) for r in one.rows if one.best(r, one.columns[0])}
    assert best == {("toy", "b"), ("toy", "c")}
    assert table_text.as_text([one]).count("*60.00") == 2
    (tie,) = table.arrange([run("a", 0.5), run("b", 0.5)])
    assert "*" not in table_text.as_text([tie])
    assert "**60.00 [55.00, 65.00]**" in table_text.as_markdown([one])


def test_a_rate_has_no_best():
    rates = [
        run("a", 0, scores={"yes_rate": score(0.5)}),
        run("b", 0, scores={"yes_rate": score(0.9)}),
    ]
    (one,) = table.arrange(rates, ["yes_rate"])
    assert shown(one)["b", "slake", "yes_rate"] == 0.9
    assert "*" not in table_text.as_text([one])


def test_missing_cells_and_denominators():
    other = {"closed/paper": score(0.4, n=10, groups=5)}
    runs = [
        run("a", 0.5),
        run("b", 0.6, task="vqa_rad", task_identity={"name": "vqa_rad"}, scores=other),
    ]
    (one,) = table.arrange(runs)
    lines = table_text.as_text([one]).splitlines()
    assert "355 q / 96 img" in lines[2]
    assert "10 q / 5 img" in lines[2]
    assert table_text.MISSING in next(line for line in lines if line.startswith("  b"))
    # A column whose cells have several denominators tells each in its cell.
    uneven = run("c", 0.7, scores={"closed/paper": score(0.7, n=354)})
    lines = table_text.as_text(table.arrange([run("a", 0.5), uneven])).splitlines()
    assert "354 q / 96 img" in next(line for line in lines if line.startswith("  c"))
    assert "355 q / 96 img" in next(line for line in lines if line.startswith("  a"))


def test_an_interval_that_is_missing_is_left_out():
    scores = {"closed/paper": score(0.5, margin=None)}
    text = table_text.as_text(table.arrange([run("a", 0.5, scores=scores)]))
    assert "50.00" in text
    assert "[" not in text


def test_csv_and_json_say_the_same_as_the_table():
    runs = [run("a", 0.5, seed=i) for i in (0, 1)] + [run("b", 0.6, state="partial", limit=9)]
    tables = table.arrange(runs)
    cells = {
        (one.preset, one.partial, row.method, column.metric): cell
        for one in tables
        for (row, column), cell in one.cells.items()
    }
    from_csv = {
        (line["preset"], line["partial"] == "True", line["method"], line["metric"]): line
        for line in csv.DictReader(io.StringIO(table_text.as_csv(tables)))
    }
    assert from_csv.keys() == cells.keys()
    for key, line in from_csv.items():
        assert float(line["value"]) == cells[key].value
        assert int(line["n"]) == cells[key].n
        assert line["keys"].split() == list(cells[key].keys)
    from_json = {
        (one["preset"], one["partial"], row["method"], column["metric"]): cell
        for one in json.loads(table_text.as_json(tables))
        for row in one["rows"]
        for column, cell in zip(one["columns"], row["cells"], strict=True)
    }
    assert {key: cell["value"] for key, cell in from_json.items()} == {
        key: cell.value for key, cell in cells.items()
    }
    assert from_json["matched", False, "a", "closed/paper"]["seeds"] == [0, 1]


def test_unfinished_and_broken_runs_are_not_shown():
    unfinished = replace(run("a", 0.5), state="unfinished", scores={})
    assert table.arrange([unfinished, RunRecord(folder=Path("y"), why="no")]) == []


def test_filters(monkeypatch):
    runs = [
        run("a", 0.5),
        run("a", 0.6, task="slake[language=zh]"),
        run("a", 0.7, backbone="llava_med_1.5"),
        RunRecord(folder=Path("y"), why="no"),
    ]
    monkeypatch.setattr("medbench.store.find_runs", lambda root: runs)
    collect = table.collect
    assert collect(Path("r")) == runs
    assert collect(Path("r"), tasks=["slake[language=zh]"]) == [runs[1], runs[3]]
    assert collect(Path("r"), tasks=["SLAKE"]) == runs
    assert collect(Path("r"), backbones=["LLaVA-Med-1.5"]) == [runs[2], runs[3]]
    with pytest.raises(UserError) as caught:
        collect(Path("r"), tasks=["slaek"])
    assert caught.value.why == "Did you mean slake?"


def test_no_runs_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="no runs in") as caught:
        table.collect(tmp_path)
    assert caught.value.do.startswith("medbench run")
