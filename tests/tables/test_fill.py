"""Which run belongs into which cell, and what must not stand in one table."""

import json

import pytest

from medbench import store

CLOSED, OPEN = "closed/paper", "recall/paper"


def values(cells):
    return {place: cell["value"] for place, cell in cells.items()}


# Where a run belongs


def test_runs_stand_where_the_layout_says(make, layout, cells):
    make("greedy", "1100", [0.5])
    make("vcd", "1110", [0.75])
    make("lora", "1111", [0.25])
    make("pai", "0000")  # not in the layout
    make("dola", "0000", backbone="phantom")
    make("dola", "0000", task="slake")
    assert values(cells(layout())) == {
        ("Toy", "Greedy", CLOSED): 0.5,
        ("Toy", "Greedy", OPEN): 0.5,
        ("Toy", "VCD", CLOSED): 0.75,
        ("Toy", "VCD", OPEN): 0.75,
        ("Toy + LoRA", "Greedy", CLOSED): 1.0,
        ("Toy + LoRA", "Greedy", OPEN): 0.25,
    }


@pytest.mark.parametrize("written", ["vcd", "VCD", "vcd[alpha=1]", "vcd[beta=0.1,alpha=1.0]"])
def test_a_method_s_defaults_may_be_written_out(make, layout, cells, written):
    make(written, "1110")
    assert values(cells(layout())) == {("Toy", "VCD", CLOSED): 0.75}


@pytest.mark.parametrize("written", ["vcd[alpha=0.5]", "lora+vcd", "vcd[noise_steps=10]"])
def test_another_method_is_not_taken_for_it(make, layout, cells, written):
    make(written, "1110")
    assert cells(layout()) == {}


@pytest.mark.parametrize("written", ["lora", "lora+greedy", "LoRA+Greedy"])
def test_a_tuner_alone_picks_greedily(make, layout, cells, written):
    make(written, "1110")
    assert values(cells(layout())) == {("Toy + LoRA", "Greedy", CLOSED): 0.75}


def test_tasks_and_backbones_may_have_their_defaults_written_out(make, layout, cells):
    make("vcd", "1110", backbone="toy[seed=0,layers=2]")
    make("dola", "1000", task="slake[language=en]")
    found = cells(
        layout(('"phantom"\nmetric = "closed/paper"', '"slake"\nmetric = "closed/paper"'))
    )
    assert values(found) == {("Toy", "DoLa", CLOSED): 0.25}
    assert values(cells(layout())) == {("Toy", "VCD", CLOSED): 0.75}


def test_other_parameters_of_task_or_backbone_do_not_fit(make, layout, cells):
    make("vcd", "1110", backbone="toy[seed=1]")
    make("dola", "1110", task="phantom[where=3]")
    assert cells(layout()) == {}


def test_runs_without_the_score_leave_the_cell_empty(make, layout, cells):
    make("greedy", "1100", metrics=("closed/strict",))
    assert cells(layout()) == {}


def test_a_cell_is_empty_until_all_its_seeds_have_the_score(make, layout, cells, shown):
    make("greedy", "1100")
    folder = make("greedy", "1110", seed=1, metrics=("closed/strict",))
    assert cells(layout()) == {}
    rescore = f"medbench rescore {folder.relative_to(folder.parents[5])} --metric closed/paper\n"
    assert rescore in shown(layout(), "--missing")


def test_seeds_are_averaged_and_their_spread_is_apart(make, layout, cells, shown):
    for seed, closed in enumerate(("1100", "1110", "1111")):
        make("vcd", closed, seed=seed)
    (cell,) = cells(layout()).values()
    assert cell["value"] == pytest.approx(0.75)
    assert cell["spread"] == pytest.approx(0.25)
    assert cell["seeds"] == [0, 1, 2]
    assert (cell["n"], cell["groups"]) == (4, 2)
    printed = shown(layout())
    assert "± 25.00 (3 seeds)" in printed
    assert "standard deviation between seeds, of which the value is the mean" in printed


def test_the_interval_of_seeds_is_that_of_one_run(make, layout, cells):
    make("vcd", "11110000")
    (alone,) = cells(layout()).values()
    for seed in (1, 2, 3):
        make("vcd", "11110000", seed=seed)
    (several,) = cells(layout()).values()
    assert (several["low"], several["high"]) == (alone["low"], alone["high"])
    assert several["low"] < 0.5 < several["high"]
    assert several["spread"] == 0


# Some of the samples

WHERE = (
    'task = "phantom"\nmetric = "closed/paper"',
    'task = "phantom"\nmetric = "closed/paper"\nwhere = { location = ["lung", "Heart"] }',
)


