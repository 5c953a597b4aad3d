"""Make the phantom world's SAM and CLIP from nothing: `python -m medbench.phantom.stand_ins`.

Both are the real libraries' classes, small and trained on drawn images, so that weak labels can be
made and judged on any laptop. Every schedule counts steps, never seconds. The log,
`stand_ins.json`, goes beside the weights: losses, times, how well the SAM finds what is drawn, and
how well the CLIP picks among what it found, always beside a random choice of as many.
"""

from __future__ import annotations

import json
import platform
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
import torch

from medbench.clip import load_clip
from medbench.labels.quality import RIGHT, Ranked, best_iou, overlaps, retrieval
from medbench.labels.rank import score_segments
from medbench.labels.segment import Segmenter, load_sam
from medbench.labels.settings import Ranking, Segmentation
from medbench.phantom import world
from medbench.phantom.build import Clock
from medbench.phantom.clip_examples import BLUR, DIM, Cut, as_pil, question_text
from medbench.phantom.clip_model import write_clip
from medbench.phantom.draw import draw, lesion_mask, organ_mask, region_mask
from medbench.phantom.questions import KINDS
from medbench.phantom.splits import SPLITS, Item, Split, items, pool
from medbench.phantom.train_clip import ClipRecipe, train_towers
from medbench.phantom.train_sam import SamRecipe, train_sam, write_sam
from medbench.phantom.world import REFERENCE, SHIFTED, Scene

Say: TypeAlias = Callable[[str], None]
Numbers: TypeAlias = dict[str, Any]

