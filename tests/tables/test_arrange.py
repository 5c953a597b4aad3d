"""Without a layout: the runs found, methods down and tasks across."""

from dataclasses import replace
from pathlib import Path

import pytest

from medbench.errors import UserError
from medbench.store import RunRecord
from medbench.tables import text
from medbench.tables.arrange import arrange, collect, referring
from medbench.tables.markdown import as_markdown
from medbench.tables.notes import caption
from medbench.tables.sheets import MISSING, sheets

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
        folder=Path(f"{method} {value} {identity} {facts}"),
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


def values(one):
    """Return {(method or method (note), task, metric): value} of a table."""
    return {
        (f"{row.method} ({row.note})" if row.note else row.method, column.task, column.metric): (
            cell.value
        )
        for (row, column), cell in one.cells.items()
    }


def as_text(*tables):
    return text.as_text([sheet for one in tables for sheet in sheets(one)])


def test_methods_down_and_headline_metrics_across():
    (one,) = arrange([run("vcd", 0.6), run("greedy", 0.5)])
    assert [row.method for row in one.rows] == ["greedy", "vcd"]
    assert [column.metric for column in one.columns] == ["closed/paper", "closed/strict"]
    assert values(one)["vcd", "slake", "closed/strict"] == pytest.approx(0.5)


def test_rows_of_a_backbone_stand_together():
    runs = [run(method, 0.5, backbone=name) for method in "ba" for name in ("toy", "other")]
    (one,) = arrange(runs)
    assert [(row.backbone, row.method) for row in one.rows] == [
        ("other", "a"), ("other", "b"), ("toy", "a"), ("toy", "b"),
    ]  # fmt: skip


def test_metrics_asked_for():
    (one,) = arrange([run("vcd", 0.6)], ["coverage", "closed/PAPER"])
    assert [column.metric for column in one.columns] == ["closed/paper", "coverage/sum"]
    with pytest.raises(UserError) as caught:
        arrange([run("vcd", 0.6)], ["closd/paper"])
    assert caught.value.why == "Did you mean closed/paper?"


def test_a_task_without_headline_metrics_shows_all():
    scores = {"bleu4/nltk": score(0.1), "rouge_l/nltk": score(None, margin=None)}
    (one,) = arrange([run("vcd", 0.6, scores=scores)])
    assert [column.metric for column in one.columns] == ["bleu4/nltk"]


def test_partial_runs_stand_apart_and_limits_do_not_mix():
    runs = [
        run("vcd", 0.6),
        run("vcd", 0.9, state="partial", limit=20),
        run("pai", 0.8, state="partial", limit=40),
        run("pai", 0.7, state="partial", missing_images=3),
    ]
    whole, partial = arrange(runs)
    assert not whole.partial
    assert values(whole) == {
        ("vcd", "slake", "closed/paper"): 0.6,
        ("vcd", "slake", "closed/strict"): 0.5,
    }
    assert partial.partial
    assert {(c.limit, c.missing_images) for c in partial.columns} == {(20, 0), (40, 0), (None, 3)}
    shown = as_text(whole, partial)
    assert shown.count("PARTIAL") == 1
    assert "slake, first 20" in shown
    assert "slake, 3 left out" in shown
    assert "left samples out" in shown


def test_presets_stand_apart():
    matched, published = arrange([run("vcd", 0.6), run("vcd", 0.7, preset="published")])
    assert (matched.preset, published.preset) == ("matched", "published")
    assert list(values(matched).values())[0] == 0.6
    assert caption(published)[0].startswith("Preset published: each method")


@pytest.mark.parametrize(
    "other",
    [{"version": 2}, {"parameters": {"closed_rule": "dataset"}}, {"samples": "c" * 64}],
)
def test_another_version_or_rule_or_data_is_another_column(other):
    (one,) = arrange([run("vcd", 0.6), run("vcd", 0.7, task_identity=other)])
    assert len(one.rows) == 1
    assert len(one.columns) == 4
    heads = as_text(one).splitlines()[0].split("  ")
    assert len({name.strip() for name in heads} - {""}) == 2


def test_a_task_with_its_defaults_written_out_is_the_same_column():
    (one,) = arrange([run("a", 0.6, task="slake[closed_rule=paper]"), run("b", 0.7)])
    assert {column.task for column in one.columns} == {"slake"}
    assert len(one.columns) == 2


