"""SLAKE: questions about CT, MRI and X-ray images, many with the regions they speak of.

The files as published: `train.json`, `validate.json` (or `validation.json`), `test.json`, and
beside them `imgs/xmlabN/source.jpg` with `mask.png` and `detection.json`, decoded by `mask.txt`.

Each language has image-disjoint splits of its own, but 142 test images of one language are
training images of the other: training on both leaks, which is why the language is filtered before
anything else. Of the 1061 English test questions 997 stand word for word in the training split, so
a model can score without looking; the method `blind` shows how far.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medbench.data.closed import is_closed
from medbench.data.find import find_file
from medbench.data.passport import check_passport
from medbench.data.read import read_json, read_records
from medbench.errors import UserError
from medbench.task import Kind, Sample, Task

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
        },
        "validation": {
            "rows": 1053,
            "ids": "ad4cd48a24b708cbd9bee271af139706258eb4b0a3a023e391ac2e5b0a2d58d3",
        },
        "test": {
            "rows": 1061,
            "ids": "9fe6a117a6f834c3954deb52bb3789beabab5acb8e8566de3d8d9ca7f0823705",
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

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the file's order; images are looked for later.

        Raises:
            UserError: a file is missing, broken, or not the official one.
        """
        if split not in _FILES:
            raise UserError(
                f"slake has no split '{split}'",
                "Its files hold train, validation and test.",
                "Ask for one of these.",
            )
        path = find_file(self, _FILES[split], ("Slake1.0", "SLAKE"))
        records = read_records(path, _KEYS)
        asked = [row for row in records if self.language in (row["q_lang"], "all")]
        first, last = _ID_RANGES[split]
        found = {str(row["qid"]) for row in records}
        check_passport(
            self,
            split,
            [_id(row["qid"]) for row in asked],
            gaps=[_id(qid) for qid in range(first, last + 1) if str(qid) not in found],
        )
        annotations = _Annotations(path.parent)
        samples = (self._sample(row, annotations) for row in asked)
        yield from (one for one in samples if one.roi or not self.with_region)

    def expects(self, split: str) -> Mapping[str, Any]:
        """Return what the files must hold in the language asked for."""
        if self.language in _ROWS:
            return {"rows": _ROWS[self.language][split]}
        return super().expects(split)

    def _sample(self, row: Mapping[str, Any], annotations: _Annotations) -> Sample:
        name = str(row["img_name"]).replace("\\", "/")
        image = annotations.images / name
        question, answer = str(row["question"]).strip(), str(row["answer"]).strip()
        answer_type = str(row["answer_type"]).strip().upper()
        region = annotations.region(image, question)
        return Sample(
            id=_id(row["qid"]),
            image=image,
            question=question,
            answer=answer,
            kind=self._kind(answer, answer_type),
            group=name.partition("/")[0],
            roi=region,
            roi_files=annotations.files(image) if region else (),
            meta={
                "native_id": row["qid"],
                "language": row["q_lang"],
                "location": row["location"],
                "modality": row["modality"],
                "answer_type": answer_type,
                "base_type": row.get("base_type", ""),
                "content_type": row.get("content_type", ""),
            },
        )

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
