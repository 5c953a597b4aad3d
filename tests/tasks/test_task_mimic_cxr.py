"""MIMIC-CXR: PhysioNet's folders with invented reports, the draw, and errors that tell nothing."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import re
import shutil
import traceback
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medbench import images
from medbench.data.passport import passport_of
from medbench.data.pictures import with_images
from medbench.errors import UserError
from medbench.order import partners
from medbench.task import Sample
from medbench.tasks import mimic_cxr as module
from medbench.tasks.mimic_cxr import MimicCxr

# Stands in every report, and must stand in nothing that is printed.
SECRET = "zyzzogeton"
SPLIT, METADATA = "mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-2.0.0-metadata.csv.gz"
QUESTION = "Analyze the chest X-ray and generate a concise medical report."
COUNTS = {"train": 7, "validation": 2, "test": 8}

BOTH = ("The {} rings in both lungs.", "No bell.")
# study -> patient, split, views of its images, findings and impression (None: no such section)
STUDIES: dict[int, tuple[int, str, tuple[str, ...], tuple[str | None, str | None]]] = {
    50000001: (10000001, "test", ("LATERAL", "PA"), BOTH),
    50000002: (10000001, "test", ("AP",), ("Still the {} there and no more.", None)),
    50000003: (11000003, "test", ("",), (None, "Only a {} to be seen here.")),
    50000004: (11000004, "test", ("AP", "AP"), (None, None)),
    50000005: (12000005, "test", ("LL",), ("{} ___ ___ . bell.", "")),
    50000006: (12000006, "test", ("PA",), BOTH),
    50000011: (13000011, "train", ("PA", "LATERAL"), BOTH),
    50000012: (13000011, "train", ("PA",), BOTH),
    50000013: (13000013, "train", ("AP",), BOTH),
    50000014: (13000014, "train", ("AP", "LL", "PA"), BOTH),
    50000021: (19000021, "validate", ("PA",), BOTH),
    50000022: (19000021, "validate", ("PA",), BOTH),
}


def dicom(study: int, number: int) -> str:
    """Return an image's id; those of a study do not rise with its rows."""
    digest = hashlib.sha256(f"{study} {number}".encode()).hexdigest()
    return "-".join(digest[at : at + 8] for at in range(0, 40, 8))


def report(findings: str | None, impression: str | None) -> str:
    lines = ["            FINAL REPORT", " INDICATION:  ___ rings.", " "]
    for header, text in (("FINDINGS", findings), ("IMPRESSION", impression)):
        if text is not None:
            lines += [f" {header}: ", " ", *(f" {line}" for line in text.split("\n")), " "]
    if findings is None and impression is None:
        lines += [f" The {SECRET} has left the building, and nobody knows where it went."]
    return "\n".join(lines)


