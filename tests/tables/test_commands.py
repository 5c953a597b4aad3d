"""The commands below a table and those of `--missing`: they are run here, on a drawn task."""

import shlex

import pytest

SQUARES = '''"""Drawn squares, two questions each."""

from dataclasses import dataclass
from functools import partial

from medbench.task import Sample, Task


@dataclass(frozen=True)
class Squares(Task):
    """Drawn squares, two questions each."""

    name = "squares"
    metrics = ("closed/paper", "recall/paper")
    examples = (
        ("test-0-closed", "closed", "is it 0?", "yes"),
        ("test-0-open", "open", "is it 0?", "left lung"),
    )
    tuning = {"epochs": 1, "rank": 2, "batch_size": 8}

    max_new_tokens: int = 2

    def samples(self, split):
        for image in range(3):
            for kind, answer in (("closed", "yes"), ("open", "left lung")):
                yield Sample(
                    id=f"{split}-{image}-{kind}",
                    image=partial(draw, image),
                    question=f"is it {image}?",
                    answer=answer,
                    kind=kind,
                    group=f"image {image}",
                    stamp=f"square {image}",
                )


def draw(image):
    from PIL import Image

    return Image.new("RGB", (24, 24), (80 * image, 90, 250))
'''
OF_SQUARES = (
    ('"phantom"\nmetric = "closed', '"squares"\nmetric = "closed'),
    ('"phantom"\nmetric = "recall', '"squares"\nmetric = "recall'),
    ('"lora"', '"shuffled"'),  # which is not trained first
)


@pytest.fixture
def squares(place, layout):
    """Return the small layout on a drawn task of six questions."""
    (place / "tasks").mkdir()
    (place / "tasks" / "squares.py").write_text(SQUARES, encoding="utf-8")
    return layout(*OF_SQUARES)


@pytest.fixture
def obey(medbench):
    """Return a function that runs a command as it is printed."""

    def call(command):
        words = shlex.split(command)
        assert words[0] == "medbench"
        code, out, err = medbench(*words[1:])
        assert code == 0, err
        return out

    return call


@pytest.fixture
def missing(shown):
    """Return a function that returns what `--missing` prints."""

    def call(*arguments):
        return shown(*arguments, "--missing").splitlines()

    return call


# Run as they are


def test_what_is_missing_fills_an_empty_table(squares, missing, obey, cells):
    commands = missing(squares)
    assert commands == [
        "medbench run --method greedy,vcd,dola,shuffled,blind --task squares --backbone toy"
    ]
    for command in commands:
        obey(command)
    assert len(cells(squares)) == 10
    assert missing(squares) == []


def test_what_is_missing_fills_a_part_as_its_runs_were_made(squares, missing, obey, tables):
    obey("medbench run --method vcd --task squares --backbone toy --limit 4 --seeds 0,2 --out mine")
    options = ("--out", "mine")
    (command,) = missing(squares, *options)
    assert command == (
        "medbench run --method greedy,dola,shuffled,blind --task squares --backbone toy "
        "--limit 4 --out mine --seeds 0,2"
    )
    obey(command)
    (table,) = tables(squares, *options)
    assert table["partial"]
    found = [cell for row in table["rows"] for cell in row["cells"]]
    assert {tuple(cell["seeds"]) for cell in found} == {(0, 2)}
    assert missing(squares, *options) == []


def test_a_score_that_is_missing_is_computed_from_the_answers(
    squares, missing, obey, cells, layout
):
    obey("medbench run --method greedy --task squares --backbone toy")
    strict = layout(*OF_SQUARES, ('metric = "closed/paper"', 'metric = "closed/strict"'))
    rescore, *rest = [one for one in missing(strict) if "rescore" in one]
    assert rescore.startswith("medbench rescore results/runs/squares/toy/greedy/")
    assert rescore.endswith(" --metric closed/strict") and not rest
    obey(rescore)
    assert ("Toy", "Greedy", "closed/strict") in cells(strict)
    assert not [one for one in missing(strict) if "rescore" in one]


