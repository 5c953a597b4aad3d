"""PathVQA: questions made from the captions of pathology textbooks and of the PEIR library.

The files as published: `pvqa/qas/{train,val,test}/{split}_qa.pkl`, lists of image, question and
answer, and `pvqa/images/{train,val,test}/{split}_NNNN.jpg`. All rows count, the exact duplicates
too (101, 20 and 42). Where the pickles are not there, other copies are read: the authors' files for
LXMERT (`pvqa_test.json`) and A3Tune's conversion (`pvqa/test.json`, `train_copy.json`), which hold
the same rows, and Hugging Face's Parquet files (flaviagiammarino/path-vqa), which do not.

Rows have no ids of their own and are numbered in each file's order, so that equal ids in two copies
need not be one question. Questions are generated and often ungrammatical; they are asked as they
are, with the blanks at their ends cut. Of 3830 distinct pairs of question and answer in test, 1183
stand in training as well. One image in ten is CMYK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbench.data.copies import find_copy
from medbench.data.parquet import Table
from medbench.data.passport import check_passport
from medbench.data.pickles import read_pickled_records
from medbench.data.read import read_records
from medbench.errors import UserError
from medbench.task import Edition, Kind, Sample, Task

# What the files call the splits.
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_FOLDERS = ("pvqa", "PathVQA", "path_vqa", "path-vqa")
_NOTES = {
    "lxmert": "The authors' files for LXMERT: the same questions, numbered in their order.",
    "a3tune": "A3Tune's conversion: the same questions, numbered in its order.",
    "huggingface": "Hugging Face's copy: exact duplicates dropped (6719 of 6761 test questions "
    "left), texts in lower case.",
}
# What other lists of questions that circulate under this name are recognised by.
_OTHERS = {
    "QA_pairs_vb.json": "an older list from the textbooks alone",
    "basic_pathology.json": "questions of one textbook without answers",
    "*_vqa.pkl": "a derived file; the questions are in qas/{train,val,test}/*_qa.pkl",
    "*ans2label.pkl": "a derived file; the questions are in qas/{train,val,test}/*_qa.pkl",
    "*.csv": "a conversion",
    "*.tsv": "a conversion",
    "*.jsonl": "a conversion",
}


@dataclass(frozen=True)
class PathVqa(Task):
    """PathVQA: 6761 test questions on 858 pathology images, generated from captions.

    A question is closed if its answer is yes or no: 3391 of the test questions. The data set has
    no other closed questions, so every rule that tells them gives this published denominator.

    A3Tune's published scripts use 8 weak labels an image (K=8) for this data set and for VQA-RAD,
    its paper says 4.
    """

    name = "pathvqa"
    paper = "He et al. 2020, arXiv:2003.10286"
    licence = "MIT; the images belong to textbook publishers and PEIR"
    source = "https://github.com/UCSD-AI4H/PathVQA"
    metrics = ("closed/paper", "closed/strict", "recall/paper", "recall/strict")
    passport = {
        "train": {
            "rows": 19755,
            "ids": "dc46ac9338b89c834feaf54fc28fc0bbbb28507313bf39fc5e778af61dd1db49",
        },
        "validation": {
            "rows": 6279,
            "ids": "a670eff0fc0175a6a5448d7352afc5507bdede62d521e595ab1efe168c57e456",
        },
        "test": {
            "rows": 6761,
            "ids": "e30838e3c3dcafadc5949b454753446660d2bb7e277e08b365adc6d220fd250a",
        },
    }
    mirrors = {
        "huggingface": {
            "train": {
                "rows": 19654,
                "ids": "27da3e8a6147383cdc13a5fb1e610c55121ae311682b01287c593bbadc0242bb",
            },
            "validation": {
                "rows": 6259,
                "ids": "2436fc5382ab8eff254f4470c31125d5dd035c911dfe4bff8e1df56d1faaff56",
            },
            "test": {
                "rows": 6719,
                "ids": "d1e9d11a044d96bd00c7924988e212053a275ea168f02e639695ebfbeca397e7",
            },
        },
    }
    region_text = (("", "Medical image of pathology. {question}"),)
    region_text_published = (("", "Medical image of pathology.{question}"),)
    tuning = {"epochs": 3, "align_weight": 0.02, "q_experts": 8, "k_experts": 16, "k_top": 3}

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
        rows = _READERS[edition.name](path)
        check_passport(self, split, [_id(split, number) for number in range(len(rows))])
        images = self._images(path)
        for number, row in enumerate(rows):
            # Names say which split's folder an image is in.
            folder = images / row.image.partition("_")[0]
            yield Sample(
                id=_id(split, number),
                image=folder / f"{row.image}.jpg",
                question=row.question,
                answer=row.answer,
                kind=_kind(row.answer),
                group=row.image,
                meta=row.meta,
            )

    def expects(self, split: str) -> Mapping[str, Any]:
        """Return what the files of this edition must hold; conversions hold the official rows."""
        return self.mirrors.get(self.edition(split).name, self.passport).get(split, {})

    def _stored(self, split: str, table: Table) -> Iterator[Sample]:
        """Yield the samples of Hugging Face's files, which hold the images themselves."""
        check_passport(self, split, [_id(split, number) for number in range(table.rows)])
        texts, images = table.texts(("question", "answer")), table.images("image")
        for number, (row, (image, content)) in enumerate(zip(texts, images, strict=True)):
            answer = str(row["answer"]).strip()
            yield Sample(
                id=_id(split, number),
                image=image,
                question=str(row["question"]).strip(),
                answer=answer,
                kind=_kind(answer),
                group=content,
                stamp=content,
            )

    def _copy(self, split: str) -> tuple[Edition, Table | None]:
        """Return the edition in the data folder, and its table if it is one of tables."""
        if split not in _SPLITS:
            raise UserError(
                f"pathvqa has no split '{split}'",
                "Its files hold train, validation (called val) and test.",
                "Ask for one of these.",
            )
        short = _SPLITS[split]
        return find_copy(
            self,
            split,
            (f"qas/{short}/{short}_qa.pkl", f"{short}_qa.pkl"),
            _FOLDERS,
            conversions={
                "lxmert": (f"pvqa_{short}.json",),
                "a3tune": (f"{short}.json", f"{short}_copy.json"),
            },
            notes=_NOTES,
            look_alike=self._look_alike,
        )

    def _images(self, questions: Path) -> Path:
        """Return the folder of images that belongs to a file of questions."""
        home = questions.parent
        if home.parent.name == "qas":
            home = home.parent.parent
        folders = (place / "images" for place in (home, Path(self.data).expanduser()))
        return next((folder for folder in folders if folder.is_dir()), home / "images")

    def _look_alike(self, missing: UserError) -> UserError:
        """Return what to say instead if the folder holds something else under this name."""
        root = Path(self.data).expanduser()
        places = [root, *(root / name for name in ("pvqa", "qas", "pvqa/qas", "data"))]
        for pattern, what in _OTHERS.items():
            for place in places if self.data else ():
                for found in place.glob(pattern):
                    return UserError(
                        missing.what,
                        f"{found.name} is there: {what}.",
                        f"Download the official files from {self.source}.",
                    )
        return missing


