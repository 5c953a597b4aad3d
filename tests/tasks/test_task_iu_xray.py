"""IU X-ray questions: CARES's file with its dirt, the reading of its answers, and the split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image

from medbench import keys, plugins
from medbench.data.pictures import with_images
from medbench.data.splits import read_own_split
from medbench.errors import UserError
from medbench.provenance import hash_samples
from medbench.scoring import score_rows
from medbench.task import Sample
from medbench.tasks import iu_xray as module
from medbench.tasks.iu_xray import IuXray, cares_verdict

Gold = Literal["cares", "text"]
ENDING = " Please choose from the following two options: [yes, no]"
NAME = "iuxray_factuality.jsonl"
TRAIN, TEST = ["CXR1_1_IM-0001", "CXR2_IM-0002"], ["CXR30_IM-0030-1001"]
# Study and answer of each row; made up, with the kinds of dirt that the real answers have.
ROWS = [
    ("CXR2_IM-0002", "Yes."),
    ("CXR30_IM-0030-1001", "- No."),
    ("CXR30_IM-0030-1001", "No (based on the report stating that they are clear)."),
    ("CXR1_1_IM-0001", ""),
    ("CXR30_IM-0030-1001", "Is the heart enlarged?"),
    ("CXR2_IM-0002", "The report does not say yes or no."),
    ("CXR30_IM-0030-1001", "yes"),
]


def cares_row(study: str, answer: str, **changes: Any) -> dict[str, Any]:
    question = f"Is there an effusion in the chest X-ray?{ENDING}\n<image>"
    row = {
        "question": question,
        "answer": answer,
        "image": f"{study}/0.png",
        "question_id": 0,
        "text": question,
    }
    return {**row, **changes}


def write(root: Path, rows: Iterable[dict[str, Any]]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / NAME).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CARES of seven questions on three studies, two of them for training."""
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": TRAIN, "test": TEST}), encoding="utf-8")
    monkeypatch.setattr(module, "_SPLIT", split)
    monkeypatch.setattr(IuXray, "passport", {"train and test": {"rows": len(ROWS)}})
    return write(tmp_path / "IU-Xray", (cares_row(*row) for row in ROWS))


def samples(root: Path, split: str = "test", **parameters: Any) -> list[Sample]:
    return list(IuXray(data=str(root), **parameters).samples(split))


def fails(root: Path, split: str = "test", **parameters: Any) -> UserError:
    with pytest.raises(UserError) as raised:
        samples(root, split, **parameters)
    assert len(raised.value.lines()) == 3
    return raised.value


def test_samples(small: Path) -> None:
    train, test = samples(small, "train"), samples(small)
    assert [one.id for one in train] == ["iu_xray-0", "iu_xray-3", "iu_xray-5"]
    assert [one.id for one in test] == ["iu_xray-1", "iu_xray-2", "iu_xray-4", "iu_xray-6"]
    first = train[0]
    assert first.question == f"Is there an effusion in the chest X-ray?{ENDING}"
    assert first.image == small / "images/CXR2_IM-0002/0.png"
    assert first.group == "CXR2_IM-0002"
    assert first.meta["native_id"] == 0
    assert {one.kind for one in train + test} == {"closed"}
    task = IuXray(data=str(small))
    assert task.ask(first) == task.name_region(first) == first.question
    assert json.loads(json.dumps(first.meta)) == first.meta


@pytest.mark.parametrize(
    ("gold", "answers"),
    [
        ("cares", ["yes", "no", "no", "yes", "yes", "no", "yes"]),
        ("text", [answer for _, answer in ROWS]),
    ],
)
def test_gold(small: Path, gold: Gold, answers: list[str]) -> None:
    found = samples(small, "train", gold=gold) + samples(small, gold=gold)
    by_row = {int(one.id.removeprefix("iu_xray-")): one.answer for one in found}
    assert [by_row[row] for row in range(len(ROWS))] == answers


