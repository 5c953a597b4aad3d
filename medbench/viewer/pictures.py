"""The images that the samples ask about, made small, and the regions on them, from the task's data.

What is not there, or is not what the runs saw, is left out and counted.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, features

from medbench.counting import counted
from medbench.data.pictures import open_image
from medbench.errors import UserError
from medbench.figures import placement
from medbench.figures.placement import Fit
from medbench.metrics.attention import decode_mask
from medbench.restricted import withholding
from medbench.run_images import digest_of, name, read_asked
from medbench.task import Sample
from medbench.viewer.chosen import Chosen
from medbench.viewer.joined import Joined
from medbench.viewer.outline import outline, shrunk

# What reading an image or a mask out of a file, an archive or a table may raise.
_UNREADABLE = (UserError, OSError, ValueError, SyntaxError, EOFError, LookupError)
# Regions of a run that tell how its backbone places images.
_TELLING = 20
_QUALITY = 80

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Picture:
    """An image made small.

    Attributes:
        width, height: of the picture; whole: of the image as the runs saw it.
        digest: of that image's pixels.
        kind, data: "webp" or "jpeg", and the file in base64.
    """

    width: int
    height: int
    whole: tuple[int, int]
    digest: str
    kind: str
    data: str


@dataclass
class Found:
    """What there is to see.

    Attributes:
        pictures: each image once.
        of: sample -> its picture's place in them.
        regions: sample -> the path around its region, in its picture's pixels.
        fits: how each run's backbone places images, or why that is not known; the latter matters
            for images that are no squares only.
        missing: why something is left out -> how many images or regions are.
    """

    pictures: list[Picture] = field(default_factory=list[Picture])
    of: dict[str, int] = field(default_factory=dict[str, int])
    regions: dict[str, str] = field(default_factory=dict[str, str])
    fits: list[Fit | UserError] = field(default_factory=list["Fit | UserError"])
    missing: Counter[str] = field(default_factory=Counter[str])


def look(
    chosen: Sequence[Chosen],
    samples: Sequence[Joined],
    *,
    data: str,
    fit: Fit | None,
    size: int,
    step: Callable[[int, int], None],
) -> Found:
    """Return the pictures of samples and the regions on them, as far as the data are there.

    Args:
        chosen: runs; the first one says where the data are, unless `data` does.
        data: folder of the task's files; "" for the one that the run read.
        fit: how the backbones place images, where it cannot be found out.
        size: longest side of a picture in pixels.
        step: called with the samples whose images are open, and their number.
    """
    found = Found()
    try:
        task, known = read_asked(chosen[0].run, data)
    except UserError as error:
        why = " ".join(f"{line.rstrip('.')}." for line in error.lines()[:2])
        found.missing[f"the image; {why} Name the folder of the data: --data DIR"] = len(samples)
        return found
    by_id = {sample.id: sample for sample in known}
    telling: list[list[Pair]] = [[] for _ in chosen]
    with withholding(task, known):
        places = _open_all(samples, by_id, found, size=size, step=step)
        digests = {picture.digest for picture in found.pictures}
        for joined in samples:
            place = places[joined.id]
            if isinstance(place, int) and not _seen(joined, found.pictures[place], digests):
                place = "the image; it has other pixels than the one that the runs saw."
            if isinstance(place, str):
                found.missing[place] += 1
                continue
            found.of[joined.id] = place
            _add_region(joined, by_id[joined.id], found, telling)
        shown = [found.pictures[place].whole for place in set(found.of.values())]
        squares = all(width == height for width, height in shown)
        found.fits = [
            placement.OF_SQUARES if squares else fit or _fit(one, pairs)
            for one, pairs in zip(chosen, telling, strict=True)
        ]
    return found


def box(fit: Fit, whole: tuple[int, int]) -> list[float] | None:
    """Return where a patch grid lies on an image: left, top, width, height as shares of its sides.

    None where it covers the image.
    """
    width, height = whole
    left, right, bottom, top = placement.extent(fit, width, height)
    if (left, right, bottom, top) == (0, width, height, 0):
        return None
    sides = (left / width, top / height, (right - left) / width, (bottom - top) / height)
    return [round(side, 5) for side in sides]


def told(missing: Mapping[str, int]) -> list[str]:
    """Return a line for each reason why pictures or regions are left out."""
    return [f"Left out for {counted(count, 'sample')}: {why}" for why, count in missing.items()]


def _open_all(
    samples: Sequence[Joined],
    by_id: Mapping[str, Sample],
    found: Found,
    *,
    size: int,
    step: Callable[[int, int], None],
) -> dict[str, int | str]:
    """Make a picture of each image; return where each sample's is, or why it has none."""
    images: dict[str, int | str] = {}  # the same by the image's name
    places: dict[str, int | str] = {}
    for at, joined in enumerate(samples, start=1):
        sample = by_id.get(joined.id)
        if sample is None:
            places[joined.id] = "the image; the data do not have the sample."
            continue
        key = name(sample)
        if key not in images:
            try:
                image = open_image(sample.image)
            except _UNREADABLE as error:
                images[key] = f"the image; it cannot be read ({type(error).__name__})."
            else:
                images[key] = len(found.pictures)
                found.pictures.append(_small(image, size))
        places[joined.id] = images[key]
        step(at, len(samples))
    return places


def _seen(joined: Joined, picture: Picture, digests: Collection[str]) -> bool:
    """Say whether a picture is of the data that the runs read, as far as their answers tell.

    A method may give a sample another one's image: its pixels are others, but among the data's.
    """
    seen = {row["image"] for row in joined.answers if row is not None and "image" in row}
    return not seen or picture.digest in seen or not seen.isdisjoint(digests)


def _small(image: Image.Image, size: int) -> Picture:
    whole, digest = image.size, digest_of(image)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    kind = "webp" if features.check("webp") else "jpeg"
    file = io.BytesIO()
    image.save(file, kind, quality=_QUALITY)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(*image.size, whole, digest, kind, data)


def _add_region(
    joined: Joined, sample: Sample, found: Found, telling: Sequence[list[Pair]]
) -> None:
    """Add the outline of a sample's region, and what it tells of each run's patch grid."""
    if sample.roi is None:
        return
    picture = found.pictures[found.of[joined.id]]
    try:
        mask = np.asarray(sample.roi(), bool)
    except _UNREADABLE as error:
        found.missing[f"the region; it cannot be read ({type(error).__name__})."] += 1
        return
    if mask.shape != picture.whole[::-1]:
        found.missing["the region; it is not of the image's size."] += 1
        return
    found.regions[joined.id] = outline(shrunk(mask, picture.width, picture.height))
    if mask.shape[0] != mask.shape[1]:
        for row, pairs in zip(joined.answers, telling, strict=True):
            if row is not None and "roi" in row and len(pairs) < _TELLING:
                pairs.append((mask, decode_mask(row["roi"])))


def _fit(one: Chosen, pairs: Sequence[Pair]) -> Fit | UserError:
    if not any("attention" in row for row in one.rows.values()):
        return placement.OF_SQUARES  # nothing is to be placed
    try:
        return placement.only(pairs, one.run.backbone)
    except UserError as error:
        return error


def other_image(row: Mapping[str, Any], picture: Picture) -> bool:
    """Say whether an answer is about another image, as where a method swaps them."""
    return row.get("image", picture.digest) != picture.digest
