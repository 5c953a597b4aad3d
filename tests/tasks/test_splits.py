"""Splits of our own: the recipes that come with them, and lists that a user has."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from medbench.data.splits import (
    check_split,
    draw,
    read_own_split,
    read_split_file,
    split_edition,
    take_split,
)
from medbench.errors import UserError
from medbench.task import Sample, Task
from medbench.tasks import iu_xray, iu_xray_report

SHIPPED = Path(iu_xray.__file__).with_name("splits")
IDS = ["named-a", "named-b", "named-c", "named-d"]


class Named(Task):
    name = "named"


def sample(name: str) -> Sample:
    return Sample(f"named-{name}", Path("x.png"), "q", "a", "closed", f"image {name}")


def test_draw_is_the_documented_number() -> None:
    digest = hashlib.sha256(b"medbench omnimedvqa Images/A b/1.png").hexdigest()
    assert draw("omnimedvqa", "Images/A b/1.png") == int(digest, 16)


def test_draw_depends_on_the_task() -> None:
    assert draw("iu_xray", "x") != draw("omnimedvqa", "x")


class TestShipped:
    def test_files_say_where_they_come_from(self) -> None:
        paths = sorted(SHIPPED.glob("*.json"))
        assert [path.name for path in paths] == ["iu_xray.json", "iu_xray_report.json"]
        for path in paths:
            content = json.loads(path.read_text(encoding="utf-8"))
            assert content["source"]
            assert content["recipe"]

    def test_sizes(self) -> None:
        report = read_own_split(iu_xray_report._SPLIT)
        assert {name: len(ids) for name, ids in report.items()} == {
            "train": 2069,
            "validation": 296,
            "test": 590,
        }
        questions = read_own_split(iu_xray._SPLIT)
        assert {name: len(ids) for name, ids in questions.items()} == {"train": 413, "test": 177}

    def test_no_study_is_in_two_splits(self) -> None:
        for path in SHIPPED.glob("*.json"):
            every = [name for names in read_own_split(path).values() for name in names]
            assert len(every) == len(set(every))

    def test_recipe_of_the_questions(self) -> None:
        self.follows_the_recipe(list(read_own_split(iu_xray_report._SPLIT)["test"]))

    def test_real_annotation_gives_both(self, real_data: Path) -> None:
        path = real_data / "iu_xray" / "r2gen_iu_xray" / "annotation.json"
        official = json.loads(path.read_text(encoding="utf-8"))
        names = {"train": "train", "validation": "val", "test": "test"}
        assert read_own_split(iu_xray_report._SPLIT) == {
            split: tuple(row["id"] for row in official[name]) for split, name in names.items()
        }
        self.follows_the_recipe([row["id"] for row in official["test"]])

    def follows_the_recipe(self, studies: list[str]) -> None:
        def place(study: str) -> str:
            return hashlib.sha256(f"medbench iu_xray {study}".encode()).hexdigest()

        studies = sorted(studies, key=place)
        assert read_own_split(iu_xray._SPLIT) == {
            "train": tuple(studies[:413]),
            "test": tuple(studies[413:]),
        }


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_splits_are_known(split: str) -> None:
    check_split(Named(), split)


def test_other_splits_are_not() -> None:
    with pytest.raises(UserError) as raised:
        check_split(Named(), "validation")
    assert len(raised.value.lines()) == 3
    assert "validation" in raised.value.what


def test_rule_takes_the_samples_in_order() -> None:
    samples = [sample(name) for name in "dbca"]
    for split, names in (("train", "dba"), ("test", "c")):
        found = take_split(
            Named(), split, samples, lambda one: "test" if one.id == "named-c" else "train", ""
        )
        assert found == [sample(name) for name in names]


class TestEdition:
    def test_ours(self) -> None:
        edition = split_edition("cares", [Path("a.json")], "ours", "")
        assert (edition.name, edition.files, edition.note) == (
            "cares-7-3",
            (Path("a.json"),),
            "ours",
        )

    def test_a_users(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text('{"train": [0], "test": [1]}', encoding="utf-8")
        edition = split_edition("cares", [Path("a.json")], "ours", str(path))
        mark = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        assert edition.name == f"cares-split_file-{mark}"
        assert edition.files == (Path("a.json"), path)
        assert "split_file" in edition.note
        path.write_text('{"train": [1], "test": [0]}', encoding="utf-8")
        assert split_edition("cares", [], "", str(path)).name != edition.name

    def test_file_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="cannot read"):
            split_edition("cares", [], "", str(tmp_path / "none.json"))


class TestUsersFile:
    def read(self, tmp_path: Path, content: Any) -> dict[str, frozenset[str]]:
        path = tmp_path / "mine.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return read_split_file(Named(), str(path), IDS)

    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ([3, 1], [0]),
            (["named-d", "named-b"], ["named-a"]),
            (["d", "b"], ["a"]),
            ([3, "b"], ["named-a"]),
        ],
    )
    def test_row_numbers_and_ids(
        self, tmp_path: Path, train: list[int | str], test: list[int | str]
    ) -> None:
        assert self.read(tmp_path, {"train": train, "test": test, "comment": "mine"}) == {
            "train": {"named-b", "named-d"},
            "test": {"named-a"},
        }

    def test_number_as_text_is_an_id(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text('{"train": ["7"], "test": [0]}', encoding="utf-8")
        found = read_split_file(Named(), str(path), ["named-9", "named-7"])
        assert found == {"train": {"named-7"}, "test": {"named-9"}}

    def test_order_is_the_samples(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text('{"train": ["d", "a"], "test": ["b"]}', encoding="utf-8")
        samples = [sample(name) for name in "abcd"]
        found = take_split(Named(), "train", samples, lambda one: "test", str(path))
        assert [one.id for one in found] == ["named-a", "named-d"]

    @pytest.mark.parametrize("entry", [4, -1, "e", "other-a", True, 1.0, None, ["a"]])
    def test_entry_that_is_not_there(self, tmp_path: Path, entry: Any) -> None:
        error = self.fails(tmp_path, {"train": [entry], "test": [0]})
        assert repr(entry) in error.what
        assert "4 rows" in error.why

    @pytest.mark.parametrize(
        "content", [{"train": [1, "b"], "test": [0]}, {"train": [1], "test": [0, 1]}]
    )
    def test_entry_twice(self, tmp_path: Path, content: Any) -> None:
        assert "names named-b 2 times" in self.fails(tmp_path, content).what

    @pytest.mark.parametrize(
        "content",
        [[0, 1], {"train": [0]}, {"train": [0], "test": []}, {"train": [0], "test": "1"}, 3],
    )
    def test_other_form(self, tmp_path: Path, content: Any) -> None:
        assert "is no split" in self.fails(tmp_path, content).what

    def test_damaged(self, tmp_path: Path) -> None:
        assert "damaged" in self.fails(tmp_path, '{"train": [0').what

    def fails(self, tmp_path: Path, content: Any) -> UserError:
        with pytest.raises(UserError) as raised:
            self.read(tmp_path, content)
        assert len(raised.value.lines()) == 3
        assert "mine.json" in raised.value.what
        return raised.value