def test_broken_answers_stay_and_are_named(small: Path) -> None:
    found = samples(small, "train") + samples(small)
    assert len(found) == len(ROWS)
    assert {one.meta["answer_text"] for one in found} == {answer for _, answer in ROWS}
    assert Counter(one.meta["answer_says"] for one in found) == {
        "yes": 2,
        "no": 2,
        "both": 1,
        "question": 1,
        "empty": 1,
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes.", "yes"),
        ("yes", "yes"),
        ("No", "no"),
        ("no.", "no"),
        ("- No.", "no"),
        ("No, based on the report.", "no"),
        ("Yes, and not enlarged", "no"),
        ("Yes. It is not enlarged.", "yes"),
        ("It does not say. Yes.", "no"),
        ("Normal", "yes"),  # not a word of its own
        ("NO", "yes"),  # the rule knows two spellings only
        ("(No", "yes"),
        ("No\nline", "yes"),
        ("Cannot answer", "yes"),
        ("", "yes"),
    ],
)
def test_rule_of_cares(answer: str, expected: str) -> None:
    assert cares_verdict(answer) == expected


def test_strict_rule_has_a_usable_gold(small: Path) -> None:
    def strict(gold: Gold) -> float | None:
        rows: list[Any] = [
            {
                **{"id": one.id, "group": one.group, "kind": one.kind, "gold": one.answer},
                "output": cares_verdict(one.meta["answer_text"]),
            }
            for one in samples(small, gold=gold)
        ]
        scores, _ = score_rows(rows, ["closed/strict"])
        return scores["closed/strict"].value

    assert strict("cares") == 1.0
    assert strict("text") == 0.5


