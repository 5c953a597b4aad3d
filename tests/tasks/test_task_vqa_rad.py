"""VQA-RAD: the official file with its dirt, the counts, its mirrors, and look-alikes."""

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
from medbench.task import StoredImage
from medbench.tasks.vqa_rad import VqaRad
from tests.tasks.conftest import draw, rad_row, write_json

Rule = Literal["paper", "dataset", "yesno"]


def test_real_counts(real_data: Path) -> None:
    task = VqaRad(data=str(real_data))
    train, test = list(task.samples("train")), list(task.samples("test"))
    assert (len(train), len(test)) == (1797, 451)
    groups = {sample.group for sample in train}, {sample.group for sample in test}
    assert (len(groups[0]), len(groups[1]), len(groups[0] & groups[1])) == (313, 203, 202)


@pytest.mark.parametrize(("rule", "closed"), [("paper", 254), ("dataset", 272), ("yesno", 251)])
def test_real_closed_questions(real_data: Path, rule: Rule, closed: int) -> None:
    samples = VqaRad(data=str(real_data / "vqa_rad"), closed_rule=rule).samples("test")
    assert Counter(sample.kind for sample in samples) == {"closed": closed, "open": 451 - closed}


def test_real_questions_are_those_of_the_passport(real_data: Path) -> None:
    task = VqaRad(data=str(real_data))
    for split in ("train", "test"):
        samples = list(task.samples(split))
        assert hash_questions(samples) == VqaRad.passport[split]["questions"]
        check_questions(task, split, samples)


def test_real_file_with_one_answer_corrected(real_data: Path, tmp_path: Path) -> None:
    name = "VQA_RAD Dataset Public.json"
    rows = json.loads((real_data / "vqa_rad" / name).read_text(encoding="utf-8"))
    next(row for row in rows if row["answer"] == "Maybe")["answer"] = "yes"
    write_json(tmp_path / name, rows)
    task = VqaRad(data=str(tmp_path))
    check_questions(task, "test", list(task.samples("test")))
    with pytest.raises(UserError, match="some train questions or answers are not the official"):
        check_questions(task, "train", list(task.samples("train")))


def test_real_images_that_are_there(real_data: Path) -> None:
    task = VqaRad(data=str(real_data))
    for split, there in (("test", 101), ("train", 234)):
        every = list(task.samples(split))
        found, missing = with_images(task, split, every, allow_missing=True)
        assert (len(found), len(missing)) == (there, len(every) - there)
    folder = real_data / "vqa_rad" / "VQA_RAD Image Folder"
    assert len(list(folder.iterdir())) == 43


def test_real_images_that_are_not_there(real_data: Path) -> None:
    task = VqaRad(data=str(real_data))
    with pytest.raises(UserError) as raised:
        with_images(task, "test", task.samples("test"), allow_missing=False)
    assert raised.value.what == "vqa_rad: 350 of 451 test samples lack their image"
    assert "--allow-missing-images" in raised.value.do


def test_real_test_split_is_clean(real_data: Path) -> None:
    for split in ("train", "test"):
        for sample in VqaRad(data=str(real_data)).samples(split):
            assert sample.question == sample.question.strip() != ""
            assert sample.answer == sample.answer.strip() != ""
            assert not set("\t\r\n") & set(sample.question + sample.answer)
            assert sample.meta["answer_type"] in ("OPEN", "CLOSED")


def test_samples(small_rad: Path) -> None:
    test = list(VqaRad(data=str(small_rad)).samples("test"))
    train = list(VqaRad(data=str(small_rad)).samples("train"))
    assert [sample.id for sample in test] == [f"vqa_rad-{qid}" for qid in (0, 1, 3, 4, 6)]
    assert [sample.kind for sample in test] == ["closed", "open", "closed", "open", "open"]
    assert [sample.id for sample in train] == ["vqa_rad-2", "vqa_rad-5"]
    assert test[1].answer == "4"
    assert test[1].question == "How many masses?"
    assert test[4].answer == "Heart nodule"
    assert test[0].meta["native_id"] == "0"
    assert test[0].group == "synpic0"
    assert test[0].roi is None


@pytest.mark.parametrize(
    ("rule", "closed"), [("paper", {0, 3}), ("dataset", {0, 3, 4}), ("yesno", {0})]
)
def test_closed_rules(small_rad: Path, rule: Rule, closed: set[int]) -> None:
    samples = VqaRad(data=str(small_rad), closed_rule=rule).samples("test")
    found = {int(sample.meta["native_id"]) for sample in samples if sample.kind == "closed"}
    assert found == closed


