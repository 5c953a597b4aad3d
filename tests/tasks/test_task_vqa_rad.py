"""VQA-RAD: the official file with its dirt, the counts, and look-alikes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from medbench.data.pictures import with_images
from medbench.errors import UserError
from medbench.tasks.vqa_rad import VqaRad

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
    "name", ["trainset.json", "VQAMed2019_Test_Questions.txt", "All_QA_Pairs_train.txt"]
)
def test_look_alikes_are_recognised(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[]", encoding="utf-8")
    error = fails(VqaRad(data=str(tmp_path)))
    assert "VQA-Med" in error.why
    assert name in error.why
    assert "osf.io" in error.do


def test_vqa_med_under_the_official_name(tmp_path: Path) -> None:
    rows = [{"qid": 1, "image_name": "a.jpg", "question": "What?", "answer": "ct"}]
    (tmp_path / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows), encoding="utf-8")
    error = fails(VqaRad(data=str(tmp_path)))
    assert "not the official file" in error.what
    assert error.why == "Entry 1 has no 'phrase_type'."


def test_empty_folder(tmp_path: Path) -> None:
    error = fails(VqaRad(data=str(tmp_path)))
    assert "VQA_RAD Dataset Public.json" in error.what


def fails(task: VqaRad, split: str = "test") -> UserError:
    with pytest.raises(UserError) as raised:
        list(task.samples(split))
    assert len(raised.value.lines()) == 3
    return raised.value
