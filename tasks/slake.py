"""SLAKE: questions about CT, MRI and X-ray images, many with the regions they speak of.

The files as published: `train.json`, `validate.json` (or `validation.json`), `test.json`, and
beside them `imgs/xmlabN/source.jpg` with `mask.png` and `detection.json`, decoded by `mask.txt`.
Where these are not there, Parquet files from Hugging Face are read: conversions of the same rows,
with the images beside them, and copies that hold the images themselves (OctoMed/SLAKE and others).
Of these copies only image, question and answer are sure; what else they have is taken.

Each language has image-disjoint splits of its own, but 142 test images of one language are
training images of the other: training on both leaks, which is why the language is filtered before
anything else. Of the 1061 English test questions 997 stand word for word in the training split, so
a model can score without looking; the method `blind` shows how far.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medbench.data.closed import is_closed
from medbench.data.copies import find_copy
from medbench.data.parquet import Table, find_table
from medbench.data.passport import check_passport
from medbench.data.read import read_json, read_records
from medbench.errors import UserError
from medbench.task import Edition, Kind, Sample, Task

if TYPE_CHECKING:
    import numpy as np

_FILES = {
    "train": ("train.json",),
    "validation": ("validate.json", "validation.json"),
    "test": ("test.json",),
}
_KEYS = ("qid", "img_name", "question", "answer", "q_lang", "answer_type", "location", "modality")
# First and last of the data set's own ids, which run through without a gap over all languages.
_ID_RANGES = {"train": (0, 9834), "validation": (9835, 11933), "test": (11934, 14027)}
# Rows by language; English has a passport with ids as well.
_ROWS = {
    "zh": {"train": 4916, "validation": 1046, "test": 1033},
    "all": {"train": 9835, "validation": 2099, "test": 2094},
}
_FOLDERS = ("Slake1.0", "SLAKE")
_OPTIONAL = ("base_type", "content_type")
# What copies with their own images may tell beside question and answer.
_TOLD = ("qid", "q_lang", "answer_type", "location", "modality", *_OPTIONAL)
_NOTES = {
    "huggingface": "Hugging Face's conversion to Parquet of the official questions.",
    "embedded": "A copy in Parquet with the images inside, of which only the counts are checked; "
    "rows numbered, no regions.",
    "merged": "A copy in Parquet with the images inside, of which only the counts are checked; "
    "rows numbered, no regions, and no validation split: such copies have it in training.",
}
_SIDES = frozenset(("left", "right"))

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Slake(Task):
    """SLAKE 1.0: 1061 English test questions on 96 CT, MRI and X-ray images, with regions.

    Args:
        language: of the questions; filtered before splits are counted.
        closed_rule: which questions are closed: `paper`, `dataset` or `yesno`; the rest is open.
        with_region: only the questions that have a region (A3Tune's Figure 4).

    Under `paper` a question is closed if the data set calls it so and its answer holds yes or no:
    355 of the English test questions, the published denominator; `yesno` gives the same. Under
    `dataset` it is what the data set calls closed: 416. Only `dataset` knows closed questions in
    Chinese.

    A question has a region if the name of an annotated organ or disease of its image stands in
    it: the mask's pixels of that label, or the label's box where the mask has none. "Lung" means
    both lungs, "left lung" one. The join by name follows the published description; the annotation
    itself links no region to a question.
    """

    name = "slake"
    paper = "Liu et al. 2021, arXiv:2102.09542"
    licence = "CC BY 4.0"
    source = "https://www.med-vqa.com/slake or huggingface.co/datasets/BoKelvin/SLAKE"
    offers = ("roi",)
    metrics = (
        "closed/paper",
        "closed/strict",
        "recall/paper",
        "recall/strict",
        "coverage/minmax",
        "coverage/sum",
        "intensity/minmax",
        "intensity/sum",
        "attention/in_roi",
    )
    passport = {
        "train": {
            "rows": 4919,
            "ids": "6d24aa1e0274210c730ac2df216beac4fcbaa52e6fc31a3a296d1741024bf738",
            "questions": "3e16e14b06a9230456488cf8fe521f72b5f228340dd14e6dd7d8cb2d916c3450",
        },
        "validation": {
            "rows": 1053,
            "ids": "ad4cd48a24b708cbd9bee271af139706258eb4b0a3a023e391ac2e5b0a2d58d3",
            "questions": "5a4e1716bdb01ecc0dd33d1fd57dce2c1087703a4a74a0baea57a0d4c0392a51",
        },
        "test": {
            "rows": 1061,
            "ids": "9fe6a117a6f834c3954deb52bb3789beabab5acb8e8566de3d8d9ca7f0823705",
            "questions": "d4cd5b39bf4449979a75fde3451799292e4356227ef867806763d0b34e07d907",
        },
    }
    mirrors = {
        "embedded": {
            "train": {
                "rows": 4919,
                "ids": "c495e98efe358f226bf6d05bda26325885c85b7bf82fd499e13ec9c295a6a69a",
            },
            "validation": {
                "rows": 1053,
                "ids": "bae6c55c412feb184250f7d53b9d4dbd2cb8b0e9ccb81189712d9b99f2748e4e",
            },
            "test": {
                "rows": 1061,
                "ids": "fc47e599be87075b86b8cb701282d6b6945f12726d457c464e434ace14b00749",
            },
        },
        "merged": {
            "train": {
                "rows": 5972,
                "ids": "7fff0354f8a5f55ad91714d58ab2e2c0cf4b1e4f7ad0732825ea8678d1e38584",
            },
            "test": {
                "rows": 1061,
                "ids": "fc47e599be87075b86b8cb701282d6b6945f12726d457c464e434ace14b00749",
            },
        },
    }
    region_text = (
        ("chest", "Medical image of {location} and lungs. {question}"),
        ("abd", "Medical image of abdomen. {question}"),
        ("", "Medical image of {location}. {question}"),
    )
    region_text_published = (
        ("chest", "Medical image of {location} and lungs. {question}"),
        ("abd", "Medical imgaing of abdomen.{question}"),
        ("", "Medical image of {location}.{question}"),
    )
    tuning = {"epochs": 6, "align_weight": 0.1, "q_experts": 8, "k_experts": 16, "k_top": 3}

    language: Literal["en", "zh", "all"] = "en"
    closed_rule: Literal["paper", "dataset", "yesno"] = "paper"
    with_region: bool = False

    def edition(self, split: str) -> Edition:
        """Say which copy lies in the data folder; the official one before any mirror.

        Raises:
            UserError: none that is known.
        """
        return self._copy(split)[0]

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the file's order; images are looked for later.

        Raises:
            UserError: a file is missing, broken, or not the official one.
        """
        edition, table = self._copy(split)
        if edition.name in ("embedded", "merged") and table is not None:
            yield from self._stored(split, table)
            return
        path = edition.files[0]
        if table is None:
            records, home = read_records(path, _KEYS), path.parent
        else:
            records, home = list(table.texts(_KEYS, _OPTIONAL)), self._home(path)
        asked = [row for row in records if self.language in (row["q_lang"], "all")]
        first, last = _ID_RANGES[split]
        found = {str(row["qid"]) for row in records}
        check_passport(
            self,
            split,
            [_id(row["qid"]) for row in asked],
            gaps=[_id(qid) for qid in range(first, last + 1) if str(qid) not in found],
        )
        annotations = _Annotations(home)
        samples = (self._sample(row, annotations) for row in asked)
        yield from (one for one in samples if one.roi or not self.with_region)

    def expects(self, split: str) -> Mapping[str, Any]:
        """Return what the files must hold in the language asked for."""
        name = self.edition(split).name
        if self.language in _ROWS:
            rows = _ROWS[self.language]
            validation = rows["validation"] if (name, split) == ("merged", "train") else 0
            return {"rows": rows[split] + validation}
        return self.mirrors.get(name, self.passport).get(split, {})

    def name_region(self, sample: Sample, *, published: bool = False) -> str:
        """Return the text that a sample's segments are compared with.

        In a copy that does not say what an image shows, it is the question alone.
        """
        if not sample.meta.get("location"):
            return sample.question
        return super().name_region(sample, published=published)

    def _sample(self, row: Mapping[str, Any], annotations: _Annotations) -> Sample:
        name = str(row["img_name"]).replace("\\", "/")
        image = annotations.images / name
        question, answer = str(row["question"]).strip(), str(row["answer"]).strip()
        region = annotations.region(image, question)
        return Sample(
            id=_id(row["qid"]),
            image=image,
            question=question,
            answer=answer,
            kind=self._kind(answer, _answer_type(row)),
            group=name.partition("/")[0],
            roi=region,
            roi_files=annotations.files(image) if region else (),
            meta=_meta(row),
        )

    def _stored(self, split: str, table: Table) -> Iterator[Sample]:
        """Yield the samples of a copy that holds the images itself."""
        rows = list(table.texts(("question", "answer"), _TOLD))
        self._check_copy(table, rows)
        asked = [self.language in (row.get("q_lang", "en"), "all") for row in rows]
        check_passport(self, split, [_numbered(split, number) for number in range(sum(asked))])
        kept = (
            (row, image, content)
            for row, wanted, (image, content) in zip(
                rows, asked, table.images("image"), strict=True
            )
            if wanted
        )
        for number, (row, image, content) in enumerate(kept):
            answer = str(row["answer"]).strip()
            yield Sample(
                id=_numbered(split, number),
                image=image,
                question=str(row["question"]).strip(),
                answer=answer,
                kind=self._kind(answer, _answer_type(row)),
                group=content,
                stamp=content,
                meta=_meta(row),
            )

    def _check_copy(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Check that a copy with its own images has what the parameters ask for.

        Raises:
            UserError: languages, answer types or regions are asked for and not there.
        """
        official = f"the official files from {self.source}."
        has = f"Its columns are {', '.join(table.columns)}."
        if self.language != "en" and "q_lang" not in table.columns:
            raise UserError(
                f"slake cannot tell which questions are language={self.language} here",
                has,
                f"Take language=en, or {official}",
            )
        typed = all(_answer_type(row) in ("OPEN", "CLOSED") for row in rows)
        if self.closed_rule != "yesno" and not typed:
            raise UserError(
                f"slake cannot tell closed questions by closed_rule={self.closed_rule} here",
                f"The rule asks for answer types, OPEN or CLOSED. {has}",
                f"Take closed_rule=yesno (355 of test), or {official}",
            )
        if self.with_region:
            raise UserError(
                "slake has no regions here",
                "They are files beside the images, which lie in the table here.",
                f"Take {official}",
            )

    def _copy(self, split: str) -> tuple[Edition, Table | None]:
        """Return the edition in the data folder, and its table if it is one of tables."""
        if split not in _FILES:
            raise UserError(
                f"slake has no split '{split}'",
                "Its files hold train, validation and test.",
                "Ask for one of these.",
            )
        edition, table = find_copy(self, split, _FILES[split], _FOLDERS, notes=_NOTES)
        if table is not None and "image" in table.columns:
            name = "embedded" if find_table(self, "validation", _FOLDERS) else "merged"
            edition = replace(edition, name=name, note=_NOTES[name])
        return edition, table

    def _home(self, shard: Path) -> Path:
        """Return the folder that the images of a conversion are in or below."""
        root = Path(self.data).expanduser()
        above = [folder for folder in shard.parents if folder.is_relative_to(root)]
        found = (one for one in above if (one / "imgs").is_dir() or _has_folders(one))
        return next(found, root)

    def _kind(self, answer: str, answer_type: str) -> Kind:
        return "closed" if is_closed(self.closed_rule, answer, answer_type) else "open"


@dataclass(frozen=True)
class Region:
    """A question's region, read from mask and boxes when called.

    Attributes:
        image: the picture, whose size the region has.
        mask: the picture's label image; need not exist.
        labels: for each label its grey values in the mask, and its boxes (x, y, width, height).
    """

    image: Path
    mask: Path
    labels: tuple[tuple[tuple[int, ...], tuple[Box, ...]], ...]

    def __call__(self) -> np.ndarray:
        """Return the region as bool [height, width] in the picture's own pixels.

        Raises:
            UserError: picture or mask cannot be read.
        """
        import numpy as np

        from medbench.data.pictures import open_image

        width, height = open_image(self.image).size
        region = np.zeros((height, width), dtype=bool)
        greys = _greys(self.mask, (width, height)) if self.mask.is_file() else None
        for values, boxes in self.labels:
            drawn = None if greys is None else np.isin(greys, values)
            if drawn is not None and drawn.any():
                region |= drawn
                continue
            for left, top, across, down in boxes:
                # Whole pixels that the box touches; a box may stick out of the picture.
                rows = slice(max(int(top), 0), max(int(np.ceil(top + down)), 0))
                columns = slice(max(int(left), 0), max(int(np.ceil(left + across)), 0))
                region[rows, columns] = True
        return region


class _Annotations:
    """Images and regions beside the questions; each file is looked at once."""

    def __init__(self, folder: Path) -> None:
        inner = folder / "imgs"
        self.images = inner if inner.is_dir() or not _has_folders(folder) else folder
        self._legend = folder / "mask.txt"
        self._values = _mask_values(self._legend)
        self._boxes: dict[Path, dict[str, tuple[Box, ...]]] = {}
        self._files: dict[Path, tuple[Path, ...]] = {}

    def files(self, image: Path) -> tuple[Path, ...]:
        """Return the files that regions of an image are read from, those that exist."""
        if image not in self._files:
            own = (image.parent / "mask.png", image.parent / "detection.json", self._legend)
            self._files[image] = tuple(path for path in own if path.is_file())
        return self._files[image]

    def region(self, image: Path, question: str) -> Region | None:
        """Return the region that a question names; None if it names nothing annotated."""
        boxes = self._boxes.get(image.parent)
        if boxes is None:
            boxes = self._boxes[image.parent] = self._labels(image)
        labels = labels_in(question, list(boxes))
        if not labels:
            return None
        parts = tuple((self._values.get(_words(label), ()), boxes[label]) for label in labels)
        return Region(image, image.parent / "mask.png", parts)

    def _labels(self, image: Path) -> dict[str, tuple[Box, ...]]:
        detection, mask = image.parent / "detection.json", image.parent / "mask.png"
        if detection in self.files(image):
            return read_boxes(detection)
        if not self._values or mask not in self.files(image):
            return {}
        # Without boxes, the grey values that occur say which labels there are.
        import numpy as np

        occurring = set(np.unique(_greys(mask, None)).tolist())
        return {
            " ".join(label): ()
            for label, values in self._values.items()
            if occurring.intersection(values)
        }


def labels_in(question: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that a question names, in the order given.

    Words are compared without case and plural s. A label with a side ("Left Lung") is also named
    by its organ alone ("lung") where no side stands before it. A name inside a longer one that is
    annotated as well ("lung" in "lung cancer") does not count.
    """
    asked = _words(question)
    spans: list[tuple[int, int, str]] = []
    for label in labels:
        full = _words(label)
        organ = tuple(word for word in full if word not in _SIDES)
        spans += [(start, start + len(full), label) for start in _places(full, asked)]
        if organ and organ != full:
            spans += [
                (start, start + len(organ), label)
                for start in _places(organ, asked)
                if start == 0 or asked[start - 1] not in _SIDES
            ]
    named = {
        label
        for start, stop, label in spans
        if not any(
            low <= start and stop <= high and high - low > stop - start for low, high, _ in spans
        )
    }
    return [label for label in labels if label in named]


def read_boxes(path: Path) -> dict[str, tuple[Box, ...]]:
    """Read a `detection.json`: label -> boxes (x, y, width, height) in pixels of the image.

    Raises:
        UserError: the file is broken or of another form.
    """
    content = read_json(path)
    boxes: dict[str, tuple[Box, ...]] = {}
    try:
        for entry in content:
            for label, box in entry.items():
                left, top, width, height = (float(number) for number in box)
                boxes[label] = (*boxes.get(label, ()), (left, top, width, height))
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no boxes",
            "Expected a list of objects, label -> [x, y, width, height].",
            "Unpack the official imgs.zip again.",
        ) from error
    return boxes


def _id(native: object) -> str:
    return f"slake-{native}"


def _numbered(split: str, row: int) -> str:
    return f"slake-{split}-{row}"


def _answer_type(row: Mapping[str, Any]) -> str:
    return str(row.get("answer_type", "")).strip().upper()


def _meta(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "native_id": row.get("qid", ""),
        "language": row.get("q_lang", "en"),
        "location": row.get("location", ""),
        "modality": row.get("modality", ""),
        "answer_type": _answer_type(row),
        "base_type": row.get("base_type", ""),
        "content_type": row.get("content_type", ""),
    }


def _words(text: str) -> tuple[str, ...]:
    # The s is cut from both sides of a comparison, so that it need not be a plural's.
    return tuple(word.removesuffix("s") for word in re.findall(r"[a-z0-9]+", text.lower()))


def _places(phrase: tuple[str, ...], text: tuple[str, ...]) -> list[int]:
    size = len(phrase)
    return [at for at in range(len(text) - size + 1) if size and text[at : at + size] == phrase]


def _has_folders(folder: Path) -> bool:
    return any(path.is_dir() for path in folder.glob("xmlab*"))


def _mask_values(path: Path) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Read `mask.txt`, one `grey value:label` a line; lines of another form are not labels."""
    values: dict[tuple[str, ...], tuple[int, ...]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            number, colon, label = line.partition(":")
            if colon and number.strip().isdecimal() and _words(label):
                key = _words(label)
                values[key] = (*values.get(key, ()), int(number))
    return values


def _greys(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Read a mask's grey values [height, width], brought to `size` by nearest neighbour."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as opened:
            mask = opened.convert("RGB") if opened.mode == "P" else opened.copy()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise UserError(
            f"cannot read the mask {path}",
            f"{type(error).__name__}: the file is cut off, damaged, or not an image.",
            "Unpack the official imgs.zip again.",
        ) from error
    if size is not None and mask.size != size:
        mask = mask.resize(size, Image.Resampling.NEAREST)
    greys = np.asarray(mask)
    # Stored with three equal channels.
    return greys[..., 0] if greys.ndim == 3 else greys
