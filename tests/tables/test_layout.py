"""Layouts: those that ship, and what is said of a file that is none."""

import csv

import pytest

from medbench import plugins, spec
from medbench.errors import UserError
from medbench.shipped import results
from medbench.tables.layout import on, read, shipped

TABLES = ("1", "2", "3", "4", "5", "8", "9", "10", "11", "12")
COLUMN = '[[columns]]\ntask = "phantom"\nmetric = "closed/paper"\n'
GROUP = '[[groups]]\nname = "Toy"\nbackbone = "toy"\nrows = [{ method = "greedy" }]\n'


def published_places(name):
    with (results("paper") / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return {(line["group"], line["row"], line["column"]): line for line in csv.DictReader(file)}


def test_the_paper_s_tables_ship():
    assert tuple(shipped()) == TABLES


@pytest.mark.parametrize("name", TABLES)
def test_a_shipped_layout_has_a_place_for_every_published_number(name):
    layout = read(name)
    places = {
        (row.group, row.label, " / ".join(column.heads)): (row, column)
        for row in layout.rows
        for column in layout.columns
    }
    numbers = published_places(layout.published)
    assert layout.published == f"a3tune-table{name}"
    assert numbers.keys() <= places.keys()
    for place, line in numbers.items():
        row, column = places[place]
        told = (row.backbone, row.method, column.task, column.metric)
        assert told == (line["backbone"], line["method"], line["task"], line["metric"])
    beside = {row.group for row in layout.rows} - {group for group, _, _ in numbers}
    assert beside == (set() if name == "2" else {"Beside the paper"})


@pytest.mark.parametrize("name", TABLES)
def test_a_shipped_layout_asks_only_for_what_its_tasks_have(name):
    for column in read(name).columns:
        task = plugins.get("task", spec.parse(column.task).name)
        assert column.metric in task.attributes["metrics"]


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"2"}))
def test_blind_and_shuffled_stand_in_each_table_and_are_compared_with_nothing(name):
    controls = [row for row in read(name).rows if row.method in ("blind", "shuffled")]
    assert [row.label for row in controls] == ["no image", "another image"]
    assert {row.reference for row in controls} == {None}


def test_methods_are_compared_with_greedy_and_lora_with_the_untuned_model():
    references = {(row.group, row.label): row.reference for row in read("1").rows}
    assert references["LLaVA-Med", "Greedy"] is None
    assert references["LLaVA-Med", "VCD"] == ("LLaVA-Med", "Greedy")
    assert references["LLaVA-Med + LoRA", "Greedy"] == ("LLaVA-Med", "Greedy")
    assert references["LLaVA-Med + LoRA", "A3Tune"] == ("LLaVA-Med + LoRA", "Greedy")
    assert references["Beside the paper", "MedAlign"] == ("LLaVA-Med + LoRA", "Greedy")


def test_what_is_left_out_has_a_default(layout):
    small = read(str(layout(text=COLUMN + GROUP)))
    (column,), (row,) = small.columns, small.rows
    assert column.heads == ("phantom", "closed/paper")
    assert (row.label, row.reference) == ("greedy", None)
    assert (small.across, small.unit, small.published, small.notes) == (
        "metrics", "percent", "", (),
    )  # fmt: skip


# Other tasks and another backbone


def test_metrics_are_asked_of_other_tasks_that_have_them():
    layout = on(read("1"), tasks=["phantom", "vqa_rad"])
    assert [(one.heads, one.task, one.metric) for one in layout.columns] == [
        (("phantom", "Open"), "phantom", "recall/paper"),
        (("phantom", "Closed"), "phantom", "closed/paper"),
        (("VQA-RAD", "Open"), "vqa_rad", "recall/paper"),
        (("VQA-RAD", "Closed"), "vqa_rad", "closed/paper"),
    ]


def test_a_part_of_the_samples_keeps_its_name_on_another_task():
    layout = on(read("10"), tasks=["phantom"])
    assert len(layout.columns) == 6
    assert layout.columns[0].heads == ("phantom", "Chest X-ray", "Open")
    assert layout.columns[0].where == (("location", ("Lung", "chest")),)


def test_a_task_without_any_of_the_metrics_is_refused():
    with pytest.raises(UserError) as caught:
        on(read("1"), tasks=["phantom", "mimic_cxr"])
    assert caught.value.what == "mimic_cxr has none of the metrics of table1"
    assert caught.value.do == "The table asks for: recall/paper, closed/paper, choice/paper."


def test_another_backbone_takes_the_model_s_place_and_name():
    layout = on(read("1"), backbone="phantom")
    assert {row.backbone for row in layout.rows} == {"phantom"}
    assert layout.title == "Medical VQA with phantom"
    assert "LLaVA-Med" not in " ".join(layout.notes)
    rows = {(row.group, row.label): row for row in layout.rows}
    assert rows["phantom", "phantom"].method.startswith("nucleus")
    assert rows["phantom + LoRA", "Greedy"].reference == ("phantom", "Greedy")
    assert {row.reference for row in layout.rows} <= {None, *rows}


# What is no layout

