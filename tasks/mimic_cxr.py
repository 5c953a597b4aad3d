"""MIMIC-CXR: reports on chest X-rays, from the folders that PhysioNet gives to credentialed users.

Access takes a credentialed PhysioNet account, the CITI course on data of human subjects, and the
signed data use agreements of MIMIC-CXR (reports) and MIMIC-CXR-JPG (images, tables). They forbid
to share the data and to send them to services of others. Copies have leaked into public
repositories, notebooks and mirrors: do not use them. The task is restricted: no error names a
report's text, nor the id of a patient, a study or an image; it gives counts, and of a path no more
than the folder of thousands (`files/p10`).

Read below the data folder, in one folder or in `mimic-cxr`, `mimic-cxr-jpg`, `mimic-cxr-reports`,
with or without a folder of the version (`2.1.0`):

    mimic-cxr-2.0.0-split.csv.gz                     MIMIC-CXR-JPG, or unpacked
    mimic-cxr-2.0.0-metadata.csv.gz                  likewise, only for view=frontal
    files/p10/p10000032/s50414267/<dicom_id>.jpg     MIMIC-CXR-JPG
    files/p10/p10000032/s50414267.txt                MIMIC-CXR: mimic-cxr-reports.zip, unpacked

`mimic_cxr_sectioned.csv`, which a script of MIMIC-CXR's makers writes from the reports, goes
before the reports where it is there: some sections were set by hand for it. Where the table of
splits is not there, R2Gen's `annotation.json` is read, and `images/` beside it.

A draw needs 2500 of the 377,110 images. Which ones is known without any:

    for sample in medbench.load_task("mimic_cxr", data=DIR).samples("test"):
        print(sample.image)
"""

from __future__ import annotations

import hashlib
import heapq
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from medbench.data.find import find_file
from medbench.data.radiology_sections import sections
from medbench.data.read import read_json, read_table
from medbench.errors import UserError
from medbench.report_task import ReportTask
from medbench.task import Edition, Sample

_SPLIT = ("mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-2.0.0-split.csv")
_METADATA = ("mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-metadata.csv")
_SECTIONED = ("mimic_cxr_sectioned.csv", "mimic_cxr_sectioned.csv.gz")
_ANNOTATION = ("annotation.json",)
_REPORTS = "mimic-cxr-reports.zip"
_FOLDERS = (
    "mimic-cxr", "mimic-cxr-jpg", "mimic-cxr-reports", "mimic_cxr", "mimic_cxr_jpg", "2.1.0",
    "2.0.0",
)  # fmt: skip
# What the official table and R2Gen's file call the splits.
_NAMES = {
    "train": ("train", "train"),
    "validation": ("validate", "val"),
    "test": ("test", "test"),
}
# Images of the official splits, 377,110 in all.
_IMAGES = {"train": 368_960, "validation": 2_991, "test": 5_159}
# As many as the paper drew; it has no validation split.
_DRAWN = {"train": 2000, "validation": 500, "test": 500}
# Of 227,835 reports, less the few dozen that the script leaves out.
_SECTIONED_ROWS = 227_700
# R2Gen's file of IU X-ray has the same name.
_IU_ROWS = {"train": 2069, "validation": 296, "test": 590}
_QUESTION = "Analyze the chest X-ray and generate a concise medical report."
_NUMBER = re.compile(r"\d{8}")
_DICOM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_R2GEN_IMAGE = re.compile(r"p\d\d/p(\d{8})/s(\d{8})/[\w-]+\.\w+")


