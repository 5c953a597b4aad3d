"""What `medbench new` writes; NAME, Title and WORDS stand for the name in three forms.

The lines fit into 88 columns, and medbench's imports stand among the others: so a project that
has ruff and no settings of its own finds nothing to change.
"""

DECODER = '''"""WORDS: contrast with a blurred image."""

from dataclasses import dataclass

from medbench.decoding.contrast import Contrast
from torch.nn.functional import avg_pool2d


@dataclass(frozen=True)
class Title(Contrast):
    """Subtract what the model says of a blurred image.

    scores = (1 + alpha) z - alpha z_blurred, where z(y) >= max z + ln beta.

    Args:
        alpha: weight of the contrast; 0 is greedy decoding.
        width: of the blur in pixels, an odd number.
    """

    name = "NAME"
    needs = ("pixels",)

    alpha: float = 1.0
    width: int = 3

    def __post_init__(self):
        super().__post_init__()
        if self.width < 1 or self.width % 2 == 0:
            raise ValueError("width is an odd number of pixels")

    def negative_prompts(self, prompts, context):
        """Return the prompts with features of the blurred image."""
        pixels = context.pixel_values
        assert pixels is not None  # it needs them
        blurred = avg_pool2d(pixels, self.width, stride=1, padding=self.width // 2)
        features = context.backbone.encode(blurred)
        return [p.with_features(f) for p, f in zip(prompts, features, strict=True)]

    def contrasted(self, main, negative, step):
        """Subtract what the blurred image says, [rows, vocabulary]."""
        return (1 + self.alpha) * main - self.alpha * negative
'''

DECODER_TEST = '''"""WORDS: what every decoder keeps to, and its own arithmetic."""

import torch
from medbench.contract.decoders import DecoderContract
from medbench.decoding.generate import create_decoder


class TestContract(DecoderContract):
    """The tests that every decoder must pass."""

    name = "NAME"


def test_it_subtracts_half_of_what_the_blurred_image_says():
    decoder = create_decoder("NAME[alpha=0.5,beta=0]")
    main, negative = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 3.0]])
    scores = decoder.combine({"main": main, "negative": negative}, 0)
    assert scores.tolist() == [[2.5, 0.0]]
'''

TUNER = '''"""WORDS: LoRA that is also trained to look at the image."""

from dataclasses import dataclass

from medbench.method import Tuner


@dataclass(frozen=True)
class Title(Tuner):
    """LoRA that is also trained to attend to the image while it answers.

    loss = language + look_weight * (1 - a)^2, where a is the share of attention that
    falls on the image, the mean over layers, heads and the queries that make the answer.

    Args:
        look_weight: of the added loss; 0 is plain LoRA.
    """

    name = "NAME"
    needs = ("training", "attention", "image_span")

    look_weight: float = 0.1

    def queries(self, batch):
        """Read the attention of the positions whose next token is an answer's."""
        return batch.generating if self.look_weight else None

    def auxiliary(self, view):
        """Return the added loss of each sample, [samples]."""
        if view.attention is None or view.valid is None:
            return {}
        share = view.attention.sum(-1).mean((1, 2))  # [samples, queries]
        real = view.valid.float()
        on_image = (share * real).sum(1) / real.sum(1).clamp(min=1)
        return {"look": self.look_weight * (1 - on_image) ** 2}
'''

TUNER_TEST = '''"""WORDS: what every tuner keeps to, and its own arithmetic."""

from types import SimpleNamespace

import torch
from medbench import plugins, spec
from medbench.contract.tuners import TunerContract


class TestContract(TunerContract):
    """The tests that every tuner must pass."""

    name = "NAME"


def test_half_of_the_attention_on_the_image_is_half_of_what_is_wanted():
    _, tuner = plugins.create("method", spec.parse("NAME[look_weight=2]"))
    # One sample, layer and head; the last of three queries is padding; two visual tokens.
    attention = torch.tensor([[[[[0.5, 0.5], [0.0, 0.0], [9.0, 9.0]]]]])
    valid = torch.tensor([[True, True, False]])
    view = SimpleNamespace(attention=attention, valid=valid)
    assert tuner.auxiliary(view)["look"].tolist() == [2 * 0.5**2]
'''

TASK = '''"""WORDS: questions about images, read from JSON lines.

DIR/train.jsonl, DIR/test.jsonl   one question a line, such as
    {"id": "q1", "image": "a.png", "question": "is it a lung?", "answer": "yes"}
DIR/images/                       the images that they name
"""

from collections.abc import Iterator
from dataclasses import dataclass

from medbench.data.find import find_file
from medbench.data.read import read_json_lines
from medbench.task import Sample, Task


@dataclass(frozen=True)
class Title(Task):
    """Questions about images, open ones and such with yes or no."""

    name = "NAME"
    licence = "unknown"
    source = "an address where the files can be had"
    metrics = ("closed/strict", "recall/strict")

    max_new_tokens: int = 64

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in the file's order; images are opened later."""
        path = find_file(self, [f"{split}.jsonl"], [self.name])
        for row in read_json_lines(path, ["id", "image", "question", "answer"]):
            answer = str(row["answer"]).strip()
            yield Sample(
                id=str(row["id"]),
                image=path.parent / "images" / row["image"],
                question=str(row["question"]).strip(),
                answer=answer,
                kind="closed" if answer.lower() in ("yes", "no") else "open",
                group=str(row["image"]),
                meta={"modality": row.get("modality", "")},
            )
'''

TASK_TEST = '''"""WORDS: what every task keeps to, and how it reads its files."""

import json

import medbench
import pytest
from medbench.contract.tasks import TaskContract
from PIL import Image

ROWS = [
    {"id": "1", "image": "a.png", "question": "is it a lung?", "answer": "Yes"},
    {"id": "2", "image": "a.png", "question": "what is it?", "answer": "a lung "},
    {"id": "3", "image": "b.png", "question": "is it large?", "answer": "no"},
]


@pytest.fixture
def files(tmp_path):
    """Return a folder with three questions on two images in each split."""
    folder = tmp_path / "files"
    (folder / "images").mkdir(parents=True)
    for split in ("train", "test"):
        rows = [row | {"image": f"{split}-{row['image']}"} for row in ROWS]
        lines = [json.dumps(row) for row in rows]
        (folder / f"{split}.jsonl").write_text("\\n".join(lines), encoding="utf-8")
        for row in rows:
            image = Image.new("RGB", (30, 20), (9, 90, 200))
            image.save(folder / "images" / row["image"])
    return folder


class TestContract(TaskContract):
    """The tests that every task must pass, on the files above."""

    name = "NAME"

    @pytest.fixture
    def data(self, files):
        return files


def test_it_reads_what_is_written(files):
    first, second, _ = medbench.load_task("NAME", data=files).samples("test")
    assert (first.id, first.kind, first.answer) == ("1", "closed", "Yes")
    assert (second.kind, second.answer) == ("open", "a lung")
    assert first.group == second.group == "test-a.png"
'''
