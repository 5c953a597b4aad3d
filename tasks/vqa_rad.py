"""VQA-RAD: questions that clinicians asked about radiology images.

The files as published: `VQA_RAD Dataset Public.json` and the folder `VQA_RAD Image Folder`. A row
is a test question if its `phrase_type` starts with "test", else a training question; the extra
"frame" rows that some conversions add to training (3064 in all) are not in it.

The split is by question, not by image: 202 of the 203 test images are training images too, and
143 test questions are paraphrases of other test questions. Intervals are therefore clustered by
image, and a score on this split says nothing about unseen images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medbench.data.closed import is_closed
from medbench.data.find import find_file
from medbench.data.passport import check_passport
from medbench.data.read import read_records
from medbench.errors import UserError
from medbench.task import Kind, Sample, Task

_NAMES = ("VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json")
_IMAGES = ("VQA_RAD Image Folder", "VQA_RAD_Image_Folder")
_FOLDERS = ("vqa_rad", "vqa-rad")
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
_OTHERS = ("trainset.json", "testset.json", "*VQAMed*", "*VQA-Med*", "*QA_Pairs*.txt")


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
    passport = {
        "train": {
            "rows": 1797,
            "ids": "988849957dc265cdb7a80b391ed9716c0aa40c9bb543f93b4dacd00a9512c5b2",
        },
        "test": {
            "rows": 451,
            "ids": "5ba777a7eb57b4b67469e1e91d0bb2363d4447ad1eca5c062bde52aaaeb719d9",
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

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the file's order; images are looked for later.

        Raises:
            UserError: a file is missing, broken, or not the official one.
        """
        if split not in self.passport:
            raise UserError(
                f"vqa_rad has no split '{split}'",
                "The official file marks train and test questions only.",
                "Ask for one of these; a validation split is up to you.",
            )
        path = self._questions()
        records = read_records(path, _KEYS)
        found = {str(row["qid"]) for row in records}
        asked = [row for row in records if _is_test(row) == (split == "test")]
        check_passport(
            self,
            split,
            [_id(row["qid"]) for row in asked],
            gaps=[_id(qid) for qid in range(_N_ROWS) if str(qid) not in found],
        )
        folders = (path.parent / name for name in _IMAGES)
        images = next((folder for folder in folders if folder.is_dir()), path.parent / _IMAGES[0])
        yield from (self._sample(row, images) for row in asked)

    def _sample(self, row: Mapping[str, Any], images: Path) -> Sample:
        answer = _text(row["answer"])
        answer_type = str(row["answer_type"]).strip().upper()
        image = str(row["image_name"])
        return Sample(
            id=_id(row["qid"]),
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

    def _kind(self, answer: str, answer_type: str) -> Kind:
        return "closed" if is_closed(self.closed_rule, answer, answer_type) else "open"

    def _questions(self) -> Path:
        try:
            return find_file(self, _NAMES, _FOLDERS)
        except UserError as error:
            root = Path(self.data).expanduser()
            others = [path for name in _OTHERS for path in root.glob(name)] if self.data else []
            if not others:
                raise
            raise UserError(
                error.what,
                f"{others[0].name} is there: a conversion, or VQA-Med under this name.",
                f"Both score differently; download the official files from {self.source}.",
            ) from error


def _id(native: object) -> str:
    return f"vqa_rad-{native}"


def _is_test(row: Mapping[str, Any]) -> bool:
    return str(row["phrase_type"]).strip().startswith("test")


def _text(value: object) -> str:
    """Return a question or answer as one line; some answers are numbers, some hold tabs."""
    return re.sub(r"\s*[\t\r\n]\s*", " ", str(value)).strip()
