"""OmniMedVQA: CARES's file and the release, their dirt, the options, and the split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medbench.data.pictures import open_image
from medbench.errors import UserError
from medbench.task import Sample
from medbench.tasks import omnimedvqa as module
from medbench.tasks.omnimedvqa import OmniMedVqa

CARES = "omnimedvqa_factuality.jsonl"
OPTIONS = ("PET scan", "CT scan", "Blood test", "Fundus imaging")


def release_row(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "dataset": "ACRIMA",
        "question_id": f"ACRIMA_{number:04d}",
        "question_type": "Modality Recognition",
        "question": "What technique was used?",
        "gt_answer": "Fundus imaging",
        "image_path": f"Images/ACRIMA/Im {number // 2}.png",
        "option_A": OPTIONS[0],
        "option_B": OPTIONS[1],
        "option_C": OPTIONS[2],
        "option_D": OPTIONS[3],
        "modality_type": "Fundus Photography",
    }
    return {key: value for key, value in {**row, **changes}.items() if value != "drop"}


def cares_row(number: int, **changes: Any) -> dict[str, Any]:
    row = release_row(number)
    row["text"] = f"{row.pop('question')}\n<image>"
    row["answer"], row["image"] = row.pop("gt_answer"), row.pop("image_path")
    return {key: value for key, value in {**row, **changes}.items() if value != "drop"}


def write_cares(root: Path, rows: Iterable[dict[str, Any]]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / CARES).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_release(root: Path, files: dict[str, list[dict[str, Any]]]) -> None:
    folder = root / "QA_information" / "Open-access"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder for which six questions are the whole, in CARES's form or in two files."""
    monkeypatch.setattr(OmniMedVqa, "passport", {"train and test": {"rows": 6}})
    mirrors = {"open-access-7-3": {"train and test": {"rows": 6}}}
    monkeypatch.setattr(OmniMedVqa, "mirrors", mirrors)
    monkeypatch.setattr(module, "_N_FILES", 2)
    return tmp_path / "OmniMedVQA"


@pytest.fixture
def cares(place: Path) -> Path:
    """Six questions on three images in CARES's form."""
    write_cares(place, [cares_row(number) for number in range(6)])
    return place


@pytest.fixture
def release(place: Path) -> Path:
    """Six questions on three images in the release's form, one file's name with blanks."""
    chest = [
        release_row(n, dataset="Chest CT Scan", question_id=f"Chest CT Scan_{n}")
        for n in range(4, 6)
    ]
    files = {"ACRIMA": [release_row(n) for n in range(4)], "Chest CT Scan": chest}
    write_release(place, files)
    return place


def every(root: Path, **parameters: Any) -> list[Sample]:
    """Return the samples of both splits, in the order of their rows where ids are numbers."""
    task = OmniMedVqa(data=str(root), **parameters)
    found = [*task.samples("train"), *task.samples("test")]
    return sorted(found, key=lambda one: one.id)


def fails(root: Path, **parameters: Any) -> UserError:
    with pytest.raises(UserError) as raised:
        every(root, **parameters)
    assert len(raised.value.lines()) == 3
    return raised.value