@dataclass(frozen=True)
class MimicCxr(ReportTask):
    """MIMIC-CXR: reports on 500 drawn studies, one chest X-ray each; credentialed access only.

    Args:
        text: the answer: `findings_impression`, as far as a report has both, or `findings`.
        min_words: drop reports of fewer words; "___" and other pieces without a letter or digit
            are no words.
        view: of a study's images the `first` by id, or the first `frontal` one (PA or AP).
        sample: `paper_sized` draws 2000 studies to train on and 500 to test on; `all` draws none.

    The paper draws 2000 and 500 image-report pairs, leaves out reports of "extremely low word
    count", and keeps 1902 and 441. Its ids, seed and threshold are not published, so what remains
    here is another number. Here those studies of the official split are drawn whose sha256 of
    "medbench mimic_cxr STUDY" is lowest, 500 for validation as well, and the same ones whatever
    the other parameters are. How many were dropped stands in the note under the scores.

    The paper selects no views. Ids of images are random, so the first by id is a draw among a
    study's views, lateral ones included. Under `frontal` studies without a frontal image are
    dropped, also where the metadata name no view.

    Answers are the reports' own words. The published code trains on a file of reports that look
    rewritten; that file is not published, so it is no value of `text`.

    Access needs a credentialed PhysioNet account, the CITI course and a signed data use agreement;
    run folders hold reports, and fall under it as well. R2Gen's annotation.json is read with
    text=findings: 270,790, 2,130 and 3,858 items, all kept under sample=all and min_words=0.
    """

    name = "mimic_cxr"
    paper = "Johnson et al. 2019, doi:10.1038/s41597-019-0322-0; JPG: arXiv:1901.07042"
    licence = "PhysioNet Credentialed Health Data License 1.5.0"
    source = "physionet.org/content/mimic-cxr and physionet.org/content/mimic-cxr-jpg"
    mirrors = {
        "r2gen": {
            "train": {"rows": 270790},
            "validation": {"rows": 2130},
            "test": {"rows": 3858},
        },
    }
    region_text = (("", "Medical image of lungs and chest X-ray."),)
    tuning = {"epochs": 12, "align_weight": 0.05, "q_experts": 4, "k_experts": 8, "k_top": 2}
    restricted = True

    text: Literal["findings_impression", "findings"] = "findings_impression"
    min_words: int = 5
    view: Literal["first", "frontal"] = "first"
    sample: Literal["paper_sized", "all"] = "paper_sized"

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the table's order; images are looked for later.

        Raises:
            UserError: a file is missing, broken, or not the official one.
        """
        yield from self._read(split).samples

    def edition(self, split: str) -> Edition:
        """Say where reports come from, how they were drawn, and how many were dropped.

        Of the reports' own files none is named: their names are ids.

        Raises:
            UserError: as `samples`.
        """
        reading = self._read(split)
        return Edition(reading.edition, reading.files, reading.note)

    def expects(self, split: str) -> Mapping[str, Any]:
        """Return nothing: tables are counted when read; what is kept depends on parameters."""
        return {}

    def _read(self, split: str) -> _Reading:
        if split not in _NAMES:
            raise UserError(
                f"mimic_cxr has no split '{split}'",
                "Its table holds train, validation (there: validate) and test.",
                "Ask for one of these.",
            )
        annotation = None if self._find(_SPLIT) else self._find(_ANNOTATION)
        if annotation is not None:
            return self._read_r2gen(split, annotation)
        return self._read_official(split, find_file(self, _SPLIT, _FOLDERS))

    def _read_official(self, split: str, table: Path) -> _Reading:
        size = _DRAWN[split] if self.sample == "paper_sized" else None
        studies = _draw(table, split, size)
        metadata = find_file(self, _METADATA, _FOLDERS) if self.view == "frontal" else None
        views = None if metadata is None else _read_views(metadata, studies)
        roots = list(_folders(Path(self.data).expanduser()))
        sectioned = self._find(_SECTIONED)
        if sectioned is None:
            reports = _read_reports(roots, studies)
        else:
            reports = _read_sectioned(sectioned, studies)
        images = {study.id: image for study in studies if (image := study.image(views))}
        # Where no image is there, the official place is the one that lacks them.
        root = _first_with(roots, images.values()) or table.parent
        items = (
            _Item(
                id=f"s{study.id}",
                subject=f"p{study.subject}",
                image=root / images[study.id] if study.id in images else None,
                report=reports.get(study.id, {}),
                view=views[images[study.id].stem] if views and study.id in images else "",
            )
            for study in studies
        )
        edition = "all-studies" if size is None else "own-draw"
        return self._keep(
            items,
            edition=edition if sectioned is None else f"{edition}-sectioned",
            files=[path for path in (table, metadata, sectioned) if path],
            taken=f"{len(studies)} studies of the official {split} split",
        )

    def _read_r2gen(self, split: str, path: Path) -> _Reading:
        for parameter, value in (("text", "findings"), ("view", "first")):
            if getattr(self, parameter) != value:
                raise UserError(
                    f"mimic_cxr: R2Gen's {path.name} goes with {parameter}={value} only",
                    "It has findings without impressions, and does not tell views.",
                    f'Write "mimic_cxr[{parameter}={value}]", or give the folders of PhysioNet.',
                )
        items = _read_r2gen(path, split, self.mirrors["r2gen"][split]["rows"])
        taken = f"{len(items)} items of R2Gen's {split} split"
        if self.sample == "paper_sized":
            chosen = dict[str, _Item]()
            for item in items:  # one image a study, as elsewhere
                chosen[item.study] = min(item, chosen.get(item.study, item), key=lambda one: one.id)
            drawn = set(heapq.nsmallest(_DRAWN[split], chosen, key=_place))
            items = [one for one in items if one.study in drawn and chosen[one.study] is one]
            taken = f"{len(items)} studies of R2Gen's {split} split"
        edition = "r2gen" if self.sample == "all" else "r2gen-own-draw"
        return self._keep(items, edition=edition, files=[path], taken=taken)

    def _keep(
        self, items: Iterable[_Item], *, edition: str, files: Sequence[Path], taken: str
    ) -> _Reading:
        """Make samples of the items, and count in the note those that are dropped, and why.

        Args:
            taken: how many items there are, in words.
        """
        samples: list[Sample] = []
        dropped = Counter[str]()
        for item in items:
            answer = self._answer(item)
            why = self._unfit(item, answer)
            if why or item.image is None:
                dropped[why] += 1
                continue
            samples.append(
                Sample(
                    id=f"mimic_cxr-{item.id}",
                    image=item.image,
                    question=_QUESTION,
                    answer=answer,
                    kind="report",
                    # The patient: many have several studies, whose reports repeat each other, so
                    # intervals must be over patients. Images are told apart by their paths.
                    group=item.subject,
                    meta={"native_id": item.id} | ({"view": item.view} if item.view else {}),
                )
            )
        how = (
            "drawn by medbench, as the paper's ids, seed and threshold are not published"
            if self.sample == "paper_sized"
            else "all there are"
        )
        counts = ", ".join(f"{count} {why}" for why, count in sorted(dropped.items()))
        lost = f"{dropped.total()} dropped: {counts}" if counts else "none dropped"
        return _Reading(samples, edition, tuple(files), f"{taken}, {how}; {lost}.")

    def _answer(self, item: _Item) -> str:
        names = ("findings", "impression") if self.text == "findings_impression" else ("findings",)
        return " ".join(" ".join(item.report.get(name, "") for name in names).split())

    def _unfit(self, item: _Item, answer: str) -> str:
        """Return why an item is no sample, "" if it is one."""
        if item.image is None:
            return "without a frontal image"
        if not answer:
            both = self.text == "findings_impression"
            return "with neither findings nor impression" if both else "without findings"
        words = sum(any(map(str.isalnum, piece)) for piece in answer.split())
        return f"with fewer than {self.min_words} words" if words < self.min_words else ""

    def _find(self, names: Sequence[str]) -> Path | None:
        try:
            return find_file(self, names, _FOLDERS)
        except UserError:
            return None


@dataclass(frozen=True)
class _Reading:
    """What the files give of a split; `note` counts what was drawn and dropped."""

    samples: list[Sample]
    edition: str
    files: tuple[Path, ...]
    note: str


@dataclass(frozen=True)
class _Item:
    """A report by section, and its image; None where the study has none of the view asked for."""

    id: str
    subject: str
    image: Path | None
    report: Mapping[str, str] = field(repr=False)
    view: str = ""
    study: str = ""


@dataclass(frozen=True)
class _Study:
    """A study of the official table, with the ids of its images."""

    id: str
    subject: str
    images: list[str]

    @property
    def folder(self) -> Path:
        """Where its images are; its report is the file of the same name and `.txt`."""
        return Path("files", f"p{self.subject[:2]}", f"p{self.subject}", f"s{self.id}")

    def image(self, views: Mapping[str, str] | None) -> Path | None:
        """Return the first image by id; given views, of the frontal ones."""
        fitting = [one for one in self.images if views is None or views[one] in ("PA", "AP")]
        return self.folder / f"{min(fitting)}.jpg" if fitting else None


def _place(study: str) -> int:
    """Return where a study stands in the order of the draw."""
    return int.from_bytes(hashlib.sha256(f"medbench mimic_cxr {study}".encode()).digest())


def _draw(table: Path, split: str, size: int | None) -> list[_Study]:
    """Return the `size` studies that come first in the order of the draw, in the table's order.

    The table is read as a stream; what cannot be drawn any more is not kept.
    """
    kept = dict[str, _Study]()
    latest: list[tuple[int, str]] = []  # a heap, with what is to go next at the top
    rows = 0
    for row in read_table(table, ("dicom_id", "study_id", "subject_id", "split")):
        if row["split"] != _NAMES[split][0]:
            continue
        rows += 1
        study = row["study_id"]
        if study not in kept:
            if size is not None:
                entry = (-_place(study), study)
                if len(kept) < size:
                    heapq.heappush(latest, entry)
                elif entry < latest[0]:
                    continue
                else:
                    del kept[heapq.heapreplace(latest, entry)[1]]
            kept[study] = _Study(study, row["subject_id"], [])
        kept[study].images.append(row["dicom_id"])
    if rows != _IMAGES[split]:
        raise _not_whole(table, f"It has {rows} of {_IMAGES[split]} {split} images")
    odd = sum(not _is_sound(study) for study in kept.values())
    if odd:
        raise _not_whole(table, f"Ids of {odd} studies are of another form, or come twice")
    return list(kept.values())


def _is_sound(study: _Study) -> bool:
    numbers = all(_NUMBER.fullmatch(one) for one in (study.id, study.subject))
    images = all(_DICOM.fullmatch(one) for one in study.images)
    return numbers and images and len(set(study.images)) == len(study.images)


def _read_views(table: Path, studies: Collection[_Study]) -> dict[str, str]:
    """Return the view position of the studies' images, "" where none is named."""
    wanted = {image for study in studies for image in study.images}
    views = {
        row["dicom_id"]: row["ViewPosition"]
        for row in read_table(table, ("dicom_id", "ViewPosition"))
        if row["dicom_id"] in wanted
    }
    if len(views) < len(wanted):
        raise _not_whole(table, f"It has {len(views)} of {len(wanted)} images looked for")
    return views


