"""Parquet files: shards found in every layout, texts and images in order, and every broken file."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medbench.data.parquet import StoredCell, Table, find_table, read_table
from medbench.data.pictures import open_image
from medbench.errors import UserError
from medbench.task import StoredImage, Task

BYTES, PATH = ("bytes", pa.binary()), ("path", pa.string())
STRUCT = pa.struct([BYTES, PATH])


class Named(Task):
    name = "named"


def encoded(grey: int, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 3), grey).save(file, format)
    return file.getvalue()


def write(
    path: Path, first: int = 0, rows: int = 3, kind: Any = STRUCT, group: int = 2, **columns: Any
) -> Path:
    """Write rows numbered from `first`, each with an image of its number's grey."""
    numbers = range(first, first + rows)
    images: list[Any] = [encoded(number) for number in numbers]
    if pa.types.is_struct(kind):
        images = [{"bytes": image, "path": None} for image in images]
    table = {
        "image": pa.array(images, type=kind),
        "question": [f"what is {number}?" for number in numbers],
        "answer": [f"{number}" for number in numbers],
        **columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, row_group_size=group)
    return path


def questions(table: Table | None) -> list[str]:
    assert table is not None
    return [row["question"] for row in table.texts(("question",))]


def find(folder: Path | str, split: str = "test") -> Table | None:
    return find_table(Named(data=str(folder)), split, ("own",))