BAD = {
    "no file": (
        None,
        ["no file absent.toml", "Shipped tables: 1, 2, 3, 4, 5, 8, 9, 10, 11, 12."],
    ),
    "no TOML": (
        "title = ",
        ["cannot read small.toml", "Invalid value", "A layout is a TOML file."],
    ),
    "an unknown key": (
        'titel = "x"\n' + COLUMN + GROUP,
        ["the file has no 'titel'", "Did you mean title?"],
    ),
    "no columns": (GROUP, ["the file lacks 'columns'"]),
    "no groups": (COLUMN, ["the file lacks 'groups'"]),
    "one column in place of a list": (
        COLUMN.replace("[[columns]]", "[columns]") + GROUP,
        ["'columns' is no list of tables", "Write [[columns]]."],
    ),
    "an empty list": (
        'columns = []\n' + GROUP,
        ["'columns' is no list of tables", "Write [[columns]]."],
    ),
    "an unknown key of a column": (
        COLUMN + 'head = ["x"]\n' + GROUP,
        ["a column has no 'head'", "Did you mean heads?"],
    ),
    "a column without a metric": (
        '[[columns]]\ntask = "phantom"\n' + GROUP,
        ["a column lacks 'metric'"],
    ),
    "an unknown metric": (
        COLUMN.replace("closed/paper", "closed/papre") + GROUP,
        ["no metric named 'closed/papre'", "Did you mean closed/paper"],
    ),
    "an unknown parameter of a metric": (
        COLUMN.replace("closed/paper", "bertscore[rescald=on]") + GROUP,
        ["rescald", "rescaled"],
    ),
    "an unknown task": (
        COLUMN.replace("phantom", "phantm") + GROUP,
        ["no task named 'phantm'", "Did you mean phantom"],
    ),
    "an unknown backbone": (
        COLUMN + GROUP.replace('"toy"', '"toi"'),
        ["no backbone named 'toi'", "Did you mean toy?"],
    ),
    "an unknown method": (
        COLUMN + GROUP.replace("greedy", "greedi"),
        ["no method named 'greedi'", "Did you mean greedy?"],
    ),
    "an unknown part of a chain": (
        COLUMN + GROUP.replace("greedy", "lora+vdc"),
        ["no method named 'vdc'", "Did you mean vcd?"],
    ),
    "an unknown value of a method": (
        COLUMN + GROUP.replace("greedy", "vcd[alhpa=1]"),
        ["alhpa", "Did you mean alpha?"],
    ),
    "a method that is no spec": (
        COLUMN + GROUP.replace("greedy", "vcd[alpha=1"),
        ["cannot read 'vcd[alpha=1'"],
    ),
    "a chain that cannot run": (
        COLUMN + GROUP.replace("greedy", "vcd+lora"),
        ["'vcd+lora' is not a chain that can run", "It reads decoder then tuner"],
    ),
    "several methods in one row": (
        COLUMN + GROUP.replace("greedy", "vcd[alpha=1|2]"),
        ["alpha"],
    ),
    "heads that are no list": (
        COLUMN + 'heads = "x"\n' + GROUP,
        ["heads is no list of texts"],
    ),
    "a title that is no text": (
        "title = 1\n" + COLUMN + GROUP,
        ["title is no text", "It is 1."],
    ),
    "where is no table": (
        COLUMN + 'where = "Lung"\n' + GROUP,
        ["where is no table of fields and values"],
    ),
    "a choice that is none": (
        'across = "rows"\n' + COLUMN + GROUP,
        ["across cannot be 'rows'", "Take metrics or methods."],
    ),
    "a unit that is none": (
        'unit = "permille"\n' + COLUMN + GROUP,
        ["unit cannot be 'permille'", "Take percent or fraction."],
    ),
    "a row without a method": (
        COLUMN + GROUP.replace("{ method", '{ label = "x", methd'),
        ["a row has no 'methd'", "Did you mean method?"],
    ),
    "two rows of one name": (
        COLUMN + GROUP.replace("}]", '}, { method = "greedy" }]'),
        ["two rows are called 'Toy / greedy'"],
    ),
    "two columns of one name": (
        COLUMN + COLUMN + 'where = { location = "Lung" }\n' + GROUP,
        ["two columns are called 'phantom / closed/paper'"],
    ),
    "a reference that is no row": (
        COLUMN + GROUP.replace('"greedy" }', '"greedy", reference = "gredy" }'),
        ["no row 'Toy / gredy' to compare with", "Did you mean greedy?"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_layout_is_refused_by_the_file_s_name(layout, refused, case):
    text, told = BAD[case]
    name = "absent.toml" if text is None else layout(text=text).name
    lines = refused(name)
    said = "\n".join(lines)
    for words in told:
        assert words in said
    assert name in lines[0]
    if case not in ("no file", "no TOML"):
        assert lines[0].startswith("small.toml: ")
        assert lines[-1] == "Mend small.toml."


def test_published_numbers_that_are_not_there_are_named(layout, refused):
    layout(('model = "Toy"', 'published = "a3tune-table7"'))
    what, why = refused("small.toml", "--with", "paper")
    assert what == "no published numbers called 'a3tune-table7'"
    assert "a3tune-table8" in why