def _read_sectioned(table: Path, studies: Collection[_Study]) -> dict[str, Mapping[str, str]]:
    """Return the sections of the studies' reports, of those that the table has."""
    wanted = {f"s{study.id}": study.id for study in studies}
    reports = dict[str, Mapping[str, str]]()
    rows = found = 0
    for row in read_table(table, ("study", "findings", "impression")):
        rows += 1
        if row["study"] in wanted:
            found += 1
            reports[wanted[row["study"]]] = row
    if rows < _SECTIONED_ROWS:
        raise _not_whole(table, f"It has {rows} reports, the whole one at least {_SECTIONED_ROWS}")
    if found > len(reports):
        raise _not_whole(table, f"{found - len(reports)} reports come more than once")
    return reports


def _read_reports(
    roots: Sequence[Path], studies: Collection[_Study]
) -> dict[str, Mapping[str, str]]:
    """Return the sections of the studies' reports, from files of text below one of the roots."""
    paths = {study.id: study.folder.with_suffix(".txt") for study in studies}
    root = _first_with(roots, paths.values())
    if root is None:
        packed = next((one / _REPORTS for one in roots if (one / _REPORTS).is_file()), None)
        raise UserError(
            f"mimic_cxr: no reports in {roots[0]}",
            f"{_REPORTS} is there, but not unpacked."
            if packed
            else "MIMIC-CXR-JPG has images and tables; reports come with MIMIC-CXR.",
            f"Unpack it: medbench data unpack {shlex.quote(str(packed))}"
            if packed
            else f"Unpack {_REPORTS} there, of physionet.org/content/mimic-cxr.",
        )
    reports = dict[str, Mapping[str, str]]()
    faults: list[tuple[str, str]] = []
    for study, path in paths.items():
        text, fault = _read_text(root / path)
        reports[study] = sections(text)
        if fault:
            faults.append((fault, path.parts[1]))
    if faults:
        fault, folder = faults[0]
        raise UserError(
            f"mimic_cxr: {len(faults)} of {len(paths)} reports cannot be read",
            f"The first one, below {root / 'files' / folder}, {fault}.",
            f"Unpack {_REPORTS} again, of physionet.org/content/mimic-cxr.",
        )
    return reports


