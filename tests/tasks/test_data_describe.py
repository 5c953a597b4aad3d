"""Describing a split: every count adds up, and the constant answer's share can be seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from medbench.data.describe import describe, lines
from medbench.errors import UserError
from medbench.task import Edition, Sample, Task
from medbench.tasks.slake import Slake
from medbench.tasks.vqa_rad import VqaRad


def drawn() -> Image.Image:
    raise AssertionError("images are not opened")


class Described(Task):
    """Sixty questions, six on each image."""

    name = "described"
    restricted = False

    def edition(self, split: str) -> Edition:
        return Edition("mirror", (), "Its rows are numbered.")

    def samples(self, split: str) -> Iterator[Sample]:
        if split != "test":
            raise UserError(f"{self.name} has no split '{split}'")
        for n in range(60):
            kind = "closed" if n % 3 else "open"
            answer = ("Yes", "yes.", "no")[n % 3] if n % 3 else f"Finding {n // 30}"
            meta = {
                "modality": "CT" if n % 2 else "X-Ray",
                "all the same": "x",
                "native_id": f"row {n}",
                "thirty": f"v{n % 30}",
                "thirty_one": f"v{n % 31}",
                "number": n % 2,
                "mixed": "a" if n % 2 else 3,
                "names": ["a", "b"],
                "patient": f"p1000003{n % 4}",
                "subject_id": f"s{n % 4}",
            }
            if n < 6:
                meta["now_and_then"] = "set"
            roi = drawn if n < 15 else None
            yield Sample(f"d{n}", drawn, "what?", answer, kind, f"g{n // 6}", roi=roi, meta=meta)


class TestCounts:
    def test_whole(self) -> None:
        told = describe(Described(), "test")
        assert (told.rows, told.images, told.fewest, told.most) == (60, 10, 6, 6)
        assert (told.edition, told.note) == ("mirror", "Its rows are numbered.")
        assert told.with_region == 15
        assert told.fields["kind"] == {"closed": 40, "open": 20}

    def test_fields_that_sort(self) -> None:
        told = describe(Described(), "test")
        assert set(told.fields) == {
            "kind", "modality", "thirty", "patient", "subject_id", "now_and_then",
        }  # fmt: skip
        assert told.fields["modality"] == {"X-Ray": 30, "CT": 30}
        assert told.fields["now_and_then"] == {"": 54, "set": 6}
        assert all(sum(counts.values()) == 60 for counts in told.fields.values())

    def test_names_of_their_own_sort_nothing(self) -> None:
        class Few(Described):
            def samples(self, split: str) -> Iterator[Sample]:
                for n in range(10):
                    meta = {"name": f"n{n}", "half": f"h{n % 5}"}
                    yield Sample(f"d{n}", drawn, "what?", "yes", "closed", "g", meta=meta)

        assert set(describe(Few(), "test").fields) == {"kind", "half"}

    def test_answers_as_the_published_scores_compare_them(self) -> None:
        told = describe(Described(), "test")
        assert told.answers["closed"].frequent == {"yes": 20, "no": 20}
        assert (told.answers["closed"].rows, told.answers["closed"].different) == (40, 2)
        assert told.answers["open"].frequent == {"finding 0": 10, "finding 1": 10}

    def test_images_with_several_questions(self, small_rad: Path) -> None:
        told = describe(VqaRad(data=str(small_rad)), "test")
        assert (told.rows, told.images, told.fewest, told.most) == (5, 4, 1, 2)

    def test_slake(self, real_data: Path) -> None:
        told = describe(Slake(data=str(real_data)), "test")
        assert (told.rows, told.images) == (1061, 96)
        assert told.fields["kind"] == {"open": 706, "closed": 355}
        assert told.fields["answer_type"] == {"OPEN": 645, "CLOSED": 416}
        closed = told.answers["closed"].frequent
        assert closed["yes"] + closed["no"] == 355

    def test_vqa_rad(self, real_data: Path) -> None:
        told = describe(VqaRad(data=str(real_data)), "test")
        assert told.fields["phrase_type"] == {"test_freeform": 308, "test_para": 143}
        assert told.fields["answer_type"] == {"CLOSED": 272, "OPEN": 179}
        # 251 yes or no, and three times "abnormal".
        closed = told.answers["closed"].frequent
        assert closed["yes"] + closed["no"] == 251
        assert closed["abnormal"] == 3
        assert "linked_id" not in told.fields


class TestText:
    def test_bars_have_one_width(self) -> None:
        text = list(lines(describe(Described(), "test")))
        assert text[:4] == [
            "described test, mirror edition",
            "  Its rows are numbered.",
            "  60 questions on 10 images",
            "  6 to 6 questions an image, 6.0 on average",
        ]
        assert "  15 questions with a region (25.0 %)" in text
        start = text.index("kind")
        assert text[start + 1] == f"  closed  40   66.7 %  {'#' * 20}{'.' * 10}"
        assert text[start + 2] == f"  open    20   33.3 %  {'#' * 10}{'.' * 20}"
        assert "  always 'yes' is right in 20 of 40 (50.0 %)" in text
        assert "\n".join(text).isascii()

    def test_empty_values_have_a_name(self) -> None:
        text = list(lines(describe(Described(), "test")))
        assert any(line.startswith("  (empty)  54   90.0 %") for line in text)

    def test_long_answers_are_cut(self) -> None:
        class Long(Described):
            def samples(self, split: str) -> Iterator[Sample]:
                yield Sample("a", drawn, "q", f"{'long ' * 50}\n end", "report", "g")

        text = list(lines(describe(Long(), "test")))
        assert max(map(len, text)) < 110
        assert not any("\n" in line for line in text)

    def test_a_split_without_questions(self) -> None:
        class Empty(Described):
            def samples(self, split: str) -> Iterator[Sample]:
                return iter(())

        assert list(lines(describe(Empty(), "test")))[-1] == "  no questions"


class TestRestricted:
    class Closed(Described):
        name = "closed"
        restricted = True

    def test_fields_only(self) -> None:
        told = describe(self.Closed(), "test")
        assert told.answers == {}
        assert set(told.fields) == {"kind", "modality"}
        text = "\n".join(lines(told))
        for secret in ("yes", "finding", "p1000", "row ", "d0", "g0"):
            assert secret not in text.lower()


class TestVerb:
    def test_text_and_json(self, small_slake: Path, medbench) -> None:
        code, out, err = medbench("data", "describe", "slake", "--data", small_slake)
        assert (code, err) == (0, "")
        assert out.startswith("slake test, official edition\n  4 questions on 3 images\n")
        code, out, _ = medbench("data", "describe", "slake", "--data", small_slake, "--json")
        told = json.loads(out)
        assert code == 0
        assert told["fields"]["kind"] == {"closed": 2, "open": 2}
        assert told["answers"]["closed"]["frequent"] == {"yes": 1, "no": 1}

    def test_another_split(self, small_rad: Path, medbench) -> None:
        words = ("vqa_rad", "--data", small_rad, "--split", "train")
        _, out, _ = medbench("data", "describe", *words)
        assert out.startswith("vqa_rad train, official edition\n  2 questions on 2 images\n")

    def test_a_task_that_needs_no_files(self, medbench) -> None:
        code, out, _ = medbench("data", "describe", "phantom", "--split", "reports")
        assert code == 0
        assert "  200 questions on 200 images" in out

    @pytest.mark.parametrize(
        "words", [["slake"], ["slake", "--data", "nowhere"], ["phantom", "--split", "tset"]]
    )
    def test_mistakes_are_short(self, medbench, words: list[str]) -> None:
        code, out, err = medbench("data", "describe", *words)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) in (2, 3)
