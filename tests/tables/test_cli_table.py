"""`medbench table`: its options, and what it says where it cannot print a table."""

import json
import re

import pytest

from medbench.cli import main


def test_an_unknown_table_is_refused_with_its_neighbours(place, refused):
    assert refused("13") == [
        "no table '13'",
        "Did you mean 3 or 1?",
        "There are 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, or name a TOML file with rows and columns.",
    ]
    assert refused("six")[0] == "no table 'six'"
    assert refused("six.toml") == [
        "no file six.toml", "Shipped tables: 1, 2, 3, 4, 5, 8, 9, 10, 11, 12.",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["1", "2", "3", "4", "5", "8", "9", "10", "11", "12"])
def test_every_table_of_the_paper_is_printed_without_runs(place, shown, name):
    printed = shown(name, "--with", "paper")
    assert "No cell is filled; --missing prints the commands that would fill them.\n" in printed
    assert "ours" in printed and "paper" in printed and "*" in printed
    assert "ours" not in shown(name) and "*" not in shown(name)


def test_table_2_shows_fractions_and_table_3_methods_across(place, shown):
    assert "*0.275" in shown("2", "--with", "paper")
    lines = shown("3", "--with", "paper").splitlines()
    assert lines[2].split()[:4] == ["LLaVA-Med", "+", "LoRA", "Greedy"]
    assert lines[3] == "IU-Xray"
    assert lines[4].startswith("  BLEU ours") and lines[5].startswith("  BLEU paper")


# Which runs


def test_out_names_the_folder_of_the_runs(make, layout, shown, place):
    make("greedy", "1110", out=place / "mine")
    assert "75.00" in shown(layout(), "--out", "mine")
    assert "75.00" not in shown(layout())
    assert "75.00" in shown("--out", "mine")


def test_without_a_layout_runs_are_needed(place, refused):
    assert refused() == [
        "no runs in results/runs",
        "medbench run --method greedy --task phantom --backbone phantom makes one.",
    ]
    assert refused("--out", "mine")[0] == "no runs in mine"


def test_tasks_backbones_and_metrics_narrow_the_runs_found(make, tables):
    make("greedy", "1110")
    make("greedy", "1100", task="slake")
    make("greedy", "1000", backbone="phantom")

    def found(*options):
        (table,) = tables(*options)
        return {
            (column["task"], row["backbone"], column["metric"]): cell["value"]
            for row in table["rows"]
            for column, cell in zip(table["columns"], row["cells"], strict=True)
            if cell
        }

    strict = ("--metric", "closed/strict")
    assert found(*strict, "--task", "slake") == {("slake", "toy", "closed/strict"): 0.5}
    assert found(*strict, "--backbone", "phantom") == {
        ("phantom", "phantom", "closed/strict"): 0.25
    }
    assert len(found("--task", "slake,phantom", "--metric", "closed")) == 6
    assert len(found("--task", "slake", "--task", "phantom", *strict)) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--task", "slak"), ["no runs of task 'slak'", "There are runs of: phantom."]),
        (("--backbone", "phantom"), ["no runs of backbone 'phantom'", "There are runs of: toy."]),
        (
            ("--metric", "closed/papr"),
            ["no run has a score named 'closed/papr'", "Did you mean closed/paper"],
        ),
        (
            ("--preset", "published"),
            ["no runs of preset 'published'", "There are runs of: matched."],
        ),
        (
            ("--reference", "vdc"),
            ["no runs of method 'vdc' to compare with", "There are runs of: greedy."],
        ),
    ],
)
def test_what_no_run_has_is_refused(make, refused, options, told):
    make("greedy", "1110")
    lines = refused(*options)
    assert lines[0] == told[0]
    assert any(line.startswith(told[1]) for line in lines[1:])


def test_a_layout_is_put_on_another_task_and_backbone(make, shown):
    make("greedy", "1100", [0.5], task="phantom", backbone="phantom")
    make("vcd", "1110", [0.5], task="phantom", backbone="phantom")
    lines = shown("1", "--task", "phantom", "--backbone", "phantom").splitlines()
    assert lines[0] == "Medical VQA with phantom"
    assert lines[1].split() == ["phantom", "phantom"]
    assert lines[2].split() == ["Open", "Closed"]
    assert lines[4] == "phantom"
    assert any(line.startswith("  VCD ") and "*75.00 [" in line for line in lines)


def test_a_layout_takes_the_backbone_of_imported_answers(make, shown, refused):
    answers = {"preset": "imported", "identity": {"backbone": "their-model"}}
    make("greedy", "1110", task="phantom", backbone="their-model", **answers)
    options = ("1", "--task", "phantom", "--backbone", "their-model")
    assert re.search(r"\n  Greedy +–? +75\.00 \[", shown(*options))
    assert shown(*options, "--missing").startswith("medbench rescore ")
    assert refused("1", "--backbone", "their-modle")[0] == "no backbone named 'their_modle'"