def _read_text(path: Path) -> tuple[str, str]:
    """Return a report, or "" and what is wrong with it; nothing raised keeps hold of its text."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "", "is not there"
    except OSError:
        return "", "may not be opened"
    if not data.strip():
        return "", "is empty"
    if data.lstrip().startswith(b"<"):
        return "", "is a web page: the download most likely answered with a login page"
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        return "", "is not text in UTF-8"


def _read_r2gen(path: Path, split: str, rows: int) -> list[_Item]:
    content = read_json(path)
    name = _NAMES[split][1]
    found = cast("dict[str, Any]", content).get(name) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise _not_whole(path, f"It has no list '{name}'")
    entries = cast("list[Any]", found)
    if len(entries) != rows:
        why = f"It has {len(entries)} of {rows} {split} items"
        other = len(entries) == _IU_ROWS[split]
        raise _not_whole(path, f"{why}: it is R2Gen's file of IU X-ray" if other else why)
    inner = path.parent / "images"
    images = inner if inner.is_dir() else path.parent
    items = [_r2gen_item(entry, images) for entry in entries]
    sound = [item for item in items if item is not None]
    if len(sound) < len(items):
        why = f"{len(items) - len(sound)} {split} items lack id, report or image path"
        raise _not_whole(path, f"{why}, the first is number {items.index(None) + 1}")
    twice = len(sound) - len({item.id for item in sound})
    if twice:
        raise _not_whole(path, f"{twice} ids of {split} items come more than once")
    return sound


def _r2gen_item(entry: Any, images: Path) -> _Item | None:
    try:
        name, report, image = str(entry["id"]), entry["report"], entry["image_path"][0]
        match = _R2GEN_IMAGE.fullmatch(image.replace("\\", "/").lstrip("/"))
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
    if match is None or not isinstance(report, str):
        return None
    return _Item(name, f"p{match[1]}", images / match[0], {"findings": report}, study=match[2])


def _folders(root: Path, levels: int = 2) -> Iterator[Path]:
    """Yield the folder and its sub-folders of the usual names."""
    yield root
    try:
        inside = sorted(path for path in root.iterdir() if path.is_dir()) if levels else []
    except OSError:
        return
    for path in inside:
        if path.name.lower() in _FOLDERS:
            yield from _folders(path, levels - 1)


def _first_with(roots: Iterable[Path], paths: Collection[Path]) -> Path | None:
    """Return the first root below which one of the files is."""
    return next((root for root in roots if any((root / path).is_file() for path in paths)), None)


def _not_whole(path: Path, why: str) -> UserError:
    return UserError(
        f"mimic_cxr: {path} is not the official file",
        f"{why}.",
        "Cut off or edited copies circulate; take it from where it was published.",
    )
