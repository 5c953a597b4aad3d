"""SLAKE: the official files, the counts, the regions, and everything that can be wrong."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medbench.data.passport import check_questions, hash_ids, hash_questions
from medbench.data.pictures import open_image, with_images
from medbench.errors import UserError
from medbench.provenance import hash_samples
from medbench.task import Sample, StoredImage
from medbench.tasks.slake import Slake, labels_in, read_boxes
from tests.tasks.conftest import slake_row

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


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_real_questions_are_those_of_the_passport(real_data: Path, split: str) -> None:
    task = Slake(data=str(real_data))
    samples = list(task.samples(split))
    assert hash_questions(samples) == Slake.passport[split]["questions"]
    check_questions(task, split, samples)


def test_real_file_with_the_empty_answer_filled_in(real_data: Path, tmp_path: Path) -> None:
    rows = json.loads((real_data / "slake/Slake1.0/train.json").read_text(encoding="utf-8"))
    (empty,) = (row for row in rows if row["qid"] == 1622)
    assert empty["answer"] == ""
    empty["answer"] = "Brain"
    (tmp_path / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    task = Slake(data=str(tmp_path))
    with pytest.raises(UserError, match="some train questions or answers are not the official"):
        check_questions(task, "train", list(task.samples("train")))


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


class TestConversion:
    """The official rows as Parquet, the images beside them: what Hugging Face makes by itself."""

    PLACES = ("default/test/0000.parquet", "data/test-00000-of-00001.parquet", "test.parquet")

    def convert(self, root: Path, place: str) -> Path:
        rows = json.loads((root / "test.json").read_text(encoding="utf-8"))
        (root / "test.json").unlink()
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), root / place)
        return root / place

    @pytest.mark.parametrize("place", PLACES)
    def test_samples_are_the_same(self, small_slake: Path, place: str) -> None:
        task = Slake(data=str(small_slake))
        official = list(task.samples("test"))
        shard = self.convert(small_slake, place)
        assert list(task.samples("test")) == official
        assert any(sample.roi for sample in official)
        edition = task.edition("test")
        assert (edition.name, edition.files) == ("huggingface", (shard,))
        assert edition.note

    @pytest.mark.parametrize(("language", "n"), [("en", 4), ("zh", 2), ("all", 6)])
    def test_language_comes_first(self, small_slake: Path, language: Language, n: int) -> None:
        self.convert(small_slake, "test.parquet")
        task = Slake(data=str(small_slake), language=language)
        assert len(list(task.samples("test"))) == n

    def test_a_missing_question_is_named(self, small_slake: Path) -> None:
        path = self.convert(small_slake, "test.parquet")
        table = pq.read_table(path)
        pq.write_table(pa.concat_tables([table.slice(0, 3), table.slice(4)]), path)
        assert fails(Slake(data=str(small_slake))).why == "1 id missing, first: slake-3."

    def test_columns_that_are_not_the_official_ones(self, small_slake: Path) -> None:
        path = self.convert(small_slake, "test.parquet")
        pq.write_table(pq.read_table(path).drop_columns(["q_lang"]), path)
        assert "no column 'q_lang'" in fails(Slake(data=str(small_slake))).why

    def test_the_official_file_goes_first(self, small_slake: Path) -> None:
        (small_slake / "test.parquet").write_bytes(b"not even read")
        assert Slake(data=str(small_slake)).edition("test").name == "official"

    def test_real_files(self, real_data: Path, tmp_path: Path) -> None:
        official = Slake(data=str(real_data))
        for split, name in (("validation", "validate"), ("test", "test")):
            source = real_data / "slake/Slake1.0" / f"{name}.json"
            rows = json.loads(source.read_text(encoding="utf-8"))
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
            task = Slake(data=str(tmp_path))
            samples = list(task.samples(split))
            assert hash_questions(samples) == hash_questions(official.samples(split))
            check_questions(task, split, samples)


class TestEmbedded:
    """Copies with the images inside, whose other columns nobody promises."""

    @pytest.fixture
    def copies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        splits = {"train": 2, "validation": 1, "test": 4}
        merged = {"train": 3, "test": 4}
        known = {"embedded": numbered(**splits), "merged": numbered(**merged)}
        monkeypatch.setattr(Slake, "mirrors", known)
        rows = {"zh": {"train": 1, "validation": 1, "test": 2}}
        monkeypatch.setattr("medbench.tasks.slake._ROWS", rows)

    @staticmethod
    def image(number: int) -> bytes:
        file = io.BytesIO()
        Image.new("L", (4, 3), number).save(file, "PNG")
        return file.getvalue()

    def write(self, path: Path, rows: list[dict[str, Any]], *columns: str) -> None:
        content = [
            {
                "image": {"bytes": self.image(row["img_id"]), "path": None},
                "question": f"{row['question']} ",
                "answer": row["answer"],
                **{name: row[name] for name in columns},
            }
            for row in rows
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(content), path, row_group_size=3)

    def rows(self) -> list[dict[str, Any]]:
        return [
            slake_row(0),
            slake_row(1, question="Where?", answer="Left", answer_type="OPEN"),
            slake_row(2, answer="Lung"),
            slake_row(3, answer="No"),
        ]

    def read(self, folder: Path, **parameters: Any) -> list[Sample]:
        task = Slake(data=str(folder), **{"closed_rule": "yesno", **parameters})
        return list(task.samples("test"))

    def test_samples(self, tmp_path: Path, copies: None) -> None:
        self.write(tmp_path / "data/test-00000-of-00001.parquet", self.rows())
        samples = self.read(tmp_path)
        assert [sample.id for sample in samples] == [f"slake-test-{row}" for row in range(4)]
        assert [sample.kind for sample in samples] == ["closed", "open", "open", "closed"]
        assert samples[0].question == "Is the liver enlarged?"
        assert samples[0].meta["language"] == "en"
        assert all(sample.roi is None for sample in samples)

    def test_images(self, tmp_path: Path, copies: None) -> None:
        self.write(tmp_path / "test.parquet", self.rows())
        samples = self.read(tmp_path)
        assert [sample.group for sample in samples] == [
            hashlib.sha256(self.image(number)).hexdigest() for number in (0, 0, 1, 1)
        ]
        assert all(sample.stamp == sample.group for sample in samples)
        image = samples[2].image
        assert isinstance(image, StoredImage)
        assert image.content() == self.image(1)
        assert np.asarray(open_image(image)).max() == 1

    def test_other_columns_are_taken(self, tmp_path: Path, copies: None) -> None:
        columns = ("qid", "answer_type", "modality", "location", "content_type")
        self.write(tmp_path / "test.parquet", self.rows(), *columns)
        samples = self.read(tmp_path, closed_rule="dataset")
        assert [sample.kind for sample in samples] == ["closed", "open", "closed", "closed"]
        assert samples[3].meta == {
            "native_id": 3,
            "language": "en",
            "location": "Abdomen",
            "modality": "CT",
            "answer_type": "CLOSED",
            "base_type": "",
            "content_type": "Size",
        }
        assert [s.kind for s in self.read(tmp_path, closed_rule="paper")].count("closed") == 2

    def test_names_by_the_splits_that_are_there(self, tmp_path: Path, copies: None) -> None:
        self.write(tmp_path / "test.parquet", self.rows())
        edition = Slake(data=str(tmp_path)).edition("test")
        assert edition.name == "merged"
        assert "no validation split" in edition.note
        self.write(tmp_path / "train.parquet", self.rows()[:3])
        task = Slake(data=str(tmp_path), closed_rule="yesno")
        assert len(list(task.samples("train"))) == 3
        self.write(tmp_path / "validation.parquet", self.rows()[:1])
        assert task.edition("test").name == "embedded"
        error = fails(task, "train")
        assert error.what == "slake: 3 of 2 train questions found"

    @pytest.mark.parametrize("rule", ["paper", "dataset"])
    @pytest.mark.parametrize("type", ["", "yes/no"])
    def test_rules_that_need_answer_types(
        self, tmp_path: Path, copies: None, rule: Rule, type: str
    ) -> None:
        rows = [{**row, "answer_type": type} for row in self.rows()]
        self.write(tmp_path / "test.parquet", rows, *(["answer_type"] if type else []))
        error = fails(Slake(data=str(tmp_path), closed_rule=rule))
        assert f"closed_rule={rule}" in error.what
        assert "Its columns are image, question, answer" in error.why
        assert "closed_rule=yesno (355 of test)" in error.do

    @pytest.mark.parametrize("language", ["zh", "all"])
    def test_languages_need_a_column(
        self, tmp_path: Path, copies: None, language: Language
    ) -> None:
        self.write(tmp_path / "test.parquet", self.rows())
        error = fails(Slake(data=str(tmp_path), closed_rule="yesno", language=language))
        assert error.what == f"slake cannot tell which questions are language={language} here"
        assert "language=en" in error.do

    @pytest.mark.parametrize(("language", "n"), [("en", 4), ("zh", 2)])
    def test_languages_where_there_is_one(
        self, tmp_path: Path, copies: None, language: Language, n: int
    ) -> None:
        chinese = [slake_row(number, q_lang="zh", img_id=90 + number) for number in range(2)]
        rows = [chinese[0], *self.rows(), chinese[1]]
        self.write(tmp_path / "test.parquet", rows, "q_lang")
        samples = self.read(tmp_path, language=language)
        assert [sample.id for sample in samples] == [f"slake-test-{row}" for row in range(n)]
        first = self.image(0 if language == "en" else 90)
        assert samples[0].group == hashlib.sha256(first).hexdigest()

    def test_chinese_of_a_merged_copy(self, tmp_path: Path, copies: None) -> None:
        rows = [slake_row(number, q_lang="zh") for number in range(2)]
        self.write(tmp_path / "train.parquet", rows, "q_lang")
        task = Slake(data=str(tmp_path), closed_rule="yesno", language="zh")
        assert len(list(task.samples("train"))) == 2

    def test_both_languages_without_a_column_for_them(self, tmp_path: Path, copies: None) -> None:
        self.write(tmp_path / "test.parquet", [*self.rows(), slake_row(4, q_lang="zh")])
        error = fails(Slake(data=str(tmp_path), closed_rule="yesno"))
        assert error.what == "slake: 5 of 4 test questions found"

    def test_no_regions(self, tmp_path: Path, copies: None) -> None:
        self.write(tmp_path / "test.parquet", self.rows())
        task = Slake(data=str(tmp_path), closed_rule="yesno", with_region=True)
        assert fails(task).what == "slake has no regions here"

    def test_region_text_with_and_without_a_location(self, tmp_path: Path, copies: None) -> None:
        self.write(tmp_path / "test.parquet", self.rows())
        task = Slake(data=str(tmp_path), closed_rule="yesno")
        sample = self.read(tmp_path)[0]
        for published in (False, True):
            assert task.name_region(sample, published=published) == sample.question
        self.write(tmp_path / "test.parquet", self.rows(), "location")
        named = task.name_region(self.read(tmp_path)[0])
        assert named == "Medical image of abdomen. Is the liver enlarged?"

    def test_no_validation_split(self, tmp_path: Path, copies: None) -> None:
        self.write(tmp_path / "test.parquet", self.rows())
        error = fails(Slake(data=str(tmp_path)), "validation")
        assert "validate.json or validation.json not found" in error.what

    def test_real_questions_in_its_form(self, real_data: Path, tmp_path: Path) -> None:
        folder = real_data / "slake/Slake1.0"
        rows = {
            name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("train", "validate", "test")
        }
        merged = {"train": rows["train"] + rows["validate"], "test": rows["test"]}
        for split, every in merged.items():
            english = [
                {**row, "img_id": row["img_id"] % 7} for row in every if row["q_lang"] == "en"
            ]
            self.write(tmp_path / f"{split}.parquet", english)
        task = Slake(data=str(tmp_path), closed_rule="yesno")
        assert len(list(task.samples("train"))) == 5972
        kinds = Counter(sample.kind for sample in task.samples("test"))
        assert kinds == {"closed": 355, "open": 706}


def numbered(**counts: int) -> dict[str, dict[str, Any]]:
    return {
        split: {"rows": n, "ids": hash_ids(f"slake-{split}-{row}" for row in range(n))}
        for split, n in counts.items()
    }


def test_published_counts_of_the_mirrors() -> None:
    assert Slake.mirrors == {
        "embedded": numbered(train=4919, validation=1053, test=1061),
        "merged": numbered(train=4919 + 1053, test=1061),
    }


def fails(task: Slake, split: str = "test") -> UserError:
    with pytest.raises(UserError) as raised:
        list(task.samples(split))
    assert len(raised.value.lines()) == 3
    return raised.value
