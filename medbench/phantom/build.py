"""Make the phantom world's model from nothing: `python -m medbench.phantom.build --out DIR`.

Every schedule counts steps, never seconds, so a seed gives the same weights on the same machine.
The log, `build.json`, goes beside the weights: losses, times, and accuracy by kind beside what
a blind model would score.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch
from transformers import LlavaForConditionalGeneration

from medbench.phantom import world
from medbench.phantom.evaluate import Majority, evaluate, table
from medbench.phantom.model import new_model, read_model, write_model
from medbench.phantom.splits import SPLITS, Split, items, pool
from medbench.phantom.train_language import Corpus, LanguageRecipe, train_language
from medbench.phantom.train_vision import VisionRecipe, draw_all, encode, train_vision

Say = Callable[[str], None]

VALIDATION = ("reference_validation", "validation")
TEST = ("reference", "test")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights beside the seed."""

    images: int = 16_000
    vision: VisionRecipe = VisionRecipe()
    language: LanguageRecipe = LanguageRecipe()

    def scaled(self, factor: float) -> Recipe:
        """Return the recipe with fewer steps and images, to try the path and not the result."""

        def scale(count: int) -> int:
            return max(1, round(count * factor))

        stages = tuple(replace(stage, until=scale(stage.until)) for stage in self.language.stages)
        return Recipe(
            images=max(200, scale(self.images)),
            vision=replace(self.vision, steps=scale(self.vision.steps)),
            language=replace(self.language, stages=stages),
        )


def build(
    folder: Path, *, recipe: Recipe, seed: int, workers: int, splits: Sequence[Split], say: Say
) -> dict[str, Any]:
    """Draw the world, train the model, write it, and measure what was written.

    Args:
        workers: processes that draw; training itself is one thread, for the same result anywhere.
        splits: measured in this order once the weights are written.

    Returns:
        The log, as written to `build.json`.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    clock = Clock()
    scenes = pool(seed, recipe.images)
    pictures = draw_all(scenes, workers)
    clock.lap("draw")
    model = new_model()
    vision_log = train_vision(model, pictures, recipe=recipe.vision, seed=seed, say=say)
    clock.lap("vision")
    corpus = Corpus(scenes, encode(model, pictures.images))
    clock.lap("features")
    language_log = train_language(model, corpus, recipe=recipe.language, seed=seed, say=say)
    write_model(model, folder)
    clock.lap("language")
    log: dict[str, Any] = {
        "world": world.VERSION,
        "seed": seed,
        "recipe": asdict(recipe),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": (folder / "model.safetensors").stat().st_size,
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "vision": vision_log,
        "language": language_log,
        "scores": {},
    }
    written = read_model(folder)
    majority = Majority(scenes)
    for split in splits:
        log["scores"][split.name] = measure(written, split, majority, workers)
        say(f"{split.name}\n{table(log['scores'][split.name])}")
    clock.lap("measure")
    log["seconds"] = clock.laps
    write_log(folder, log)
    return log


def measure(
    model: LlavaForConditionalGeneration, split: Split, majority: Majority, workers: int = 1
) -> dict[str, dict[str, float]]:
    """Return a split's scores by kind (see `medbench.phantom.evaluate.Row`)."""
    asked = list(items(split))
    scenes = list({item.number: item.scene for item in asked}.values())
    return evaluate(model, asked, encode(model, draw_all(scenes, workers).images), majority)


class Clock:
    """Wall and CPU seconds of each part, the CPU's of this process alone."""

    def __init__(self) -> None:
        self.laps: dict[str, dict[str, float]] = {}
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def lap(self, name: str) -> None:
        """Note the time since the last lap under a name."""
        wall, cpu = time.monotonic(), time.process_time()
        self.laps[name] = {"wall": round(wall - self._wall, 1), "cpu": round(cpu - self._cpu, 1)}
        self._wall, self._cpu = wall, cpu


def write_log(folder: Path, log: dict[str, Any]) -> None:
    """Write `build.json` beside the weights."""
    text = json.dumps(log, indent=1)
    (folder / "build.json").write_text(text + "\n", encoding="utf-8")


def _say(text: str) -> None:
    click.echo(text)


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--seed", default=0, show_default=True, help="Of the images, weights and order.")
@click.option("--workers", default=2, show_default=True, help="Processes that draw images.")
@click.option("--scale", default=1.0, show_default=True, help="Share of all step counts.")
@click.option("--test/--no-test", default=True, help="Measure the test splits too, once.")
@click.option("--only-measure", is_flag=True, help="Measure weights already in --out.")
def main(out: Path, seed: int, workers: int, scale: float, test: bool, only_measure: bool) -> None:
    """Build the phantom world's model and its log."""
    names = (*VALIDATION, *TEST) if test else VALIDATION
    if only_measure:
        _measure_again(out, names, workers)
        return
    build(
        out,
        recipe=Recipe() if scale == 1 else Recipe().scaled(scale),
        seed=seed,
        workers=workers,
        splits=[SPLITS[name] for name in names],
        say=_say,
    )


def _measure_again(folder: Path, names: Sequence[str], workers: int) -> None:
    log = json.loads((folder / "build.json").read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    model = read_model(folder)
    majority = Majority(pool(log["seed"], log["recipe"]["images"]))
    for name in names:
        log["scores"][name] = measure(model, SPLITS[name], majority, workers)
        _say(f"{name}\n{table(log['scores'][name])}")
    write_log(folder, log)


if __name__ == "__main__":
    main()
