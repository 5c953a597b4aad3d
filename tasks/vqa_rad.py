"""VQA-RAD: questions that clinicians asked about radiology images.

The files as published: `VQA_RAD Dataset Public.json` and the folder `VQA_RAD Image Folder`. A row
is a test question if its `phrase_type` starts with "test", else a training question; the extra
"frame" rows that some conversions add to training (3064 in all) are not in it.

The split is by question, not by image: 202 of the 203 test images are training images too, and
143 test questions are paraphrases of other test questions. Intervals are therefore clustered by
image, and a score on this split says nothing about unseen images.

Two mirrors are read as well, where the official file is not there. MEVF's `trainset.json` and
`testset.json` beside a folder `images`: the official test questions, and the frame rows in
training. Hugging Face's Parquet files (flaviagiammarino/vqa-rad): images, questions and answers in
lower case, and nothing else, so that only `closed_rule=yesno` can be computed. Their rows carry no
ids of the official file and are numbered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medbench.data.closed import is_closed
from medbench.data.copies import find_copy
from medbench.data.parquet import Table
from medbench.data.passport import check_passport
from medbench.data.read import read_records
from medbench.errors import UserError
from medbench.task import Edition, Kind, Sample, Task

_NAMES = ("VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json")
_MEVF = {"train": "trainset.json", "test": "testset.json"}
_IMAGES = {
    "official": ("VQA_RAD Image Folder", "VQA_RAD_Image_Folder"),
    "mevf": ("images", "VQA_RAD Image Folder", "VQA_RAD_Image_Folder"),
}
_FOLDERS = ("vqa_rad", "vqa-rad", "data_RAD")
_NOTES = {
    "mevf": "MEVF's conversion: the official test questions, and 1267 more rows in training, made "
    "from question frames.",
    "huggingface": "Hugging Face's copy: texts in lower case, four training questions dropped, no "
    "answer types.",
}
_KEYS = (
    "qid",
    "phrase_type",
    "image_name",
    "image_organ",
    "question",
    "question_type",
    "answer",
    "answer_type",
)
_N_ROWS = 2248
# What other data sets that circulate under this name are recognised by.
_OTHERS = (*_MEVF.values(), "*VQAMed*", "*VQA-Med*", "*QA_Pairs*.txt", "*.parquet")


@dataclass(frozen=True)
class VqaRad(Task):
    """VQA-RAD: 451 test questions on 203 radiology images, asked by clinicians.

    Args:
        closed_rule: which questions are closed: `paper`, `dataset` or `yesno`; the rest is open.

    Under `paper` a question is closed if the data set calls it so and its answer holds yes or no:
    254 test questions, the published denominator. Under `dataset` it is what the data set calls
    closed: 272. Under `yesno` the answer is exactly yes or no: 251.

    The published denominator does not say which questions it counts. Answers that start with yes
    or no are 254 too: 251 and three open ones ("nodular", "not seen"). The rule taken here counts
    251 and three times "abnormal"; it alone also gives the denominators of SLAKE and PathVQA.
    """

    name = "vqa_rad"
    paper = "Lau et al. 2018, doi:10.1038/sdata.2018.251"
    licence = "CC0 1.0"
    source = "https://osf.io/89kps"
    metrics = ("closed/paper", "closed/strict", "recall/paper", "recall/strict")
    shared_images = "202 of the 203 test images are training images too: the split is by question"
    passport = {
        "train": {
            "rows": 1797,
            "ids": "988849957dc265cdb7a80b391ed9716c0aa40c9bb543f93b4dacd00a9512c5b2",
            "questions": "4aaac6fc0b24b36ab04e80670f4083ddcc723d2dbfbced8c69e6bf1cf7be4971",
        },
        "test": {
            "rows": 451,
            "ids": "5ba777a7eb57b4b67469e1e91d0bb2363d4447ad1eca5c062bde52aaaeb719d9",
            "questions": "3f4f560c84dd12f7c4095996deaf1c59c2394a07e030abfe642d2b164f83637e",
        },
    }
    mirrors = {
        "mevf": {
            "train": {
                "rows": 3064,
                "ids": "2c0bac7b640535753685851f0b4bf2a65356709aac3252afd0bb087f851d8a4d",
            },
            "test": {
                "rows": 451,
                "ids": "a6988bd7fd3b1dc73c7ceaf98f7b38a8f82a8a69fc5ebe4e772c9d71690b4e5b",
            },
        },
        "huggingface": {
            "train": {
                "rows": 1793,
                "ids": "363fa92c316f18cc2701faf0e7140614bdea4f1ad77df383f9a1565a6ca6dfe4",
            },
            "test": {
                "rows": 451,
                "ids": "a6988bd7fd3b1dc73c7ceaf98f7b38a8f82a8a69fc5ebe4e772c9d71690b4e5b",
            },
        },
    }
    region_text = (
        ("chest", "Medical image of {location} and lungs. {question}"),
        ("abd", "Medical image of abdomen CT. {question}"),
        ("", "Medical image of {location}. {question}"),
    )
    region_text_published = (
        ("chest", "Medical image of {location} and lungs. {question}"),
        ("abd", "Medical imgaing of abdomen CT.{question}"),
        ("", "Medical image of {location}.{question}"),
    )
    tuning = {"epochs": 9, "align_weight": 0.06, "q_experts": 4, "k_experts": 8, "k_top": 2}

    closed_rule: Literal["paper", "dataset", "yesno"] = "paper"

    def edition(self, split: str) -> Edition:
        """Say which copy lies in the data folder; the official one before any mirror.

        Raises:
            UserError: none that is known; look-alikes are named.
        """
        return self._copy(split)[0]

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the file's order; images are looked for later.

        Raises:
            UserError: a file is missing, broken, or not the official one.
        """
        edition, table = self._copy(split)
        if table is not None:
            yield from self._stored(split, table)
            return
        path = edition.files[0]
        if edition.name == "mevf":
            asked = _read_mevf(path)
            ids = [_numbered(split, row) for row in range(len(asked))]
            check_passport(self, split, ids)
        else:
            records = read_records(path, _KEYS)
            found = {str(row["qid"]) for row in records}
            asked = [row for row in records if _is_test(row) == (split == "test")]
            ids = [_id(row["qid"]) for row in asked]
            gaps = [_id(qid) for qid in range(_N_ROWS) if str(qid) not in found]
            check_passport(self, split, ids, gaps=gaps)
        names = _IMAGES[edition.name]
        folders = (path.parent / name for name in names)
        images = next((folder for folder in folders if folder.is_dir()), path.parent / names[0])
        for id, row in zip(ids, asked, strict=True):
            yield self._sample(id, row, images)

    def name_region(self, sample: Sample, *, published: bool = False) -> str:
        """Return the text that a sample's segments are compared with.

        In a copy that does not say what an image shows, it is the question alone.
        """
        if not sample.meta.get("location"):
            return sample.question
        return super().name_region(sample, published=published)

    def _sample(self, id: str, row: Mapping[str, Any], images: Path) -> Sample:
        answer = _text(row["answer"])
        answer_type = str(row["answer_type"]).strip().upper()
        image = str(row["image_name"])
        return Sample(
            id=id,
            image=images / image,
            question=_text(row["question"]),
            answer=answer,
            kind=self._kind(answer, answer_type),
            group=image.rpartition(".")[0] or image,
            meta={
                "native_id": row["qid"],
                "location": str(row["image_organ"]).strip().upper(),
                "question_type": str(row["question_type"]).strip().upper(),
                "answer_type": answer_type,
                "phrase_type": str(row["phrase_type"]).strip(),
                "linked_id": row.get("qid_linked_id", ""),
            },
        )

    def _stored(self, split: str, table: Table) -> Iterator[Sample]:
        """Yield the samples of Hugging Face's files, which hold the images themselves."""
        if self.closed_rule != "yesno":
            raise UserError(
                f"vqa_rad cannot tell closed questions by closed_rule={self.closed_rule} here",
                "Hugging Face's copy does not have the answer types that the rule asks for.",
                'Write "vqa_rad[closed_rule=yesno]" (251 of test), or take the official file.',
            )
        check_passport(self, split, [_numbered(split, row) for row in range(table.rows)])
        texts, images = table.texts(("question", "answer")), table.images("image")
        for number, (row, (image, content)) in enumerate(zip(texts, images, strict=True)):
            answer = _text(row["answer"])
            yield Sample(
                id=_numbered(split, number),
                image=image,
                question=_text(row["question"]),
                answer=answer,
                kind=self._kind(answer, ""),
                group=content,
                stamp=content,
            )

    def _kind(self, answer: str, answer_type: str) -> Kind:
        return "closed" if is_closed(self.closed_rule, answer, answer_type) else "open"

    def _copy(self, split: str) -> tuple[Edition, Table | None]:
        """Return the edition in the data folder, and its table if it is one of tables."""
        if split not in self.passport:
            raise UserError(
                f"vqa_rad has no split '{split}'",
                "The official file marks train and test questions only.",
                "Ask for one of these; a validation split is up to you.",
            )
        return find_copy(
            self,
            split,
            _NAMES,
            _FOLDERS,
            conversions={"mevf": (_MEVF[split],)},
            notes=_NOTES,
            look_alike=self._look_alike,
        )

    def _look_alike(self, missing: UserError) -> UserError:
        """Return what to say instead if the folder holds something else under this name."""
        root = Path(self.data).expanduser()
        others = [path for name in _OTHERS for path in root.glob(name)] if self.data else []
        if not others:
            return missing
        return UserError(
            missing.what,
            f"{others[0].name} is there: part of a conversion, or VQA-Med under this name.",
            f"Both score differently; download the official files from {self.source}.",
        )


def _read_mevf(path: Path) -> list[dict[str, Any]]:
    """Read MEVF's rows.

    Raises:
        UserError: the file is broken, or holds VQA-Med's questions in the same form.
    """
    records = read_records(path, (key for key in _KEYS if key != "image_organ"))
    for number, row in enumerate(records, 1):
        named = str(row["image_name"])
        if "image_organ" not in row or not named.startswith("synpic"):
            what = f"is about {named}" if "image_organ" in row else "has no 'image_organ'"
            raise UserError(
                f"{path} is not VQA-RAD",
                f"Entry {number} {what}: most likely VQA-Med, which circulates in this form.",
                "It scores differently; take MEVF's own data_RAD, or the official file.",
            )
    return records


def _id(native: object) -> str:
    return f"vqa_rad-{native}"


def _numbered(split: str, row: int) -> str:
    return f"vqa_rad-{split}-{row}"


def _is_test(row: Mapping[str, Any]) -> bool:
    return str(row["phrase_type"]).strip().startswith("test")


def _text(value: object) -> str:
    """Return a question or answer as one line; some answers are numbers, some hold tabs."""
    return re.sub(r"\s*[\t\r\n]\s*", " ", str(value)).strip()
