"""IU X-ray reports: R2Gen's file, Kaggle's tables, Open-i's XML, and what can be wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from PIL import Image

from medbench.data.open_i import study_number
from medbench.data.passport import check_questions, hash_ids, hash_questions, passport_of
from medbench.errors import UserError
from medbench.task import Sample
from medbench.tasks import iu_xray_report as module
from medbench.tasks.iu_xray_report import IuXrayReport

PROMPT = "Analyze the chest X-ray and generate a concise medical report."
SPLITS = ("train", "validation", "test")
KEYS = {"train": "train", "validation": "val", "test": "test"}
IDS = {
    "train": ["CXR7_IM-0007", "CXR1_1_IM-0001", "CXR30_IM-0030-1001"],
    "validation": ["CXR5_IM-0005"],
    "test": ["CXR12_IM-0012", "CXR3_IM-0003"],
}
FINDINGS = {
    7: 'The heart is "large",\nthe lungs are clear.',
    1: "Clear XXXX lungs.",
    30: "No  effusion.",
    5: "Normal, as in XXXX.",
    12: "A nodule is seen; no effusion.",
    3: "The XXXX is normal.",
}
OTHER_STUDY = 9999


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder, empty yet, for which six studies are the whole split."""
    shipped = tmp_path / "split.json"
    shipped.write_text(json.dumps({"source": "made up", **IDS}), encoding="utf-8")
    monkeypatch.setattr(module, "_SPLIT", shipped)
    known = {
        split: {
            "rows": len(ids),
            "ids": hash_ids(f"iu_xray_report-{name}" for name in ids),
            "questions": hash_questions(
                [sample(name, FINDINGS[study_number(name)]) for name in ids]
            ),
        }
        for split, ids in IDS.items()
    }
    monkeypatch.setattr(IuXrayReport, "passport", known)
    monkeypatch.setattr(IuXrayReport, "mirrors", {"kaggle": known, "open-i": known})
    root = tmp_path / "data"
    root.mkdir()
    return root


def sample(name: str, report: str) -> Sample:
    return Sample(f"iu_xray_report-{name}", Path(), PROMPT, report, "report", name)


def r2gen_row(name: str, report: str, split: str) -> dict[str, Any]:
    images = [f"{name}/{number}.png" for number in (0, 1)]
    return {"id": name, "report": report, "image_path": images, "split": split}


