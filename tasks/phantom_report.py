"""Short reports of the world in the box: what is in each organ of a drawn image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medbench.errors import UserError
from medbench.task import Sample
from medbench.tasks.phantom import Phantom, sample_of  # pyright: ignore[reportMissingImports]

# What the splits are called among all of the phantom's.
_SPLITS = {"train": "reports_train", "validation": "reports_validation", "test": "reports"}


@dataclass(frozen=True)
class PhantomReport(Phantom):  # pyright: ignore[reportUntypedBaseClass]
    """Short reports of drawn images, one each: the region, then every organ and what is in it.

    It exists so that the metrics of reports have something to score on any laptop. Its sentences
    are few and alike; scores on it say nothing about reports of patients, and clinical metrics have
    nothing to find in them.
    """

    name = "phantom_report"
    version = 1
    metrics = (
        "bleu4/nltk",
        "bleu4/coco",
        "rougeL/google",
        "rougeL/coco",
        "coverage/minmax",
        "intensity/minmax",
        "attention/in_roi",
    )
    passport = {
        "train": {
            "rows": 400,
            "ids": "eb421b0e88608fb95f7a248a09e4782d68332157d15f634034cab687bbb2876c",
        },
        "validation": {
            "rows": 100,
            "ids": "f050a7709e672ca1a6cea70ff52a32ad103eb36a2e5c4c439f74d3cf28edabe0",
        },
        "test": {
            "rows": 200,
            "ids": "6e5615ffaa085e83b18f622e4024640c658a42bb79d3892b8cd3c7fa02779e4d",
        },
    }
    examples = (
        (
            "reports-40000000-0",
            "report",
            "what does the report of the image say?",
            "chest . right lung normal . left lung small hemorrhage . heart normal .",
        ),
        (
            "reports-40001000-0",
            "report",
            "describe the image.",
            "brain . right hemisphere normal . left hemisphere normal . cerebellum normal .",
        ),
    )

    max_new_tokens: int = 48

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the reports of a split; an image is drawn only when it is opened.

        Raises:
            UserError: there is no such split.
        """
        from medbench.phantom.splits import SPLITS, items

        if split not in _SPLITS:
            raise UserError(
                f"{self.name} has no split '{split}'", "", f"Splits: {', '.join(_SPLITS)}."
            )
        yield from map(sample_of, items(SPLITS[_SPLITS[split]]))
