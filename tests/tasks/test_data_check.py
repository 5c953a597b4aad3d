"""Checking a download: every fault is found and counted, and nothing sound is called a fault."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from medbench.data import image_check, look
from medbench.data.audit import Audit, audit
from medbench.data.audit_splits import read_splits
from medbench.data.image_check import check_images
from medbench.data.passport import passport_of
from medbench.data.pictures import open_image, with_images
from medbench.errors import UserError
from medbench.task import Edition, Sample, Task
from medbench.tasks.iu_xray_report import IuXrayReport
from medbench.tasks.slake import Slake
from medbench.tasks.vqa_rad import VqaRad

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Given(Task):
    """A task over whatever samples a test gives it."""

    name = "given"
    source = "example.org"
    offers = ()
    passport: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    mirrors: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}

    splits: Mapping[str, Sequence[Sample]] = field(default_factory=dict)

    def samples(self, split: str) -> Iterator[Sample]:
        if split not in self.splits:
            raise UserError(f"given has no split '{split}'")
        yield from self.splits[split]


@dataclass(frozen=True)
class Cell:
    """An image within another file."""

    data: bytes

    def __call__(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data))

    def content(self) -> bytes:
        return self.data


def sample(number: int, image: Path | Callable[[], Image.Image], **changes: Any) -> Sample:
    made = Sample(f"given-{number}", image, f"what {number}?", "yes", "closed", f"group{number}")
    return replace(made, **changes)


def picture(path: Path, colour: int = 0, mode: str = "RGB", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (20, 10), colour).save(path, **options)
    return path


def audited(task: Task) -> Audit:
    return audit(task, read_splits(task), lambda what, done, of: None)


def found(task: Task) -> dict[str, int]:
    """Return kind -> count of all findings."""
    told = audited(task)
    return {one.kind: one.count for one in (*told.problems, *told.warnings)}


def of(*samples: Sample, data: Path | str = "") -> Given:
    return Given(data=str(data), splits={"test": samples})


def encoded(mode: str = "RGB", kind: str = "PNG", colour: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (20, 10), colour).save(buffer, kind)
    return buffer.getvalue()


class TestRealFiles:
    def test_vqa_rad(self, real_data: Path) -> None:
        told = audited(VqaRad(data=str(real_data)))
        assert [(one.name, one.rows, one.without_image) for one in told.splits] == [
            ("train", 1797, 1797 - 234), ("test", 451, 350),
        ]  # fmt: skip
        assert [one.ids.verdict for one in told.splits] == ["as expected"] * 2
        assert [(one.kind, one.count) for one in told.problems] == [("missing images", 314 - 43)]
        assert told.warnings == ()
        assert (told.images, told.modes, told.formats) == (314, {"RGB": 43}, {"JPEG": 43})
        (shared,) = told.shared
        assert shared.groups == (202, 203)

    def test_slake(self, real_data: Path) -> None:
        told = audited(Slake(data=str(real_data)))
        assert [one.rows for one in told.splits] == [4919, 1053, 1061]
        # The training question 1622 has no answer.
        assert [one.empty_answers for one in told.splits] == [1, 0, 0]
        assert {one.groups[0] for one in told.shared} == {0}
        assert [one.kind for one in told.problems] == ["missing images"]
        assert [one.kind for one in told.warnings] == ["no regions"]

    def test_reports_that_stand_in_training_word_for_word(self, real_data: Path) -> None:
        told = audited(IuXrayReport(data=str(real_data)))
        (shared,) = [s for s in told.shared if (s.earlier, s.later) == ("train", "test")]
        assert shared.questions == (274, 590)

    def test_the_page(self, real_data: Path, medbench) -> None:
        code, out, err = medbench("data", "check", "vqa-rad", "--data", real_data)
        assert (code, err) == (1, "")
        lines = out.splitlines()
        assert lines[0] == "vqa_rad: 1 problem"
        assert lines.index("problems") < lines.index("splits")
        assert "  271 of 314 images are missing, which 1913 of 2248 questions ask about." in lines
        assert any("osf.io" in line for line in lines)
        assert any(line.split()[:4] == ["test", "official", "451", "of"] for line in lines)

    def test_a_folder_of_several(self, real_data: Path, medbench) -> None:
        code, out, _ = medbench("data", "check", "--data", real_data, "--json")
        told = json.loads(out)
        assert code == 1
        assert {"slake", "vqa_rad", "iu_xray_report"} <= {one["task"] for one in told["tasks"]}
        assert "omnimedvqa" in told["not_found"]
        assert "phantom" not in told["not_found"]


class TestSplits:
    def test_good(self, small_slake: Path, medbench) -> None:
        code, out, err = medbench("data", "check", "slake", "--data", small_slake)
        assert (code, err) == (0, "")
        assert out.startswith("slake: good")
        task = Slake(data=str(small_slake))
        code, out, _ = medbench("data", "check", "slake", "--data", small_slake, "--json")
        (told,) = json.loads(out)["tasks"]
        assert told["good"] is True
        (split,) = told["splits"]
        whole = passport_of(list(task.samples("test")))
        assert {part: split[part]["found"] for part in ("ids", "questions", "images")} == {
            part: whole[part] for part in ("ids", "questions", "images")
        }
        assert [split[part]["verdict"] for part in ("ids", "questions", "images")] == [
            "as expected", "not known", "not known",
        ]  # fmt: skip
        assert split["kinds"] == {"closed": 2, "open": 2}

    @pytest.mark.parametrize("part", ["ids", "questions", "images"])
    def test_hashes_that_differ(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
    ) -> None:
        task = of(sample(0, picture(tmp_path / "a.png")))
        known = passport_of(list(task.samples("test")))
        monkeypatch.setattr(Given, "passport", {"test": known})
        assert audited(task).problems == ()
        monkeypatch.setattr(Given, "passport", {"test": {**known, part: "0" * 64}})
        told = audited(task)
        assert [one.kind for one in told.problems] == [f"other {part}"]
        assert getattr(told.splits[0], part).verdict == "differs"
        assert "example.org" in told.problems[0].do

    def test_questions_that_were_edited(
        self, small_slake: Path, monkeypatch: pytest.MonkeyPatch, medbench
    ) -> None:
        known = passport_of(list(Slake(data=str(small_slake)).samples("test")))
        monkeypatch.setattr(Slake, "passport", {"test": known})
        path = small_slake / "test.json"
        path.write_text(path.read_text(encoding="utf-8").replace("enlarged", "big"), "utf-8")
        code, out, _ = medbench("data", "check", "slake", "--data", small_slake)
        assert code == 1
        assert "test: some questions or answers are not the published ones." in out

    def test_a_question_is_missing(self, small_slake: Path, medbench) -> None:
        path = small_slake / "test.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8"))[1:]), "utf-8")
        code, out, _ = medbench("data", "check", "slake", "--data", small_slake)
        assert code == 1
        assert "test: slake: 3 of 4 test questions found" in out
        assert "1 id missing, first: slake-0." in out

    def test_rows_that_a_task_does_not_count_itself(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Given, "passport", {"test": {"rows": 3, "ids": "0" * 64}})
        image = picture(tmp_path / "a.png")
        told = audited(of(sample(0, image), sample(1, image)))
        # `splits` is a parameter that is not the default, as a filter would be.
        assert told.problems == ()
        assert told.splits[0].ids.verdict == "not known"
        monkeypatch.setattr("medbench.data.audit_splits._is_whole", lambda task: True)
        assert found(of(sample(0, image), sample(1, image))) == {"rows": 1}

    def test_parameters_that_leave_questions_out(self, small_slake: Path, medbench) -> None:
        words = ("slake[with_region=true]", "--data", small_slake)
        code, out, _ = medbench("data", "check", *words)
        assert code == 0
        assert "3 of 4" in out
        assert "test: the task's parameters leave questions out." in out

    def test_ids_that_come_twice(self, tmp_path: Path) -> None:
        image = picture(tmp_path / "a.png")
        assert found(of(sample(0, image), sample(0, image))) == {"repeated ids": 1}

    def test_a_file_of_three_is_damaged(self, small_rad: Path, medbench) -> None:
        (small_rad / "VQA_RAD Dataset Public.json").write_bytes(b'[{"qid": 0')
        code, out, _ = medbench("data", "check", "vqa_rad", "--data", small_rad)
        assert code == 1
        assert out.splitlines()[0] == "vqa_rad: 2 problems"
        assert out.count("is damaged JSON") == 2

    def test_a_split_that_the_copy_lacks_is_no_loss(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Mirrored(Given):
            name = "mirrored"

            def samples(self, split: str) -> Iterator[Sample]:
                if split == "train":
                    raise UserError("mirrored: train.json not found in x")
                yield from super().samples(split)

            def edition(self, split: str) -> Edition:
                return Edition("hub", (), "Not the official files.")

        task = Mirrored(splits={"test": (sample(0, picture(tmp_path / "a.png")),)})
        monkeypatch.setattr(Mirrored, "passport", {"train": {"rows": 1}, "test": {"rows": 1}})
        monkeypatch.setattr(Mirrored, "mirrors", {"hub": {"test": {"rows": 1}}}, raising=False)
        told = audited(task)
        assert told.problems == ()
        assert (told.splits[0].edition, told.splits[0].note) == ("hub", "Not the official files.")
        monkeypatch.setattr(Mirrored, "mirrors", {"hub": {"train": {}, "test": {}}})
        assert found(task) == {"unread split": 1}

    def test_a_task_that_knows_one_split(self, tmp_path: Path) -> None:
        class One(Given):
            name = "one"

            def samples(self, split: str) -> Iterator[Sample]:
                yield from {"test": [sample(0, picture(tmp_path / "a.png"))]}[split]

        told = audited(One())
        assert [one.name for one in told.splits] == ["test"]
        assert told.problems == ()


class TestImages:
    def test_missing(self, small_rad: Path, medbench) -> None:
        (small_rad / "VQA_RAD Image Folder" / "synpic0.jpg").unlink()
        code, out, _ = medbench("data", "check", "vqa_rad", "--data", small_rad)
        assert code == 1
        assert "1 of 4 images is missing, which 2 of 7 questions ask about." in out
        assert f"First: VQA_RAD Image Folder{os.sep}synpic0.jpg" in out
        assert "--allow-missing-images" in out

    def test_missing_with_the_archive_at_hand(self, small_slake: Path, medbench) -> None:
        (small_slake / "imgs").rename(small_slake / "elsewhere")
        (small_slake / "imgs.zip").write_bytes(b"PK")
        code, out, _ = medbench("data", "check", "slake", "--data", small_slake)
        assert code == 1
        assert f"medbench data unpack {small_slake / 'imgs.zip'}" in out

    @pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xd8\xff", b"half"])
    def test_corrupt(self, tmp_path: Path, content: bytes) -> None:
        images = [tmp_path / f"{n}.png" for n in range(3)]
        for image in images:
            Image.effect_noise((30, 30), 60).save(image)
        images[1].write_bytes(content if content != b"half" else images[1].read_bytes()[:400])
        told = audited(of(*(sample(n, image) for n, image in enumerate(images)), data=tmp_path))
        assert [(one.kind, one.count) for one in told.problems] == [("corrupt images", 1)]
        assert told.problems[0].first.startswith("1.png: ")
        assert told.splits[0].without_image == 1
        assert told.splits[0].images.verdict == "not all there"

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="may read anything")
    def test_unreadable(self, tmp_path: Path) -> None:
        images = [picture(tmp_path / f"{n}.png", n) for n in range(3)]
        images[1].chmod(0)
        told = found(of(*(sample(n, image) for n, image in enumerate(images))))
        assert told == {"corrupt images": 1}

    def test_one_that_cannot_be_read_among_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = [picture(tmp_path / f"{n}.png", n) for n in range(5)]
        whole = look.sha256_of

        def refusing(paths: Sequence[Path]) -> dict[Path, str]:
            if images[3] in paths:
                raise UserError(f"cannot read {images[3]}", "Input/output error.")
            return whole(paths)

        monkeypatch.setattr(look, "sha256_of", refusing)
        told = audited(of(*(sample(n, image) for n, image in enumerate(images)), data=tmp_path))
        assert [(one.kind, one.count) for one in told.problems] == [("corrupt images", 1)]
        assert told.problems[0].first.startswith("3.png: ")

    def test_odd_ones_are_warnings(self, tmp_path: Path, medbench) -> None:
        turned = Image.Exif()
        turned[0x0112] = 6
        Image.fromarray(np.full((4, 4), 700, dtype=np.uint16)).save(tmp_path / "deep.png")
        images = [
            picture(tmp_path / "cmyk.jpg", mode="CMYK"),
            tmp_path / "deep.png",
            picture(tmp_path / "x.png", 1).rename(tmp_path / "other.JPG"),
            picture(tmp_path / "turned.jpg", 2, exif=turned),
            picture(tmp_path / "turned.png", 3, exif=turned),
            picture(tmp_path / "grey.png", 4, mode="L"),
            picture(tmp_path / "palette.png", 5, mode="P"),
            picture(tmp_path / "y.png", 6).rename(tmp_path / "no_suffix"),
        ]
        task = of(*(sample(n, image) for n, image in enumerate(images)))
        told = audited(task)
        assert told.problems == ()
        assert {one.kind: one.count for one in told.warnings} == {
            "cmyk": 1, "more than 8 bits": 1, "other format": 1, "turned": 2,
        }  # fmt: skip
        assert told.modes == {"RGB": 4, "CMYK": 1, "I;16": 1, "L": 1, "P": 1}
        assert told.formats == {"PNG": 6, "JPEG": 2}
        assert audited(task) == told  # from what was remembered

    def test_huge(self, tmp_path: Path) -> None:
        # 51 and 100 megapixels; Pillow warns of the second.
        Image.new("1", (8500, 6000)).save(tmp_path / "a.png")
        Image.new("1", (10000, 10000)).save(tmp_path / "b.png")
        images = [tmp_path / "a.png", tmp_path / "b.png", picture(tmp_path / "c.png")]
        assert found(of(*(sample(n, image) for n, image in enumerate(images)))) == {"huge": 2}

    def test_more_pixels_than_pillow_opens(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
        told = audited(of(sample(0, picture(tmp_path / "a.png"))))
        assert [one.kind for one in told.problems] == ["corrupt images"]
        assert "more pixels than Pillow opens" in told.problems[0].first

    def test_duplicates(self, tmp_path: Path) -> None:
        for name, colour in (("a", 1), ("b", 1), ("c", 1), ("d", 2), ("e", 2), ("f", 3)):
            picture(tmp_path / f"{name}.png", colour)
        train = [sample(n, tmp_path / f"{name}.png") for n, name in enumerate("abdf")]
        test = [sample(n, tmp_path / f"{name}.png") for n, name in enumerate("cef")]
        told = audited(Given(data=str(tmp_path), splits={"train": train, "test": test}))
        assert told.good
        (one,) = told.warnings
        # Two pictures are a's, one is d's; f is the same file and no duplicate.
        assert (one.kind, one.count) == ("duplicates", 3)
        assert "1 within train, 2 across train and test" in one.what
        assert one.first == "b.png is a.png"
        assert told.shared[0].contents == (3, 3)

    def test_a_shared_file_is_no_duplicate_across(self, tmp_path: Path) -> None:
        a = sample(0, picture(tmp_path / "a.png", 1))
        b = sample(1, picture(tmp_path / "b.png", 1))
        (one,) = audited(Given(splits={"train": [a], "validation": [b], "test": [a]})).warnings
        assert "(1 across train and validation, 1 across validation and test)" in one.what

    def test_each_file_is_opened_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = [picture(tmp_path / f"{n}.png", n) for n in range(5)]
        samples = [sample(n, images[n % 5], group=f"g{n % 5}") for n in range(2000)]
        task = Given(splits={"train": samples, "test": samples})
        opened = count_calls(monkeypatch, look, "reading")
        told = audited(task)
        assert len(opened) == 5
        assert (told.images, told.splits[0].rows) == (5, 2000)

    def test_what_opened_before_is_not_decoded_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = of(*(sample(n, picture(tmp_path / f"{n}.png", 40 + n)) for n in range(3)))
        decoded = count_calls(monkeypatch, look, "as_rgb")
        first = audited(task)
        assert len(decoded) == 3
        assert audited(task) == first
        assert len(decoded) == 3
        opened = count_calls(monkeypatch, image_check, "open_image")
        check_images(list(task.samples("test")))
        assert opened == []


class TestStoredImages:
    def test_what_they_are(self) -> None:
        contents = [encoded(), encoded("CMYK", "JPEG"), encoded("L"), b"no image"]
        task = of(*(sample(n, Cell(one), stamp=f"s{n}") for n, one in enumerate(contents)))
        told = audited(task)
        assert {one.kind: one.count for one in (*told.problems, *told.warnings)} == {
            "corrupt images": 1, "cmyk": 1,
        }  # fmt: skip
        assert told.problems[0].first.startswith("the image of given-3: ")
        assert told.modes == {"RGB": 1, "CMYK": 1, "L": 1}

    def test_once_for_each_stamp(self) -> None:
        class Counting:
            reads: ClassVar[list[int]] = []

            def __init__(self, data: bytes) -> None:
                self.data = data

            def __call__(self) -> Image.Image:
                return Image.open(io.BytesIO(self.data))

            def content(self) -> bytes:
                self.reads.append(1)
                return self.data

        samples = [sample(n, Counting(encoded(colour=n % 3)), stamp=str(n % 3)) for n in range(300)]
        assert audited(of(*samples)).images == 3
        assert len(Counting.reads) == 3

    def test_cells_have_no_names_to_be_duplicates(self) -> None:
        task = of(sample(0, Cell(encoded()), stamp="a"), sample(1, Cell(encoded()), stamp="b"))
        assert found(task) == {}

    def test_a_format_that_only_the_task_knows(self) -> None:
        @dataclass(frozen=True)
        class Own(Cell):
            def __call__(self) -> Image.Image:
                return Image.new("L", (4, 3))

        told = audited(of(sample(0, Own(b"DICM"), stamp="a")))
        assert told.good
        assert told.formats == {"unknown": 1}

    def test_a_reader_that_fails(self) -> None:
        class Failing(Cell):
            def content(self) -> bytes:
                raise KeyError("no such member")

        told = audited(of(sample(0, Failing(b""))))
        assert [one.kind for one in told.problems] == ["corrupt images"]
        assert "KeyError" in told.problems[0].first

    def test_drawn_ones_are_left_alone(self) -> None:
        def draw() -> Image.Image:
            raise AssertionError("drawn")

        told = audited(of(sample(0, draw, stamp="a", roi=lambda: np.zeros((1, 1)))))
        assert told.good
        assert (told.images, told.drawn, told.regions) == (0, 1, 0)
        assert told.splits[0].images.found is not None


class TestRegions:
    def region(self, image: Path, answer: object, *files: Path) -> Sample:
        def compute() -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return sample(0, image, roi=compute, roi_files=files)

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (np.ones((10, 20), dtype=bool), None),
            (np.zeros((10, 20), dtype=bool), "empty regions"),
            (np.ones((20, 10), dtype=bool), "other size regions"),
            (UserError("broken"), "unreadable regions"),
            (ZeroDivisionError("broken"), "unreadable regions"),
        ],
    )
    def test_what_is_computed(self, tmp_path: Path, answer: object, kind: str | None) -> None:
        told = audited(of(self.region(picture(tmp_path / "a.png"), answer)))
        assert [one.kind for one in (*told.problems, *told.warnings)] == ([kind] if kind else [])
        assert told.good is (kind != "unreadable regions")
        assert (told.with_region, told.regions) == (1, 1)

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (encoded("L"), None),
            (b"no image", "unreadable regions"),
            (None, "unreadable regions"),
            ("large", "other size regions"),
        ],
    )
    def test_masks(self, tmp_path: Path, content: bytes | str | None, kind: str | None) -> None:
        mask = tmp_path / "mask.png"
        if content == "large":
            Image.new("L", (40, 20)).save(mask)
        elif isinstance(content, bytes):
            mask.write_bytes(content)
        region = self.region(picture(tmp_path / "a.png"), np.ones((10, 20)), mask)
        assert list(found(of(region))) == ([kind] if kind else [])

    def test_a_region_of_a_missing_image_is_not_computed(self, tmp_path: Path) -> None:
        told = found(of(self.region(tmp_path / "a.png", UserError("must not be called"))))
        assert told == {"missing images": 1}

    def test_each_region_once(self, small_slake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told = audited(Slake(data=str(small_slake)))
        assert (told.with_region, told.regions) == (3, 3)
        calls: list[int] = []

        def compute() -> Any:
            calls.append(1)
            return np.ones((30, 40))

        image = small_slake / "imgs" / "xmlab0" / "source.jpg"
        audited(of(*(sample(n, image, roi=compute) for n in range(9))))
        assert len(calls) == 1

    def test_a_broken_mask_of_slake(self, small_slake: Path, medbench) -> None:
        (small_slake / "imgs" / "xmlab0" / "mask.png").write_bytes(b"\x89PNG")
        code, out, _ = medbench("data", "check", "slake", "--data", small_slake)
        assert code == 1
        assert "1 of 3 regions is unreadable." in out

    def test_a_data_set_of_regions_without_any(self, small_slake: Path) -> None:
        for path in small_slake.glob("imgs/*/detection.json"):
            path.unlink()
        told = audited(Slake(data=str(small_slake)))
        assert told.good
        assert "no regions" in [one.kind for one in told.warnings]


class TestBetweenSplits:
    def test_what_two_splits_share(self, tmp_path: Path) -> None:
        a, b = picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 2)
        same = {"question": "what?", "answer": "this"}
        train = [sample(0, a, group="a", **same), sample(1, a, group="a")]
        test = [
            sample(2, b, group="b", **same),
            sample(3, b, group="b", **same),
            sample(4, a, group="a", question="what?", answer="that"),
        ]
        task = Given(splits={"train": train, "test": test})
        told = audited(task)
        assert told.good
        assert told.warnings == ()
        (shared,) = told.shared
        assert (shared.groups, shared.contents, shared.questions) == ((1, 2), (1, 2), (2, 3))

    def test_missing_images_are_not_the_same(self, tmp_path: Path) -> None:
        train, test = [sample(0, tmp_path / "a.png")], [sample(1, tmp_path / "b.png")]
        (shared,) = audited(Given(splits={"train": train, "test": test})).shared
        assert shared.contents == (0, 0)

    def test_the_page_tells_it_as_no_fault(self, small_rad: Path, medbench) -> None:
        code, out, _ = medbench("data", "check", "vqa_rad", "--data", small_rad)
        assert code == 0
        assert "2 of 4 images of test are in train too (by id)" in out


RESTRICTED = '''
from pathlib import Path
from medbench import Sample, Task, UserError

class Closed(Task):
    """Reports that may not be shown."""

    name = "closed_reports"
    restricted = True
    source = "example.org"
    offers = ("roi",)
    passport = {"train": {"rows": 5}, "test": {"rows": 4}}

    def samples(self, split):
        if split == "train":
            what = f"closed_reports: cannot read {self.data}/p10/p10000032/s50414267.txt"
            raise UserError(what, "Patient Smith has pneumonia.", "Ask Smith.")
        if split != "test":
            raise UserError(f"closed_reports has no split '{split}'")
        def mask():
            raise ValueError("Smith's mask")
        for n, name in enumerate(("s10000001", "s10000002", "s10000003", "s10000004", "s10000003")):
            image = Path(self.data) / "files" / f"{name}.jpg"
            yield Sample(
                f"study-{name}", image, f"Write about {name}", f"Smith {n}", "report", name,
                roi=mask, meta={"subject_id": f"Smith{n // 3}", "view": "PA" if n else "AP",
                                "subject": f"1000000{n // 3}"},
            )
'''


class TestRestricted:
    @pytest.fixture
    def files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "tasks").mkdir()
        (tmp_path / "tasks" / "closed_reports.py").write_text(RESTRICTED, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        picture(tmp_path / "data" / "files" / "s10000001.jpg", mode="CMYK")
        picture(tmp_path / "data" / "files" / "s10000002.jpg", mode="CMYK")
        (tmp_path / "data" / "files" / "s10000003.jpg").write_bytes(b"no image")
        (tmp_path / "data" / "s10000001.zip").touch()
        return tmp_path / "data"

    @pytest.mark.parametrize("option", [[], ["--json"]])
    def test_counts_only(self, files: Path, medbench, option: list[str]) -> None:
        words = ["closed-reports", "--data", "data", *option]
        code, out, err = medbench("data", "check", *words)
        assert code == 1
        for secret in ("1000000", "Smith", "pneumonia", "study-", "5041", "Write about", ".jpg"):
            assert secret not in out + err
        for kind in ("missing", "cut off, damaged", "CMYK", "of one of another name", "unread"):
            assert kind in out
        if not option:
            assert "1 of 4 images is missing, which 1 of 5 questions ask about." in out

    def test_a_fault_of_the_task_itself(self, files: Path, medbench) -> None:
        path = files.parent / "tasks" / "closed_reports.py"
        source = path.read_text("utf-8").replace("raise UserError(what,", "raise KeyError(what,")
        path.write_text(source, "utf-8")
        with pytest.raises(RuntimeError) as raised:
            medbench("data", "check", "closed-reports", "--data", "data")
        assert "p10000032" not in str(raised.value)
        assert "Smith" not in str(raised.value)

    def test_every_task(self, files: Path, medbench) -> None:
        code, out, err = medbench("data", "check", "--data", "data")
        assert code == 1
        assert out.startswith("closed_reports: ")
        assert "1000000" not in out + err
        assert "Smith" not in out + err

    def test_files_that_are_not_there_are_not_named(
        self, small_rad: Path, files: Path, medbench
    ) -> None:
        path = files.parent / "tasks" / "closed_reports.py"
        source = path.read_text("utf-8").replace("passport =", "_passport =")
        source = source.replace("closed_reports: cannot read", "Smith.txt not found in")
        path.write_text(source.replace('if split != "test"', "if True"), "utf-8")
        code, out, _ = medbench("data", "check", "--data", small_rad)
        assert code == 0
        (line,) = [line for line in out.splitlines() if line.startswith("  closed_reports ")]
        assert "Its files are not there" in line
        assert "Smith" not in out


class TestWithoutTask:
    def test_found_and_not_found(self, small_rad: Path, medbench) -> None:
        code, out, err = medbench("data", "check", "--data", small_rad)
        assert (code, err) == (0, "")
        assert out.startswith("vqa_rad: good")
        lines = out.splitlines()
        absent = lines[lines.index("not found") + 1 :]
        names = [line.split()[0] for line in absent]
        assert "slake" in names
        assert "vqa_rad" not in names
        assert "phantom" not in names
        assert all("not found in" in line or "are not there" in line for line in absent)

    def test_a_look_alike_is_named(self, tmp_path: Path, medbench) -> None:
        (tmp_path / "trainset.json").write_text("[]", encoding="utf-8")
        code, out, _ = medbench("data", "check", "--data", tmp_path)
        assert code == 1
        assert out.startswith("vqa_rad: 2 problems")
        assert "VQA-Med under this name" in out

    def test_nothing(self, tmp_path: Path, medbench) -> None:
        code, out, err = medbench("data", "check", "--data", tmp_path)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 3
        assert "vqa_rad" in err

    def test_a_damaged_file_is_a_problem_and_not_absent(self, tmp_path: Path, medbench) -> None:
        (tmp_path / "slake").mkdir()
        (tmp_path / "slake" / "test.json").write_bytes(b"[{")
        code, out, _ = medbench("data", "check", "--data", tmp_path)
        assert code == 1
        assert "is damaged JSON" in out

    def test_a_file_that_another_task_reads_well(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medbench
    ) -> None:
        """SLAKE's names are those of many."""
        (tmp_path / "tasks").mkdir()
        (tmp_path / "tasks" / "other.py").write_text(OTHER, encoding="utf-8")
        (tmp_path / "test.json").write_text('[{"x": 1}]', encoding="utf-8")
        picture(tmp_path / "a.png")
        monkeypatch.chdir(tmp_path)
        code, out, _ = medbench("data", "check", "--data", ".")
        assert code == 0
        assert out.startswith("other: good")
        (line,) = [line for line in out.splitlines() if line.startswith("  slake ")]
        assert "is not the official file" in line

    @pytest.mark.parametrize("words", [[], ["--data", "nowhere"]])
    def test_mistakes(self, medbench, words: list[str]) -> None:
        code, out, err = medbench("data", "check", *words)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 3