def write_r2gen(folder: Path, **changes: Any) -> Path:
    content = {
        KEYS[split]: [
            r2gen_row(name, f" {FINDINGS[study_number(name)]}\n", KEYS[split]) for name in ids
        ]
        for split, ids in IDS.items()
    }
    path = folder / "annotation.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return path


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def write_kaggle(
    folder: Path,
    findings: Mapping[int, str] = FINDINGS,
    views: Mapping[int, Sequence[str]] | None = None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    everything = {**findings, OTHER_STUDY: ""}
    write_table(
        folder / "indiana_reports.csv",
        ["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"],
        [
            [uid, "normal", "normal", "Xray", "pain, XXXX", "", text, "Normal."]
            for uid, text in sorted(everything.items())
        ],
    )
    default = dict.fromkeys(everything, ("Lateral", "Frontal"))
    write_table(
        folder / "indiana_projections.csv",
        ["uid", "filename", "projection"],
        [
            [uid, f"{uid}_IM-{number}.dcm.png", projection]
            for uid, projections in {**default, **(views or {})}.items()
            for number, projection in enumerate(projections)
        ],
    )
    (folder / "images" / "images_normalized").mkdir(parents=True, exist_ok=True)


REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
 <meta type="rr"/><uId id="{uid}"/>
 <MedlineCitation><Article><Abstract>{sections}</Abstract></Article></MedlineCitation>
 <MeSH><major>normal</major></MeSH>
 {images}
</eCitation>
"""


def write_report(
    folder: Path,
    number: int,
    findings: str | None,
    *,
    images: int = 2,
    name: str = "",
    uid: str = "",
    empty: Sequence[str] = ("COMPARISON",),
) -> Path:
    sections = "".join(f'<AbstractText Label="{label}"/>' for label in empty)
    sections += '<AbstractText Label="IMPRESSION">Normal.</AbstractText>'
    if findings is not None:
        sections += f'<AbstractText Label="FINDINGS">{escape(findings)}</AbstractText>'
    shown = "".join(
        f'<parentImage id="CXR{number}_IM-{view}-3001"><caption>PA</caption></parentImage>'
        for view in range(images)
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or number}.xml"
    text = REPORT.format(uid=uid or f"CXR{number}", sections=sections, images=shown)
    path.write_text(text, encoding="utf-8")
    return path


def write_xml(root: Path) -> Path:
    folder = root / "ecgen-radiology"
    for number, findings in FINDINGS.items():
        write_report(folder, number, findings)
    write_report(folder, OTHER_STUDY, None, images=0)
    return folder


def samples(root: Path, split: str = "test") -> list[Sample]:
    task = IuXrayReport(data=str(root))
    found = list(task.samples(split))
    check_questions(task, split, found)
    return found


def fails(root: Path | str, split: str = "test") -> UserError:
    with pytest.raises(UserError) as raised:
        samples(Path(root), split)
    assert len(raised.value.lines()) == 3
    return raised.value


class TestReal:
    def test_counts_and_passports(self, real_data: Path) -> None:
        task = IuXrayReport(data=str(real_data / "iu_xray"))
        for split, rows in zip(SPLITS, (2069, 296, 590), strict=True):
            found = passport_of(list(task.samples(split)))
            assert found["rows"] == rows
            assert {key: found[key] for key in task.passport[split]} == task.passport[split]
        assert task.edition("test").name == "official"

    def test_found_from_every_folder_above(self, real_data: Path) -> None:
        for folder in (real_data, real_data / "iu_xray", real_data / "iu_xray" / "r2gen_iu_xray"):
            assert len(list(IuXrayReport(data=str(folder)).samples("test"))) == 590

    def test_numbers_tell_studies_apart(self, real_data: Path) -> None:
        task = IuXrayReport(data=str(real_data))
        numbers = [study_number(one.group) for split in SPLITS for one in task.samples(split)]
        assert len(set(numbers)) == len(numbers) == 2955

    def test_reports_are_as_they_stand(self, real_data: Path) -> None:
        task = IuXrayReport(data=str(real_data))
        train, test = ([one.answer for one in task.samples(name)] for name in ("train", "test"))
        assert all(answer == answer.strip() != "" for answer in train + test)
        assert sum(answer in set(train) for answer in test) == 274
        assert sum("XXXX" in answer for answer in test) > 100

    def test_kaggles_tables_give_the_same(self, real_data: Path, tmp_path: Path) -> None:
        task = IuXrayReport(data=str(real_data))
        official = {split: list(task.samples(split)) for split in SPLITS}
        findings = {
            study_number(one.group): one.answer for found in official.values() for one in found
        }
        write_kaggle(tmp_path, findings)
        kaggle = IuXrayReport(data=str(tmp_path))
        for split, expected in official.items():
            found = list(kaggle.samples(split))
            check_questions(kaggle, split, found)
            assert [(one.id, one.answer) for one in found] == [
                (one.id, one.answer) for one in expected
            ]

    def test_xml_gives_the_same(self, real_data: Path, tmp_path: Path) -> None:
        expected = list(IuXrayReport(data=str(real_data)).samples("test"))
        for one in expected:
            write_report(tmp_path / "ecgen-radiology", study_number(one.group), one.answer)
        found = list(IuXrayReport(data=str(tmp_path)).samples("test"))
        assert [(one.id, one.answer) for one in found] == [(one.id, one.answer) for one in expected]

    @pytest.mark.parametrize("split", SPLITS)
    def test_one_study_less(self, real_data: Path, tmp_path: Path, split: str) -> None:
        path = real_data / "iu_xray" / "r2gen_iu_xray" / "annotation.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        dropped = content[KEYS[split]].pop(100)
        (tmp_path / "annotation.json").write_text(json.dumps(content), encoding="utf-8")
        error = fails(tmp_path, split)
        rows = IuXrayReport.passport[split]["rows"]
        assert error.what == f"iu_xray_report: {rows - 1} of {rows} {split} questions found"
        assert error.why == f"1 id missing, first: iu_xray_report-{dropped['id']}."

    def test_edited_report(self, real_data: Path, tmp_path: Path) -> None:
        path = real_data / "iu_xray" / "r2gen_iu_xray" / "annotation.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["test"][5]["report"] = content["test"][5]["report"].lower()
        (tmp_path / "annotation.json").write_text(json.dumps(content), encoding="utf-8")
        assert "texts were changed" in fails(tmp_path).why


class TestR2Gen:
    def test_samples(self, small: Path) -> None:
        write_r2gen(small)
        first, second = samples(small)
        assert first.id == "iu_xray_report-CXR12_IM-0012"
        assert first.group == "CXR12_IM-0012"
        assert first.kind == "report"
        assert first.answer == FINDINGS[12]
        assert first.image == small / "images/CXR12_IM-0012/0.png"
        assert first.meta["native_id"] == "CXR12_IM-0012"
        assert second.answer == "The XXXX is normal."
        task = IuXrayReport(data=str(small))
        assert task.ask(first) == PROMPT
        assert task.name_region(first) == "Medical image of lungs and chest X-ray."
        assert task.max_new_tokens == 1024

    @pytest.mark.parametrize("split", SPLITS)
    def test_splits(self, small: Path, split: str) -> None:
        write_r2gen(small)
        assert [one.group for one in samples(small, split)] == IDS[split]

    def test_unknown_split(self, small: Path) -> None:
        write_r2gen(small)
        error = fails(small, "val")
        assert "'val'" in error.what
        assert "validation" in error.why

    @pytest.mark.parametrize("place", [".", "iu_xray", "IU_Xray", "iu_xray/r2gen_iu_xray"])
    def test_found_in_the_folder_or_below(self, small: Path, place: str) -> None:
        write_r2gen(small / place)
        assert len(samples(small)) == 2
        assert len(samples(small / place)) == 2

    @pytest.mark.parametrize(
        ("file", "images"),
        [(".", "images"), (".", "iu_xray/images"), ("iu_xray", "iu_xray/images"), ("a", "images")],
    )
    def test_where_images_lie(self, small: Path, file: str, images: str) -> None:
        write_r2gen(small / file)
        (small / images).mkdir(parents=True)
        assert samples(small / file)[0].image == small / images / "CXR12_IM-0012/0.png"

    def test_windows_separators(self, small: Path) -> None:
        path = write_r2gen(small)
        path.write_text(path.read_text("utf-8").replace("/0.png", "\\\\0.png"), "utf-8")
        assert samples(small)[0].image == small / "images/CXR12_IM-0012/0.png"

    def test_further_keys_do_not_matter(self, small: Path) -> None:
        # X-RGen adds a key to each record.
        rows = [{**r2gen_row(n, FINDINGS[study_number(n)], "test"), "tag": 1} for n in IDS["test"]]
        write_r2gen(small, test=rows)
        assert len(samples(small)) == 2

    def test_doubled_study(self, small: Path) -> None:
        rows = [r2gen_row(name, "x", "test") for name in ("CXR3_IM-0003", "CXR3_IM-0003")]
        write_r2gen(small, test=rows)
        assert fails(small).why == "1 id comes more than once, first: iu_xray_report-CXR3_IM-0003."

    def test_other_study(self, small: Path) -> None:
        rows = [r2gen_row(name, "x", "test") for name in ("CXR3_IM-0003", "CXR4_IM-0004")]
        write_r2gen(small, test=rows)
        assert "not the official ones" in fails(small).what

    @pytest.mark.parametrize("key", ["id", "report", "image_path"])
    @pytest.mark.parametrize("value", [None, "", []])
    def test_record_that_lacks_something(self, small: Path, key: str, value: Any) -> None:
        row = {**r2gen_row("CXR3_IM-0003", "x", "test"), key: value}
        write_r2gen(small, test=[r2gen_row("CXR12_IM-0012", "x", "test"), row])
        assert fails(small).why == f"Entry 2 of test has no {key}."

    @pytest.mark.parametrize("row", [3, "CXR3_IM-0003", ["id", "report", "image_path"]])
    def test_record_of_another_form(self, small: Path, row: Any) -> None:
        write_r2gen(small, test=[row, row])
        assert fails(small).why == "Entry 1 of test has no id."

    def test_images_that_are_no_list(self, small: Path) -> None:
        row = {**r2gen_row("CXR3_IM-0003", "x", "test"), "image_path": "CXR3_IM-0003/0.png"}
        write_r2gen(small, test=[row, row])
        assert "list image_path" in fails(small).why


class TestLookAlikes:
    @pytest.mark.parametrize(
        ("counts", "said"),
        [
            ((3062, 382, 382), "MRG_RL"),
            ((2364, 337, 675), "QCXR"),
            ((270790, 2130, 3858), "MIMIC-CXR"),
        ],
    )
    def test_other_splits(self, small: Path, counts: Sequence[int], said: str) -> None:
        write_r2gen(small, **{key: [0] * n for key, n in zip(KEYS.values(), counts, strict=True)})
        error = fails(small)
        assert "not R2Gen's file" in error.what
        assert said in error.why
        assert str(counts[0]) in error.why

    def test_blank_key(self, small: Path) -> None:
        path = write_r2gen(small)
        content = json.loads(path.read_text(encoding="utf-8"))
        content["    "] = content.pop("test")
        path.write_text(json.dumps(content), encoding="utf-8")
        assert "SERPENT-VLM" in fails(small).why
        assert "SERPENT-VLM" in fails(small, "train").why

    def test_test_file_of_med_eval_kit(self, small: Path) -> None:
        path = small / "test.json"
        path.write_text(json.dumps([{"findings": "x"}] * 296), encoding="utf-8")
        error = fails(small)
        assert "MedEvalKit" in error.why
        assert "validation" in error.why

    @pytest.mark.parametrize("content", ['[{"a": 1}]', "{}", "[{"])
    def test_another_test_file(self, small: Path, content: str) -> None:
        (small / "test.json").write_text(content, encoding="utf-8")
        assert "MedEvalKit" not in fails(small).why

    @pytest.mark.parametrize("content", ["[]", '{"train": [], "val": [], "test": []}', "{}", "3"])
    def test_other_content(self, small: Path, content: str) -> None:
        (small / "annotation.json").write_text(content, encoding="utf-8")
        assert fails(small).why == "It must hold the lists train, val and test."

    def test_damaged(self, small: Path) -> None:
        (small / "annotation.json").write_text('{"train": [', encoding="utf-8")
        assert "damaged" in fails(small).what


class TestNothingThere:
    def test_no_folder_given(self) -> None:
        with pytest.raises(UserError, match="no data folder given"):
            list(IuXrayReport().samples("test"))

    def test_missing_folder(self, small: Path) -> None:
        assert "not a folder" in fails(small / "none").what

    def test_empty_folder(self, small: Path) -> None:
        error = fails(small)
        assert "annotation.json not found" in error.what
        assert "indiana_reports.csv" in error.why
        assert "ecgen-radiology" in error.why

    def test_edition_says_so_too(self, small: Path) -> None:
        with pytest.raises(UserError, match="not found"):
            IuXrayReport(data=str(small)).edition("test")


class TestKaggle:
    @pytest.mark.parametrize("split", SPLITS)
    def test_same_studies_in_the_same_order(self, small: Path, split: str) -> None:
        write_kaggle(small)
        assert [(one.group, one.answer) for one in samples(small, split)] == [
            (name, FINDINGS[study_number(name)]) for name in IDS[split]
        ]

    def test_edition(self, small: Path) -> None:
        write_kaggle(small)
        edition = IuXrayReport(data=str(small)).edition("test")
        assert edition.name == "kaggle"
        assert "frontal" in edition.note
        assert [path.name for path in edition.files] == [
            "indiana_reports.csv",
            "indiana_projections.csv",
        ]
        assert all(path.is_file() for path in edition.files)

    def test_first_frontal_image(self, small: Path) -> None:
        views = {12: ["Lateral", "Frontal", "Frontal"], 3: ["Lateral", "Lateral"]}
        write_kaggle(small, views=views)
        first, second = samples(small)
        images = small / "images/images_normalized"
        assert first.image == images / "12_IM-1.dcm.png"
        assert first.meta["images_of_study"] == 3
        assert second.image == images / "3_IM-0.dcm.png"

    @pytest.mark.parametrize("place", ["images_normalized", "images"])
    def test_images_elsewhere(self, small: Path, place: str) -> None:
        write_kaggle(small)
        (small / "images" / "images_normalized").rmdir()
        (small / place).mkdir(exist_ok=True)
        assert samples(small)[0].image == small / place / "12_IM-1.dcm.png"

    def test_below_the_folder(self, small: Path) -> None:
        write_kaggle(small / "chest-xrays-indiana-university")
        assert len(samples(small)) == 2

    def test_r2gens_file_goes_first(self, small: Path) -> None:
        write_kaggle(small)
        write_r2gen(small / "iu_xray")
        assert IuXrayReport(data=str(small)).edition("test").name == "official"

    def test_missing_study(self, small: Path) -> None:
        write_kaggle(small, {n: text for n, text in FINDINGS.items() if n != 3})
        error = fails(small)
        assert error.what == "iu_xray_report: 1 of 2 test questions found"
        assert error.why == "1 id missing, first: iu_xray_report-CXR3_IM-0003."
        assert len(samples(small, "train")) == 3

    def test_study_without_findings(self, small: Path) -> None:
        write_kaggle(small, {**FINDINGS, 3: "  "})
        assert "study 3 in" in fails(small).what
        assert "no findings" in fails(small).what

    def test_study_without_images(self, small: Path) -> None:
        write_kaggle(small, views={12: []})
        assert "study 12 in" in fails(small).what
        assert "no images" in fails(small).what

    def test_edited_findings(self, small: Path) -> None:
        write_kaggle(small, {**FINDINGS, 3: "the xxxx is normal"})
        assert "texts were changed" in fails(small).why

    def test_uid_that_is_no_number(self, small: Path) -> None:
        write_kaggle(small)
        path = small / "indiana_reports.csv"
        path.write_text(path.read_text("utf-8").replace("\n12,", "\nCXR12,"), "utf-8")
        assert "'CXR12'" in fails(small).why

    def test_study_twice(self, small: Path) -> None:
        write_kaggle(small)
        path = small / "indiana_reports.csv"
        path.write_text(path.read_text("utf-8").replace("\n12,", "\n3,"), "utf-8")
        assert "study 3 a second time" in fails(small).what

    def test_no_projections(self, small: Path) -> None:
        write_kaggle(small)
        (small / "indiana_projections.csv").unlink()
        assert "indiana_projections.csv" in fails(small).what

    def test_other_columns(self, small: Path) -> None:
        write_kaggle(small)
        write_table(small / "indiana_reports.csv", ["uid", "text"], [[1, "x"]])
        assert "findings" in fails(small).why


class TestOpenI:
    @pytest.mark.parametrize("split", SPLITS)
    def test_same_studies_in_the_same_order(self, small: Path, split: str) -> None:
        write_xml(small)
        assert [(one.group, one.answer) for one in samples(small, split)] == [
            (name, FINDINGS[study_number(name)]) for name in IDS[split]
        ]

    def test_edition(self, small: Path) -> None:
        write_xml(small)
        edition = IuXrayReport(data=str(small)).edition("test")
        assert (edition.name, edition.files) == ("open-i", ())
        assert "first image" in edition.note

    def test_images_are_named_by_the_report(self, small: Path) -> None:
        write_xml(small)
        first = samples(small)[0]
        assert first.image == small / "NLMCXR_png" / "CXR12_IM-0-3001.png"
        assert first.meta["images_of_study"] == 2

    @pytest.mark.parametrize("place", ["NLMCXR_png", "images", ".", "ecgen-radiology"])
    def test_where_images_lie(self, small: Path, place: str) -> None:
        write_xml(small)
        (small / place).mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(small / place / "CXR3_IM-0-3001.png")
        image = samples(small)[1].image
        assert isinstance(image, Path)
        assert image.is_file()

    @pytest.mark.parametrize("place", [".", "NLMCXR", "iu_xray", "ecgen-radiology"])
    def test_found_in_the_folder_or_below(self, small: Path, place: str) -> None:
        write_xml(small if place == "ecgen-radiology" else small / place)
        assert len(samples(small / place)) == 2
        if place != "ecgen-radiology":
            assert len(samples(small)) == 2

    def test_name_of_the_file_does_not_count(self, small: Path) -> None:
        folder = write_xml(small)
        (folder / "12.xml").rename(folder / "4000.xml")
        assert samples(small)[0].answer == FINDINGS[12]

    def test_sections_are_found_by_label(self, small: Path) -> None:
        folder = write_xml(small)
        for empty in ([], ["INDICATION"], ["COMPARISON", "INDICATION", "FINDINGS"]):
            write_report(folder, 12, FINDINGS[12], empty=empty)
            assert samples(small)[0].answer == FINDINGS[12]

    def test_letters_that_xml_escapes(self, small: Path) -> None:
        folder = write_xml(small)
        write_report(folder, 12, "Size < 3 cm & > 1 cm, 5 \u00b0.")
        found = list(IuXrayReport(data=str(small)).samples("test"))
        assert found[0].answer == "Size < 3 cm & > 1 cm, 5 \u00b0."

    @pytest.mark.parametrize(
        ("findings", "images", "lacks"),
        [(None, 2, "findings"), (" ", 2, "findings"), ("Clear.", 0, "images")],
    )
    def test_study_without_something(
        self, small: Path, findings: str | None, images: int, lacks: str
    ) -> None:
        folder = write_xml(small)
        write_report(folder, 3, findings, images=images)
        error = fails(small)
        assert "study 3 in" in error.what
        assert f"no {lacks}" in error.what
        assert len(samples(small, "train")) == 3

    def test_missing_study(self, small: Path) -> None:
        (write_xml(small) / "3.xml").unlink()
        assert fails(small).why == "1 id missing, first: iu_xray_report-CXR3_IM-0003."

    def test_study_twice(self, small: Path) -> None:
        write_report(write_xml(small), 3, "x", name="3000")
        assert "study 3 a second time" in fails(small).what

    def test_report_of_something_else(self, small: Path) -> None:
        write_report(write_xml(small), 3, "x", uid="PMC123")
        error = fails(small)
        assert "3.xml" in error.what
        assert "uId" in error.why

    @pytest.mark.parametrize("content", [b"", b"<eCitation><uId id='CXR1'/>", b"not xml", b"\x00"])
    def test_damaged(self, small: Path, content: bytes) -> None:
        (write_xml(small) / "3.xml").write_bytes(content)
        error = fails(small)
        assert "3.xml is damaged XML" in error.what

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_entities_are_refused(self, small: Path, encoding: str) -> None:
        secret = small / "secret.txt"
        secret.write_text("secret", encoding="utf-8")
        text = (
            f'<?xml version="1.0" encoding="{encoding}"?>'
            f'<!DOCTYPE eCitation [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
            '<eCitation><uId id="CXR3"/><AbstractText Label="FINDINGS">&x;</AbstractText>'
            "</eCitation>"
        )
        (write_xml(small) / "3.xml").write_bytes(text.encode(encoding))
        error = fails(small)
        assert "declares a document type" in error.what
        assert "secret" not in " ".join(error.lines())

    def test_no_reports(self, small: Path) -> None:
        (small / "ecgen-radiology").mkdir()
        assert "is empty" in fails(small).what


def test_a_run_keeps_answers_that_this_machine_cannot_score(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medbench: Any
) -> None:
    write_r2gen(small)
    for one in samples(small):
        assert isinstance(one.image, Path)
        one.image.parent.mkdir(parents=True)
        Image.effect_noise((40, 30), 50).save(one.image)
    monkeypatch.chdir(tmp_path)
    code, out, err = medbench(
        *("run", "--method", "greedy", "--task", "iu_xray_report[max_new_tokens=4]"),
        *("--backbone", "toy", "--data", small, "--json"),
    )
    assert code == 0, err
    result = json.loads(out)
    told = {*result["scores"], *result["unscored"]}
    assert told == set(IuXrayReport.metrics)
    assert "chexbert/labels" in result["unscored"]  # no test has the published weights
    assert result["health"]["rows"] == 2
    folder = Path(result["folder"])
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert {row["prompt"] for row in rows} == {PROMPT}
    data = json.loads((folder / "run.json").read_text())["data"]
    assert data["edition"] == "official"
    assert data["passport"]["rows"] == 2
