"""OmniMedVQA: multiple choice about medical images of twelve kinds, from many data sets.

Two forms are read. `omnimedvqa_factuality.jsonl` is CARES's choice of 8797 questions, which A3Tune
uses; where it lies in the data folder it is taken. Else the release itself: 88,996 questions in
the 42 files of `QA_information/Open-access`. Images lie in `Images/<data set>/` for both.

Images come under several questions, so that a split by question would show test images in
training; ours is by image. Some data sets have one answer to nearly all questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbench.data.find import find_file
from medbench.data.passport import check_passport
from medbench.data.read import read_json_lines, read_records
from medbench.data.splits import WHOLE, check_split, draw, split_edition, take_split
from medbench.errors import UserError
from medbench.metrics.choice import matching
from medbench.task import Edition, Sample, Task

_CARES = "omnimedvqa_factuality.jsonl"
_FOLDERS = ("OmniMedVQA", "cares", "data")
_RELEASE = Path("QA_information") / "Open-access"
_RESTRICTED = Path("QA_information") / "Restricted-access"
_N_FILES = 42
# The release's name for a field, then CARES's.
_QUESTION, _ANSWER, _IMAGE = ("question", "text"), ("gt_answer", "answer"), ("image_path", "image")
_OPTIONS = ("option_A", "option_B", "option_C", "option_D")
_PLACEHOLDER = "<image>"
_RULE = "Split of our own (about 7:3, by a hash of the image's path)"
_NOTES = {
    "cares": f"{_RULE}; the published one of 6155 and 2642 was not released, the total of 8797 is "
    "the same.",
    "open-access": f"{_RULE} over the whole open-access release; published scores are on CARES's "
    "8797 of its questions.",
}


@dataclass(frozen=True)
class OmniMedVqa(Task):
    """OmniMedVQA: multiple choice with two to four options on medical images of many kinds.

    Args:
        split_file: JSON file {"train": [...], "test": [...]} of row numbers from 0 or ids, in
            place of our split.

    The options follow the question, without letters. The answer is the text of the right option:
    the one that equals the file's answer, or else the only one that does so apart from case,
    punctuation and articles. An answer that is none of the options stays as it is, with
    `answer_option` null in `meta`; `choice/strict` counts such rows.

    An image, and with it all its questions, is in the test split if the sha256 of "medbench
    omnimedvqa " and its path ends in a 0, 1 or 2 as a decimal number.

    The id of a question is the release's own where those of all rows differ, else its row number.
    Rows of the release are counted over its files in the order of their names.
    """

    name = "omnimedvqa"
    paper = "Hu et al. 2024, arXiv:2402.09181; choice of Xia et al. 2024, arXiv:2406.06007"
    licence = "that of each source data set; choice of questions CC BY 4.0 (CARES)"
    source = (
        "github.com/richard-peng-xia/CARES (questions) and "
        "huggingface.co/datasets/foreverbeliever/OmniMedVQA (images, all questions)"
    )
    metrics = ("choice/paper", "choice/strict")
    passport = {"train and test": {"rows": 8797}}
    mirrors = {"open-access-7-3": {"train and test": {"rows": 88996}}}
    tuning = {"epochs": 3, "align_weight": 0.03, "q_experts": 8, "k_experts": 16, "k_top": 3}
    prompt = "{question} options: {options}"
    unkeyed = ("data", "split_file")

    split_file: str = ""

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the files' order; images are looked for later.

        Raises:
            UserError: a file is missing, broken, or not the official one.
        """
        check_split(self, split)
        form, files = self._find()
        rows = [(path, n, row) for path in files for n, row in enumerate(_rows(form, path), 1)]
        native = [str(row.get("question_id") or "") for _, _, row in rows]
        unique = all(native) and len(set(native)) == len(native)
        ids = [f"omnimedvqa-{native[at] if unique else at}" for at in range(len(rows))]
        whole = self.passport if form == "cares" else self.mirrors["open-access-7-3"]
        check_passport(self, WHOLE, ids, expected=whole[WHOLE])
        images = _images(files[0].parent if form == "cares" else files[0].parents[2])
        samples = [
            _sample(name, row, images, f"{path}, entry {number}")
            for name, (path, number, row) in zip(ids, rows, strict=True)
        ]
        yield from take_split(self, split, samples, _own_split, self.split_file)

    def edition(self, split: str) -> Edition:
        """Say which questions they are, and whose split.

        Raises:
            UserError: the questions or the user's split are not there.
        """
        form, files = self._find()
        return split_edition(form, files, _NOTES[form], self.split_file)

    def ask(self, sample: Sample) -> str:
        """Return the question with its options behind it, as it is put to the model."""
        options = ", ".join(sample.meta["options"])
        return self.prompt.format(question=sample.question, options=options)

    def name_region(self, sample: Sample, *, published: bool = False) -> str:
        """Return the question with its options: segments are compared with both."""
        return self.ask(sample)

    def _find(self) -> tuple[str, list[Path]]:
        """Return the form of the questions, "cares" or "open-access", and their files."""
        try:
            return "cares", [find_file(self, (_CARES,), _FOLDERS)]
        except UserError as error:
            root = Path(self.data).expanduser()
            if not self.data or not root.is_dir():
                raise
            missing = error
        places = [root, root / "OmniMedVQA", root / "OmniMedVQA" / "OmniMedVQA"]
        folder = next((p / _RELEASE for p in places if (p / _RELEASE).is_dir()), None)
        if folder is None:
            why = f"Nor is there the folder {_RELEASE.as_posix()} of the release."
            if any((place / _RESTRICTED).is_dir() for place in places):
                why = f"{_RESTRICTED.as_posix()} is there, but its questions have no images."
            raise UserError(missing.what, why, missing.do)
        files = sorted(folder.glob("*.json"))
        if len(files) != _N_FILES:
            raise UserError(
                f"{self.name}: {len(files)} of {_N_FILES} files in {folder}",
                "Each holds the questions on one data set.",
                f"Complete them ({self.source}).",
            )
        return "open-access", files