OTHER = '''
from pathlib import Path
from medbench import Sample, Task, UserError
from medbench.task import Edition

class Other(Task):
    """Has a test.json as well."""

    name = "other"

    def edition(self, split):
        return Edition(files=(Path(self.data) / "test.json",))

    def samples(self, split):
        if not (Path(self.data) / "test.json").is_file() or split != "test":
            raise UserError("other: test.json not found in it")
        yield Sample("a", Path(self.data) / "a.png", "q", "a", "open", "a")
'''


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "lines"),
        [
            (
                ["chekc"],
                ["no verb 'chekc' of medbench data", "Did you mean check?",
                 "See: medbench data --help"],
            ),
            (["zzz"], ["no verb 'zzz' of medbench data", "See: medbench data --help"]),
            (
                ["check", "slak", "--data", "X"],
                ["no task named 'slak'", "Did you mean slake?", "See: medbench list tasks"],
            ),
            (
                ["describe", "slak", "--data", "X"],
                ["no task named 'slak'", "Did you mean slake?", "See: medbench list tasks"],
            ),
            (
                ["check", "--jsn"],
                ["no option '--jsn'", "Did you mean --json?", "See: medbench data check --help"],
            ),
        ],
    )  # fmt: skip
    def test_three_short_lines(self, medbench, words: list[str], lines: list[str]) -> None:
        code, out, err = medbench("data", *words)
        assert (code, out) == (2, "")
        assert err.splitlines() == lines

    @pytest.mark.parametrize("data", [[], ["--data", "X"], ["--data", "."]])
    def test_no_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medbench, data: list[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        code, out, err = medbench("data", "check", "slake", *data)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 3

    def test_help(self, medbench) -> None:
        code, out, _ = medbench("data", "--help")
        assert code == 0
        assert all(f"  {verb} " in out for verb in ("check", "describe", "unpack"))
        assert medbench("data")[0] == 2

    def test_a_typo_imports_nothing_heavy(self, tmp_path: Path) -> None:
        code = (
            "import sys; from medbench.cli import main; main(['data', 'check', 'slak']);"
            "print({'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules))"
        )
        assert python(code, tmp_path).stdout == "set()\n"


class TestBeforeARun:
    """`check_images` and `with_images`: nothing heavy before what is broken is known."""

    def test_cells_are_opened_once_and_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = encoded(colour=77)
        stamp = hashlib.sha256(data).hexdigest()
        samples = [sample(n, Cell(data), stamp=stamp) for n in range(20000)]
        opened = count_calls(monkeypatch, image_check, "open_image")
        before = time.perf_counter()
        check_images(samples)
        assert len(opened) == 1
        assert time.perf_counter() - before < 5
        check_images(samples)
        assert len(opened) == 1

    def test_cells_without_a_stamp_are_opened_each_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        samples = [sample(n, Cell(encoded(colour=n))) for n in range(3)]
        opened = count_calls(monkeypatch, image_check, "open_image")
        check_images(samples)
        check_images(samples)
        assert len(opened) == 6

    def test_broken_cells(self) -> None:
        good, bad = Cell(encoded(colour=78)), Cell(b"no image")
        samples = [
            sample(0, good, stamp="good 78"),
            sample(1, bad, stamp="bad 1"),
            sample(2, bad, stamp="bad 2"),
        ]
        for _ in range(2):
            with pytest.raises(UserError) as raised:
                check_images(samples)
            assert raised.value.what == "cannot read the image of sample given-1"
            assert raised.value.why.endswith(" 1 more is broken.")
            assert len(raised.value.lines()) == 3

    def test_a_cell_that_explains_itself(self) -> None:
        class Explaining(Cell):
            def __call__(self) -> Image.Image:
                raise UserError("no image in row 3", "The cell is empty.", "Download it again.")

        with pytest.raises(UserError, match="no image in row 3"):
            check_images([sample(0, Explaining(b""), stamp="explaining")])

    def test_drawn_ones_are_left_alone(self) -> None:
        def draw() -> Image.Image:
            raise AssertionError("drawn")

        check_images([sample(n, draw, stamp=stamp) for n, stamp in enumerate(("", "a", "a"))])

    def test_a_good_file_and_a_cell_of_the_same_content(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = picture(tmp_path / "a.png", 79)
        check_images([sample(0, path)])
        stamp = hashlib.sha256(path.read_bytes()).hexdigest()
        opened = count_calls(monkeypatch, image_check, "open_image")
        check_images([sample(0, Cell(path.read_bytes()), stamp=stamp)])
        assert opened == []

    def test_the_archive_beside_a_missing_image(self, tmp_path: Path) -> None:
        images = tmp_path / "a folder" / "imgs" / "x"
        task, lost = of(), sample(0, images / "source.jpg")
        self.lacks(task, lost, "source.jpg.")
        (tmp_path / "a folder").mkdir()
        (tmp_path / "a folder" / "imgs.tgz").touch()
        command = f"medbench data unpack '{tmp_path / 'a folder' / 'imgs.tgz'}'"
        self.lacks(task, lost, f"imgs.tgz is there; unpack it: {command}")
        (tmp_path / "a folder" / "KG.zip").touch()
        command = f"medbench data unpack '{tmp_path / 'a folder'}'"
        self.lacks(task, lost, f"KG.zip, imgs.tgz are there; unpack them: {command}")

    def test_images_that_cannot_be_hashed_are_there(self, tmp_path: Path) -> None:
        class Changing(list[bytes]):
            def __call__(self) -> Image.Image:
                return Image.open(io.BytesIO(self[0]))

            def content(self) -> bytes:
                return self[0]

        cell, file = sample(0, Changing([encoded()])), sample(1, tmp_path / "a.png")
        found, missing = with_images(of(), "test", [cell, file], allow_missing=True)
        assert (found, missing) == ([cell], ["given-1"])
        check_images(found)
        assert audited(of(cell, cell)).good is False  # two of one id
        assert audited(of(cell, cell)).images == 1

    def lacks(self, task: Task, lost: Sample, said: str) -> None:
        with pytest.raises(UserError) as raised:
            with_images(task, "test", [lost], allow_missing=False)
        assert raised.value.why.endswith(said)

    def test_a_run_without_its_images_imports_nothing_heavy(self, tmp_path: Path) -> None:
        (tmp_path / "tasks").mkdir()
        (tmp_path / "tasks" / "other.py").write_text(OTHER, encoding="utf-8")
        (tmp_path / "test.json").touch()
        code = (
            "import sys; from medbench.cli import main\n"
            "words = 'run --method greedy --task other --backbone toy --data .'.split()\n"
            "print(main(words), {'torch', 'transformers'} & set(sys.modules))"
        )
        done = python(code, tmp_path)
        assert done.stdout == "2 set()\n"
        assert done.stderr.startswith("other: 1 of 1 test samples lack their image")


class TestPictures:
    @pytest.mark.parametrize(
        ("ink", "colour"),
        [
            ((0, 0, 0, 0), (255, 255, 255)),
            ((0, 0, 0, 255), (0, 0, 0)),
            ((0, 255, 255, 0), (255, 0, 0)),
            ((255, 0, 255, 0), (0, 255, 0)),
        ],
    )
    @pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
    def test_cmyk_has_its_right_colours(
        self, tmp_path: Path, name: str, ink: tuple[int, ...], colour: tuple[int, ...]
    ) -> None:
        path = tmp_path / name
        Image.new("CMYK", (16, 16), ink).save(path)
        if name == "a.jpg":
            # Adobe's marker, whose JPEGs hold ink inverted: so do Pillow's.
            assert b"Adobe" in path.read_bytes()
        difference = np.asarray(open_image(path)).astype(int)[8, 8] - colour
        assert abs(difference).max() <= 2

    @pytest.mark.parametrize(
        ("array", "name"),
        [
            (np.array([[1000, 2000, 3000]], dtype=np.uint16), "a.png"),
            (np.array([[1000, 2000, 3000]], dtype=np.uint16), "a.tif"),
            (np.array([[-1000, 0, 1000]], dtype=np.int32), "a.tif"),
            (np.array([[100000, 200000, 300000]], dtype=np.int32), "a.tif"),
            (np.array([[0.25, 0.5, 0.75]], dtype=np.float32), "a.tif"),
        ],
    )
    def test_many_bits_keep_their_range(self, tmp_path: Path, array: np.ndarray, name: str) -> None:
        Image.fromarray(array).save(tmp_path / name)
        low, middle, high = np.asarray(open_image(tmp_path / name))[0, :, 0].tolist()
        assert (low, high) == (0, 255)
        assert middle in (127, 128)

    def test_sixteen_bits_of_the_other_byte_order(self, tmp_path: Path) -> None:
        data = np.array([[1000, 2000, 3000]], dtype=">u2").tobytes()
        Image.frombytes("I;16B", (3, 1), data).save(tmp_path / "a.tif")
        with Image.open(tmp_path / "a.tif") as opened:
            assert opened.mode == "I;16B"
        low, middle, high = np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0].tolist()
        assert (low, high) == (0, 255)
        assert middle in (127, 128)

    def test_every_value_of_sixteen_bits(self, tmp_path: Path) -> None:
        values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        Image.fromarray(values).save(tmp_path / "a.png")
        opened = np.asarray(open_image(tmp_path / "a.png"))[..., 0]
        assert abs(opened - values / 257).max() <= 1

    def test_a_cell_of_sixteen_bits(self) -> None:
        buffer = io.BytesIO()
        Image.fromarray(np.array([[1000, 3000]], dtype=np.uint16)).save(buffer, "PNG")
        assert np.asarray(open_image(Cell(buffer.getvalue())))[0, :, 0].tolist() == [0, 255]

    def test_the_orientation_of_exif_is_ignored(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        path = picture(tmp_path / "a.jpg", exif=exif)
        assert open_image(path).size == (20, 10)

    def test_text_in_a_png_is_no_picture_of_it(self, tmp_path: Path) -> None:
        text = PngImagePlugin.PngInfo()
        text.add_text("Patient", "x" * 2000)
        assert open_image(picture(tmp_path / "a.png", pnginfo=text)).size == (20, 10)


def test_an_interrupt_does_not_wait_for_the_rest() -> None:
    done: list[int] = []

    def slow(number: int) -> int:
        time.sleep(0.02)
        done.append(number)
        return number

    results = look.in_parallel(slow, range(2000))
    assert next(results) == 0
    results.close()
    assert len(done) < 500
    assert list(look.in_parallel(slow, range(20))) == list(range(20))


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """Let a module's function count its calls."""
    whole = getattr(module, name)
    calls: list[Any] = []

    def counting(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments[0])
        return whole(*arguments, **more)

    monkeypatch.setattr(module, name, counting)
    return calls


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MEDBENCH_PLUGINS", None)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment
    )
