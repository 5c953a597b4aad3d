"""Which runs a page shows, what it calls them, and which may not stand side by side."""

import json

import pytest

from medbench import store
from medbench.errors import UserError
from medbench.viewer.chosen import find


@pytest.fixture
def names(place):
    def call(*words, **options):
        found = find([str(word) for word in words], place / "results" / "runs", **options)
        return [one.name for one in found]

    return call


def wrong(sample, number):
    return "no"


def test_a_word_is_a_method_a_key_or_a_folder(made, names, place):
    greedy, vcd = made("greedy"), made("vcd", wrong)
    (place / "elsewhere").mkdir()
    moved = greedy.rename(place / "elsewhere" / greedy.name)
    assert names("vcd", moved) == ["vcd", "greedy"]
    assert names(moved, vcd.name, task="gallery") == ["greedy", "vcd"]
    assert names(moved.parent) == ["greedy"]
    assert names(vcd, "vcd", vcd.name) == ["vcd"], "each run once"


def test_of_several_seeds_the_first_is_shown(made, names, place):
    folders = [made("greedy", seed=seed) for seed in (1, 0, 2)]
    assert names("greedy") == ["greedy (seed 0)"]
    (one,) = find(["greedy"], place / "results" / "runs")
    assert (one.run.folder, one.seeds) == (folders[1], (0, 1, 2))
    assert names(*folders) == ["greedy (seed 1)", "greedy", "greedy (seed 2)"]


def test_names_tell_runs_apart(made, names):
    one, other = made(preset="matched"), made(preset="published")
    assert names(one, other) == ["greedy (matched)", "greedy (published)"]
    again = made(identity={"batch_size": 8})
    assert names(one, again) == [f"greedy ({one.name})", f"greedy ({again.name})"]


def test_an_unfinished_run_is_shown_if_its_folder_is_named(made, names, place):
    folder = made(finished=False, answered=3)
    assert names(folder) == ["greedy"]
    (one,) = find([str(folder)], place)
    assert (one.run.state, len(one.rows)) == ("unfinished", 3)
    with pytest.raises(UserError, match="is not finished"):
        names("greedy")


def test_answers_of_an_unfinished_run_are_judged_by_the_strict_rules(made, place):
    folder = made(said=lambda sample, number: "yes", finished=False)
    (one,) = find([str(folder)], place)
    judged = {row["kind"]: row["scores"] for row in one.rows.values()}
    assert judged["closed"] == {"closed/strict": 1.0, "recall/strict": None}
    assert judged["open"] == {"closed/strict": None, "recall/strict": 0.0}


def test_different_limits_and_presets_may_stand_side_by_side(made, names):
    made("greedy")
    made("vcd", limit=3, preset="published")
    assert names("greedy", "vcd") == ["greedy", "vcd"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"task": "other"}, "the runs are of different tasks"),
        ({"change": lambda row: row.update(gold="no")}, "the runs read different data"),
        ({"change": lambda row: row.update(question="?")}, "the runs read different data"),
        ({"change": lambda row: row.update(id=f"x{row['id']}")}, "the runs share no samples"),
    ],
)
def test_runs_of_other_samples_are_refused(made, names, tasks, options, what):
    if "task" in options:
        tasks(options["task"])
    first, second = made("greedy"), made("vcd", **options)
    with pytest.raises(UserError, match=what) as caught:
        names(first, second)
    assert all(caught.value.lines())


def test_a_run_without_answers_may_stand_beside_others(made, names):
    empty = made(finished=False, answered=0)
    assert names("vcd", empty) if made("vcd") else False


def test_broken_runs_are_told(made, names):
    folder = made()
    (folder / store.SCORES).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot read .*scores\.json"):
        names(folder)
    run = json.loads((folder / store.RUN).read_text(encoding="utf-8"))
    del run["display"]
    (folder / store.SCORES).unlink()
    (folder / store.RUN).write_text(json.dumps(run), encoding="utf-8")
    with pytest.raises(UserError, match="cannot read") as caught:
        names(folder)
    assert caught.value.why == "run.json lacks 'display'."


def test_more_runs_than_can_be_read_are_refused(made, names):
    folders = [made(seed=seed, limit=1) for seed in range(13)]
    assert len(names(*folders[:12])) == 12
    with pytest.raises(UserError, match="13 runs are too many"):
        names(*folders)


def test_nothing_of_that_name(made, names):
    made("greedy")
    with pytest.raises(UserError, match="no run at 'gredy'") as caught:
        names("gredy")
    assert "greedy" in caught.value.why