def test_answer_type_with_a_blank(small_rad: Path) -> None:
    first = next(VqaRad(data=str(small_rad), closed_rule="dataset").samples("train"))
    assert first.kind == "closed"


def test_names_with_underscores(small_rad: Path) -> None:
    for path in list(small_rad.iterdir()):
        path.rename(path.with_name(path.name.replace(" ", "_")))
    assert len(list(VqaRad(data=str(small_rad.parent)).samples("test"))) == 5


def test_missing_image_in_one_split_only(small_rad: Path) -> None:
    (small_rad / "VQA_RAD Image Folder" / "synpic0.jpg").unlink()
    task = VqaRad(data=str(small_rad))
    with pytest.raises(UserError) as raised:
        with_images(task, "test", task.samples("test"), allow_missing=False)
    assert raised.value.what == "vqa_rad: 2 of 5 test samples lack their image"
    assert "VQA_RAD Image Folder/synpic0.jpg" in raised.value.why
    train, _ = with_images(task, "train", task.samples("train"), allow_missing=False)
    assert len(train) == 2


def test_no_validation_split(small_rad: Path) -> None:
    assert "validation" in fails(VqaRad(data=str(small_rad)), split="validation").what


def test_missing_question_is_named(small_rad: Path) -> None:
    path = small_rad / "VQA_RAD Dataset Public.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    del rows[3]
    path.write_text(json.dumps(rows), encoding="utf-8")
    error = fails(VqaRad(data=str(small_rad)))
    assert error.what == "vqa_rad: 4 of 5 test questions found"
    assert error.why == "1 id missing, first: vqa_rad-3."


@pytest.mark.parametrize(
    "name",
    ["trainset.json", "VQAMed2019_Test_Questions.txt", "All_QA_Pairs_train.txt", "part.parquet"],
)
def test_look_alikes_are_recognised(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[]", encoding="utf-8")
    error = fails(VqaRad(data=str(tmp_path)))
    assert "VQA-Med" in error.why
    assert name in error.why
    assert "osf.io" in error.do


def test_what_is_wrong_with_a_mirror_is_said(tmp_path: Path) -> None:
    (tmp_path / "test-00000-of-00002.parquet").write_bytes(b"PAR1")
    assert fails(VqaRad(data=str(tmp_path))).why == "Number 1 is missing."


def test_vqa_med_under_the_official_name(tmp_path: Path) -> None:
    rows = [{"qid": 1, "image_name": "a.jpg", "question": "What?", "answer": "ct"}]
    (tmp_path / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows), encoding="utf-8")
    error = fails(VqaRad(data=str(tmp_path)))
    assert "not the official file" in error.what
    assert error.why == "Entry 1 has no 'phrase_type'."


def test_empty_folder(tmp_path: Path) -> None:
    error = fails(VqaRad(data=str(tmp_path)))
    assert "VQA_RAD Dataset Public.json" in error.what