# Thresholds as A3Tune publishes them, sizes for images a quarter as wide. Parts of an image are not
# looked at again: they take twice as long, and this SAM has never seen an enlarged part.
SEGMENTATION = Segmentation(
    sam="phantom",
    side=world.SIZE,
    points_per_side=8,
    points_per_batch=64,
    pred_iou_thresh=0.5,
    stability_score_thresh=0.5,
    box_nms_thresh=0.8,
    crop_n_layers=0,
    min_mask_region_area=12,
    max_area=2500,
    min_side=3,
)
RANKING = Ranking(clip="phantom", prompt="blur", blur=BLUR, dim=DIM, text="task")
FIRSTS = (1, 2, 4)  # how many masks of a ranking are looked at
_WORDINGS = {"with region": True, "question alone": False}
_LOG = "stand_ins.json"
_PACKAGES = ("torch", "torchvision", "segment_anything", "open_clip_torch", "transformers", "numpy")
# Base models are built from the pools of small numbers; what is drawn here starts above.
_FIRST_POOL, _POOLS = 1000, 6


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights beside the seed.

    Attributes:
        sam_shifted, clip_shifted: shares of the images that look like the splits downstream.
        looks: images that the CLIP's vision tower learns from; cuts: those whose segments it is
            taught to rank.
    """

    sam: SamRecipe = SamRecipe()
    clip: ClipRecipe = ClipRecipe()
    segmentation: Segmentation = SEGMENTATION
    sam_shifted: float = 0.6
    clip_shifted: float = 0.75
    looks: int = 12_000
    cuts: int = 2_500

    def scaled(self, factor: float) -> Recipe:
        """Return the recipe with fewer steps and images, to try the path and not the result."""

        def scale(count: int) -> int:
            return max(2, round(count * factor))

        return replace(
            self,
            sam=replace(self.sam, steps=scale(self.sam.steps)),
            clip=replace(
                self.clip,
                alone_steps=scale(self.clip.alone_steps),
                steps=scale(self.clip.steps),
            ),
            # a SAM as poor as this one would find nothing to rank
            segmentation=replace(
                self.segmentation,
                points_per_side=4,
                pred_iou_thresh=0.0,
                stability_score_thresh=0.0,
            ),
            looks=scale(self.looks),
            cuts=scale(self.cuts),
        )


def build(
    folder: Path,
    *,
    recipe: Recipe,
    seed: int,
    splits: Sequence[Split],
    keep_sam: bool = False,
    say: Say,
) -> Numbers:
    """Train both, write them, and measure what was written.

    Args:
        splits: measured in this order once the weights are written.
        keep_sam: train the CLIP alone, on the segments of the SAM that is already in the folder.

    Returns:
        The log, as written to `stand_ins.json`.
    """
    torch.set_num_threads(1)
    clock = Clock()
    log: Numbers = _read_log(folder) if keep_sam else {"seconds": {}}
    log |= {
        "world": world.VERSION,
        "seed": seed,
        "recipe": asdict(recipe),
        "versions": {name: version(name) for name in _PACKAGES},
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "scores": {},
    }
    if not keep_sam:
        scenes = mixed(seed, 0, recipe.sam.steps * recipe.sam.images, recipe.sam_shifted)
        sam, log["sam"] = train_sam(scenes, recipe=recipe.sam, seed=seed, say=say)
        write_sam(sam, folder / "sam")
        log["sam_parameters"] = sum(one.numel() for one in sam.parameters())
        clock.lap("sam")
        _write_log(folder, log, clock)
    segmenter = Segmenter(load_sam(folder / "sam"), recipe.segmentation)
    cuts = [cut(scene, segmenter) for scene in mixed(seed, 2, recipe.cuts, recipe.clip_shifted)]
    say(f"segments of {len(cuts)} images: {sum(len(one.segments) for one in cuts)}")
    clock.lap("segments")
    looks = mixed(seed, 4, recipe.looks, recipe.clip_shifted)
    clip, log["clip"] = train_towers(looks, cuts, recipe=recipe.clip, seed=seed, say=say)
    write_clip(clip, folder / "clip")
    log["clip_parameters"] = sum(one.numel() for one in clip.parameters())
    clock.lap("clip")
    _write_log(folder, log, clock)
    measure_all(folder, log, splits, say)
    clock.lap("measure")
    _write_log(folder, log, clock)
    return log


def mixed(seed: int, number: int, count: int, shifted: float) -> list[Scene]:
    """Return scenes of both styles, from pools that no split and no base model is drawn from.

    Args:
        number: of the first of two pools, below the number of all pools of a seed.
        shifted: share of the shifted style.
    """
    first = _FIRST_POOL + _POOLS * seed + number
    many = round(count * shifted)
    return [*pool(first, many, SHIFTED), *pool(first + 1, count - many, REFERENCE)]


def cut(scene: Scene, segmenter: Segmenter) -> Cut:
    """Draw a scene and cut it into segments."""
    image = draw(scene)
    return Cut(scene, image, segmenter(as_pil(image)))


def measure_all(folder: Path, log: Numbers, splits: Sequence[Split], say: Say) -> None:
    """Measure what a folder holds on some splits, and note it in the log."""
    log["bytes"] = {
        name: sum(path.stat().st_size for path in (folder / name).iterdir())
        for name in ("sam", "clip")
    }
    settings = Segmentation(**log["recipe"]["segmentation"])
    segmenter = Segmenter(load_sam(folder / "sam"), settings)
    clip = load_clip(folder / "clip")
    for split in splits:
        asked = list(items(split))
        scenes = {item.number: item.scene for item in asked}
        cuts = {number: cut(scene, segmenter) for number, scene in scenes.items()}
        log["scores"][split.name] = {
            "sam": segment_scores(list(cuts.values())),
            "clip": rank_scores(clip, asked, cuts),
        }
        say(f"{split.name}\n{table(log['scores'][split.name])}")


def segment_scores(cuts: Sequence[Cut]) -> Numbers:
    """Return the IoU of the best mask with each organ and lesion, in the mean, by name.

    Each entry holds the count `n`, the mean `iou` and the share `right` of those above one half.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for one in cuts:
        for organ in one.scene.organs:
            iou = best_iou(one.segments, organ_mask(one.scene, organ.name))
            for name in ("organs", organ.name):
                found[name].append(iou)
        for lesion in one.scene.lesions:
            iou = best_iou(one.segments, lesion_mask(lesion))
            for name in ("lesions", lesion.type, f"{lesion.size} lesions"):
                found[name].append(iou)
    scores: Numbers = {
        name: {
            "n": len(ious),
            "iou": round(float(np.mean(ious)), 4),
            "right": round(float((np.array(ious) > RIGHT).mean()), 4),
        }
        for name, ious in sorted(found.items())
    }
    counts = [len(one.segments) for one in cuts]
    scores["masks"] = {
        "n": len(cuts),
        "mean": round(float(np.mean(counts)), 2),
        "least": min(counts),
    }
    return scores


