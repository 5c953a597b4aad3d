"""IU X-ray reports: write the findings of a chest X-ray, on R2Gen's split of Open-i's studies.

R2Gen's files: `annotation.json` and beside it `images/<id>/0.png`, `1.png`. The same studies are
read from Kaggle's copy (`indiana_reports.csv`, `indiana_projections.csv`, `images_normalized`) and
from Open-i itself (`ecgen-radiology/*.xml`, `NLMCXR_png`), by R2Gen's ids, which come with
medbench. Words that Open-i removed stand as XXXX and are kept.

Of the 590 test reports 274 equal a training report word for word, so templates score well. The
questions of the task `iu_xray` are about the test studies here: a model trained on that task has
seen most of these images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from medbench.data.find import find_file
from medbench.data.open_i import (
    XML_FOLDER,
    Study,
    find_images,
    read_kaggle,
    read_xml,
    study_number,
)
from medbench.data.passport import check_passport
from medbench.data.read import read_json
from medbench.data.splits import read_own_split
from medbench.errors import UserError
from medbench.report_task import ReportTask
from medbench.task import Edition, Sample

_QUESTION = "Analyze the chest X-ray and generate a concise medical report."
_SPLIT = Path(__file__).with_name("splits") / "iu_xray_report.json"
_NAMES = {"train": "train", "validation": "val", "test": "test"}
_FOLDERS = ("iu_xray", "iu-xray", "r2gen_iu_xray")
_KAGGLE_FOLDERS = ("iu_xray", "iu-xray", "chest-xrays-indiana-university")
_OPEN_I_FOLDERS = ("", "iu_xray", "IU-Xray", "NLMCXR", "openi", "open-i")
_NOTES = {
    "official": "",
    "kaggle": (
        "Each study shows its first frontal image in Kaggle's table, which need not be the "
        "0.png of R2Gen's files."
    ),
    "open-i": (
        "Each study shows the first image that Open-i's report names, which need not be the "
        "0.png of R2Gen's files, nor frontal."
    ),
}
# Other files of the same name, by the sizes of train, val and test.
_OTHERS: dict[tuple[int, ...], str] = {
    (3062, 382, 382): "the split of MRG_RL, with findings and impression",
    (2364, 337, 675): "the split of QCXR",
    (270790, 2130, 3858): "R2Gen's file for MIMIC-CXR",
}
_N_MED_EVAL_KIT = 296

_TRAIN = {
    "rows": 2069,
    "ids": "83a3f68aee7abd95fe32496054a7978b017e3f223789e91f5a1e6c61bbc94102",
    "questions": "530ce9c0ffff70041ef81fdee7e2913fe5a355219e2c6356ac56754783df1be0",
}
_VALIDATION = {
    "rows": 296,
    "ids": "1e932dcdedd27e91050a9805b34016dd7ed0b1d9e7e35c3d5d731279fdb2e871",
    "questions": "b285884d37dabfe1b9fad121aaaedd87a2eee3aa2602f5717b8b07362f831365",
}
_TEST = {
    "rows": 590,
    "ids": "ed74f9a51203028c519b80ba7783590928a9af1b2ea4e7cf349b70905afc6440",
    "questions": "e1ff5b7b30deefca759e93d7be318c51a5ce35f80e86cf845c868810abbf7a84",
}


@dataclass(frozen=True)
class IuXrayReport(ReportTask):
    """IU X-ray reports: the findings of 590 test studies, one chest X-ray each (R2Gen's split).

    The report is the section of that name as it stands in the file, upper and lower case and
    punctuation included; the impression is no part of it. A study shows one image, `0.png`, as in
    A3Tune, although R2Gen's own model takes two.

    The split is R2Gen's: 2069 studies for training, 296 for validation, 590 for testing. Kaggle's
    and Open-i's copies are read by R2Gen's ids, so that studies, order and ids are the same, but
    the image of a study may be another one.
    """

    name = "iu_xray_report"
    paper = "Demner-Fushman et al. 2016, doi:10.1093/jamia/ocv080; split of arXiv:2010.16056"
    licence = "CC BY-NC-ND 4.0 (Open-i)"
    source = (
        "the files of github.com/cuhksz-nlp/R2Gen (iu_xray), "
        "kaggle.com/datasets/raddar/chest-xrays-indiana-university or openi.nlm.nih.gov"
    )
    passport = {"train": _TRAIN, "validation": _VALIDATION, "test": _TEST}
    mirrors = {
        "kaggle": {"train": _TRAIN, "validation": _VALIDATION, "test": _TEST},
        "open-i": {
            "train": {
                "rows": 2069,
                "ids": "83a3f68aee7abd95fe32496054a7978b017e3f223789e91f5a1e6c61bbc94102",
            },
            "validation": {
                "rows": 296,
                "ids": "1e932dcdedd27e91050a9805b34016dd7ed0b1d9e7e35c3d5d731279fdb2e871",
            },
            "test": {
                "rows": 590,
                "ids": "ed74f9a51203028c519b80ba7783590928a9af1b2ea4e7cf349b70905afc6440",
            },
        },
    }
    region_text = (("", "Medical image of lungs and chest X-ray."),)
    tuning = {"epochs": 12, "align_weight": 0.08, "q_experts": 4, "k_experts": 8, "k_top": 2}

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in R2Gen's order; images are looked for later.

        Raises:
            UserError: a file is missing, broken, or not the official one.
        """
        if split not in _NAMES:
            raise UserError(
                f"{self.name} has no split '{split}'",
                "R2Gen's files hold train, validation and test.",
                "Ask for one of these.",
            )
        edition, place = self._find()
        official = read_own_split(_SPLIT)[split]
        if edition == "official":
            yield from self._of_r2gen(place, split, official)
        else:
            studies = read_kaggle(place) if edition == "kaggle" else read_xml(place)
            yield from self._of_studies(studies, place, split, official)

    def edition(self, split: str) -> Edition:
        """Say whether the files are R2Gen's ("official"), Kaggle's or Open-i's own.

        Raises:
            UserError: none of them is there.
        """
        name, place = self._find()
        files = {
            "official": (place,),
            "kaggle": (place, place.with_name("indiana_projections.csv")),
            # Thousands of small files: the passport's hash of ids and texts stands for them.
            "open-i": (),
        }
        return Edition(name, files[name], _NOTES[name])

    def _find(self) -> tuple[str, Path]:
        """Return the edition's name and the file or folder that its reports are in."""
        try:
            return "official", find_file(self, ("annotation.json",), _FOLDERS)
        except UserError as error:
            if not self.data or not Path(self.data).expanduser().is_dir():
                raise
            missing = error
        root = Path(self.data).expanduser()
        try:
            return "kaggle", find_file(self, ("indiana_reports.csv",), _KAGGLE_FOLDERS)
        except UserError:
            places = [root / folder / XML_FOLDER for folder in _OPEN_I_FOLDERS]
            if root.name == XML_FOLDER:
                places.insert(0, root)
        for place in places:
            if place.is_dir():
                return "open-i", place
        raise UserError(
            f"{self.name}: annotation.json not found in {self.data}",
            _look_alike(root / "test.json")
            or f"Nor is there indiana_reports.csv (Kaggle) or the folder {XML_FOLDER} (Open-i).",
            missing.do,
        )

    def _of_r2gen(self, path: Path, split: str, official: Sequence[str]) -> Iterator[Sample]:
        rows = _rows(path, split)
        ids = [str(row["id"]) for row in rows]
        self._check(split, ids, official)
        images = find_images(path.parent)
        for row in rows:
            shown = [str(name).replace("\\", "/") for name in row["image_path"]]
            yield self._sample(str(row["id"]), images / shown[0], str(row["report"]), len(shown))

    def _of_studies(
        self, studies: Mapping[int, Study], place: Path, split: str, official: Sequence[str]
    ) -> Iterator[Sample]:
        there = [one for one in official if study_number(one) in studies]
        self._check(split, there, official)
        for name in official:
            study = studies[study_number(name)]
            if not study.findings or not study.images:
                raise UserError(
                    f"{self.name}: study {study_number(name)} in {place} has no "
                    f"{'images' if study.findings else 'findings'}",
                    "R2Gen chose the studies that have both.",
                    f"Download the official files again ({self.source}).",
                )
            yield self._sample(name, study.images[0], study.findings, len(study.images))

    def _check(self, split: str, found: Sequence[str], official: Sequence[str]) -> None:
        known = set(found)
        gaps = [_id(name) for name in official if name not in known]
        check_passport(self, split, [_id(name) for name in found], gaps=gaps)

    def _sample(self, name: str, image: Path, report: str, n_images: int) -> Sample:
        return Sample(
            id=_id(name),
            image=image,
            question=_QUESTION,
            answer=report.strip(),
            kind="report",
            group=name,
            meta={
                "native_id": name,
                "modality": "X-Ray",
                "location": "Chest",
                "images_of_study": n_images,
            },
        )


def _rows(path: Path, split: str) -> list[dict[str, Any]]:
    """Return the records of a split of R2Gen's file; other files of the name are named."""
    content = read_json(path)
    lists = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    counts = tuple(len(lists.get(key) or ()) for key in _NAMES.values())
    why = ""
    if counts in _OTHERS:
        why = f"It is {_OTHERS[counts]}: {', '.join(map(str, counts))} studies."
    elif any(not key.strip() for key in lists):
        why = "A key is blank where 'test' should be: the damaged copy that comes with SERPENT-VLM."
    elif not all(isinstance(lists.get(key), list) and lists[key] for key in _NAMES.values()):
        why = "It must hold the lists train, val and test."
    else:
        for number, row in enumerate(lists[_NAMES[split]], 1):
            record = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
            lacks = next((key for key in ("id", "report", "image_path") if not record.get(key)), "")
            if lacks or not isinstance(record["image_path"], list):
                why = f"Entry {number} of {_NAMES[split]} has no {lacks or 'list image_path'}."
                break
    if why:
        raise UserError(
            f"{path} is not R2Gen's file for IU X-ray",
            why,
            "Download the official one: 2069 studies for training, 296, and 590 for testing.",
        )
    return lists[_NAMES[split]]


def _look_alike(path: Path) -> str:
    """Say so if the file is MedEvalKit's test file, which many have under this task's name."""
    if not path.is_file():
        return ""
    try:
        content = read_json(path)
    except UserError:
        return ""
    if not isinstance(content, list) or len(cast("list[Any]", content)) != _N_MED_EVAL_KIT:
        return ""
    return (
        f"{path.name} is there: MedEvalKit's, whose {_N_MED_EVAL_KIT} studies are R2Gen's "
        "validation split, with impressions."
    )


def _id(name: str) -> str:
    return f"iu_xray_report-{name}"
