"""The published numbers: their shape, that they agree with each other, and their denominators."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from medbench import plugins, spec

_ROOT = Path(__file__).resolve().parents[2]
_PAPER = _ROOT / "results" / "paper"
_REAL = _ROOT / ".." / "shared" / "data"

HEADER = (
    "table", "group", "row", "column", "value", "n",
    "backbone", "method", "task", "metric", "source", "note",
)  # fmt: skip
DECODERS = (
    "Greedy", "Beam", "Nucleus", "VCD", "DoLa", "OPERA", "AVISC", "M3ID", "DAMRO", "PAI",
)  # fmt: skip
REPORT = ("BLEU", "ROUGE-L", "METEOR", "BERTScore", "CheXbert", "RadGraph", "RaTEScore")

# Rows and columns of each table as the paper prints it.
SHAPES = {
    "a3tune-table1": (23, 8),
    "a3tune-table2": (3, 2),
    "a3tune-table3": (12, 14),
    "a3tune-table4": (12, 2),
    "a3tune-table5": (12, 7),
    "a3tune-table6": (1, 14),
    "a3tune-table8": (23, 7),
    "a3tune-table9": (23, 7),
    "a3tune-table10": (12, 6),
    "a3tune-table11": (23, 7),
    "a3tune-table12": (23, 7),
    "medalign": (1, 10),
}
# Denominators that follow from the printed values alone.
INFERRED = {
    ("a3tune-table1", "SLAKE / Closed"): 355,
    ("a3tune-table1", "VQA-RAD / Closed"): 254,
    ("a3tune-table1", "PathVQA / Closed"): 3391,
    ("a3tune-table1", "IU-Xray / Closed"): 784,
    ("a3tune-table1", "OmniMedVQA / Closed"): 2642,
    ("a3tune-table4", "SLAKE / Closed"): 355,
    ("a3tune-table10", "Chest X-ray / Closed"): 119,
    ("a3tune-table10", "Abdomen CT / Closed"): 122,
    ("a3tune-table10", "Brain MRI / Closed"): 63,
}
# Values that are no k/n to two decimals, and the k that is less than 0.01 away. All but 87.40 are
# cut, not rounded.
INEXACT = {
    ("a3tune-table1", "Beam", "IU-Xray / Closed", "73.59"): 577,
    ("a3tune-table1", "Nucleus", "IU-Xray / Closed", "83.41"): 654,
    ("a3tune-table10", "Nucleus", "Chest X-ray / Closed", "87.40"): 104,
    ("a3tune-table10", "AVISC", "Chest X-ray / Closed", "87.40"): 104,
    ("a3tune-table10", "Beam", "Brain MRI / Closed", "84.12"): 53,
    ("a3tune-table10", "M3ID", "Brain MRI / Closed", "73.01"): 46,
}
# Table 10's column heads name images, but its counts are those of SLAKE's `location`.
LOCATIONS = {
    "Chest X-ray / Closed": ("Lung",),
    "Abdomen CT / Closed": ("Abdomen",),
    "Brain MRI / Closed": ("Brain", "Brain_Tissue"),
}


def lines(name: str) -> list[dict[str, str]]:
    with (_PAPER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def values(name: str) -> dict[tuple[str, str, str], str]:
    return {(one["group"], one["row"], one["column"]): one["value"] for one in lines(name)}


def judged() -> list[tuple[str, dict[str, str]]]:
    """Return (file, line) of each cell that is a share of questions."""
    return [
        (name, one)
        for name in SHAPES
        for one in lines(name)
        if one["metric"].startswith(("closed/", "choice/"))
    ]


def hundredths(printed: str) -> int:
    return round(100 * float(printed))


def rounds_to(printed: str, n: int) -> bool:
    near = hundredths(printed) * n // 10_000
    return any(
        abs(round(100 * k / n, 2) - float(printed)) < 0.005 for k in (near, near + 1) if k <= n
    )


def is_near(printed: str, n: int) -> bool:
    """Tell whether some k/n is less than one unit of the last digit away."""
    near = hundredths(printed) * n // 10_000
    return any(abs(10_000 * k / n - hundredths(printed)) < 1 for k in (near, near + 1))


def test_there_is_a_shape_for_every_file() -> None:
    assert {path.stem for path in _PAPER.glob("*.csv")} == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    with (_PAPER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        assert tuple(next(csv.reader(file))) == HEADER
    cells = lines(name)
    rows = {(one["group"], one["row"]) for one in cells}
    columns = {one["column"] for one in cells}
    places = {(one["table"], one["group"], one["row"], one["column"]) for one in cells}
    assert (len(rows), len(columns)) == SHAPES[name]
    assert len(cells) == len(places) == len(rows) * len(columns)
    assert len({one["table"] for one in cells}) == 1


def test_only_one_cell_has_no_value() -> None:
    empty = [
        (name, one["row"], one["column"], one["note"])
        for name in SHAPES
        for one in lines(name)
        if not one["value"]
    ]
    assert empty == [("a3tune-table12", "A3Tune", "MIMIC-CXR / BLEU", "not in the text")]


def test_percentages_are_such() -> None:
    for name in SHAPES:
        for one in lines(name):
            if one["value"] and one["metric"]:
                is_fraction = one["metric"].startswith(("coverage/", "intensity/"))
                whole, _, decimals = one["value"].partition(".")
                assert len(decimals) == (3 if is_fraction else 2), one
                assert 0 <= int(whole) <= (0 if is_fraction else 99), one


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"a3tune-table6", "medalign"}))
def test_rows_are_the_papers(name: str) -> None:
    groups: dict[str, set[str]] = {}
    for one in lines(name):
        groups.setdefault(one["group"], set()).add(one["row"])
    if name == "a3tune-table2":
        assert groups == {"LLaVA-Med": {"LLaVA-Med", "LLaVA-Med + LoRA", "A3Tune"}}
        return
    for group, rows in groups.items():
        tuned = {"A3Tune"} if group.endswith("+ LoRA") else set()
        assert rows == {group, *DECODERS} | tuned


@pytest.mark.parametrize("name", ["a3tune-table3", "a3tune-table5", "a3tune-table11"])
def test_columns_of_reports(name: str) -> None:
    found = {one["column"] for one in lines(name)}
    data = ("IU-Xray", "MIMIC-CXR") if name == "a3tune-table3" else ("IU-Xray",)
    assert found == {f"{one} / {metric}" for one in data for metric in REPORT}


def test_a_share_of_questions_is_a_whole_number_of_them() -> None:
    inexact = {}
    for name, one in judged():
        n = int(one["n"])
        if not rounds_to(one["value"], n):
            inexact[name, one["row"], one["column"], one["value"]] = n
            assert one["note"], one
    assert set(inexact) == set(INEXACT)
    for place, n in inexact.items():
        assert abs(100 * INEXACT[place] / n - float(place[-1])) < 0.01


@pytest.mark.parametrize("place", INFERRED)
def test_no_smaller_denominator_fits_a_column(place: tuple[str, str]) -> None:
    name, column = place
    cells = [one for one in lines(name) if one["column"] == column]
    printed = {one["value"] for one in cells}
    assert {one["n"] for one in cells} == {str(INFERRED[place])}
    # Where one value is allowed to be a little off, all are.
    fits = is_near if any((name, column) == (one[0], one[2]) for one in INEXACT) else rounds_to
    found = (n for n in range(2, 4000) if all(fits(value, n) for value in printed))
    assert next(found) == INFERRED[place]


def test_the_rest_of_a_test_set_is_open() -> None:
    sizes = {one["column"]: int(one["value"]) for one in lines("a3tune-table6")}
    for name in ("a3tune-table1", "a3tune-table4"):
        counts = {one["column"]: one for one in lines(name)}
        for column, one in counts.items():
            data, _, kind = column.partition(" / ")
            if kind == "Open":
                whole = sizes[f"Medical VQA / {data} / Test"]
                assert int(one["n"]) == whole - int(counts[f"{data} / Closed"]["n"])
                assert one["note"].startswith("complement")


def test_what_table_6_says_of_closed_sets_and_reports_is_their_n() -> None:
    sizes = {one["column"]: one["value"] for one in lines("a3tune-table6")}
    shared = [("a3tune-table1", "Medical VQA", data) for data in ("IU-Xray", "OmniMedVQA")]
    shared += [
        (name, "Report Generation", data)
        for name in SHAPES
        for data in ("IU-Xray", "MIMIC-CXR")
        if name not in ("a3tune-table1", "a3tune-table6", "medalign")
    ]
    for name, kind, data in shared:
        for one in lines(name):
            if one["column"].startswith(f"{data} / "):
                assert one["n"] == sizes[f"{kind} / {data} / Test"]


def test_table_3_is_the_tuned_half_of_tables_8_and_9() -> None:
    full = values("a3tune-table8") | values("a3tune-table9")
    tuned = {place: value for place, value in full.items() if place[0] == "LLaVA-Med + LoRA"}
    assert values("a3tune-table3") == tuned


def test_table_10_has_the_rows_of_table_1() -> None:
    tuned = {row for group, row, _ in values("a3tune-table1") if group == "LLaVA-Med + LoRA"}
    assert {row for _, row, _ in values("a3tune-table10")} == tuned


def test_table_10_adds_up_with_table_1_but_for_two_rows() -> None:
    """Of the 355 closed questions 304 are of the three regions; at most 51 more can be right."""
    whole, parts = values("a3tune-table1"), values("a3tune-table10")
    group = "LLaVA-Med + LoRA"
    rest = {}
    for row in {row for _, row, _ in parts}:
        right = round(3.55 * float(whole[group, row, "SLAKE / Closed"]))
        for column in LOCATIONS:
            n = INFERRED["a3tune-table10", column]
            right -= round(n * float(parts[group, row, column]) / 100)
        rest[row] = right
    assert {row for row, right in rest.items() if not 0 <= right <= 51} == {"VCD", "M3ID"}


def test_rows_that_the_paper_prints_twice() -> None:
    """They are noted, since two methods or two models do not answer alike."""
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for name in sorted(set(SHAPES) - {"a3tune-table3", "a3tune-table6"}):
        rows: dict[tuple[str, str], list[dict[str, str]]] = {}
        for one in lines(name):
            rows.setdefault((one["group"], one["row"]), []).append(one)
        for (_, row), cells in rows.items():
            key = tuple(one["value"] for one in cells)
            found.setdefault(key, []).append((name, row))
    doubled = sorted(sorted(places) for places in found.values() if len(places) > 1)
    assert doubled == [
        *([("a3tune-table11", row), ("a3tune-table8", row)] for row in ("DoLa", "Nucleus", "VCD")),
        [("a3tune-table4", row) for row in ("DAMRO", "Nucleus", "VCD")],
        [("a3tune-table5", row) for row in ("DAMRO", "VCD")],
    ]
    for name, row in (place for places in doubled for place in places):
        of_row = [one for one in lines(name) if one["row"] == row and "LoRA" in one["group"]]
        # The note stands at the later of two tables.
        assert name == "a3tune-table8" or all("same" in one["note"] for one in of_row)


# Typed by hand.
@pytest.mark.parametrize(
    ("name", "group", "row", "column", "value"),
    [
        ("a3tune-table1", "LLaVA-Med", "LLaVA-Med", "SLAKE / Open", "41.28"),
        ("a3tune-table1", "LLaVA-Med", "M3ID", "VQA-RAD / Closed", "62.60"),
        ("a3tune-table1", "LLaVA-Med + LoRA", "A3Tune", "SLAKE / Closed", "86.76"),
        ("a3tune-table1", "LLaVA-Med + LoRA", "A3Tune", "OmniMedVQA / Closed", "91.98"),
        ("a3tune-table2", "LLaVA-Med", "A3Tune", "SLAKE / Coverage", "0.275"),
        ("a3tune-table2", "LLaVA-Med", "LLaVA-Med", "SLAKE / Intensity", "0.076"),
        ("a3tune-table3", "LLaVA-Med + LoRA", "OPERA", "IU-Xray / CheXbert", "56.26"),
        ("a3tune-table3", "LLaVA-Med + LoRA", "AVISC", "MIMIC-CXR / RaTEScore", "40.08"),
        ("a3tune-table4", "HuatuoGPT-V + LoRA", "A3Tune", "SLAKE / Open", "86.77"),
        ("a3tune-table4", "HuatuoGPT-V + LoRA", "HuatuoGPT-V + LoRA", "SLAKE / Closed", "91.27"),
        ("a3tune-table5", "HuatuoGPT-V + LoRA", "A3Tune", "IU-Xray / METEOR", "36.30"),
        ("a3tune-table6", "", "", "Medical VQA / PathVQA / Training", "19755"),
        ("a3tune-table6", "", "", "Report Generation / MIMIC-CXR / Test", "441"),
        ("a3tune-table8", "LLaVA-Med", "OPERA", "IU-Xray / RadGraph", "3.48"),
        ("a3tune-table8", "LLaVA-Med + LoRA", "A3Tune", "IU-Xray / BLEU", "11.05"),
        ("a3tune-table9", "LLaVA-Med", "Greedy", "MIMIC-CXR / BLEU", "0.42"),
        ("a3tune-table9", "LLaVA-Med + LoRA", "PAI", "MIMIC-CXR / CheXbert", "25.78"),
        ("a3tune-table10", "LLaVA-Med + LoRA", "VCD", "Brain MRI / Closed", "69.84"),
        ("a3tune-table10", "LLaVA-Med + LoRA", "A3Tune", "Chest X-ray / Open", "82.21"),
        ("a3tune-table11", "LLaVA-Med-1.5", "OPERA", "IU-Xray / RadGraph", "1.41"),
        ("a3tune-table11", "LLaVA-Med-1.5 + LoRA", "A3Tune", "IU-Xray / BERTScore", "88.51"),
        ("a3tune-table12", "LLaVA-Med-1.5", "M3ID", "MIMIC-CXR / ROUGE-L", "11.50"),
        ("a3tune-table12", "LLaVA-Med-1.5 + LoRA", "A3Tune", "MIMIC-CXR / RaTEScore", "42.15"),
        ("medalign", "", "MedAlign", "SLAKE / Closed", "92.39"),
        ("medalign", "", "MedAlign", "MIMIC-CXR / BLEU", "4.76"),
    ],
)
def test_anchors(name: str, group: str, row: str, column: str, value: str) -> None:
    assert values(name)[group, row, column] == value


def test_doubtful_places_of_table_12() -> None:
    doubtful = Counter(
        (one["group"], one["row"])
        for one in lines("a3tune-table12")
        if one["note"].startswith("doubtful")
    )
    assert doubtful == {("LLaVA-Med-1.5", row): 2 for row in ("Greedy", "Nucleus", "VCD")}


def test_cells_name_what_medbench_has() -> None:
    cells = [one for name in SHAPES if name != "a3tune-table6" for one in lines(name)]
    for kind in ("backbone", "method", "task", "metric"):
        for text in sorted({one[kind] for one in cells} - {""}):
            for part in spec.parse_chain(text):
                plugin = plugins.get(kind, part.name)
                plugins.values(plugin, part)  # an unknown parameter is an error
                assert plugin.name in text  # as it is spelled
    for task, metric in {(one["task"], one["metric"]) for one in cells}:
        assert metric in plugins.get("task", spec.parse(task).name).attributes["metrics"]


def test_only_medalign_names_no_backbone() -> None:
    kinds = ("backbone", "method", "task", "metric")
    lacking = {
        (name, kind)
        for name in SHAPES
        if name != "a3tune-table6"
        for one in lines(name)
        for kind in kinds
        if not one[kind]
    }
    assert lacking == {("medalign", "backbone")}  # the leaderboard does not say


def test_methods_follow_from_group_and_row() -> None:
    for name in set(SHAPES) - {"a3tune-table6", "medalign"}:
        for one in lines(name):
            chain = [part.name for part in spec.parse_chain(one["method"])]
            is_tuned = "LoRA" in one["group"] or "LoRA" in one["row"]
            if one["row"] == "A3Tune":
                assert chain == ["a3tune"]
            elif one["row"] == "Greedy":
                assert chain == ["lora" if is_tuned else "greedy"]
            else:
                decoder = one["row"].lower() if one["row"] in DECODERS else "nucleus"
                assert chain == (["lora", decoder] if is_tuned else [decoder])


def test_numbers_of_table_6_name_no_run() -> None:
    kinds = ("n", "backbone", "method", "task", "metric")
    assert not any(one[kind] for one in lines("a3tune-table6") for kind in kinds)


@pytest.fixture(scope="module")
def slake() -> list[dict[str, str]]:
    """Return SLAKE's English test questions."""
    rows = json.loads((_real() / "slake/Slake1.0/test.json").read_text(encoding="utf-8"))
    return [row for row in rows if row["q_lang"] == "en"]


