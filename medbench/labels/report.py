"""What came out of labelling: counts, and how good it is where the right regions are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from medbench import images
from medbench.labels.quality import Ranked, Retrieval, overlaps, retrieval
from medbench.labels.sheet import Tile
from medbench.provider import Region
from medbench.task import Sample

Labelled = Sequence[tuple[Sample, Sequence[Region]]]
_NAMED = 5  # samples without a region that are named


def figures(whole: Labelled, k: int) -> dict[str, Any]:
    """Return the figures of labelled samples as they are printed and written as JSON.

    Args:
        whole: samples with all of their regions; k: how many are kept at most.
    """
    found = [len(regions) for _, regions in whole]
    areas = [float(one.mask.mean()) for _, regions in whole for one in regions[:k]]
    without = [sample.name for sample, regions in whole if not regions]
    return {
        **counts([sample for sample, _ in whole]),
        "with_region": len(whole) - len(without),
        "without_region": without,
        "k": k,
        "regions_mean": float(np.mean(found)) if found else 0.0,
        "regions_most": max(found, default=0),
        "area_mean": float(np.mean(areas)) if areas else None,
        "quality": _quality(whole, k),
    }


def counts(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the number of samples, and of pictures they are about."""
    return {"samples": len(samples), "pictures": len({images.name(one) for one in samples})}


def describe(told: dict[str, Any]) -> Iterator[str]:
    """Yield lines that tell a person the figures."""
    yield f"{told['labels']} on {told['task']}, {told['split']}"
    yield f"  {told['samples']} samples about {told['pictures']} pictures"
    if told["missing_images"]:
        yield f"  {told['missing_images']} samples lack their image and are left out"
    if "with_region" not in told:
        yield "  all of them were looked at"
        return
    share = told["with_region"] / max(told["samples"], 1)
    yield f"  with a region      {100 * share:6.2f} %  ({told['with_region']})"
    if without := told["without_region"]:
        more = ", ..." if len(without) > _NAMED else ""
        yield f"  without            {len(without)}: {', '.join(without[:_NAMED])}{more}"
    yield f"  regions a picture  {told['regions_mean']:6.2f}  at most {told['regions_most']}"
    if told["area_mean"] is not None:
        yield f"  area of those kept {100 * told['area_mean']:6.2f} % of the image, on average"
    for name, one in told["quality"].items():
        yield (
            f"  {name:<18} {100 * one['hit_matched']:6.2f} %  of {one['matched']} questions with a "
            f"matching segment; random {100 * one['chance_matched']:.2f}"
        )
        yield (
            f"  {'':<18} {100 * one['hit']:6.2f} %  of all {one['n']} with a ground-truth region; "
            f"random {100 * one['chance']:.2f}, ceiling {100 * one['ceiling']:.2f}"
        )
    for name in ("npz", "view"):
        if told.get(name):
            yield f"  {told[name]}"


def tiles(labelled: Labelled) -> list[Tile]:
    """Return what a contact sheet shows of labelled samples."""
    return [
        Tile(
            images.opened(sample),
            f"{sample.id}: {sample.question}",
            regions,
            sample.roi() if sample.roi else None,
        )
        for sample, regions in labelled
    ]


def _quality(whole: Labelled, k: int) -> dict[str, Any]:
    """Return how often the first masks are right, where regions have scores and truth is known."""
    ranked = [_ranked(sample, found) for sample, found in whole if sample.roi is not None]
    known = [one for one in ranked if one is not None]
    if not known or not any(len(one.ious) for one in known):
        return {}
    return {
        f"right in top {most}": _as_dict(retrieval(known, most)) for most in dict.fromkeys((1, k))
    }


def _ranked(sample: Sample, found: Sequence[Region]) -> Ranked | None:
    assert sample.roi is not None
    if any(one.score is None for one in found):
        return None
    truth = sample.roi()
    if not truth.any():
        return None
    if not found:
        return Ranked(np.zeros(0), np.zeros(0))
    masks = np.stack([one.mask for one in found])
    size = (masks.shape[2], masks.shape[1])
    fitted = Image.fromarray(truth.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
    scores = np.array([float(one.score or 0.0) for one in found])
    return Ranked(overlaps(masks, np.asarray(fitted) > 127), scores)


def _as_dict(one: Retrieval) -> dict[str, Any]:
    return dict(vars(one))