def test_the_footer_s_commands_make_the_same_runs_again(squares, obey, tables, place):
    obey("medbench run --method greedy,vcd[alpha=0.5],lora --task squares --backbone toy --limit 3")
    obey("medbench run --method greedy,lora --task squares --backbone toy --limit 3 --seeds 1,2")
    runs = place / "results" / "runs"

    def made():
        return {
            path.relative_to(runs): path.read_bytes()
            for path in runs.glob("squares/*/*/*/scores.json")
        }

    before = made()
    (table,) = tables()
    assert len(before) == 7
    runs.rename(place / "before")
    for command in table["commands"]:
        obey(command)
    assert made() == before


# As they are printed


def test_seeds_that_only_some_have_are_asked_of_the_others(make, layout, missing):
    for seed in (0, 1, 2):
        make("greedy", "10", [0.5], seed=seed)
    for seed in (0, 2):
        make("vcd", "10", [0.5], seed=seed)
    assert missing(layout()) == [
        "medbench run --method vcd --task phantom --backbone toy --seeds 1",
        "medbench run --method dola,lora,blind --task phantom --backbone toy --seeds 0-2",
    ]


def test_each_preset_and_part_is_filled_by_itself(make, layout, missing):
    make("greedy", "10", [0.5])
    make("greedy", "10", [0.5], preset="published")
    make("vcd", "10", [0.5], limit=3)
    rest = "--task phantom --backbone toy"
    assert missing(layout()) == [
        f"medbench run --method vcd,dola,lora,blind {rest}",
        f"medbench run --method vcd,dola,lora,blind {rest} --preset published",
        f"medbench run --method greedy,dola,lora,blind {rest} --limit 3",
    ]
    assert missing(layout(), "--preset", "published") == [
        f"medbench run --method vcd,dola,lora,blind {rest} --preset published"
    ]


def test_runs_of_another_limit_fill_nothing(make, layout, missing):
    make("vcd", "10", [0.5], limit=3)
    make("dola", "1010", [0.5], limit=5)
    rest = "--task phantom --backbone toy"
    assert missing(layout()) == [
        f"medbench run --method greedy,dola,lora,blind {rest} --limit 3",
        f"medbench run --method greedy,vcd,lora,blind {rest} --limit 5",
    ]


def test_an_empty_table_of_a_preset_is_filled_under_it(place, layout, missing):
    assert missing(layout(), "--preset", "published") == [
        "medbench run --method greedy,vcd,dola,lora,blind --task phantom --backbone toy "
        "--preset published"
    ]


def test_new_runs_are_made_as_those_of_the_same_backbone(make, layout, missing):
    options = "--batch-size 4 --dtype bfloat16 --device cuda:1"
    made = f"medbench run --method greedy --task phantom {options}"
    make("greedy", "10", [0.5], command=made)
    (command,) = missing(layout())
    assert command.startswith("medbench run --method vcd,dola,lora,blind --task phantom ")
    assert "--batch-size 4 --device cuda:1 --dtype bfloat16" in command


def test_new_runs_go_to_the_folder_that_the_table_is_of(make, layout, missing, place):
    made = "medbench run --method greedy --task phantom --out elsewhere"
    make("greedy", "10", [0.5], out=place / "old", command=made)
    assert [one.endswith("--out old") for one in missing(layout(), "--out", "old")] == [True]
    assert missing(layout(), "--out", "a place")[0].endswith(" --out 'a place'")
    assert "--out" not in missing(layout())[0]


def test_runs_without_an_image_or_two_are_joined_by_such(make, layout, missing):
    make("greedy", "10", [0.5], missing_images=2)
    (command,) = missing(layout())
    assert command.endswith("--task phantom --backbone toy --allow-missing-images")