def test_slake_has_as_many_closed_questions(slake: list[dict[str, str]]) -> None:
    assert len(slake) == 1061
    assert sum(_is_yes_or_no(row) for row in slake) == 355


@pytest.mark.parametrize("column", LOCATIONS)
def test_slake_has_as_many_closed_questions_of_a_region(
    slake: list[dict[str, str]], column: str
) -> None:
    of_region = [row for row in slake if row["location"] in LOCATIONS[column]]
    assert sum(map(_is_yes_or_no, of_region)) == INFERRED["a3tune-table10", column]
    # Not by the modality that the head names, nor by what SLAKE itself calls closed.
    modality = column.split(" / ")[0].split()[-1].lower()
    named = [row for row in of_region if row["modality"].lower() == modality]
    assert sum(map(_is_yes_or_no, named)) != INFERRED["a3tune-table10", column]
    own = sum(row["answer_type"] == "CLOSED" for row in of_region)
    assert own != INFERRED["a3tune-table10", column]


def test_vqa_rad_has_as_many_closed_questions() -> None:
    text = (_real() / "vqa_rad/VQA_RAD Dataset Public.json").read_text(encoding="utf-8")
    test = [row for row in json.loads(text) if row["phrase_type"].startswith("test")]
    assert len(test) == 451
    begins = [str(row["answer"]).strip().lower().startswith(("yes", "no")) for row in test]
    assert sum(begins) == 254


def _is_yes_or_no(row: dict[str, str]) -> bool:
    return row["answer"].strip().lower() in ("yes", "no")


def _real() -> Path:
    if not _REAL.is_dir():
        pytest.skip("the real files are not beside this checkout")
    return _REAL