class TestMevf:
    """MEVF's `data_RAD`: rows numbered from 1, without what only the official file has."""

    ROWS = {
        "test": [(11, "Is there a mass?", "Yes"), (13, "CT or MRI?", "MRI"), (14, "Normal?", "No")],
        "train": [(1, "What\tis it?", 4), (2, "Is/Are the lungs normal? ", "no")],
    }

    @pytest.fixture
    def mevf(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        root = tmp_path / "data_RAD"
        for split, rows in self.ROWS.items():
            write_json(root / f"{split}set.json", [self.row(*row) for row in rows])
        for qid in (1, 2, 11, 13, 14):
            draw(root / "images" / f"synpic{qid}.jpg")
        monkeypatch.setattr(VqaRad, "mirrors", {"mevf": numbered(test=3, train=2)})
        return root

    @staticmethod
    def row(qid: int, question: str, answer: object) -> dict[str, Any]:
        return {
            "qid": qid,
            "image_name": f"synpic{qid}.jpg",
            "image_organ": "CHEST",
            "answer": answer,
            "answer_type": "OPEN" if answer == 4 else "CLOSED ",
            "question_type": "PRES",
            "question": question,
            "phrase_type": "frame" if question.startswith("Is/Are") else "freeform",
        }

    @pytest.mark.parametrize("place", [".", "data_RAD"])
    def test_samples(self, mevf: Path, place: str) -> None:
        folder = mevf if place == "." else mevf.parent
        task = VqaRad(data=str(folder))
        test, train = list(task.samples("test")), list(task.samples("train"))
        # Its own numbers stand for other questions than the official ones.
        assert [sample.id for sample in test] == [f"vqa_rad-test-{row}" for row in range(3)]
        assert [sample.meta["native_id"] for sample in test] == [11, 13, 14]
        assert [sample.kind for sample in test] == ["closed", "open", "closed"]
        assert test[0].image == mevf / "images/synpic11.jpg"
        assert test[0].group == "synpic11"
        assert (train[0].question, train[0].answer, train[0].kind) == ("What is it?", "4", "open")
        assert train[1].meta["phrase_type"] == "frame"
        _, missing = with_images(task, "train", train, allow_missing=False)
        assert not missing

    def test_edition(self, mevf: Path) -> None:
        edition = VqaRad(data=str(mevf)).edition("train")
        assert edition.name == "mevf"
        assert edition.files == (mevf / "trainset.json",)
        assert "1267 more rows" in edition.note

    def test_beside_the_official_file_it_is_not_taken(self, small_rad: Path, mevf: Path) -> None:
        write_json(small_rad / "testset.json", [])
        task = VqaRad(data=str(small_rad))
        assert task.edition("test").name == "official"
        assert len(list(task.samples("test"))) == 5

    def test_a_row_less(self, mevf: Path) -> None:
        write_json(mevf / "testset.json", [self.row(11, "a", "b")])
        assert fails(VqaRad(data=str(mevf))).what == "vqa_rad: 1 of 3 test questions found"

    # VQA-Med 2019 circulates as data_RAD as well, with images of the same source.
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"image_organ": None}, "Entry 1 has no 'image_organ'"),
            ({"image_name": "PMC1.jpg"}, "Entry 1 is about PMC1.jpg"),
        ],
    )
    def test_vqa_med_in_its_form(self, mevf: Path, change: dict[str, Any], said: str) -> None:
        rows = [{**self.row(*row), **change} for row in self.ROWS["test"]]
        content = [{k: v for k, v in row.items() if v is not None} for row in rows]
        write_json(mevf / "testset.json", content)
        error = fails(VqaRad(data=str(mevf)))
        assert error.what.endswith("testset.json is not VQA-RAD")
        assert error.why.startswith(said)
        assert "VQA-Med" in error.why

    @pytest.mark.parametrize(("rule", "n"), [("paper", 254), ("dataset", 272), ("yesno", 251)])
    def test_real_questions_in_its_form(
        self, real_data: Path, tmp_path: Path, rule: Rule, n: int
    ) -> None:
        path = real_data / "vqa_rad" / "VQA_RAD Dataset Public.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        test = [row for row in rows if row["phrase_type"].startswith("test")]
        kept = ("image_name", "image_organ", "answer", "answer_type", "question_type", "question")
        content = [
            {"qid": number, "phrase_type": "para", **{key: row[key] for key in kept}}
            for number, row in enumerate(test, 1)
        ]
        write_json(tmp_path / "testset.json", content)
        samples = list(VqaRad(data=str(tmp_path), closed_rule=rule).samples("test"))
        assert Counter(sample.kind for sample in samples) == {"closed": n, "open": 451 - n}
        official = VqaRad(data=str(real_data)).samples("test")
        assert [s.answer for s in samples] == [s.answer for s in official]