class TestSplit:
    def test_whole_file_by_the_shipped_split(self, tmp_path: Path) -> None:
        studies = [s for names in read_own_split(module._SPLIT).values() for s in names]
        rows = [cares_row(studies[number % 587], "No.") for number in range(2573)]
        root = write(tmp_path, rows)
        train, test = samples(root, "train"), samples(root)
        assert len(train) + len(test) == 2573
        assert not {one.group for one in train} & {one.group for one in test}
        # 413 of the 590 studies are for training; the three without questions were test ones here.
        assert len({one.group for one in train}) == 413
        assert len({one.group for one in test}) == 174

    def test_order_is_the_files(self, small: Path) -> None:
        numbers = [int(one.id.removeprefix("iu_xray-")) for one in samples(small)]
        assert numbers == sorted(numbers)

    @pytest.mark.parametrize("split", ["validation", "val", ""])
    def test_no_other_split(self, small: Path, split: str) -> None:
        assert f"'{split}'" in fails(small, split).what

    def test_edition(self, small: Path) -> None:
        edition = IuXray(data=str(small)).edition("test")
        assert edition.name == "cares-7-3"
        assert edition.files == (small / NAME,)
        for number in ("1789", "784", "2573"):
            assert number in edition.note
        assert IuXray(data=str(small)).expects("test") == {}

    def test_a_users(self, small: Path, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text('{"train": [0, 1, 2, "3", "iu_xray-4"], "test": [6, 5]}', "utf-8")
        found = samples(small, split_file=str(path))
        assert [one.id for one in found] == ["iu_xray-5", "iu_xray-6"]
        assert len(samples(small, "train", split_file=str(path))) == 5
        edition = IuXray(data=str(small), split_file=str(path)).edition("test")
        assert edition.name.startswith("cares-split_file-")
        assert edition.files == (small / NAME, path)

    def test_a_users_that_does_not_fit(self, small: Path, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text('{"train": [0], "test": [7]}', encoding="utf-8")
        assert "names 7" in fails(small, split_file=str(path)).what

    def test_what_counts_of_a_users_split_is_the_samples(self, small: Path, tmp_path: Path) -> None:
        same, other = tmp_path / "same.json", tmp_path / "other.json"
        same.write_text('{"test": [1, 2, 4, 6], "train": [0, 3, 5]}', encoding="utf-8")
        other.write_text('{"test": [1, 2, 4], "train": [0, 3, 5]}', encoding="utf-8")
        plugin = plugins.get("task", "iu_xray")

        for study in TRAIN + TEST:
            (small / "images" / study).mkdir(parents=True)
            Image.new("L", (4, 3)).save(small / "images" / study / "0.png")

        def key(split_file: str) -> tuple[Any, str]:
            task = IuXray(data=str(small), split_file=split_file)
            return keys.identity(plugin, task), hash_samples(list(task.samples("test")))

        assert key("") == key(str(same))
        assert key("") != key(str(other))

    def test_gold_is_in_the_key(self, small: Path) -> None:
        plugin = plugins.get("task", "iu_xray")
        assert keys.identity(plugin, IuXray()) != keys.identity(plugin, IuXray(gold="text"))


class TestPlaces:
    @pytest.mark.parametrize("place", [".", "IU-Xray", "iu_xray", "CARES", "CARES/data/IU-Xray"])
    def test_found_in_the_folder_or_below(self, small: Path, tmp_path: Path, place: str) -> None:
        target = tmp_path / "root" / place
        write(target, (cares_row(*row) for row in ROWS))
        root = tmp_path / "root" / ("CARES" if place.count("/") > 1 else ".")
        assert len(samples(root)) == 4
        assert len(samples(target)) == 4

    @pytest.mark.parametrize(
        "images", ["IU-Xray/images", "IU-Xray/iu_xray/images", "iu_xray/images", "images"]
    )
    def test_where_images_lie(self, small: Path, tmp_path: Path, images: str) -> None:
        (tmp_path / images).mkdir(parents=True)
        assert samples(small)[0].image == tmp_path / images / "CXR30_IM-0030-1001/0.png"

    def test_missing_images_are_named(self, small: Path) -> None:
        task = IuXray(data=str(small))
        with pytest.raises(UserError) as raised:
            with_images(task, "test", task.samples("test"), allow_missing=False)
        assert "4 of 4 test samples lack their image" in raised.value.what
        assert "images/CXR30_IM-0030-1001/0.png" in raised.value.why

    def test_windows_separators(self, small: Path) -> None:
        write(small, [cares_row(s, a, image=f"{s}\\0.png") for s, a in ROWS])
        first = samples(small)[0]
        assert first.group == "CXR30_IM-0030-1001"
        assert first.image == small / "images/CXR30_IM-0030-1001/0.png"


class TestBadFiles:
    @pytest.mark.parametrize(("change", "why"), [(-1, "1 id missing."), (1, "1 id too many.")])
    def test_other_number_of_questions(self, small: Path, change: int, why: str) -> None:
        rows = [cares_row(*row) for row in (ROWS + ROWS)[: len(ROWS) + change]]
        write(small, rows)
        for split in ("train", "test"):
            error = fails(small, split)
            assert error.what == f"iu_xray: {len(rows)} of 7 train and test questions found"
            assert error.why == why

    def test_real_number(self) -> None:
        assert IuXray.passport == {"train and test": {"rows": 2573}}

    def test_other_studies(self, small: Path) -> None:
        rows = [cares_row(*row) for row in ROWS]
        rows[3]["image"] = "CXR9_IM-0009/0.png"
        write(small, rows)
        error = fails(small)
        assert "not the official file" in error.what
        assert "Entry 4 is about CXR9_IM-0009" in error.why

    @pytest.mark.parametrize("key", ["question", "answer", "image"])
    def test_missing_key(self, small: Path, key: str) -> None:
        rows = [cares_row(*row) for row in ROWS]
        del rows[2][key]
        write(small, rows)
        assert f"Entry 3 has no '{key}'." == fails(small).why

    def test_a_list_in_place_of_lines(self, small: Path) -> None:
        (small / NAME).write_text(json.dumps([cares_row(*row) for row in ROWS]), encoding="utf-8")
        assert "not the official file" in fails(small).what

    def test_cut_off(self, small: Path) -> None:
        path = small / NAME
        path.write_text(path.read_text("utf-8")[:-20], encoding="utf-8")
        assert "damaged" in fails(small).what

    def test_nothing_there(self, small: Path) -> None:
        (small / NAME).unlink()
        assert NAME in fails(small).what
        with pytest.raises(UserError, match="not found"):
            IuXray(data=str(small)).edition("test")