def _own_split(sample: Sample) -> str:
    return "test" if draw("omnimedvqa", sample.group) % 10 < 3 else "train"


def _rows(form: str, path: Path) -> Sequence[Mapping[str, Any]]:
    return read_json_lines(path, ()) if form == "cares" else read_records(path, ())


def _sample(name: str, row: Mapping[str, Any], images: Path, where: str) -> Sample:
    question = _text(row, _QUESTION, where).removesuffix(_PLACEHOLDER).strip()
    gold = _text(row, _ANSWER, where)
    options = [str(row[key]).strip() for key in _OPTIONS if row.get(key) not in (None, "")]
    if len(options) < 2:
        raise _other_data(where, f"It has {len(options)} options; 2 to 4 are expected.")
    # Some paths begin with a slash, which would lead out of the data folder.
    image = _text(row, _IMAGE, where).replace("\\", "/").lstrip("/")
    top, _, below = image.partition("/")
    right = matching(gold, options)
    return Sample(
        id=name,
        image=images / (below if top.lower() == "images" else image),
        question=question,
        answer=gold if right is None else options[right],
        kind="choice",
        group=image,
        meta={
            "native_id": row.get("question_id"),
            "dataset": row.get("dataset", ""),
            "question_type": row.get("question_type", ""),
            # One row of the release has the shorter key.
            "modality": row.get("modality_type", row.get("modality", "")),
            "options": options,
            "answer_text": gold,
            "answer_option": right,
        },
    )


def _text(row: Mapping[str, Any], keys: tuple[str, str], where: str) -> str:
    """Return the text under the first of the keys that the row has."""
    text = next((str(row[key]).strip() for key in keys if row.get(key) is not None), "")
    if not text:
        raise _other_data(where, f"It has no '{keys[0]}' (or '{keys[1]}').")
    return text


def _images(folder: Path) -> Path:
    """Return the folder with the images of each data set."""
    places = [
        place / below / name
        for place in (folder, folder.parent)
        for below in ("", "OmniMedVQA", "OmniMedVQA/OmniMedVQA")
        for name in ("Images", "images")
    ]
    return next((place for place in places if place.is_dir()), places[0])


def _other_data(where: str, why: str) -> UserError:
    return UserError(
        f"{where} is no question of OmniMedVQA",
        why,
        "Other data sets and conversions use the same file names; download the official one.",
    )