def test_another_text_of_the_task_s_file_is_the_same_column():
    runs = [run("a", 0.6, task_identity={"source": "1"}), run("b", 0.7)]
    (one,) = arrange(runs)
    assert len(one.columns) == 2


def test_seeds_are_averaged_and_their_spread_shown():
    (one,) = arrange([run("vcd", value, seed=i) for i, value in enumerate((0.5, 0.6, 0.7))])
    (row,) = one.rows
    cell = one.cells[row, one.columns[0]]
    assert cell.value == pytest.approx(0.6)
    assert cell.spread == pytest.approx(0.1)
    assert (cell.low, cell.high) == (pytest.approx(0.55), pytest.approx(0.65))
    assert cell.seeds == (0, 1, 2)
    shown = as_text(one)
    assert "60.00 [55.00, 65.00] ± 10.00 (3 seeds)" in shown
    assert "standard deviation between seeds" in shown
    assert "95 % interval over the images" in shown


def test_one_seed_has_no_spread():
    (one,) = arrange([run("vcd", 0.6)])
    assert {cell.spread for cell in one.cells.values()} == {None}
    assert "±" not in as_text(one)


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged():
    runs = [
        run("vcd", 0.5),
        run("vcd", 0.7, seed=1),
        run("vcd", 0.6, dtype="bfloat16"),
    ]
    (one,) = arrange(runs)
    found = {name: value for (name, _, metric), value in values(one).items() if "paper" in metric}
    assert found == {
        "vcd (backbone.dtype=float32)": pytest.approx(0.6),
        "vcd (backbone.dtype=bfloat16)": 0.6,
    }
    (one,) = arrange([run("vcd", 0.5), run("vcd", 0.6, source="c" * 64)])
    assert [row.note for row in one.rows] == ["decoder.source=bbbbbbbb", "decoder.source=cccccccc"]


def test_two_runs_of_one_seed_are_told_apart_by_their_keys():
    (one,) = arrange([run("vcd", 0.5), replace(run("vcd", 0.6), key="other")])
    assert {row.note for row in one.rows} == {"vcd-0-float32", "other"}


def test_the_best_and_the_second_are_those_of_a_backbone_and_column():
    runs = [
        run("a", 0.5),
        run("b", 0.6),
        run("c", 0.6),
        run("d", 0.4),
        run("a", 0.9, backbone="other"),
    ]
    (one,) = arrange(runs)
    column = one.columns[0]
    ranks = {(r.backbone, r.method): one.ranks.get((r, column), "") for r in one.rows}
    assert ranks == {
        ("toy", "a"): "second",
        ("toy", "b"): "best",
        ("toy", "c"): "best",
        ("toy", "d"): "",
        ("other", "a"): "",
    }
    shown = as_text(one)
    assert shown.count("*60.00") == 2
    assert "°50.00" in shown
    assert "**60.00 [55.00, 65.00]**" in as_markdown(sheets(one))


def test_what_looks_equal_is_equally_good():
    (tie,) = arrange([run("a", 0.5), run("b", 0.500049)])
    assert not tie.ranks
    assert "*" not in as_text(tie)


def test_a_rate_has_no_best():
    rates = [
        run("a", 0, scores={"yes_rate": score(0.5)}),
        run("b", 0, scores={"yes_rate": score(0.9)}),
    ]
    (one,) = arrange(rates, ["yes_rate"])
    assert values(one)["b", "slake", "yes_rate"] == 0.9
    assert "*" not in as_text(one)


def test_missing_cells_and_denominators():
    other = {"closed/paper": score(0.4, n=10, groups=5)}
    runs = [
        run("a", 0.5),
        run("b", 0.6, task="vqa_rad", task_identity={"name": "vqa_rad"}, scores=other),
    ]
    lines = as_text(*arrange(runs)).splitlines()
    assert "355 q / 96 img" in lines[2]
    assert "10 q / 5 img" in lines[2]
    assert MISSING in next(line for line in lines if line.startswith("  b"))


def test_a_column_of_several_denominators_tells_each_in_its_cell():
    uneven = run("c", 0.7, scores={"closed/paper": score(0.7, n=354)})
    lines = as_text(*arrange([run("a", 0.5), uneven])).splitlines()
    assert "354 q / 96 img" in next(line for line in lines if line.startswith("  c"))
    assert "355 q / 96 img" in next(line for line in lines if line.startswith("  a"))