class TestCares:
    def test_samples(self, cares: Path) -> None:
        found = every(cares)
        assert [one.id for one in found] == [f"omnimedvqa-ACRIMA_{n:04d}" for n in range(6)]
        first = found[0]
        assert first.kind == "choice"
        assert first.question == "What technique was used?"
        assert first.answer == "Fundus imaging"
        assert first.group == "Images/ACRIMA/Im 0.png"
        assert first.image == cares / "Images/ACRIMA/Im 0.png"
        assert first.meta == {
            "native_id": "ACRIMA_0000",
            "dataset": "ACRIMA",
            "question_type": "Modality Recognition",
            "modality": "Fundus Photography",
            "options": list(OPTIONS),
            "answer_text": "Fundus imaging",
            "answer_option": 3,
        }

    def test_asked_with_its_options_without_letters(self, cares: Path) -> None:
        task, first = OmniMedVqa(data=str(cares)), every(cares)[0]
        asked = "What technique was used? options: PET scan, CT scan, Blood test, Fundus imaging"
        assert task.ask(first) == asked
        assert task.name_region(first) == task.name_region(first, published=True) == asked

    def test_braces_in_a_question(self, place: Path) -> None:
        rows = [cares_row(n, text="What {is} this?", option_A="a {b}") for n in range(6)]
        write_cares(place, rows)
        first = every(place)[0]
        asked = OmniMedVqa(data=str(place)).ask(first)
        assert asked.startswith("What {is} this? options: a {b}, CT scan")

    def test_the_releases_names_of_the_fields(self, place: Path) -> None:
        write_cares(place, [release_row(number) for number in range(6)])
        assert every(place)[5].answer == "Fundus imaging"

    def test_edition(self, cares: Path) -> None:
        task = OmniMedVqa(data=str(cares))
        edition = task.edition("test")
        assert edition.name == "cares-7-3"
        assert edition.files == (cares / CARES,)
        for number in ("6155", "2642", "8797"):
            assert number in edition.note
        assert task.expects("test") == {}

    @pytest.mark.parametrize("keys", [OPTIONS, ("option_C", "option_D", "option_B")])
    def test_rows_without_options(self, place: Path, keys: tuple[str, ...]) -> None:
        gone = dict.fromkeys(("option_A", "option_B", "option_C", "option_D"), "drop")
        rows = [cares_row(number) for number in range(6)]
        rows[2] = cares_row(2, **gone if keys == OPTIONS else dict.fromkeys(keys, "drop"))
        write_cares(place, rows)
        error = fails(place)
        assert f"{CARES}, entry 3" in error.what
        assert "options; 2 to 4 are expected" in error.why

    def test_conversion_with_the_options_in_one_text(self, place: Path) -> None:
        row = {"question": "What?", "answer": "A:ear", "image": "a.jpg", "options": "A:ear, B:arm"}
        write_cares(place, [{**row, "question_id": 0, "text": "What?"}] * 6)
        assert "It has 0 options" in fails(place).why

    @pytest.mark.parametrize("key", ["text", "answer", "image"])
    @pytest.mark.parametrize("value", ["drop", "", None, " "])
    def test_rows_that_lack_something(self, place: Path, key: str, value: Any) -> None:
        write_cares(place, [cares_row(n, **{key: value} if n == 4 else {}) for n in range(6)])
        error = fails(place)
        assert "entry 5" in error.what
        assert f"(or '{key}')" in error.why

    @pytest.mark.parametrize(("rows", "why"), [(5, "1 id missing."), (7, "1 id too many.")])
    def test_other_number_of_questions(self, place: Path, rows: int, why: str) -> None:
        write_cares(place, [cares_row(number) for number in range(rows)])
        error = fails(place)
        assert error.what == f"omnimedvqa: {rows} of 6 train and test questions found"
        assert error.why == why

    @pytest.mark.parametrize("change", [{"question_id": 0}, {"question_id": "drop"}])
    def test_ids_that_are_none(self, place: Path, change: dict[str, Any]) -> None:
        write_cares(place, [cares_row(number, **change) for number in range(6)])
        found = every(place)
        assert [one.id for one in found] == [f"omnimedvqa-{number}" for number in range(6)]

    @pytest.mark.parametrize("value", ["drop", "", None])
    def test_one_id_missing(self, place: Path, value: Any) -> None:
        rows = [cares_row(n, **({"question_id": value} if n == 2 else {})) for n in range(6)]
        write_cares(place, rows)
        assert [one.id for one in every(place)] == [f"omnimedvqa-{number}" for number in range(6)]

    def test_one_id_twice(self, place: Path) -> None:
        rows = [cares_row(number) for number in range(6)]
        rows[5]["question_id"] = "ACRIMA_0000"
        write_cares(place, rows)
        found = every(place)
        assert [one.id for one in found] == [f"omnimedvqa-{number}" for number in range(6)]
        assert found[5].meta["native_id"] == "ACRIMA_0000"

    @pytest.mark.parametrize("below", ["OmniMedVQA", "CARES/data/OmniMedVQA", "data/OmniMedVQA"])
    def test_found_below(self, place: Path, tmp_path: Path, below: str) -> None:
        write_cares(tmp_path / "root" / below, [cares_row(number) for number in range(6)])
        root = tmp_path / "root" / ("CARES" if below.startswith("CARES") else ".")
        assert len(every(root)) == 6