def rank_scores(clip: Any, asked: Sequence[Item], cuts: dict[int, Cut]) -> Numbers:
    """Return `Retrieval` by wording, k and kind of what a CLIP ranks; see `quality`."""
    ranked: defaultdict[tuple[str, str], list[Ranked]] = defaultdict(list)
    for number, one in cuts.items():
        about = [item for item in asked if item.number == number]
        texts = {
            (item.id, wording): question_text(item.scene, item.question, prefix=prefix)
            for item in about
            for wording, prefix in _WORDINGS.items()
        }
        pixels = np.asarray(as_pil(one.image))
        given = score_segments(clip, pixels, one.segments, list(texts.values()), RANKING)
        scores = dict(zip(texts, given.astype(float), strict=True))
        for item in about:
            region = region_mask(item.scene, item.question.organs, item.question.lesions)
            ious = overlaps(one.segments, region)
            for wording in _WORDINGS:
                found = Ranked(ious, scores[item.id, wording])
                ranked[wording, "all"].append(found)
                ranked[wording, item.question.kind].append(found)
    return {
        wording: {
            f"first {k}": {kind: _counted(ranked[wording, kind], k) for kind in ("all", *KINDS)}
            for k in FIRSTS
        }
        for wording in _WORDINGS
    }


def table(scores: Numbers) -> str:
    """Return a split's scores as text, in percent."""
    lines = [
        f"{name:<18}{row['n']:>6}{100 * row['iou']:>8.1f}{100 * row['right']:>8.1f}"
        for name, row in scores["sam"].items()
        if name != "masks"
    ]
    lines.append(f"masks {scores['sam']['masks']}")
    for wording, firsts in scores["clip"].items():
        for first, kinds in firsts.items():
            for kind, row in kinds.items():
                if not row["n"] or (kind != "all" and first != f"first {FIRSTS[0]}"):
                    continue
                shares = ("hit", "chance", "ceiling", "hit_matched", "chance_matched")
                values = "".join(f"{100 * row[share]:>8.1f}" for share in shares)
                lines.append(
                    f"{wording:<15}{first:<8}{kind:<10}{row['n']:>6}{row['matched']:>6}{values}"
                )
    return "\n".join(lines)


def _counted(questions: Sequence[Ranked], k: int) -> Numbers:
    if not questions:
        return {"n": 0}
    return {name: round(value, 4) for name, value in asdict(retrieval(questions, k)).items()}


def _read_log(folder: Path) -> Numbers:
    return json.loads((folder / _LOG).read_text(encoding="utf-8"))


def _write_log(folder: Path, log: Numbers, clock: Clock) -> None:
    log["seconds"] = log.pop("seconds") | clock.laps  # last, as in the base model's log
    text = json.dumps(log, indent=1)
    (folder / _LOG).write_text(text + "\n", encoding="utf-8")


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--seed", default=0, show_default=True, help="Of the images, weights and order.")
@click.option("--scale", default=1.0, show_default=True, help="Share of all step counts.")
@click.option("--test/--no-test", default=True, help="Measure the test split too, once.")
@click.option("--keep-sam", is_flag=True, help="Train the CLIP alone, on the SAM already in --out.")
@click.option("--only-measure", is_flag=True, help="Measure weights already in --out.")
def main(
    out: Path, seed: int, scale: float, test: bool, keep_sam: bool, only_measure: bool
) -> None:
    """Build the phantom world's SAM and CLIP and their log."""
    names = ("validation", "test") if test else ("validation",)
    splits = [replace(SPLITS[n], images=max(4, round(SPLITS[n].images * scale))) for n in names]
    out.mkdir(parents=True, exist_ok=True)
    if only_measure:
        torch.set_num_threads(1)
        log, clock = _read_log(out), Clock()
        measure_all(out, log, splits, click.echo)
        _write_log(out, log, clock)
        return
    build(
        out,
        recipe=Recipe() if scale == 1 else Recipe().scaled(scale),
        seed=seed,
        splits=splits,
        keep_sam=keep_sam,
        say=click.echo,
    )


if __name__ == "__main__":
    main()
