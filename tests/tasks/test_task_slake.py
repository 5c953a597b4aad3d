"""SLAKE: the official files, the counts, the regions, and everything that can be wrong."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from medbench.data.pictures import open_image, with_images
from medbench.errors import UserError
from medbench.provenance import hash_samples
from medbench.tasks.slake import Slake, labels_in, read_boxes

Language = Literal["en", "zh", "all"]
Rule = Literal["paper", "dataset", "yesno"]


@pytest.mark.parametrize(
    ("language", "counts"),
    [("en", (4919, 1053, 1061)), ("zh", (4916, 1046, 1033)), ("all", (9835, 2099, 2094))],
)
def test_real_counts(real_data: Path, language: Language, counts: tuple[int, ...]) -> None:
    task = Slake(data=str(real_data), language=language)
    found = tuple(len(list(task.samples(split))) for split in ("train", "validation", "test"))
    assert found == counts


@pytest.mark.parametrize(("rule", "closed"), [("paper", 355), ("yesno", 355), ("dataset", 416)])
def test_real_closed_questions(real_data: Path, rule: Rule, closed: int) -> None:
    samples = list(Slake(data=str(real_data / "slake"), closed_rule=rule).samples("test"))
    assert Counter(sample.kind for sample in samples) == {"closed": closed, "open": 1061 - closed}
    assert len({sample.group for sample in samples}) == 96


def test_real_splits_share_no_image_in_english(real_data: Path) -> None:
    task = Slake(data=str(real_data))
    groups = [
        {sample.group for sample in task.samples(split)}
        for split in ("train", "validation", "test")
    ]
    assert [len(group) for group in groups] == [450, 96, 96]
    assert not groups[0] & groups[2]
    chinese = {
        sample.group for sample in Slake(data=str(real_data), language="zh").samples("train")
    }
    assert len(chinese & groups[2]) > 0  # why languages are not mixed


def test_real_file_with_one_question_less_names_it(real_data: Path, tmp_path: Path) -> None:
    rows = json.loads((real_data / "slake/Slake1.0/test.json").read_text(encoding="utf-8"))
    (dropped,) = (row for row in rows if row["qid"] == 11940)
    rows.remove(dropped)
    (tmp_path / "test.json").write_text(json.dumps(rows), encoding="utf-8")
    error = fails(Slake(data=str(tmp_path)))
    assert error.what == "slake: 1060 of 1061 test questions found"
    assert error.why == "1 id missing, first: slake-11940."


def test_samples(small_slake: Path) -> None:
    samples = list(Slake(data=str(small_slake)).samples("test"))
    assert [sample.id for sample in samples] == ["slake-0", "slake-1", "slake-3", "slake-4"]
    assert [sample.kind for sample in samples] == ["closed", "open", "open", "closed"]
    first = samples[0]
    assert first.image == small_slake / "imgs/xmlab0/source.jpg"
    assert first.group == "xmlab0"
    assert first.meta["native_id"] == 0
    assert first.meta["modality"] == "CT"
    assert Slake(data=str(small_slake)).ask(first) == "Is the liver enlarged?"


@pytest.mark.parametrize(("language", "n"), [("en", 4), ("zh", 2), ("all", 6)])
def test_language_comes_first(small_slake: Path, language: Language, n: int) -> None:
    assert len(list(Slake(data=str(small_slake), language=language).samples("test"))) == n


def test_dataset_rule(small_slake: Path) -> None:
    samples = Slake(data=str(small_slake), closed_rule="dataset", language="all").samples("test")
    assert [sample.kind for sample in samples] == [
        "closed", "open", "closed", "closed", "closed", "open",
    ]  # fmt: skip


@pytest.mark.parametrize("place", [".", "Slake1.0", "slake", "slake/Slake1.0", "SLAKE"])
def test_found_in_the_folder_or_below(small_slake: Path, tmp_path: Path, place: str) -> None:
    target = tmp_path / "data" / place
    target.parent.mkdir(parents=True, exist_ok=True)
    small_slake.rename(target)
    # Another data set's file of the same name must not be taken for this one's.
    if place != ".":
        (tmp_path / "data" / "test.json").write_text("[]", encoding="utf-8")
    assert len(list(Slake(data=str(tmp_path / "data")).samples("test"))) == 4
    assert len(list(Slake(data=str(target)).samples("test"))) == 4


def test_images_without_the_upper_folder(small_slake: Path) -> None:
    for folder in (small_slake / "imgs").iterdir():
        folder.rename(small_slake / folder.name)
    (small_slake / "imgs").rmdir()
    samples = list(Slake(data=str(small_slake)).samples("test"))
    assert samples[0].image == small_slake / "xmlab0/source.jpg"


@pytest.mark.parametrize("name", ["validate.json", "validation.json"])
def test_both_names_of_the_validation_file(
    small_slake: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (small_slake / "test.json").rename(small_slake / name)
    monkeypatch.setattr(Slake, "passport", {"validation": Slake.passport["test"]})
    monkeypatch.setattr("medbench.tasks.slake._ID_RANGES", {"validation": (0, 5)})
    assert len(list(Slake(data=str(small_slake)).samples("validation"))) == 4


class TestRegions:
    def region(self, root: Path, number: int) -> np.ndarray:
        sample = list(Slake(data=str(root)).samples("test"))[number]
        assert sample.roi is not None
        region = sample.roi()
        assert region.dtype == bool
        assert region.shape == (30, 40)
        return region

    def test_box_reaching_out_of_the_image(self, small_slake: Path) -> None:
        expected = np.zeros((30, 40), dtype=bool)
        expected[20:25, 30:40] = True
        assert np.array_equal(self.region(small_slake, 0), expected)

    def test_organ_means_both_sides(self, small_slake: Path) -> None:
        expected = np.zeros((30, 40), dtype=bool)
        expected[5:15, 20:30] = True
        expected[5:15, 2:12] = True
        assert np.array_equal(self.region(small_slake, 3), expected)

    def test_no_name_no_region(self, small_slake: Path) -> None:
        assert list(Slake(data=str(small_slake)).samples("test"))[1].roi is None  # no lung there

    def test_mask_pixels_come_before_the_box(self, small_slake: Path) -> None:
        (small_slake / "mask.txt").write_text("70:Liver\n135:Left Lung\n", encoding="utf-8")
        grey = np.zeros((30, 40, 3), dtype=np.uint8)
        grey[1:3, 1:4] = 70
        Image.fromarray(grey).save(small_slake / "imgs/xmlab0/mask.png")
        expected = np.zeros((30, 40), dtype=bool)
        expected[1:3, 1:4] = True
        assert np.array_equal(self.region(small_slake, 0), expected)

    def test_box_where_the_mask_lacks_the_label(self, small_slake: Path) -> None:
        (small_slake / "mask.txt").write_text("70:Liver", encoding="utf-8")
        Image.new("L", (40, 30), 135).save(small_slake / "imgs/xmlab0/mask.png")
        assert self.region(small_slake, 0).sum() == 50

    def test_mask_of_another_size_is_brought_to_the_image(self, small_slake: Path) -> None:
        (small_slake / "mask.txt").write_text("70:Liver", encoding="utf-8")
        grey = np.zeros((15, 20), dtype=np.uint8)
        grey[0, 0] = 70
        Image.fromarray(grey).save(small_slake / "imgs/xmlab0/mask.png")
        region = self.region(small_slake, 0)
        assert region.sum() == 4
        assert region[:2, :2].all()

    def test_labels_from_the_mask_alone(self, small_slake: Path) -> None:
        (small_slake / "imgs/xmlab0/detection.json").unlink()
        (small_slake / "mask.txt").write_text("70:Liver\n20:Heart", encoding="utf-8")
        Image.new("L", (40, 30), 70).save(small_slake / "imgs/xmlab0/mask.png")
        assert self.region(small_slake, 0).all()

    def test_region_travels_between_processes(self, small_slake: Path) -> None:
        sample = list(Slake(data=str(small_slake)).samples("test"))[0]
        assert pickle.loads(pickle.dumps(sample)) == sample

    def test_no_annotation_at_all(self, small_slake: Path) -> None:
        for number in range(3):
            (small_slake / f"imgs/xmlab{number}/detection.json").unlink()
        assert all(sample.roi is None for sample in Slake(data=str(small_slake)).samples("test"))

    @pytest.mark.parametrize("content", ['{"Liver": 3}', '[{"Liver": [1, 2]}]', '["Liver"]', "7"])
    def test_boxes_of_another_form(self, small_slake: Path, content: str) -> None:
        path = small_slake / "imgs/xmlab0/detection.json"
        path.write_text(content, encoding="utf-8")
        error = fails(Slake(data=str(small_slake)))
        assert "detection.json" in error.what

    def test_only_the_questions_with_a_region(self, small_slake: Path) -> None:
        everything = list(Slake(data=str(small_slake)).samples("test"))
        some = list(Slake(data=str(small_slake), with_region=True).samples("test"))
        assert 0 < len(some) < len(everything)
        assert [one.id for one in some] == [one.id for one in everything if one.roi]

    def test_no_boxes_is_fine(self, small_slake: Path) -> None:
        path = small_slake / "imgs/xmlab0/detection.json"
        path.write_text("[]", encoding="utf-8")
        assert read_boxes(path) == {}
        assert list(Slake(data=str(small_slake)).samples("test"))[0].roi is None

    @pytest.mark.parametrize("name", ["mask.txt", "mask.png", "detection.json"])
    def test_what_a_region_is_read_from_is_in_the_hash(self, small_slake: Path, name: str) -> None:
        (small_slake / "mask.txt").write_text("70:Liver", encoding="utf-8")
        Image.new("L", (40, 30), 70).save(small_slake / "imgs/xmlab0/mask.png")
        file = small_slake / ("" if name == "mask.txt" else "imgs/xmlab0") / name

        def hashed() -> str:
            return hash_samples(list(Slake(data=str(small_slake)).samples("test")))

        before, content = hashed(), file.read_bytes()
        file.write_bytes(content + b" ")
        assert hashed() != before
        file.write_bytes(content)
        assert hashed() == before

    def test_broken_mask_names_the_file(self, small_slake: Path) -> None:
        (small_slake / "mask.txt").write_text("70:Liver", encoding="utf-8")
        (small_slake / "imgs/xmlab0/mask.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        with pytest.raises(UserError) as raised:
            self.region(small_slake, 0)
        assert "mask.png" in raised.value.what


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("Does the lung look healthy?", ["Left Lung", "Right Lung"]),
        ("How many lungs are there?", ["Left Lung", "Right Lung"]),
        ("What is in the left lung?", ["Left Lung"]),
        ("What is in the lower LEFT LUNG?", ["Left Lung"]),
        ("Is the spinal cord seen?", ["Spinal Cord"]),
        ("Is there lung cancer?", ["Lung Cancer"]),
        ("Where is the lung cancer in the right lung?", ["Right Lung", "Lung Cancer"]),
        ("Is the image delivered?", []),
        ("肝脏正常吗?", []),
        ("", []),
    ],
)
def test_labels_in_a_question(question: str, named: list[str]) -> None:
    labels = ["Left Lung", "Right Lung", "Spinal Cord", "Liver", "Lung Cancer"]
    assert labels_in(question, labels) == named


def test_side_that_is_not_annotated_is_not_the_other_side() -> None:
    assert labels_in("What is in the right lung?", ["Left Lung"]) == []


class TestMissingImages:
    def test_every_sample_comes_all_the_same(self, small_slake: Path) -> None:
        (small_slake / "imgs/xmlab0/source.jpg").unlink()
        assert len(list(Slake(data=str(small_slake)).samples("test"))) == 4

    def test_stops_and_counts(self, small_slake: Path) -> None:
        (small_slake / "imgs/xmlab0/source.jpg").unlink()
        error = self.fails(small_slake, allow_missing=False)
        assert error.what == "slake: 2 of 4 test samples lack their image"
        assert "xmlab0/source.jpg" in error.why
        assert "--allow-missing-images" in error.do

    def test_left_out_when_allowed_and_named(self, small_slake: Path) -> None:
        (small_slake / "imgs/xmlab0/source.jpg").unlink()
        task = Slake(data=str(small_slake))
        found, missing = with_images(task, "test", task.samples("test"), allow_missing=True)
        assert [sample.id for sample in found] == ["slake-3", "slake-4"]
        assert missing == ["slake-0", "slake-1"]

    def test_none_missing(self, small_slake: Path) -> None:
        task = Slake(data=str(small_slake))
        found, missing = with_images(task, "test", task.samples("test"), allow_missing=False)
        assert (len(found), missing) == (4, [])

    def test_none_there_is_an_error_even_if_allowed(self, small_slake: Path) -> None:
        for path in small_slake.glob("imgs/*/source.jpg"):
            path.unlink()
        error = self.fails(small_slake, allow_missing=True)
        assert error.what == "slake: 4 of 4 test samples lack their image"

    def test_archive_not_unpacked(self, small_slake: Path) -> None:
        (small_slake / "imgs").rename(small_slake / "elsewhere")
        (small_slake / "imgs.zip").write_bytes(b"PK")
        assert "imgs.zip is there; unpack it" in self.fails(small_slake, allow_missing=False).why

    def fails(self, folder: Path, *, allow_missing: bool) -> UserError:
        task = Slake(data=str(folder))
        with pytest.raises(UserError) as raised:
            with_images(task, "test", task.samples("test"), allow_missing=allow_missing)
        return raised.value


class TestBadFiles:
    def test_unknown_split(self, small_slake: Path) -> None:
        error = fails(Slake(data=str(small_slake)), split="tset")
        assert "tset" in error.what
        assert "validation" in error.why

    def test_missing_question(self, small_slake: Path) -> None:
        self.change(small_slake, lambda rows: rows.pop(3))
        error = fails(Slake(data=str(small_slake)))
        assert error.what == "slake: 3 of 4 test questions found"
        assert error.why == "1 id missing, first: slake-3."
        assert "ownload" in error.do

    def test_extra_question(self, small_slake: Path) -> None:
        self.change(small_slake, lambda rows: rows.append({**rows[0], "qid": 99}))
        assert fails(Slake(data=str(small_slake))).why == "1 id too many."

    def test_doubled_question(self, small_slake: Path) -> None:
        self.change(small_slake, lambda rows: rows.append(rows[0]))
        error = fails(Slake(data=str(small_slake)))
        assert error.why == "1 id comes more than once, first: slake-0."

    def test_other_ids(self, small_slake: Path) -> None:
        self.change(small_slake, lambda rows: rows[0].update(qid=77))
        error = fails(Slake(data=str(small_slake)))
        assert error.what == "slake: the test questions are not the official ones"

    def test_missing_key(self, small_slake: Path) -> None:
        self.change(small_slake, lambda rows: rows[2].pop("q_lang"))
        error = fails(Slake(data=str(small_slake)))
        assert error.why == "Entry 3 has no 'q_lang'."

    def test_conversion_of_the_training_data(self, small_slake: Path) -> None:
        llava = [{"id": 1, "image": "a.jpg", "conversations": []}]
        (small_slake / "test.json").write_text(json.dumps(llava), encoding="utf-8")
        assert "not the official file" in fails(Slake(data=str(small_slake))).what

    def change(self, root: Path, how: Any) -> None:
        path = root / "test.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        how(rows)
        path.write_text(json.dumps(rows), encoding="utf-8")


def test_windows_separators_in_image_names(small_slake: Path) -> None:
    path = small_slake / "test.json"
    path.write_text(path.read_text(encoding="utf-8").replace("/source", "\\\\source"), "utf-8")
    samples = list(Slake(data=str(small_slake)).samples("test"))
    assert open_image(samples[0].image).size == (40, 30)


def fails(task: Slake, split: str = "test") -> UserError:
    with pytest.raises(UserError) as raised:
        list(task.samples(split))
    assert len(raised.value.lines()) == 3
    return raised.value