def test_a_column_may_be_about_some_samples(make, layout, cells):
    make("vcd", "110100", locations=("Lung", "heart", "Abdomen"))
    (cell,) = cells(layout(WHERE)).values()
    # Of 1 1 0 1 0 0 the first, second, fourth and fifth are meant, on three images.
    assert (cell["value"], cell["n"], cell["groups"]) == (0.75, 4, 3)
    assert cell["low"] <= 0.75 <= cell["high"]


def test_a_sample_must_have_one_of_the_values_of_every_field(make, layout, cells):
    make("vcd", "110100", locations=("Lung", "heart", "Abdomen"))
    numbers = ('"Heart"] }', '"Heart"], number = [0, 2, 4, 5] }')
    (cell,) = cells(layout(WHERE, numbers)).values()
    # Of the first, second, fourth and fifth, the first and the fifth.
    assert (cell["value"], cell["n"]) == (0.5, 2)


def test_a_column_about_no_sample_is_refused(make, layout, refused):
    make("vcd", "1100", locations=("Abdomen",))
    what, why, do = refused(layout(WHERE))
    assert what == "phantom has no sample with location lung or Heart"
    assert do.endswith("samples.jsonl.")


def test_a_metric_without_values_among_the_samples_is_refused(make, layout, refused):
    # Closed questions come first: a lung, an abdomen, and then the open one about the abdomen.
    make("vcd", "10", [1.0], locations=("Lung", "Abdomen", "Abdomen"))
    some = ('metric = "recall/paper"', 'metric = "recall/paper"\nwhere = { location = "Lung" }')
    assert refused(layout(some)) == ["recall/paper applies to none of the samples meant in phantom"]


def test_a_score_that_is_no_mean_has_none_over_some_samples(make, layout, refused, cells):
    make("vcd", "1100", pooled=0.3, locations=("Lung",))
    pooled = ('metric = "closed/paper"', 'metric = "bleu4/coco"')
    assert values(cells(layout(pooled))) == {("Toy", "VCD", "bleu4/coco"): 0.3}
    what, why, do = refused(layout(WHERE, pooled))
    assert what == "bleu4/coco has no score over some samples only"
    assert do == "Take a metric that is, such as bleu4/nltk for bleu4/coco."


# What stands in tables of its own


def test_presets_stand_in_tables_of_their_own(make, layout, tables, shown):
    make("vcd", "1100")
    make("dola", "1110", preset="published")
    found = tables(layout())
    assert [one["preset"] for one in found] == ["matched", "published"]
    counts = [
        sum(cell is not None for row in one["rows"] for cell in row["cells"]) for one in found
    ]
    assert counts == [1, 1]
    printed = shown(layout(), "--preset", "published")
    assert "Preset published: each method picks tokens as its authors did." in printed
    assert "  DoLa      75.00" in printed and "  VCD       –" in printed


def test_partial_runs_stand_in_tables_of_their_own(make, layout, tables, shown):
    make("vcd", "1100")
    make("vcd", "1111", limit=4)
    make("dola", "1110", limit=4)
    whole, part = tables(layout())
    assert (whole["partial"], part["partial"]) == (False, True)
    (row,) = [row for row in whole["rows"] if any(row["cells"])]
    assert (row["label"], row["cells"][0]["value"]) == ("VCD", 0.5)
    printed = shown(layout())
    assert "PARTIAL\n" in printed
    assert "World, first 4" in printed
    assert "not to be compared with whole ones" in printed


def test_imported_answers_stand_in_a_table_of_their_own(make, layout, tables):
    make("vcd", "1100")
    make("dola", "1110", preset="imported", identity={"backbone": "toy", "decoder": "dola"})
    assert [one["preset"] for one in tables(layout())] == ["imported", "matched"]


# What is refused

MIXED = {
    "another version of the task": (
        {"identity": {"task.version": 2}},
        "the runs of phantom are not over the same samples",
        "version is 1 in ",
    ),
    "other data": (
        {"identity": {"task.samples": "9" * 64}},
        "the runs of phantom are not over the same samples",
        "samples is bbbbbbbb in ",
    ),
    "other parameters of the task": (
        {"identity": {"task.parameters": {"language": "zh"}}},
        "the runs of phantom are not over the same samples",
        "parameters",
    ),
    "other weights": (
        {"identity": {"backbone": {"name": "toy", "weights": "9" * 64, "dtype": "float32"}}},
        "the runs with toy cannot be compared",
        "weights is cccccccc in ",
    ),
    "another decoding engine": (
        {"identity": {"engine": 2}},
        "the runs with toy cannot be compared",
        "engine is 1 in ",
    ),
}