def test_an_interval_that_is_missing_is_left_out():
    scores = {"closed/paper": score(0.5, margin=None)}
    shown = as_text(*arrange([run("a", 0.5, scores=scores)]))
    assert "50.00" in shown
    assert "[" not in shown


@pytest.mark.parametrize(
    ("health", "told"),
    [
        ({"rows": 100, "cut": 3}, "3.0 % cut"),
        ({"rows": 100, "cut": 2}, ""),
        ({"rows": 100, "cut": None}, ""),
        ({"rows": 1000, "empty": 21}, "2.1 % empty"),
        ({"yes_no": 40, "neither": 1}, "2.5 % neither yes nor no"),
        ({"yes_no": 40, "both": 2}, "5.0 % both yes and no"),
        ({"yes_no": 0, "neither": 0}, ""),
    ],
)
def test_answers_that_are_not_sound_are_told_above_two_percent(health, told):
    shown = as_text(*arrange([run("a", 0.5, health=health)]))
    line = f"†: more than 2 % of the answers are not sound: a on slake, {told}."
    assert (line in shown) == bool(told)
    assert ("55.00] †" in shown) == bool(told)


def test_only_closed_questions_are_asked_for_a_yes_or_a_no():
    scores = {"recall/paper": score(0.5)}
    health = {"yes_no": 40, "neither": 20}
    assert "†" not in as_text(*arrange([run("a", 0.5, scores=scores, health=health)]))


def test_unsound_answers_are_counted_over_all_seeds():
    one, two = ({"rows": 100, "cut": cut} for cut in (0, 4))
    runs = [run("a", 0.5, health=one), run("a", 0.5, seed=1, health=two)]
    assert "†" not in as_text(*arrange(runs))
    assert "†" in as_text(*arrange(runs[1:]))


def test_another_copy_of_the_data_is_named():
    runs = [run("a", 0.5, edition="mirror", note="It lacks two images.")]
    shown = as_text(*arrange(runs))
    assert "slake (mirror)" in shown
    assert "slake (mirror): It lacks two images." in shown


def test_unfinished_and_broken_runs_are_not_shown():
    unfinished = replace(run("a", 0.5), state="unfinished", scores={})
    assert arrange([unfinished, RunRecord(folder=Path("y"), why="no")]) == []


def test_a_reference_is_found_on_each_backbone_however_it_is_written():
    runs = [
        run("greedy", 0.5),
        run("vcd[alpha=1]", 0.6),
        run("greedy", 0.4, backbone="other"),
        run("dola", 0.4, backbone="third"),
    ]
    (one,) = referring(arrange(runs), "GREEDY")
    assert {row.method: at.method for row, at in one.references.items()} == {
        "vcd[alpha=1]": "greedy"
    }
    (one,) = referring(arrange(runs), "vcd")
    assert [(row.method, at.method) for row, at in one.references.items()] == [
        ("greedy", "vcd[alpha=1]")
    ]


def test_an_unknown_or_doubtful_reference_is_refused():
    with pytest.raises(UserError) as caught:
        referring(arrange([run("greedy", 0.5)]), "greedi")
    assert caught.value.why == "Did you mean greedy?"
    tables = arrange([run("greedy", 0.5), run("greedy", 0.6, dtype="bfloat16")])
    with pytest.raises(UserError, match="several kinds of runs of 'greedy' with toy") as caught:
        referring(tables, "greedy")
    assert "bfloat16" in caught.value.why


def test_filters(monkeypatch):
    runs = [
        run("a", 0.5),
        run("a", 0.6, task="slake[language=zh]"),
        run("a", 0.7, backbone="llava_med_1.5"),
        RunRecord(folder=Path("y"), why="no"),
    ]
    monkeypatch.setattr("medbench.run_index.find_runs", lambda root: runs)
    assert collect(Path("r")) == runs
    assert collect(Path("r"), tasks=["slake[language=zh]"]) == [runs[1], runs[3]]
    assert collect(Path("r"), tasks=["SLAKE"]) == runs
    assert collect(Path("r"), backbones=["LLaVA-Med-1.5"]) == [runs[2], runs[3]]
    with pytest.raises(UserError) as caught:
        collect(Path("r"), tasks=["slaek"])
    assert caught.value.why == "Did you mean slake?"


def test_no_runs_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="no runs in") as caught:
        collect(tmp_path)
    assert caught.value.do.startswith("medbench run")