class TestHuggingFace:
    """flaviagiammarino/vqa-rad: image, question, answer, in lower case."""

    ROWS = [
        (10, "is there a mass?", "yes"),
        (20, "ct or mri?", "mri"),
        (10, "are the\tlungs normal?", "no"),
        (10, "is it normal?", "abnormal"),
    ]

    @pytest.fixture
    def mirror(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        self.write(tmp_path / "data" / "test-00000-of-00001-e5bc3d208bb4deeb.parquet", self.ROWS)
        monkeypatch.setattr(VqaRad, "mirrors", {"huggingface": numbered(test=4)})
        return tmp_path

    @staticmethod
    def image(grey: int) -> bytes:
        file = io.BytesIO()
        Image.new("L", (4, 3), grey).save(file, "PNG")
        return file.getvalue()

    def write(self, path: Path, rows: list[tuple[int, str, str]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "image": [{"bytes": self.image(grey), "path": None} for grey, _, _ in rows],
            "question": [question for _, question, _ in rows],
            "answer": [answer for _, _, answer in rows],
        }
        pq.write_table(pa.table(content), path, row_group_size=100)

    def test_samples(self, mirror: Path) -> None:
        samples = list(VqaRad(data=str(mirror), closed_rule="yesno").samples("test"))
        assert [sample.id for sample in samples] == [f"vqa_rad-test-{row}" for row in range(4)]
        assert [sample.kind for sample in samples] == ["closed", "open", "closed", "open"]
        assert samples[2].question == "are the lungs normal?"
        assert not samples[0].meta

    def test_images(self, mirror: Path) -> None:
        samples = list(VqaRad(data=str(mirror), closed_rule="yesno").samples("test"))
        contents = [hashlib.sha256(self.image(grey)).hexdigest() for grey, _, _ in self.ROWS]
        assert [sample.group for sample in samples] == contents
        assert [sample.stamp for sample in samples] == contents
        assert len(set(contents)) == 2
        image = pickle.loads(pickle.dumps(samples[1])).image
        assert isinstance(image, StoredImage)
        assert image.content() == self.image(20)
        assert (np.asarray(open_image(image)) == 20).all()

    def test_edition(self, mirror: Path) -> None:
        edition = VqaRad(data=str(mirror)).edition("test")
        assert edition.name == "huggingface"
        assert "no answer types" in edition.note

    @pytest.mark.parametrize("rule", ["paper", "dataset"])
    def test_rules_that_need_answer_types(self, mirror: Path, rule: Rule) -> None:
        error = fails(VqaRad(data=str(mirror), closed_rule=rule))
        assert f"closed_rule={rule}" in error.what
        assert "answer types" in error.why
        assert "vqa_rad[closed_rule=yesno]" in error.do
        assert "251 of test" in error.do

    def test_no_organ_no_region_text(self, mirror: Path) -> None:
        task = VqaRad(data=str(mirror), closed_rule="yesno")
        sample = next(task.samples("test"))
        for published in (False, True):
            assert task.name_region(sample, published=published) == sample.question

    def test_a_row_less(self, mirror: Path) -> None:
        (path,) = (mirror / "data").iterdir()
        self.write(path, self.ROWS[1:])
        error = fails(VqaRad(data=str(mirror), closed_rule="yesno"))
        assert error.what == "vqa_rad: 3 of 4 test questions found"

    def test_beside_the_official_file_it_is_not_taken(self, small_rad: Path, mirror: Path) -> None:
        (mirror / "data").rename(small_rad / "data")
        for folder in (small_rad, mirror):
            assert VqaRad(data=str(folder)).edition("test").name == "official"

    def test_real_questions_in_its_form(
        self, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        official = list(VqaRad(data=str(real_data)).samples("test"))
        rows = [(n % 7, s.question.lower(), s.answer.lower()) for n, s in enumerate(official)]
        self.write(tmp_path / "test-00000-of-00001.parquet", rows)
        samples = list(VqaRad(data=str(tmp_path), closed_rule="yesno").samples("test"))
        assert Counter(sample.kind for sample in samples) == {"closed": 251, "open": 200}
        assert len({sample.group for sample in samples}) == 7


def test_organ_in_the_region_text(small_rad: Path) -> None:
    write_json(small_rad / "VQA_RAD Dataset Public.json", [rad_row(0), *map(rad_row, (1, 3, 4, 6))])
    task = VqaRad(data=str(small_rad))
    sample = next(task.samples("test"))
    assert task.name_region(sample) == "Medical image of head. Is there a mass?"


def numbered(**counts: int) -> dict[str, dict[str, Any]]:
    return {
        split: {"rows": n, "ids": hash_ids(f"vqa_rad-{split}-{row}" for row in range(n))}
        for split, n in counts.items()
    }


def test_published_counts_of_the_mirrors() -> None:
    assert VqaRad.mirrors == {
        "mevf": numbered(train=3064, test=451),
        "huggingface": numbered(train=1793, test=451),
    }


def fails(task: VqaRad, split: str = "test") -> UserError:
    with pytest.raises(UserError) as raised:
        list(task.samples(split))
    assert len(raised.value.lines()) == 3
    return raised.value
