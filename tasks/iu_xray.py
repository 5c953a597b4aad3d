"""IU X-ray questions: yes or no about chest X-rays, written by a language model (CARES).

The files: `iuxray_factuality.jsonl` of CARES, and R2Gen's images, `images/<id>/0.png`. The
questions and their answers were written by GPT from the reports and not checked: one answer is
empty, one is a question, some say that the report does not tell, and about one in eight is more
than the one word asked for. All of them stay in; `meta` says what each answer holds.

All images are of R2Gen's test studies, those of the task `iu_xray_report`: a model trained here
has seen most images of that test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medbench.data.find import find_file
from medbench.data.open_i import find_images
from medbench.data.passport import check_passport
from medbench.data.read import read_json_lines
from medbench.data.splits import WHOLE, check_split, read_own_split, split_edition, take_split
from medbench.errors import UserError
from medbench.metrics.vqa import verdict
from medbench.task import Edition, Sample, Task

_SPLIT = Path(__file__).with_name("splits") / "iu_xray.json"
_NAME = "iuxray_factuality.jsonl"
_FOLDERS = ("IU-Xray", "IU_Xray", "cares", "data")
_PLACEHOLDER = "<image>"
_NOTE = (
    "Split of our own (7:3 by study); the published one of 1789 and 784 was not released, the "
    "total of 2573 is the same."
)


@dataclass(frozen=True)
class IuXray(Task):
    """IU X-ray: 2573 yes-no questions on 587 chest X-rays, written by GPT (CARES).

    Args:
        gold: what counts as the answer: `cares` is yes or no by CARES's rule, `text` as it stands.
        split_file: JSON file {"train": [...], "test": [...]} of row numbers from 0 or ids, in
            place of our split.

    CARES reads an answer as no if the words No, no or not stand before its first full stop, and
    as yes otherwise, even if it is empty. The published 1789 training and 784 test questions are
    all 2573 of the file and its denominator is all 784, so that every answer was read as yes or
    no; `cares` is the one rule for that which is known. Under `text` an answer such as "No (based
    on the report)." can hardly be met, and about one in eight is of that kind.

    Every question is closed. About 71 % of the answers begin with no: a constant no scores that.

    Of the published split neither ids nor seed were released. Ours is by study: the 590 test
    studies of R2Gen in the order of a hash of their ids, the first 413 for training. Three have no
    question.
    """

    name = "iu_xray"
    paper = "Xia et al. 2024, arXiv:2406.06007; images of Demner-Fushman et al. 2016"
    licence = "CC BY 4.0 (questions, CARES), CC BY-NC-ND 4.0 (images, Open-i)"
    source = (
        "github.com/richard-peng-xia/CARES (questions) and the images of "
        "github.com/cuhksz-nlp/R2Gen (iu_xray)"
    )
    metrics = ("closed/paper", "closed/strict")
    passport = {"train and test": {"rows": 2573}}
    tuning = {"epochs": 6, "align_weight": 0.12, "q_experts": 4, "k_experts": 8, "k_top": 2}
    unkeyed = ("data", "split_file")

    gold: Literal["cares", "text"] = "cares"
    split_file: str = ""

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the file's order; images are looked for later.

        Raises:
            UserError: a file is missing, broken, or not the official one.
        """
        check_split(self, split)
        path = self._questions()
        rows = read_json_lines(path, ("question", "answer", "image"))
        ids = [_id(number) for number in range(len(rows))]
        check_passport(self, WHOLE, ids, expected=self.passport[WHOLE])
        images = find_images(path.parent)
        splits = {
            study: name for name, studies in read_own_split(_SPLIT).items() for study in studies
        }
        samples = [self._sample(number, row, images) for number, row in enumerate(rows)]
        for number, sample in enumerate(samples, 1):
            if sample.group not in splits:
                raise UserError(
                    f"{path} is not the official file",
                    f"Entry {number} is about {sample.group}, no test study of R2Gen's.",
                    f"Download it again ({self.source}).",
                )

        yield from take_split(
            self, split, samples, lambda sample: splits[sample.group], self.split_file
        )

    def edition(self, split: str) -> Edition:
        """Say whose split it is: ours, or the user's.

        Raises:
            UserError: the questions or the user's split are not there.
        """
        return split_edition("cares", [self._questions()], _NOTE, self.split_file)

    def _questions(self) -> Path:
        return find_file(self, (_NAME,), _FOLDERS)

    def _sample(self, number: int, row: Mapping[str, Any], images: Path) -> Sample:
        image = str(row["image"]).replace("\\", "/")
        answer = str(row["answer"]).strip()
        return Sample(
            id=_id(number),
            image=images / image,
            question=str(row["question"]).strip().removesuffix(_PLACEHOLDER).strip(),
            answer=cares_verdict(answer) if self.gold == "cares" else answer,
            kind="closed",
            group=image.partition("/")[0],
            meta={
                "native_id": row.get("question_id"),
                "modality": "X-Ray",
                "location": "Chest",
                "answer_text": answer,
                "answer_says": _says(answer),
            },
        )


def cares_verdict(answer: str) -> Literal["yes", "no"]:
    """Read an answer as yes or no by the rule of CARES's own evaluation."""
    words = answer.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def _says(answer: str) -> str:
    """Say what an answer holds: "yes", "no", "both", "neither", "question" or "empty"."""
    if not answer:
        return "empty"
    return "question" if answer.endswith("?") else verdict(answer)


def _id(number: int) -> str:
    return f"iu_xray-{number}"