def test_data_and_weights_lie_where_other_runs_had_them(make, missing):
    weights = "llava_med[weights=/w/my model,vision=/v]"
    make(
        "greedy", "10", task="slake", backbone="llava_med",
        command=f"medbench run --method greedy --task slake --backbone '{weights}' --data '/d x'",
    )  # fmt: skip
    slake, other, *_ = (shlex.split(one) for one in missing("1"))
    assert slake[slake.index("--data") + 1] == "/d x"
    assert slake[slake.index("--backbone") + 1] == weights
    assert "greedy" not in slake[3].split(",")
    assert (other[5], other[other.index("--data") + 1]) == ("vqa_rad", "DIR")
    assert other[other.index("--backbone") + 1] == weights


def test_data_and_weights_that_no_run_tells_are_left_to_be_named(place, missing):
    for command in missing("1"):
        assert command.endswith(" --backbone 'llava_med[weights=DIR]' --data DIR")
    assert missing("11")[0].endswith(" --backbone llava_med_1.5 --data DIR")
    (command,) = missing("1", "--task", "phantom", "--backbone", "phantom")
    assert command.endswith(" --task phantom --backbone phantom")


def test_one_run_fills_all_columns_of_its_task(place, missing):
    commands = missing("1")
    assert [shlex.split(one)[5] for one in commands] == [
        "slake", "vqa_rad", "pathvqa", "iu_xray", "omnimedvqa",
    ]  # fmt: skip
    methods = [part for part in shlex.split(commands[0])[3].replace(",top", " top").split(",")]
    assert len(methods) == len(set(methods)) == 28


def test_what_a_task_or_backbone_cannot_offer_is_not_asked_for(place, missing):
    """ControlMLLM needs regions, which SLAKE has and VQA-RAD has not."""
    slake, other, *_ = missing("1")
    assert ",controlmllm," in slake
    assert "controlmllm" not in other


def test_unfinished_runs_are_still_missing(make, layout, medbench):
    make("greedy", "10", finished=False)
    code, out, _ = medbench("table", layout(), "--missing")
    assert code == 0
    assert out == (
        "medbench run --method greedy,vcd,dola,lora,blind --task phantom --backbone toy\n"
    )


def test_imported_answers_are_only_scored(make, layout, missing):
    make(
        "greedy", "10", [0.5], preset="imported", identity={"backbone": "toy"},
        command="medbench import answers.jsonl --task phantom --method greedy",
    )  # fmt: skip
    strict = ("closed/strict",)
    folder = make(
        "vcd", "10", [0.5], preset="imported", metrics=strict, identity={"backbone": "toy"}
    )  # fmt: skip
    assert missing(layout(), "--preset", "imported") == [
        f"medbench rescore {folder.relative_to(folder.parents[5])} --metric closed/paper"
    ]


# The footer


def test_commands_that_differ_by_method_and_seed_are_one(make, layout, shown, tables):
    for seed in (0, 1, 2, 4):
        make("greedy", "10", seed=seed)
        make("vcd", "10", seed=seed)
    make("dola", "10")
    make("lora", "10", seed=3, command="sh a-script-of-mine.sh")
    made = [
        "medbench run --method greedy,vcd --task phantom --backbone toy --seeds 0,1,2,4",
        "medbench run --method dola --task phantom --backbone toy",
        "sh a-script-of-mine.sh",
    ]
    assert tables(layout())[0]["commands"] == made
    assert shown(layout()).endswith("\n         ".join([f"Made by: {made[0]}", *made[1:]]) + "\n")


def test_a_flag_keeps_its_command_whole(make, layout, tables):
    flagged = "medbench run --method vcd --task phantom --allow-missing-images"
    make("greedy", "10")
    make("vcd", "10", command=flagged)
    assert tables(layout())[0]["commands"][1] == flagged


def test_more_than_a_dozen_commands_are_counted(make, layout, shown, tables):
    for seed in range(14):
        make("greedy", "10", seed=seed, command=f"sh {seed}.sh")
    assert "... and 2 more; --format json has all." in shown(layout())
    assert len(tables(layout())[0]["commands"]) == 14


def test_runs_that_no_cell_holds_are_not_in_the_footer(make, layout, tables):
    make("greedy", "10")
    make("pai", "10")
    assert tables(layout())[0]["commands"] == [
        "medbench run --method greedy --task phantom --backbone toy"
    ]
