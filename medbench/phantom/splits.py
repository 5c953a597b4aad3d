"""Which integer seeds make which split; nothing is stored, everything is drawn again.

A split asks every kind equally often. The kind and the wished answer of a slot are fixed first,
and scenes are tried until one can be asked, so that answers are balanced whatever the scenes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medbench.phantom.questions import KINDS, TRAINED_PHRASINGS, Question, ask
from medbench.phantom.stream import Stream
from medbench.phantom.world import REFERENCE, SHIFTED, Scene, Style, lay_out

_TRIES = 1000  # scenes tried for one image of a split
_CYCLE = 20  # wished answers repeat after so many rounds: 3 of 20 are below .15, 10 below .5
_POOL_SEEDS = 1_000_000_000  # training pools start here, above every split
_FIRST = ("count", "organ", "region", "any")  # can be asked together whatever the count is
_ASKING = 1  # keeps the choice of questions apart from the layout drawn from the same seed


@dataclass(frozen=True)
class Split:
    """A set of questions that seeds decide.

    Attributes:
        name: unique; first_seed: seeds up to `first_seed + 1000 * images` belong to it.
        style: how its images look.
        images, questions: number of images and of questions on each.
        new_phrasing: share of questions in a phrasing that the base model was not trained on.
        kinds: asked in turn.
    """

    name: str
    first_seed: int
    style: Style
    images: int
    questions: int
    new_phrasing: float
    kinds: tuple[str, ...] = KINDS

    @property
    def rows(self) -> int:
        """Number of questions."""
        return self.images * self.questions


@dataclass(frozen=True)
class Item:
    """One question of a split; `number` counts the images."""

    id: str
    number: int
    scene: Scene
    question: Question


SPLITS = {
    split.name: split
    for split in (
        Split("train", 10_000_000, SHIFTED, 400, 4, 0.15),
        Split("validation", 20_000_000, SHIFTED, 240, 3, 0.15),
        Split("test", 30_000_000, SHIFTED, 720, 3, 0.15),
        Split("reports", 40_000_000, SHIFTED, 200, 1, 0.0, ("report",)),
        Split("reports_train", 70_000_000, SHIFTED, 400, 1, 0.0, ("report",)),
        Split("reports_validation", 80_000_000, SHIFTED, 100, 1, 0.0, ("report",)),
        Split("reference_validation", 50_000_000, REFERENCE, 400, 3, 0.0),
        Split("reference", 60_000_000, REFERENCE, 720, 3, 0.0),
    )
}


def items(split: Split) -> Iterator[Item]:
    """Yield the questions of a split in their fixed order, without drawing any image."""
    for number in range(split.images):
        slots = [_slot(split, number * split.questions + k) for k in range(split.questions)]
        scene, questions = _find(split, number, slots)
        for k, question in enumerate(questions):
            yield Item(f"{split.name}-{scene.seed}-{k}", number, scene, question)


def pool(build_seed: int, count: int, style: Style = REFERENCE) -> list[Scene]:
    """Return the scenes that a build trains its base model on; disjoint from every split."""
    first = _POOL_SEEDS * (1 + build_seed)
    return [lay_out(first + number, style) for number in range(count)]


def _slot(split: Split, position: int) -> tuple[str, float]:
    """Return the kind asked at a position and the wished answer in [0, 1)."""
    turn, place = divmod(position, len(split.kinds))
    first = [kind for kind in _FIRST if kind in split.kinds]
    rest = [kind for kind in split.kinds if kind not in _FIRST]
    # a new order every round, or the same kinds would always share an image
    order = [*first, *Stream(split.first_seed, turn).several(rest, len(rest))]
    return order[place], (turn % _CYCLE + 0.5) / _CYCLE


def _find(
    split: Split, number: int, slots: list[tuple[str, float]]
) -> tuple[Scene, list[Question]]:
    for attempt in range(_TRIES):
        scene = lay_out(split.first_seed + number * _TRIES + attempt, split.style)
        stream = Stream(_ASKING, scene.seed)
        questions = list[Question]()
        for kind, want in slots:
            new = stream.chance(split.new_phrasing)
            phrasing = TRAINED_PHRASINGS if new else stream.below(TRAINED_PHRASINGS)
            question = ask(scene, kind, stream, phrasing=phrasing, want=want)
            if question is None:
                break
            questions.append(question)
        else:
            return scene, questions
    raise AssertionError(f"no scene for {slots}")