# Options that do not fit


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--with", "paper"), "--with needs a table to look at"),
        (("--missing",), "--missing needs a table to look at"),
        (("1", "--metric", "closed"), "--metric and a layout do not go together"),
        (("1", "--reference", "greedy"), "--reference and a layout do not go together"),
        (("1", "--backbone", "toy,phantom"), "a layout takes one backbone at a time"),
        (("1", "--backbone", "toi"), "no backbone named 'toi'"),
        (("1", "--task", "slak"), "no task named 'slak'"),
        (("1", "--task", "slake[languge=zh]"), "slake has no parameter 'languge'"),
        (("1", "--backbone", "toy[seeed=1]"), "toy has no parameter 'seeed'"),
        (("1", "--task", "mimic_cxr"), "mimic_cxr has none of the metrics of table1"),
        (("1", "--preset", "matchd"), "no preset 'matchd'"),
        (("1", "--preset", "matchd", "--missing"), "no preset 'matchd'"),
        (("1", "--preset", "imported"), "no preset 'imported'"),
    ],
)
def test_options_that_make_no_sense_are_refused(place, refused, arguments, what):
    lines = refused(*arguments)
    assert lines[0] == what
    assert len(lines) > 1  # what to do


def test_a_layout_without_published_numbers_has_none_to_show(layout, refused):
    what, do = refused(layout(), "--with", "paper")
    assert what == "small names no published numbers"
    assert "published = NAME" in do


@pytest.mark.parametrize("options", [("--backbone", "phantom"), ("--task", "phantom")])
def test_published_numbers_do_not_stand_beside_what_they_are_not_of(place, refused, options):
    assert refused("1", "--with", "paper", *options) == [
        "a3tune-table1 has no number for any cell of the table",
        "Its numbers are of its own rows, columns, backbone and tasks.",
        "Leave --with out, or --task and --backbone.",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('backbone = "llava_med"', 'backbone = "toy"'),
        ('task = "slake"', 'task = "phantom"'),
        ('metric = "closed/paper"', 'metric = "closed/strict"'),
    ],
)
def test_names_alone_do_not_make_a_number_published(place, shown, refused, old, new):
    text = """
published = "a3tune-table1"
[[columns]]
heads = ["SLAKE", "Closed"]
task = "slake"
metric = "closed/paper"
[[groups]]
name = "LLaVA-Med"
backbone = "llava_med"
rows = [{ label = "Greedy", method = "greedy" }]
"""
    (place / "mine.toml").write_text(text, encoding="utf-8")
    assert "60.00" in shown("mine.toml", "--with", "paper")
    (place / "mine.toml").write_text(text.replace(old, new), encoding="utf-8")
    assert refused("mine.toml", "--with", "paper")[0].startswith("a3tune-table1 has no number")


def test_the_paper_s_columns_may_be_narrowed_to_a_task(place, shown):
    printed = shown("1", "--task", "SLAKE", "--with", "paper")
    assert printed.splitlines()[2].split() == ["Open", "Open", "Closed", "Closed"]
    assert "*86.76" in printed and "70.87" not in printed


def test_the_paper_s_own_backbone_changes_nothing(place, shown):
    assert shown("1", "--backbone", "LLaVA-Med", "--with", "paper") == shown("1", "--with", "paper")


def test_unknown_formats_and_papers_are_refused_by_their_names(place, medbench):
    for option, value in (("--format", "excel"), ("--with", "magazine")):
        code, out, err = medbench("table", "1", option, value)
        assert (code, out) == (2, "")
        assert value in err and "Traceback" not in err


# What is not shown


def test_runs_that_are_not_shown_are_counted_apart_from_the_table(make, layout, medbench):
    make("greedy", "1110")
    make("vcd", "1110", finished=False)
    make("dola", "", [])
    code, out, err = medbench("table", layout(), "--format", "json")
    assert code == 0
    assert json.loads(out)
    assert err == (
        "Not shown: 1 run has answers and no metric to score them.\n"
        "Not shown: 1 unfinished. See: medbench list runs\n"
    )


def test_restricted_runs_show_their_numbers_and_no_text(make, layout, shown):
    make("greedy", "1110", restricted=True, locations=("Secret",))
    make("vcd", "1111", restricted=True, locations=("Secret",))
    printed = shown(layout(), "--cost") + shown(layout(), "--format", "json")
    assert "75.00" in printed
    assert "Secret" not in printed and "is it?" not in printed


def test_help_names_the_tables(capsys):
    assert main(["table", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1, 2, 3, 4, 5, 8, 9, 10, 11 or 12 of A3Tune" in out