@pytest.mark.parametrize("case", MIXED)
def test_what_must_not_stand_side_by_side_is_refused(make, layout, refused, case):
    changes, told, how = MIXED[case]
    one, another = make("greedy", "1100"), make("vcd", "1100", **changes)
    what, why, do = refused(layout())
    assert what == told
    assert how in why
    assert one.name in why and another.name in why
    assert do.startswith("Move the runs that are not meant")


def test_partial_runs_of_other_limits_make_tables_of_their_own(make, layout, tables):
    make("greedy", "1100", limit=4)
    make("vcd", "110000", limit=6)
    made = tables(layout())
    assert [one["partial"] for one in made] == [True, True]
    assert [one["columns"][0]["limit"] for one in made] == [4, 6]


def test_runs_that_lack_other_images_are_refused(make, layout, refused):
    make("greedy", "1100", missing_images=1)
    make("vcd", "1100", missing_images=2)
    assert refused(layout())[1].startswith("left out is 1 in ")


KINDS = {
    "numbers type": ({"backbone.dtype": "bfloat16"}, "backbone.dtype: float32 or bfloat16"),
    "batch size": ({"batch_size": 1}, "batch_size: 16 or 1"),
    "source of the method": ({"decoder.source": "new"}, "decoder.source: vcd or new"),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", KINDS)
def test_a_cell_s_runs_differ_by_the_seed_alone(make, layout, refused, case, seed):
    changes, told = KINDS[case]
    one = make("vcd", "1100")
    other = make("vcd", "1110", seed=seed, identity=changes)
    what, why, do = refused(layout())
    assert what == "there are runs of several kinds for 'Toy / VCD' on phantom"
    assert told in why
    assert one.name in why and other.name in why
    assert do.endswith("their mean would be of neither.")


def test_two_runs_of_one_seed_are_refused(make, layout, refused):
    make("vcd", "1100")
    make("vcd", "1110", identity={"adapter": "trained elsewhere"})
    what, why, do = refused(layout())
    assert what == "there are two runs of seed 0 for 'Toy / VCD' on phantom"
    assert why.count("results/runs/phantom/toy/vcd/") == 2
    assert do == "Move the one that is not meant to another folder."


def test_rows_may_differ_in_numbers_type_and_the_footer_tells(make, layout, shown):
    make("greedy", "1100")
    make("vcd", "1100", identity={"backbone.dtype": "bfloat16"})
    assert "toy weights cccccccc float32 and cccccccc bfloat16." in shown(layout())


def test_what_is_mixed_elsewhere_does_not_matter(make, layout, cells):
    make("greedy", "1100")
    make("pai", "1111", identity={"engine": 2, "task.version": 2})
    make("greedy", "1100", backbone="phantom", identity={"engine": 2})
    assert values(cells(layout())) == {("Toy", "Greedy", CLOSED): 0.5}


@pytest.mark.parametrize("form", ["text", "md", "tex", "csv", "json", "html"])
def test_no_format_prints_what_is_mixed(make, layout, refused, form):
    make("greedy", "1100")
    make("vcd", "1110", identity={"task.version": 2})
    lines = refused(layout(), "--format", form)
    assert lines[0] == "the runs of phantom are not over the same samples"


# Answers that cannot be read


def test_a_broken_line_is_refused_by_file_and_number(make, layout, refused):
    make("greedy", "1100")
    path = make("vcd", "1110") / store.SAMPLES
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], '{"id": \n', *lines[2:]]), encoding="utf-8")
    what, why, do = refused(layout())
    assert what.startswith("line 2 of ") and what.endswith("samples.jsonl is broken")
    assert do.startswith("Delete that line and scores.json; ")


def test_runs_that_answered_other_samples_are_not_compared(make, layout, refused):
    make("greedy", "1100")
    folder = make("vcd", "1110")
    rows = store.read_rows(folder)
    rows[3]["id"] = "another"
    store.finish(folder, rows, store.read_scores(folder))
    what, why, _ = refused(layout())
    assert what == "the runs of phantom did not answer the same samples"
    assert folder.name in why


def test_a_broken_run_is_left_out_and_counted(make, layout, medbench):
    make("greedy", "1100")
    (make("vcd", "1110") / store.RUN).write_text("{", encoding="utf-8")
    make("dola", "1110", finished=False)
    code, out, err = medbench("table", layout(), "--format", "json")
    assert code == 0
    assert err == "Not shown: 1 broken, 1 unfinished. See: medbench list runs\n"
    (table,) = json.loads(out)
    assert [row["label"] for row in table["rows"] if any(row["cells"])] == ["Greedy"]