class TestFinding:
    @pytest.mark.parametrize(
        "names",
        [
            ("test-00000-of-00002.parquet", "test-00001-of-00002.parquet"),
            ("data/test-00000-of-00002-e5bc3d208bb4deeb.parquet",
             "data/test-00001-of-00002-0a4d208bb4deebcd.parquet"),
            ("default/test/0000.parquet", "default/test/0001.parquet"),
            ("test/0000.parquet", "test/0001.parquet"),
            ("OWN/data/test-00000-of-00002.parquet", "OWN/data/test-00001-of-00002.parquet"),
        ],
    )  # fmt: skip
    def test_layouts(self, tmp_path: Path, names: tuple[str, str]) -> None:
        # The last first: the names decide.
        second = write(tmp_path / names[1], 3, 2)
        first = write(tmp_path / names[0])
        for other in ("train", "validation"):
            write((tmp_path / names[0].replace("test", other)), 90)
        table = find(tmp_path)
        assert table == Table((first, second), 5, ("image", "question", "answer"))
        assert questions(table) == [f"what is {number}?" for number in range(5)]

    def test_one_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "test.parquet")
        assert find(tmp_path) == Table((path,), 3, ("image", "question", "answer"))

    @pytest.mark.parametrize("name", ["val.parquet", "validation.parquet"])
    def test_both_names_of_the_validation_split(self, tmp_path: Path, name: str) -> None:
        write(tmp_path / name)
        assert len(questions(find(tmp_path, "validation"))) == 3
        assert find(tmp_path, "test") is None

    def test_a_named_folder_goes_before_a_stray_file(self, tmp_path: Path) -> None:
        write(tmp_path / "test.parquet", 50)
        write(tmp_path / "own" / "test.parquet", 7, 1)
        assert questions(find(tmp_path)) == ["what is 7?"]

    def test_a_folder_of_the_right_name_goes_before_those_below(self, tmp_path: Path) -> None:
        write(tmp_path / "own" / "own" / "test.parquet", 50)
        write(tmp_path / "own" / "test.parquet", 7, 1)
        assert questions(find(tmp_path / "own")) == ["what is 7?"]

    @pytest.mark.parametrize(
        "name",
        ["tested.parquet", "train.parquet", "test.parquet.part", "TEST.csv", "latest.parquet"],
    )
    def test_others_are_not_taken(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        assert find(tmp_path) is None

    def test_numbers_alone_do_not_name_a_split(self, tmp_path: Path) -> None:
        write(tmp_path / "0000.parquet")
        assert find(tmp_path) is None

    def test_no_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "test.parquet")
        assert find("") is None
        assert find("nowhere") is None
        assert find("test.parquet") is None

    def test_a_missing_shard_is_named(self, tmp_path: Path) -> None:
        for number in (0, 2):
            write(tmp_path / f"test-0000{number}-of-00003.parquet")
        error = fails(lambda: find(tmp_path))
        assert error.what == f"2 of 3 files of the test split are in {tmp_path}"
        assert error.why == "Number 1 is missing."

    def test_a_missing_number(self, tmp_path: Path) -> None:
        for number in (0, 1, 3):
            write(tmp_path / "test" / f"000{number}.parquet")
        assert fails(lambda: find(tmp_path)).why == "Number 2 is missing."

    @pytest.mark.parametrize(
        "names",
        [
            ("test-00000-of-00001-aa.parquet", "test-00000-of-00001-bb.parquet"),
            ("test-00000-of-00001.parquet", "test-00001-of-00002.parquet"),
            ("test.parquet", "test-00000-of-00001.parquet"),
        ],
    )
    def test_two_downloads_in_one_folder(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for name in names:
            write(tmp_path / name)
        error = fails(lambda: find(tmp_path))
        assert "more than once" in error.what
        assert all(name in error.why for name in names)


class TestTexts:
    def test_only_what_is_asked_for(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", organ=["lung", None, "liver"])
        rows = read_table([path]).texts(("answer",), ("organ", "other"))
        assert list(rows) == [
            {"answer": "0", "organ": "lung"},
            {"answer": "1", "organ": None},
            {"answer": "2", "organ": "liver"},
        ]

    def test_a_missing_column_is_named(self, tmp_path: Path) -> None:
        table = read_table([write(tmp_path / "a.parquet")])
        error = fails(lambda: list(table.texts(("question", "qid"))))
        assert error.why == "It has no column 'qid'; it has image, question, answer."

    def test_columns_are_those_of_every_shard(self, tmp_path: Path) -> None:
        files = [write(tmp_path / "a.parquet", organ=["x"] * 3), write(tmp_path / "b.parquet")]
        assert read_table(files).columns == ("image", "question", "answer")

    def test_a_row_without_a_value_is_no_shorter_table(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", answer=["yes", None, "no"])
        error = fails(lambda: list(read_table([path]).texts(("question", "answer"))))
        assert error.why == "Row 1 has no answer."

    def test_an_empty_answer_is_one(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", answer=["yes", "", "no"])
        rows = list(read_table([path]).texts(("answer",)))
        assert [row["answer"] for row in rows] == ["yes", "", "no"]


class TestImages:
    @pytest.mark.parametrize(
        "kind",
        [STRUCT, pa.struct([PATH, BYTES]), pa.struct([BYTES]), pa.binary(), pa.large_binary()],
    )
    @pytest.mark.parametrize("group", [1, 2, 100])
    def test_in_order_and_as_they_are_stored(self, tmp_path: Path, kind: Any, group: int) -> None:
        # More than one batch in a row group, and more than one row group in a shard.
        files = [
            write(tmp_path / "a.parquet", 0, 40, kind, group),
            write(tmp_path / "b.parquet", 40, 3, kind, group),
        ]
        found = list(read_table(files).images("image"))
        assert [image.content() for image, _ in found] == [encoded(grey) for grey in range(43)]
        assert [sha256 for _, sha256 in found] == [
            hashlib.sha256(encoded(grey)).hexdigest() for grey in range(43)
        ]

    def test_opens_late_and_travels_between_processes(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet")
        image = pickle.loads(pickle.dumps(StoredCell(path, 1, 0, "image")))
        assert isinstance(image, StoredImage)
        assert image == StoredCell(path, 1, 0, "image")
        opened = open_image(image)
        assert (opened.mode, opened.size) == ("RGB", (4, 3))
        assert np.asarray(opened).tolist() == [[[2, 2, 2]] * 4] * 3

    def test_sixteen_bits_keep_their_range(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        Image.fromarray(np.array([[1000, 2000, 3000]], dtype=np.uint16)).save(file, "PNG")
        path = write(tmp_path / "a.parquet", image=[file.getvalue()] * 3)
        pixels = np.asarray(open_image(StoredCell(path, 0, 0, "image")))[0, :, 0]
        assert pixels.tolist() in ([0, 127, 255], [0, 128, 255])

    @pytest.mark.parametrize(
        "content", [b"", b"<html>", encoded(3)[:50], encoded(3, "BMP")[:-20], b"\x89PNG\r\n\x1a\n"]
    )
    def test_a_damaged_image_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = write(tmp_path / "a.parquet", image=[encoded(1), encoded(1), content])
        error = fails(lambda: open_image(StoredCell(path, 1, 0, "image")))
        assert f"{path}, row 0 of row group 1" in error.what

    def test_an_empty_cell_is_named(self, tmp_path: Path) -> None:
        cells = [{"bytes": encoded(1), "path": None}, {"bytes": None, "path": "a.png"}, None]
        path = write(tmp_path / "a.parquet", image=pa.array(cells, type=STRUCT))
        error = fails(lambda: list(read_table([path]).images("image")))
        assert error.what == f"no image in {path}, row 1 of row group 0"
        assert fails(StoredCell(path, 1, 0, "image").content).what.endswith("row 0 of row group 1")

    @pytest.mark.parametrize(
        "cells",
        [["a.png"] * 3, [{"path": "a.png"}] * 3, [1, 2, 3], [[b"a"]] * 3, [{"bytes": "a"}] * 3],
    )
    def test_a_column_that_holds_none(self, tmp_path: Path, cells: list[Any]) -> None:
        path = write(tmp_path / "a.parquet", image=pa.array(cells))
        error = fails(lambda: list(read_table([path]).images("image")))
        assert error.what == f"{path} holds no images"

    def test_no_such_column(self, tmp_path: Path) -> None:
        table = read_table([write(tmp_path / "a.parquet")])
        assert "'picture'" in fails(lambda: list(table.images("picture"))).why

    def test_a_file_that_changed_meanwhile(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", rows=8, group=4)
        image = StoredCell(path, 1, 3, "image")
        write(path, rows=6, group=4)
        assert "shorter" in fails(image.content).why
        write(path, rows=4, group=4)
        assert "damaged" in fails(image.content).what
        path.unlink()
        error = fails(image.content)
        assert (error.what, error.why) == (f"cannot read {path}", "No such file or directory.")


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "ArrowInvalid"),
            (b"PAR1", "ArrowInvalid"),
            (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1", "git-lfs"),
            (b"question,answer\n", "ArrowInvalid"),
        ],
    )
    def test_no_parquet(self, tmp_path: Path, content: bytes, said: str) -> None:
        path = tmp_path / "test.parquet"
        path.write_bytes(content)
        error = fails(lambda: find(tmp_path))
        assert str(path) in error.what
        assert said in error.why

    def test_cut_off(self, tmp_path: Path) -> None:
        path = write(tmp_path / "test.parquet")
        path.write_bytes(path.read_bytes()[:-200])
        assert "damaged" in fails(lambda: find(tmp_path)).what

    def test_damaged_in_the_middle(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        noise = [np.random.default_rng(row).bytes(5000) for row in range(40)]
        pq.write_table(pa.table({"image": noise}), path, compression="none")
        content = bytearray(path.read_bytes())
        content[4:40] = b"\xff" * 36  # the first page's header
        path.write_bytes(content)
        assert "damaged" in fails(lambda: list(read_table([path]).images("image"))).what

    def test_a_missing_package_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "test.parquet")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        error = fails(lambda: find(tmp_path))
        assert error.what == "the package 'pyarrow' is not installed"
        assert 'pip install "medbench[parquet]"' in error.do


def fails(do: Any) -> UserError:
    with pytest.raises(UserError) as raised:
        do()
    assert len(raised.value.lines()) == 3
    return raised.value