class TestRelease:
    def test_samples(self, release: Path) -> None:
        found = every(release)
        assert [one.id for one in found] == [
            *(f"omnimedvqa-ACRIMA_{n:04d}" for n in range(4)),
            "omnimedvqa-Chest CT Scan_4",
            "omnimedvqa-Chest CT Scan_5",
        ]
        assert found[0].image == release / "Images/ACRIMA/Im 0.png"

    def test_edition(self, release: Path) -> None:
        edition = OmniMedVqa(data=str(release)).edition("test")
        assert edition.name == "open-access-7-3"
        assert [path.name for path in edition.files] == ["ACRIMA.json", "Chest CT Scan.json"]
        assert "whole open-access release" in edition.note

    @pytest.mark.parametrize("place_", [".", "OmniMedVQA", "OmniMedVQA/OmniMedVQA"])
    def test_found_below(self, release: Path, tmp_path: Path, place_: str) -> None:
        target = tmp_path / "root" / place_
        target.parent.mkdir(parents=True, exist_ok=True)
        release.rename(target)
        found = every(tmp_path / "root")
        assert found[0].image == target / "Images/ACRIMA/Im 0.png"

    def test_cares_goes_first(self, release: Path) -> None:
        write_cares(release, [cares_row(number) for number in range(6)])
        assert OmniMedVqa(data=str(release)).edition("test").name == "cares-7-3"

    def test_same_split_as_in_cares(self, release: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        write_cares(other, [cares_row(number) for number in range(6)])
        splits = [
            {one.group for one in OmniMedVqa(data=str(root)).samples("test")}
            for root in (release, other)
        ]
        assert splits[0] == splits[1]

    def test_short_key_of_the_modality(self, place: Path) -> None:
        odd = release_row(5, modality_type="drop", modality="CT(Computed Tomography)")
        write_release(place, {"A": [release_row(n) for n in range(5)], "B": [odd]})
        assert every(place)[5].meta["modality"] == "CT(Computed Tomography)"

    def test_a_file_missing(self, release: Path) -> None:
        (release / "QA_information" / "Open-access" / "ACRIMA.json").unlink()
        error = fails(release)
        assert "1 of 2 files" in error.what

    def test_a_question_missing(self, release: Path) -> None:
        write_release(release, {"ACRIMA": [release_row(n) for n in range(3)]})
        error = fails(release)
        assert error.what == "omnimedvqa: 5 of 6 train and test questions found"

    def test_real_numbers(self) -> None:
        assert OmniMedVqa.passport == {"train and test": {"rows": 8797}}
        assert OmniMedVqa.mirrors == {"open-access-7-3": {"train and test": {"rows": 88996}}}
        assert module._N_FILES == 42

    def test_restricted_part_alone(self, place: Path) -> None:
        (place / "QA_information" / "Restricted-access").mkdir(parents=True)
        error = fails(place)
        assert "Restricted-access" in error.why
        assert "no images" in error.why

    @pytest.mark.parametrize("content", ["[", "{}", "[3]"])
    def test_broken_file(self, release: Path, content: str) -> None:
        path = release / "QA_information" / "Open-access" / "Chest CT Scan.json"
        path.write_text(content, encoding="utf-8")
        assert "Chest CT Scan.json" in fails(release).what


def test_nothing_there(place: Path) -> None:
    place.mkdir()
    error = fails(place)
    assert CARES in error.what
    assert "QA_information/Open-access" in error.why
    for folder in ("", str(place / "none")):
        with pytest.raises(UserError, match="omnimedvqa: "):
            OmniMedVqa(data=folder).edition("test")


class TestOptions:
    def one(self, place: Path, **changes: Any) -> Sample:
        write_cares(place, [cares_row(n, **changes if n == 0 else {}) for n in range(6)])
        return every(place)[0]

    @pytest.mark.parametrize(
        ("dropped", "n"), [(("option_D",), 3), (("option_C", "option_D"), 2), ((), 4)]
    )
    @pytest.mark.parametrize("how", ["drop", None, ""])
    def test_two_to_four(self, place: Path, dropped: tuple[str, ...], n: int, how: Any) -> None:
        found = self.one(place, answer="CT scan", **dict.fromkeys(dropped, how))
        assert found.meta["options"] == list(OPTIONS[:n])
        assert found.meta["answer_option"] == 1
        asked = OmniMedVqa().ask(found)
        assert asked == f"What technique was used? options: {', '.join(OPTIONS[:n])}"

    @pytest.mark.parametrize(
        ("gold", "options", "right"),
        [
            ("x_ray.", ("X-ray", "CT", "MRI", "PET"), 0),
            ("CT.", ("X-ray", "CT", "MRI", "PET"), 1),
            ("mri", ("X-ray", "CT", "MRI.", "PET"), 2),
            ("PET", ("pet", "CT", "MRI", "PET"), 3),
            ("No, it is normal", ("Yes", "No, It's normal", "No it is normal.", "x"), 2),
        ],
    )
    def test_gold_that_differs_a_little(
        self, place: Path, gold: str, options: tuple[str, ...], right: int
    ) -> None:
        named = dict(zip(("option_A", "option_B", "option_C", "option_D"), options, strict=True))
        found = self.one(place, answer=gold, **named)
        assert found.answer == options[right]
        assert found.meta["answer_option"] == right
        assert found.meta["answer_text"] == gold

    @pytest.mark.parametrize("gold", ["Ultrasound", "scan", "ct scan ct scan"])
    def test_gold_that_is_no_option_stays_and_is_marked(self, place: Path, gold: str) -> None:
        found = self.one(place, answer=gold)
        assert found.answer == gold
        assert found.meta["answer_option"] is None
        assert len(every(place)) == 6

    def test_gold_that_could_be_two_options(self, place: Path) -> None:
        found = self.one(place, answer="ct Scan", option_A="CT Scan", option_B="CT scan.")
        assert found.meta["answer_option"] is None

    def test_trailing_full_stops_stay_in_options(self, place: Path) -> None:
        assert self.one(place, option_B="CT scan. ").meta["options"][1] == "CT scan."


class TestImages:
    def first(self, root: Path) -> Sample:
        return every(root)[0]

    @pytest.mark.parametrize(
        "written",
        ["Images/A b/x 1.png", "/Images/A b/x 1.png", "\\Images\\A b\\x 1.png", "A b/x 1.png"],
    )
    def test_path(self, place: Path, written: str) -> None:
        write_cares(place, [cares_row(n, image=written) for n in range(6)])
        image = place / "Images" / "A b" / "x 1.png"
        image.parent.mkdir(parents=True)
        Image.new("L", (5, 4)).save(image)
        assert open_image(self.first(place).image).size == (5, 4)

    @pytest.mark.parametrize(
        "images",
        ["OmniMedVQA/Images", "OmniMedVQA/images", "OmniMedVQA/OmniMedVQA/Images", "Images"],
    )
    def test_where_images_lie(self, cares: Path, images: str) -> None:
        (cares.parent / images).mkdir(parents=True)
        assert self.first(cares).image == cares.parent / images / "ACRIMA/Im 0.png"

    def test_one_image_in_two_spellings_is_one_group(self, place: Path) -> None:
        write_cares(place, [cares_row(n, image=f"{'/' * (n % 2)}Images/A/1.png") for n in range(6)])
        assert {one.group for one in every(place)} == {"Images/A/1.png"}


class TestSplit:
    def test_rule(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(OmniMedVqa, "passport", {"train and test": {"rows": 4000}})
        write_cares(place, [cares_row(n, question_id=str(n)) for n in range(4000)])
        task = OmniMedVqa(data=str(place))
        train, test = list(task.samples("train")), list(task.samples("test"))
        assert len(train) + len(test) == 4000
        assert not {one.group for one in train} & {one.group for one in test}
        for one in train + test:
            text = f"medbench omnimedvqa {one.group}"
            last = int(str(int(hashlib.sha256(text.encode()).hexdigest(), 16))[-1])
            assert (one in test) == (last in (0, 1, 2))
        # 1200 of 4000 are expected; three standard deviations of 2000 images are 61 questions each.
        assert 1077 < len(test) < 1323

    def test_rule_is_fixed(self) -> None:
        def split(number: int) -> str:
            group = f"Images/ACRIMA/Im{number}.png"
            return module._own_split(Sample("", Path(), "", "", "choice", group))

        assert [number for number in range(20) if split(number) == "test"] == [
            0,
            1,
            2,
            3,
            4,
            6,
            8,
            9,
            10,
            11,
            14,
            18,
            19,
        ]

    def test_a_users(self, cares: Path, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text('{"train": ["ACRIMA_0001", 2], "test": ["omnimedvqa-ACRIMA_0000"]}')
        task = OmniMedVqa(data=str(cares), split_file=str(path))
        assert [one.id for one in task.samples("test")] == ["omnimedvqa-ACRIMA_0000"]
        assert [one.id for one in task.samples("train")] == [
            "omnimedvqa-ACRIMA_0001",
            "omnimedvqa-ACRIMA_0002",
        ]
        assert task.edition("test").name.startswith("cares-split_file-")
        assert task.unkeyed == ("data", "split_file")

    @pytest.mark.parametrize("split", ["validation", "dev"])
    def test_no_other_split(self, cares: Path, split: str) -> None:
        with pytest.raises(UserError, match=split):
            list(OmniMedVqa(data=str(cares)).samples(split))


def test_a_run(cares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medbench: Any) -> None:
    for one in every(cares):
        assert isinstance(one.image, Path)
        one.image.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 30), 50).save(one.image)
    path = tmp_path / "mine.json"
    path.write_text('{"train": [0, 1], "test": [2, 3, 4, 5]}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code, out, err = medbench(
        *("run", "--method", "greedy", "--backbone", "toy", "--data", cares, "--json"),
        *("--task", f"omnimedvqa[max_new_tokens=4,split_file={path}]"),
    )
    assert code == 0, err
    result = json.loads(out)
    assert set(result["scores"]) == {"choice/paper", "choice/strict"}
    assert {score["n"] for score in result["scores"].values()} == {4}
    assert result["scores"]["choice/strict"]["notes"] == {"n_gold_no_option": 0}
    data = json.loads((Path(result["folder"]) / "run.json").read_text())["data"]
    assert data["edition"].startswith("cares-split_file-")
    code, out, err = medbench("table")
    assert code == 0, err
    shown, _, commands = out.partition("Made by: ")
    assert "choice/strict" in shown
    # Paths move no answer; only the command that makes the run again needs them.
    assert str(tmp_path) not in shown and str(cares) in commands