def table(path: Path, rows: Iterable[Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def folder(study: int) -> Path:
    patient = STUDIES[study][0]
    return Path("files", f"p{patient}"[:3], f"p{patient}", f"s{study}")


def sections_of(study: int) -> list[str]:
    """Return a study's findings and impression, "" for none."""
    return [(text or "").format(SECRET) for text in STUDIES[study][3]]


def write_tables(root: Path) -> None:
    rows = [
        (dicom(study, number), study, patient, split, view)
        for study, (patient, split, views, _) in STUDIES.items()
        for number, view in enumerate(views)
    ]
    head = ("dicom_id", "study_id", "subject_id", "split")
    table(root / SPLIT, [head, *(row[:4] for row in rows)])
    head = ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows")
    table(
        root / METADATA,
        [head, *((name, patient, study, view, 3056) for name, study, patient, _, view in rows)],
    )


def write_images(root: Path) -> None:
    for study, (_, _, views, _) in STUDIES.items():
        for number in range(len(views)):
            path = root / folder(study) / f"{dicom(study, number)}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (20, 16), study % 200 + number).save(path)


def write_reports(root: Path) -> None:
    for study, (*_, texts) in STUDIES.items():
        path = root / folder(study).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = (None if text is None else text.format(SECRET) for text in texts)
        path.write_text(report(*parts), encoding="utf-8")


def write_sectioned(root: Path, leave_out: Iterable[int] = ()) -> None:
    head = ("study", "impression", "findings", "last_paragraph", "comparison")
    rows: list[Iterable[object]] = [head]
    for study in STUDIES:
        findings, impression = sections_of(study)
        if study not in leave_out:
            rows.append((f"s{study}", impression, findings.replace(" ", "\n ", 1), SECRET, ""))
    table(root / "mimic_cxr_sectioned.csv", rows)


def write_r2gen(root: Path, change: Callable[[Any], object] = lambda content: None) -> None:
    """Write R2Gen's file: an item for each image of the studies with findings."""
    content: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for study, (patient, split, views, _) in STUDIES.items():
        findings, _ = sections_of(study)
        for number in range(len(views) if findings else 0):
            content[{"validate": "val"}.get(split, split)].append(
                {
                    "id": dicom(study, number),
                    "study_id": study,
                    "subject_id": patient,
                    "report": findings,
                    "image_path": [
                        f"p{str(patient)[:2]}/p{patient}/s{study}/{dicom(study, number)}.jpg"
                    ],
                    "split": split,
                }
            )
    change(content)
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotation.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(autouse=True)
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IMAGES", COUNTS)
    monkeypatch.setattr(module, "_SECTIONED_ROWS", len(STUDIES) - 1)
    rows = {split: {"rows": n} for split, n in (("train", 7), ("validation", 2), ("test", 5))}
    monkeypatch.setattr(MimicCxr, "mirrors", {"r2gen": rows})


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """All in one folder."""
    root = tmp_path / "data"
    write_tables(root)
    write_images(root)
    write_reports(root)
    return root


def read(data: Path, split: str = "test", **parameters: Any) -> list[Sample]:
    return list(MimicCxr(data=str(data), **parameters).samples(split))


def studies(samples: Iterable[Sample]) -> list[int]:
    return [int(sample.meta["native_id"].removeprefix("s")) for sample in samples]


def place(study: int) -> str:
    return hashlib.sha256(f"medbench mimic_cxr {study}".encode()).hexdigest()


def fails(data: Path | str, split: str = "test", **parameters: Any) -> UserError:
    task = MimicCxr(data=str(data), **parameters)
    with pytest.raises(UserError) as raised:
        list(task.samples(split))
    assert len(raised.value.lines()) == 3
    assert_tells_nothing(raised.value)
    return raised.value


def assert_tells_nothing(error: BaseException) -> None:
    told = "".join(traceback.format_exception(error))
    if isinstance(error, UserError):
        told += "\n".join(error.lines())
    assert SECRET not in told
    # Ids of patients and studies have eight digits, ids of images are hexadecimal with dashes.
    assert not re.search(r"[ps]?[15]\d{7}|[0-9a-f]{8}-[0-9a-f]{8}", told)


class TestSamples:
    def test_all_of_a_sample(self, small: Path) -> None:
        first = read(small)[0]
        assert first.id == "mimic_cxr-s50000001"
        assert first.question == QUESTION == MimicCxr().ask(first)
        assert first.answer == f"The {SECRET} rings in both lungs. No bell."
        assert (first.kind, first.group) == ("report", "p10000001")
        name = min(dicom(50000001, number) for number in range(2))
        assert first.image == small / f"files/p10/p10000001/s50000001/{name}.jpg"
        assert first.meta == {"native_id": "s50000001"}
        assert MimicCxr().name_region(first) == "Medical image of lungs and chest X-ray."

    def test_order_is_the_tables(self, small: Path) -> None:
        assert studies(read(small, min_words=0)) == [
            50000001,
            50000002,
            50000003,
            50000005,
            50000006,
        ]
        assert studies(read(small, "train")) == [50000011, 50000012, 50000013, 50000014]
        assert studies(read(small, "validation")) == [50000021, 50000022]

    def test_sections_that_are_there_are_joined(self, small: Path) -> None:
        answers = [sample.answer for sample in read(small)]
        assert answers[1] == f"Still the {SECRET} there and no more."
        assert answers[2] == f"Only a {SECRET} to be seen here."

    def test_findings_alone(self, small: Path) -> None:
        samples = read(small, text="findings")
        assert studies(samples) == [50000001, 50000002, 50000006]
        assert samples[0].answer == f"The {SECRET} rings in both lungs."

    @pytest.mark.parametrize(("min_words", "n"), [(0, 5), (2, 5), (3, 4), (7, 4), (8, 2), (9, 0)])
    def test_few_words(self, small: Path, min_words: int, n: int) -> None:
        # The third of two words has blanks and a full stop between them, which are no words.
        assert len(read(small, min_words=min_words)) == n

    def test_wrapped_lines(self, small: Path) -> None:
        path = small / folder(50000006).with_suffix(".txt")
        path.write_text(report("One bell,\n and  ___\n another.", None), encoding="utf-8")
        assert read(small, min_words=0)[-1].answer == "One bell, and ___ another."

    def test_frontal_images(self, small: Path) -> None:
        samples = read(small, view="frontal", min_words=0)
        assert studies(samples) == [50000001, 50000002, 50000006]
        assert isinstance(samples[0].image, Path)
        assert samples[0].image.stem == dicom(50000001, 1)
        assert [sample.meta["view"] for sample in samples] == ["PA", "AP", "PA"]

    def test_first_of_several_frontal_images(self, small: Path) -> None:
        last = read(small, "train", view="frontal")[-1]
        assert isinstance(last.image, Path)
        assert last.image.stem == min(dicom(50000014, 0), dicom(50000014, 2))

    def test_patients_are_the_groups_and_images_keep_their_names(self, small: Path) -> None:
        samples = read(small)
        assert samples[0].group == samples[1].group
        assert len({images.name(sample) for sample in samples}) == len(samples)
        swapped = partners(samples, 0)
        assert all(swapped[sample.id].group != sample.group for sample in samples)

    def test_no_patient_is_in_two_splits(self, small: Path) -> None:
        groups = [{one.group for one in read(small, split)} for split in COUNTS]
        assert sum(map(len, groups)) == len(set().union(*groups))

    def test_missing_images_are_counted_and_every_sample_comes(self, small: Path) -> None:
        task = MimicCxr(data=str(small))
        image = next(task.samples("test")).image
        assert isinstance(image, Path)
        image.unlink()
        found, missing = with_images(task, "test", task.samples("test"), allow_missing=True)
        assert (len(found), len(missing)) == (3, 1)

    def test_without_any_image_the_official_place_is_named(self, small: Path) -> None:
        for path in small.glob("files/p*/p*/s*/*.jpg"):
            path.unlink()
        image = read(small)[0].image
        assert isinstance(image, Path)
        assert image.is_relative_to(small / "files/p10")


class TestLayouts:
    @pytest.mark.parametrize(
        ("tables", "pictures", "texts"),
        [
            (".", ".", "."),
            (".", ".", "mimic-cxr-reports"),
            ("mimic-cxr-jpg", "mimic-cxr-jpg", "mimic-cxr"),
            ("mimic-cxr-jpg/2.1.0", "mimic-cxr-jpg/2.1.0", "mimic-cxr/2.1.0"),
            ("MIMIC-CXR-JPG/2.0.0", "MIMIC-CXR-JPG/2.0.0", "mimic-cxr/mimic-cxr-reports"),
            (".", "mimic-cxr-jpg", "mimic_cxr"),
        ],
    )
    @pytest.mark.parametrize("unpacked", [False, True])
    def test_folders(
        self, tmp_path: Path, tables: str, pictures: str, texts: str, unpacked: bool
    ) -> None:
        root = tmp_path / "somewhere"
        write_tables(root / tables)
        write_images(root / pictures)
        write_reports(root / texts)
        if unpacked:
            for path in (root / tables).glob("*.csv.gz"):
                path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
                path.unlink()
        task = MimicCxr(data=str(root), view="frontal")
        found, missing = with_images(task, "test", task.samples("test"), allow_missing=False)
        assert (len(found), missing) == (3, [])

    def test_editions(self, small: Path) -> None:
        task = MimicCxr(data=str(small))
        edition = task.edition("test")
        assert edition.name == "own-draw"
        assert edition.note == (
            "6 studies of the official test split, drawn by medbench, as the paper's ids, seed and "
            "threshold are not published; 2 dropped: 1 with fewer than 5 words, 1 with neither "
            "findings nor impression."
        )
        assert edition.files == (small / SPLIT,)
        assert task.edition("train").note.endswith("; none dropped.")
        assert task.expects("test") == {}

    def test_edition_of_frontal_findings(self, small: Path) -> None:
        task = MimicCxr(data=str(small), view="frontal", text="findings", sample="all")
        edition = task.edition("test")
        assert edition.name == "all-studies"
        assert edition.note == (
            "6 studies of the official test split, all there are; 3 dropped: "
            "2 without a frontal image, 1 without findings."
        )
        assert edition.files == (small / SPLIT, small / METADATA)


class TestDraw:
    @pytest.mark.parametrize("size", [1, 2, 4, 5])
    def test_lowest_hashes_in_the_tables_order(
        self, small: Path, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        monkeypatch.setattr(module, "_DRAWN", dict.fromkeys(COUNTS, size))
        every = [study for study in STUDIES if STUDIES[study][1] == "test"]
        drawn = sorted(every, key=place)[:size]
        note = MimicCxr(data=str(small)).edition("test").note
        assert note.startswith(f"{size} studies of")
        expected = [
            study for study in every if study in drawn and study not in (50000004, 50000005)
        ]
        assert studies(read(small)) == expected

    def test_all_draws_none(self, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_DRAWN", dict.fromkeys(COUNTS, 1))
        assert len(read(small, "train", sample="all")) == 4

    def test_draw_comes_before_what_is_dropped(
        self, small: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_DRAWN", dict.fromkeys(COUNTS, 3))
        drawn = set(studies(read(small, min_words=0)))
        for parameters in ({"text": "findings"}, {"view": "frontal"}, {"min_words": 6}):
            assert set(studies(read(small, **parameters))) <= drawn | {50000004}

    def test_only_drawn_reports_are_opened(
        self, small: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_DRAWN", dict.fromkeys(COUNTS, 2))
        drawn = sorted((study for study in STUDIES if STUDIES[study][1] == "test"), key=place)[:2]
        for study in STUDIES:
            if study not in drawn:
                (small / folder(study).with_suffix(".txt")).unlink()
        read(small)

    def test_rows_of_a_study_need_not_stand_together(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [
            (dicom(study, number), study)
            for study in range(52000000, 52000400)
            for number in (0, 1)
        ]
        random.Random(0).shuffle(rows)
        lines = [(name, study, 10000000 + study % 99, "train") for name, study in rows]
        table(tmp_path / SPLIT, [("dicom_id", "study_id", "subject_id", "split"), *lines])
        monkeypatch.setattr(module, "_IMAGES", {"train": 800})
        found = module._draw(tmp_path / SPLIT, "train", 50)
        expected = sorted(range(52000000, 52000400), key=place)[:50]
        assert sorted(int(study.id) for study in found) == sorted(expected)
        for study in found:
            assert sorted(study.images) == sorted(dicom(int(study.id), n) for n in (0, 1))

    def test_memory_is_for_what_is_drawn(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        big_tables(tmp_path, 20_000)
        monkeypatch.setattr(module, "_IMAGES", {"train": 20_000})
        tracemalloc.start()
        drawn = module._draw(tmp_path / SPLIT, "train", 100)
        module._read_views(tmp_path / METADATA, drawn)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20  # all studies of the table take more than five times as much


def big_tables(root: Path, rows: int) -> None:
    draw = random.Random(0)
    splits: list[tuple[object, ...]] = [("dicom_id", "study_id", "subject_id", "split")]
    views: list[tuple[object, ...]] = [("dicom_id", "subject_id", "study_id", "ViewPosition")]
    for row in range(rows):
        name = "-".join(f"{draw.getrandbits(32):08x}" for _ in range(5))
        study = 50_000_000 + row * 3 // 5
        splits.append((name, study, study - 40_000_000, "train"))
        views.append((name, study - 40_000_000, study, "PA"))
    table(root / SPLIT, splits)
    table(root / METADATA, views)


class TestSectioned:
    @pytest.fixture
    def sectioned(self, small: Path) -> Path:
        for path in small.glob("files/p*/p*/s*.txt"):
            path.unlink()
        write_sectioned(small)
        return small

    def test_stands_for_the_reports(self, sectioned: Path) -> None:
        samples = read(sectioned)
        assert studies(samples) == [50000001, 50000002, 50000003, 50000006]
        assert samples[0].answer == f"The {SECRET} rings in both lungs. No bell."
        edition = MimicCxr(data=str(sectioned)).edition("test")
        assert edition.name == "own-draw-sectioned"
        assert [path.name for path in edition.files] == [SPLIT, "mimic_cxr_sectioned.csv"]

    def test_goes_before_the_reports(self, small: Path) -> None:
        write_sectioned(small / "mimic-cxr", leave_out=[50000001])
        assert 50000001 not in studies(read(small))

    def test_study_that_the_table_lacks_is_counted(self, sectioned: Path) -> None:
        write_sectioned(sectioned, leave_out=[50000001])
        assert "2 with neither findings" in MimicCxr(data=str(sectioned)).edition("test").note

    def test_cut_off(self, sectioned: Path) -> None:
        write_sectioned(sectioned, leave_out=[50000001, 50000011])
        error = fails(sectioned)
        assert error.what.endswith("mimic_cxr_sectioned.csv is not the official file")
        assert error.why == "It has 10 reports, the whole one at least 11."

    def test_doubled(self, sectioned: Path) -> None:
        path = sectioned / "mimic_cxr_sectioned.csv"
        path.write_text(path.read_text() + f"s50000001,{SECRET},,,\n", encoding="utf-8")
        assert fails(sectioned).why == "1 reports come more than once."


class TestR2Gen:
    @pytest.fixture
    def r2gen(self, tmp_path: Path) -> Path:
        root = tmp_path / "mimic_cxr"
        write_r2gen(root)
        write_images(tmp_path)
        shutil.move(tmp_path / "files", root / "images")
        return tmp_path

    def test_every_item(self, r2gen: Path) -> None:
        task = MimicCxr(data=str(r2gen), text="findings", sample="all", min_words=0)
        for split, n in (("train", 7), ("validation", 2), ("test", 5)):
            found, _ = with_images(task, split, task.samples(split), allow_missing=False)
            assert len(found) == n
        first = next(task.samples("test"))
        assert first.id == f"mimic_cxr-{dicom(50000001, 0)}"
        assert (first.answer, first.group) == (f"The {SECRET} rings in both lungs.", "p10000001")
        edition = task.edition("test")
        assert (edition.name, edition.files) == ("r2gen", (r2gen / "mimic_cxr/annotation.json",))
        assert edition.note == "5 items of R2Gen's test split, all there are; none dropped."

    def test_draw_takes_one_item_a_study(
        self, r2gen: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_DRAWN", dict.fromkeys(COUNTS, 2))
        task = MimicCxr(data=str(r2gen / "mimic_cxr"), text="findings", min_words=0)
        with_findings = [50000001, 50000002, 50000005, 50000006]
        drawn = sorted(with_findings, key=place)[:2]
        assert {sample.id for sample in task.samples("test")} == {
            f"mimic_cxr-{min(dicom(study, n) for n in range(len(STUDIES[study][2])))}"
            for study in drawn
        }
        edition = task.edition("test")
        assert edition.name == "r2gen-own-draw"
        assert edition.note.startswith("2 studies of R2Gen's test split, drawn by medbench,")

    def test_paths_of_windows(self, r2gen: Path) -> None:
        def turn(content: Any) -> None:
            for entry in content["test"]:
                entry["image_path"] = [entry["image_path"][0].replace("/", "\\")]

        write_r2gen(r2gen / "mimic_cxr", turn)
        image = read(r2gen, text="findings")[0].image
        assert isinstance(image, Path) and image.is_file()

    def test_the_official_table_goes_before_it(self, small: Path) -> None:
        write_r2gen(small)
        assert MimicCxr(data=str(small)).edition("test").name == "own-draw"

    @pytest.mark.parametrize("parameters", [{}, {"text": "findings", "view": "frontal"}])
    def test_what_it_cannot_give_is_refused(self, r2gen: Path, parameters: Any) -> None:
        error = fails(r2gen, **parameters)
        assert "R2Gen's annotation.json goes with" in error.what
        assert "mimic_cxr[" in error.do

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (lambda c: c["test"].pop(), "It has 4 of 5 test items."),
            (lambda c: c.update({"    ": c.pop("test")}), "It has no list 'test'."),
            (lambda c: c.update(test={SECRET: SECRET}), "It has no list 'test'."),
            (
                lambda c: c["test"][1].pop("report"),
                "1 test items lack id, report or image path, the first is number 2.",
            ),
            (
                lambda c: c["test"][2].update(report=[SECRET]),
                "1 test items lack id, report or image path, the first is number 3.",
            ),
            (
                lambda c: c["test"][0].update(image_path=[f"../{SECRET}.jpg"]),
                "1 test items lack id, report or image path, the first is number 1.",
            ),
            (
                lambda c: c["test"][0].update(image_path=[]),
                "1 test items lack id, report or image path, the first is number 1.",
            ),
            (
                lambda c: c["test"].__setitem__(0, SECRET),
                "1 test items lack id, report or image path, the first is number 1.",
            ),
            (
                lambda c: c["test"][0].update(id=c["test"][1]["id"]),
                "1 ids of test items come more than once.",
            ),
        ],
    )
    def test_other_content(self, r2gen: Path, change: Callable[[Any], object], why: str) -> None:
        write_r2gen(r2gen / "mimic_cxr", change)
        error = fails(r2gen, text="findings")
        assert error.what.endswith("annotation.json is not the official file")
        assert error.why == why

    def test_the_file_of_iu_xray(self, r2gen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_IU_ROWS", {"test": 4})
        write_r2gen(r2gen / "mimic_cxr", lambda content: content["test"].pop())
        assert "IU X-ray" in fails(r2gen, text="findings").why


def test_the_real_file_of_iu_xray(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = [path.parent for path in sorted(real_data.rglob("annotation.json"))]
    if not found:
        pytest.skip("annotation.json is not among the real files")
    for split, n in (("train", 2069), ("validation", 296), ("test", 590)):
        error = fails(found[0], split, text="findings")
        assert f"It has {n} of " in error.why
        assert "IU X-ray" in error.why


class TestBadFiles:
    def test_unknown_split(self, small: Path) -> None:
        error = fails(small, "validate")
        assert "validate" in error.what
        assert "validation" in error.why

    def test_no_folder(self) -> None:
        error = fails("")
        assert SPLIT in error.why
        assert "physionet.org" in error.do

    def test_a_folder_without_anything(self, tmp_path: Path) -> None:
        error = fails(tmp_path)
        assert f"{SPLIT} or mimic-cxr-2.0.0-split.csv not found" in error.what
        assert "physionet.org" in error.do

    def test_images_without_reports(self, small: Path) -> None:
        for path in small.glob("files/p*/p*/s*.txt"):
            path.unlink()
        error = fails(small)
        assert error.what == f"mimic_cxr: no reports in {small}"
        assert error.why.startswith("MIMIC-CXR-JPG has images and tables; reports come with")
        assert "mimic-cxr-reports.zip" in error.do
        assert "physionet.org/content/mimic-cxr" in error.do

    def test_reports_not_unpacked(self, small: Path) -> None:
        for path in small.glob("files/p*/p*/s*.txt"):
            path.unlink()
        (small / "mimic-cxr").mkdir()
        (small / "mimic-cxr" / "mimic-cxr-reports.zip").write_bytes(b"PK")
        error = fails(small)
        assert error.why == "mimic-cxr-reports.zip is there, but not unpacked."
        packed = small / "mimic-cxr" / "mimic-cxr-reports.zip"
        assert error.do == f"Unpack it: medbench data unpack {packed}"

    def test_missing_reports_are_counted(self, small: Path) -> None:
        for study in (50000003, 50000006):
            (small / folder(study).with_suffix(".txt")).unlink()
        error = fails(small)
        assert error.what == "mimic_cxr: 2 of 6 reports cannot be read"
        assert error.why == f"The first one, below {small / 'files/p11'}, is not there."

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty"),
            (b" \n \n", "is empty"),
            (f"<!DOCTYPE html><html>{SECRET}".encode(), "is a web page"),
            (f" FINDINGS: {SECRET} ".encode("utf-16"), "is not text in UTF-8"),
            (f" FINDINGS: {SECRET} \xe9".encode("latin-1"), "is not text in UTF-8"),
        ],
    )
    def test_damaged_reports(self, small: Path, content: bytes, said: str) -> None:
        (small / folder(50000002).with_suffix(".txt")).write_bytes(content)
        error = fails(small)
        assert error.what == "mimic_cxr: 1 of 6 reports cannot be read"
        assert said in error.why

    def test_report_that_is_a_folder(self, small: Path) -> None:
        path = small / folder(50000002).with_suffix(".txt")
        path.unlink()
        path.mkdir()
        assert "may not be opened" in fails(small).why

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (lambda lines: lines[:-1], "It has 7 of 8 test images."),
            (lambda lines: [*lines, lines[-1]], "It has 9 of 8 test images."),
            (
                lambda lines: [*lines[:-1], lines[-2]],
                "Ids of 1 studies are of another form, or come twice.",
            ),
            (
                lambda lines: [line.replace("50000001", "../etc") for line in lines],
                "Ids of 1 studies are of another form, or come twice.",
            ),
            (
                lambda lines: [line.replace("11000003", "p11000003") for line in lines],
                "Ids of 1 studies are of another form, or come twice.",
            ),
        ],
    )
    def test_other_tables(
        self, small: Path, change: Callable[[list[str]], list[str]], why: str
    ) -> None:
        lines = gzip.decompress((small / SPLIT).read_bytes()).decode().splitlines(keepends=True)
        # The test split last, so that a table that is cut off lacks some of it.
        lines = [lines[0], *lines[9:], *lines[1:9]]
        (small / SPLIT).write_bytes(gzip.compress("".join(change(lines)).encode()))
        error = fails(small)
        assert error.what == f"mimic_cxr: {small / SPLIT} is not the official file"
        assert error.why == why

    def test_metadata_are_needed_for_frontal_images_only(self, small: Path) -> None:
        (small / METADATA).unlink()
        assert len(read(small)) == 4
        assert METADATA in fails(small, view="frontal").what

    def test_metadata_that_lack_images(self, small: Path) -> None:
        text = gzip.decompress((small / METADATA).read_bytes()).decode().splitlines(keepends=True)
        del text[3:5]
        (small / METADATA).write_bytes(gzip.compress("".join(text).encode()))
        assert fails(small, view="frontal").why == "It has 6 of 8 images looked for."


def plain(content: bytes) -> bytes:
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def packed(like: bytes, content: bytes) -> bytes:
    return gzip.compress(content) if like.startswith(b"\x1f\x8b") else content


# What can happen to a file; those that are gzipped are damaged within and without.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "cut at the end": lambda content: content[:-3],
    "cut within": lambda content: packed(content, plain(content)[: len(plain(content)) // 2]),
    "empty": lambda content: b"",
    "empty within": lambda content: packed(content, b""),
    "not packed": lambda content: plain(content) + SECRET.encode(),
    "packed": lambda content: gzip.compress(content),
    "a text instead": lambda content: packed(content, f"{SECRET} {SECRET}\n{SECRET}\n".encode()),
    "a list instead": lambda content: packed(content, json.dumps([SECRET, [SECRET]]).encode()),
    "an object instead": lambda content: packed(content, json.dumps({SECRET: SECRET}).encode()),
    "a text before": lambda content: packed(content, f"{SECRET}\n".encode() + plain(content)),
    "a text behind": lambda content: packed(content, plain(content) + f'\n"{SECRET}'.encode()),
    "a row behind": lambda content: packed(content, plain(content) + f"\n{SECRET}\n".encode()),
    "a long field": lambda content: packed(content, plain(content) + SECRET.encode() * 20_000),
    "another header": lambda content: packed(
        content, SECRET.encode() + plain(content).partition(b"\n")[2]
    ),
    "other bytes": lambda content: packed(content, plain(content) + b"\xff\xfe" + SECRET.encode()),
    "null bytes": lambda content: packed(content, plain(content) + b"\0" + SECRET.encode()),
    "two bytes a letter": lambda content: packed(content, plain(content).decode().encode("utf-16")),
    "a web page": lambda content: packed(content, f"<html>{SECRET}</html>".encode()),
    "another quote": lambda content: packed(content, plain(content).replace(b'"', b"", 1)),
    "odd escapes": lambda content: packed(
        content, plain(content).replace(SECRET.encode(), rf"\{SECRET}".encode())
    ),
    "line ends in it": lambda content: packed(
        content, plain(content).replace(SECRET.encode(), f"{SECRET}\n".encode())
    ),
}


class TestNothingIsTold:
    """A word of the reports must stand in no error, whatever is wrong with whichever file."""

    @pytest.mark.parametrize("damage", DAMAGES)
    @pytest.mark.parametrize("file", [SPLIT, METADATA, "report", "sectioned", "annotation"])
    def test_damaged_files(self, small: Path, file: str, damage: str) -> None:
        parameters: dict[str, Any] = {"view": "frontal"}
        path = small / file
        if file == "report":
            path = small / folder(50000001).with_suffix(".txt")
        elif file == "sectioned":
            write_sectioned(small)
            path = small / "mimic_cxr_sectioned.csv"
        elif file == "annotation":
            (small / SPLIT).unlink()
            write_r2gen(small)
            path, parameters = small / "annotation.json", {"text": "findings"}
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        task = MimicCxr(data=str(small), **parameters)
        for read_it in (lambda: list(task.samples("test")), lambda: task.edition("test")):
            try:
                read_it()
            except UserError as error:
                assert len(error.lines()) == 3
                assert_tells_nothing(error)

    def test_note_and_files_hold_no_ids(self, small: Path) -> None:
        edition = MimicCxr(data=str(small), view="frontal").edition("test")
        told = f"{edition.name} {edition.note} {[path.name for path in edition.files]}"
        assert SECRET not in told
        assert not re.search(r"[15]\d{7}", told)

    def test_show(self, small: Path, medbench: Any) -> None:
        code, out, err = medbench("show", "mimic_cxr", "--data", small)
        assert code == 0
        assert "Restricted" in out
        assert SECRET not in out + err

    def test_run(self, small: Path, medbench: Any, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        task = "mimic_cxr[max_new_tokens=2]"
        code, out, err = medbench(
            "run", "--method", "greedy", "--task", task, "--data", small, "--backbone", "toy",
            "--out", runs,
        )  # fmt: skip
        assert code == 0
        (folder_of_run,) = runs.glob("mimic_cxr/*/*/*")
        record = (folder_of_run / "run.json").read_text(encoding="utf-8")
        assert json.loads(record)["data"]["restricted"] is True
        assert json.loads(record)["data"]["edition"] == "own-draw"
        for told in (out, err, record, (folder_of_run / "scores.json").read_text("utf-8")):
            assert SECRET not in told
            assert not re.search(r"[ps][15]\d{7}", told)
        answered = (folder_of_run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        golds = [json.loads(line)["gold"] for line in answered]
        assert len(golds) == 4
        assert all(SECRET in gold for gold in golds)  # the run's folder is the user's own

    def test_passport_is_of_hashes(self, small: Path) -> None:
        assert SECRET not in json.dumps(passport_of(read(small)))


def test_the_table_of_splits_is_found_by_csv(small: Path) -> None:
    """Keep the fixture honest: its table reads as the official one does."""
    text = gzip.decompress((small / SPLIT).read_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["dicom_id", "study_id", "subject_id", "split"]
    assert len(rows[0]["dicom_id"]) == 44