@dataclass(frozen=True)
class _Row:
    """A question: the image's name without extension, and what else the file says."""

    image: str
    question: str
    answer: str
    meta: Mapping[str, Any]


def _read_pickle(path: Path) -> list[_Row]:
    records = read_pickled_records(path, ("image", "question", "answer"))
    return [_row(row["image"], row) for row in records]


def _read_a3tune(path: Path) -> list[_Row]:
    records = read_records(path, ("qid", "image_name", "question", "answer"))
    return [_row(row["image_name"], row) for row in records]


def _read_lxmert(path: Path) -> list[_Row]:
    """Read rows grouped by image: questions, and for each of them an answer with its weight."""
    rows: list[_Row] = []
    for number, image in enumerate(read_records(path, ("img_id", "labelf", "sentf")), 1):
        try:
            questions: Sequence[str] = image["sentf"]["pvqa"]
            answers: Sequence[Mapping[str, Any]] = image["labelf"]["pvqa"]
            for question, (answer,) in zip(questions, answers, strict=True):
                rows.append(_row(image["img_id"], {"question": question, "answer": answer}))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is not the authors' file for LXMERT",
                f"Entry {number} has no lists of questions and answers of equal length.",
                "Take qas/*/*_qa.pkl of the official files instead.",
            ) from error
    return rows


_READERS: Mapping[str, Callable[[Path], list[_Row]]] = {
    "official": _read_pickle,
    "lxmert": _read_lxmert,
    "a3tune": _read_a3tune,
}


def _row(image: object, row: Mapping[str, Any]) -> _Row:
    kept = {"qid": "native_id", "answer_type": "answer_type", "question_type": "question_type"}
    return _Row(
        image=str(image).replace("\\", "/").rpartition("/")[2].removesuffix(".jpg"),
        question=str(row["question"]).strip(),
        answer=str(row["answer"]).strip(),
        meta={name: row[key] for key, name in kept.items() if key in row},
    )


def _id(split: str, row: int) -> str:
    return f"pathvqa-{split}-{row}"


def _kind(answer: str) -> Kind:
    return "closed" if answer.lower() in ("yes", "no") else "open"
