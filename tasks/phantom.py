"""The world in the box: drawn images with lesions, questions in a dozen kinds, exact RoIs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from medbench.errors import UserError
from medbench.task import Kind, Sample, Task

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from medbench.phantom.splits import Item
    from medbench.phantom.world import Scene

# How reports of real tasks name the question types that these kinds correspond to.
_TYPES = {
    "exist": "abnormality",
    "organ": "organ",
    "normal": "abnormality",
    "any": "abnormality",
    "region": "modality",
    "what": "abnormality",
    "where": "position",
    "size": "size",
    "type_size": "size",
    "count": "quantity",
    "choice": "abnormality",
    "height": "position",
    "report": "report",
}


@dataclass(frozen=True)
class Phantom(Task):
    """Drawn chest, abdomen and brain images; needs no files and proves nothing about medicine.

    Splits: "train", "validation" and "test" look different from what the base model was trained
    on (faint lesions, rare types, artefacts); "reference" looks the same; "reports" asks for
    reports. RoIs are the lesion asked about, or the organs one has to search.
    """

    name = "phantom"
    version = 1
    licence = "as medbench itself"
    source = "medbench.phantom"
    offers = ("roi",)
    metrics = (
        "closed/paper",
        "closed/strict",
        "recall/paper",
        "recall/strict",
        "coverage/sum",
        "coverage/minmax",
        "intensity/sum",
        "intensity/minmax",
        "attention/in_roi",
    )
    passport = {
        "train": {
            "rows": 1600,
            "ids": "fac477c58f37eb997061bdb5cabb1b2827851d3808a2643dc22dc780988fe637",
        },
        "validation": {
            "rows": 720,
            "ids": "5eb4288c8bd1b4c46ab3eb33fc068861f9ca57d5c63bf4f2e3d6aea857af5a29",
        },
        "test": {
            "rows": 2160,
            "ids": "3fe337732aba513fc615f19fe11ec651c7f6a47409aea0cc16d28c657b402ea0",
        },
        "reports": {
            "rows": 200,
            "ids": "6e5615ffaa085e83b18f622e4024640c658a42bb79d3892b8cd3c7fa02779e4d",
        },
        "reference_validation": {
            "rows": 1200,
            "ids": "5b419129e53936e0d53ca7f9d7aaa48a408cbcfb3e6ada75f2d437033f36febc",
        },
        "reference": {
            "rows": 2160,
            "ids": "82cd8b49f65e894a996d37a050cdf0f46d9c83ce76ae4db2222770181f6ef9a4",
        },
    }
    examples = (
        ("test-30000001-0", "open", "how many lesions are in the image?", "three"),
        ("test-30000001-1", "closed", "does the image show the cerebellum?", "yes"),
    )
    tuning = {
        "rank": 16,
        "alpha": 32.0,
        "dropout": 0.0,
        "learning_rate": 2e-3,
        "epochs": 3,
        "batch_size": 32,
        "micro_batch": 32,
        "align_weight": 0.1,
        "K": 1,
        "expert": "open_clip",
        "attention_weight": 0.1,
        "R": 6,
        "q_experts": 4,
        "k_experts": 8,
        "k_top": 2,
        "expert_rank": 8,
        "expert_alpha": 16.0,
    }
    supervision = {
        "open_clip": {"weights": "phantom"},
        # The published settings in this world's pixels. Its segments are few, and shown in place:
        # a crop could not tell left from right.
        "sam_biomedclip": {
            "sam": "phantom",
            "clip": "phantom",
            "side": 64,
            "crop_n_layers": 0,
            "min_mask_region_area": 12,
            "max_area": 2500,
            "min_side": 3,
            "prompt": "blur",
            "blur": 2.0,
            "dim": 0.35,
        },
    }

    max_new_tokens: int = 24

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the questions of a split; an image is drawn only when it is opened.

        Raises:
            UserError: there is no such split.
        """
        from medbench.phantom.splits import SPLITS, items

        if split not in self.passport:
            raise UserError(
                f"phantom has no split '{split}'", "", f"Splits: {', '.join(self.passport)}."
            )
        for item in items(SPLITS[split]):
            yield sample_of(item)


def sample_of(item: Item) -> Sample:
    """Return the sample of a question; its image is drawn when it is opened."""
    from medbench.phantom.questions import CLOSED
    from medbench.phantom.world import MODALITY, VERSION

    scene, question = item.scene, item.question
    kind: Kind = "closed" if question.kind in CLOSED else "open"
    return Sample(
        id=item.id,
        image=partial(_image, scene),
        question=question.text,
        answer=question.answer,
        kind="report" if question.kind == "report" else kind,
        group=item.id.rpartition("-")[0],
        stamp=f"phantom {VERSION} {scene.style} {scene.seed}",
        roi=partial(_roi, scene, question.organs, question.lesions),
        meta={
            "kind_name": question.kind,
            "question_type": _TYPES[question.kind],
            "phrasing": question.phrasing,
            "modality": MODALITY[scene.region],
            "location": scene.region,
            "seed": scene.seed,
        },
    )


def _image(scene: Scene) -> Image:
    from PIL import Image

    from medbench.phantom.draw import draw

    return Image.fromarray(draw(scene)).convert("RGB")


def _roi(scene: Scene, organs: tuple[str, ...], lesions: tuple[int, ...]) -> np.ndarray:
    from medbench.phantom.draw import region_mask

    return region_mask(scene, organs, lesions)
