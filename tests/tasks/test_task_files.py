"""Readers that tasks share: every kind of broken file is a three-line error that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medbench.data.find import find_file
from medbench.data.passport import check_passport, hash_ids
from medbench.data.pictures import open_image, with_images
from medbench.data.read import read_json, read_records
from medbench.errors import UserError
from medbench.task import Sample, Task


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b'[{"a": 1}, {"a"', "cut off"),
        (b'["\xff\xfe"]', "not UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"),
    ],
)
def test_broken_json(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "test.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_json(path)
    assert len(raised.value.lines()) == 3
    assert "test.json" in raised.value.what
    assert said in " ".join(raised.value.lines())


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    path.write_bytes(b"\xef\xbb\xbf" + '["肺"]'.encode())
    assert read_json(path) == ["肺"]


def test_unreadable_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", "3", "[1]", '[{"b": 1}]', '[{"a": 1}, {}]'])
def test_records_of_another_form(tmp_path: Path, content: str) -> None:
    path = tmp_path / "test.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="not the official file") as raised:
        read_records(path, ("a",))
    assert len(raised.value.lines()) == 3


class Named(Task):
    name = "named"
    source = "example.org"
    passport = {"test": {"rows": 2, "ids": hash_ids(["a", "b"])}}


class TestFindFile:
    def find(self, data: Path | str) -> Path:
        return find_file(Named(data=str(data)), ("a.json", "b.json"), ("named", "Named1.0"))

    def test_own_folder(self, tmp_path: Path) -> None:
        (tmp_path / "b.json").touch()
        assert self.find(tmp_path) == tmp_path / "b.json"

    def test_below_goes_before_a_stray_file_above(self, tmp_path: Path) -> None:
        (tmp_path / "NAMED" / "named1.0").mkdir(parents=True)
        (tmp_path / "NAMED" / "named1.0" / "a.json").touch()
        (tmp_path / "a.json").touch()
        assert self.find(tmp_path) == tmp_path / "NAMED" / "named1.0" / "a.json"

    def test_a_folder_of_the_right_name_goes_before_those_below(self, tmp_path: Path) -> None:
        root = tmp_path / "named"
        (root / "named").mkdir(parents=True)
        (root / "a.json").touch()
        (root / "named" / "a.json").touch()
        assert self.find(root) == root / "a.json"

    def test_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        (tmp_path / "a.json").touch()
        assert self.find("~") == tmp_path / "a.json"

    @pytest.mark.parametrize("data", ["", "missing", "file", "."])
    def test_errors_name_what_was_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "file").touch()
        with pytest.raises(UserError) as raised:
            self.find(data)
        assert len(raised.value.lines()) == 3
        assert raised.value.what.startswith("named: ")
        assert "a.json or b.json" in " ".join(raised.value.lines())


class TestPassport:
    def test_right(self) -> None:
        check_passport(Named(), "test", ["a", "b"])

    def test_split_without_an_entry(self) -> None:
        check_passport(Named(), "train", ["x"])

    @pytest.mark.parametrize(
        ("ids", "why"),
        [
            (["a"], "1 id missing."),
            (["a", "b", "c"], "1 id too many."),
            (["a", "a"], "1 id comes more than once, first: a."),
            (["b", "a"], "The number is right, but some ids are others or stand in another order."),
        ],
    )
    def test_wrong(self, ids: list[str], why: str) -> None:
        with pytest.raises(UserError) as raised:
            check_passport(Named(), "test", ids)
        assert raised.value.why == why


class TestOpenImage:
    @pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA"])
    def test_every_mode_becomes_rgb(self, tmp_path: Path, mode: str) -> None:
        path = tmp_path / f"image.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (4, 3)).save(path)
        opened = open_image(path)
        assert (opened.mode, opened.size) == ("RGB", (4, 3))

    def test_sixteen_bits_keep_their_range(self, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        Image.fromarray(np.array([[1000, 2000, 3000]], dtype=np.uint16)).save(path)
        assert np.asarray(open_image(path))[0, :, 0].tolist() in ([0, 127, 255], [0, 128, 255])

    def test_sixteen_bits_without_contrast(self, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        Image.fromarray(np.full((2, 2), 700, dtype=np.uint16)).save(path)
        assert not np.asarray(open_image(path)).any()

    def test_drawn(self) -> None:
        assert open_image(lambda: Image.new("L", (4, 3))).mode == "RGB"

    def test_wrong_extension(self, tmp_path: Path) -> None:
        Image.new("RGB", (4, 3)).save(tmp_path / "image.png")
        (tmp_path / "image.png").rename(tmp_path / "image.jpg")
        assert open_image(tmp_path / "image.jpg").size == (4, 3)

    def test_cut_off(self, tmp_path: Path) -> None:
        path = tmp_path / "image.jpg"
        Image.effect_noise((64, 64), 50).save(path)
        path.write_bytes(path.read_bytes()[:300])
        self.fails(path, "damaged")

    @pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n"])
    def test_no_image(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "image.jpg"
        path.write_bytes(content)
        self.fails(path, "not an image")

    def test_not_there(self, tmp_path: Path) -> None:
        self.fails(tmp_path / "image.jpg", "not there")

    def fails(self, path: Path, said: str) -> None:
        with pytest.raises(UserError) as raised:
            open_image(path)
        assert len(raised.value.lines()) == 3
        assert path.name in raised.value.what
        assert said in raised.value.why


def test_tasks_that_draw_lack_nothing() -> None:
    drawn = Sample("a", lambda: Image.new("L", (4, 3)), "q", "a", "open", "a")
    assert with_images(Named(), "test", [drawn], allow_missing=False) == ([drawn], [])
