"""A CLIP of open_clip's own classes learns which segment of an image a question is about.

First each tower learns alone: the vision tower from dense labels, half of the images whole and half
with one segment left sharp, the text tower what is asked. Then both learn to rank an image's
segments, as a segmenter found them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from medbench.clip import CONFIG, WEIGHTS
from medbench.labels.present import present
from medbench.labels.quality import RIGHT, overlaps
from medbench.phantom.draw import Mask, draw, lesion_mask, organ_mask, region_mask
from medbench.phantom.model import DEVIATION, GRID, MEAN, PATCH, SPECIAL, vocabulary
from medbench.phantom.questions import KINDS, PHRASINGS, Question, ask
from medbench.phantom.stream import Stream
from medbench.phantom.train_sam import optimizers
from medbench.phantom.train_vision import MAPS, cosine_after_warmup, jitter, patch_labels
from medbench.phantom.world import LESIONS, ORGAN_NAMES, SIZE, Scene

Bytes: TypeAlias = npt.NDArray[np.uint8]
Report: TypeAlias = Callable[[str], None]
Log: TypeAlias = list[dict[str, float]]

PREFIX = "medical image of {region} . {question}"
BLUR, DIM = 2.0, 0.35  # how what is outside a segment is shown
_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
_CONTEXT = 32
_EMBEDDING, _WIDTH, _VISION_LAYERS, _TEXT_LAYERS, _HEADS = 64, 96, 4, 2, 4
_NAMES = (*ORGAN_NAMES, *LESIONS)
_ASKED_ALONE, _ASKED = 3, 4  # keep these questions apart from those of the splits
_NOTED = 100  # steps a line of the log


@dataclass(frozen=True)
class ClipRecipe:
    """Step counts and rates.

    Attributes:
        alone_steps: of the first stage; alone_images: images a step, and as many questions.
        steps, images, questions: of the second: images a step, and questions tried on each.
        alone_rate, rate: of AdamW in the first and the second stage.
        alone_matrix_rate, matrix_rate: of Muon, for the matrices inside.
        lesion_weight: of a positive label of a lesion's type or size.
    """

    alone_steps: int = 1200
    alone_images: int = 16
    steps: int = 1600
    images: int = 6
    questions: int = 8
    alone_rate: float = 3e-3
    alone_matrix_rate: float = 0.02
    rate: float = 2e-3
    matrix_rate: float = 0.015
    warmup: int = 50
    lesion_weight: float = 3.0


@dataclass(frozen=True)
class Cut:
    """A scene, its grey image, uint8 [64, 64], and its segments, bool [segments, 64, 64]."""

    scene: Scene
    image: Bytes
    segments: Mask


def clip_config() -> dict[str, Any]:
    """Return the description that open_clip reads; the text tower's tokenizer stands beside it."""
    return {
        "model_cfg": {
            "embed_dim": _EMBEDDING,
            "custom_text": True,
            "vision_cfg": {
                "image_size": SIZE,
                "patch_size": PATCH,
                "width": _WIDTH,
                "layers": _VISION_LAYERS,
                "head_width": _WIDTH // _HEADS,
            },
            "text_cfg": {
                "context_length": _CONTEXT,
                "vocab_size": len(clip_vocabulary()),
                "width": _WIDTH,
                "heads": _HEADS,
                "layers": _TEXT_LAYERS,
                "pool_type": "eos",
                "eos_id": _TOKENS.index("[SEP]"),
                "pad_id": _TOKENS.index("[PAD]"),
                # any name will do: open_clip takes the tokenizer from the model's own folder
                "hf_tokenizer_name": "phantom",
            },
        },
        "preprocess_cfg": {
            "size": SIZE,
            "mean": [MEAN] * 3,
            "std": [DEVIATION] * 3,
            "interpolation": "bicubic",
            # the default would cut the ends off elongated segments
            "resize_mode": "squash",
        },
    }


def clip_vocabulary() -> tuple[str, ...]:
    """Return every token of the text tower: the special ones first."""
    return (*_TOKENS, *sorted({*vocabulary()[len(SPECIAL) :], "medical"}))


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer: lower case, split at blanks and punctuation."""
    ids = {word: index for index, word in enumerate(clip_vocabulary())}
    core = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=_CONTEXT,
        padding_side="right",
    )


def new_clip() -> Any:
    """Return an untrained CLIP of the shipped size."""
    from open_clip import CustomTextCLIP  # type: ignore[import-untyped]

    config = dict(clip_config()["model_cfg"])
    config.pop("custom_text")
    return CustomTextCLIP(**config)


def train_towers(
    scenes: Sequence[Scene],
    cuts: Sequence[Cut],
    *,
    recipe: ClipRecipe,
    seed: int,
    say: Report,
) -> tuple[Any, Log]:
    """Train a CLIP; return it with the log.

    Args:
        scenes: of the first stage; cuts: segmented scenes, of the second.
    """
    torch.manual_seed(seed)
    model = new_clip().train()
    heads = _Heads()
    log = _train_alone(model, heads, scenes, recipe, seed, say)
    log += _train_ranking(model, heads, cuts, recipe, seed, say)
    return model.eval().requires_grad_(False), log


class _Heads(nn.Module):
    """What reads labels off the towers during training, and is thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(_WIDTH, len(MAPS))
        self.image = nn.Linear(_EMBEDDING, len(MAPS))
        self.names = nn.Linear(_EMBEDDING, len(_NAMES))
        self.kind = nn.Linear(_EMBEDDING, len(KINDS))


def shown(image: Bytes, mask: Mask | None) -> Bytes:
    """Return a grey image with one segment left sharp, as the CLIP is shown it; None: whole."""
    if mask is None:
        return image
    pixels = np.repeat(image[..., None], 3, axis=-1)
    return np.asarray(present(pixels, mask, how="blur", blur=BLUR, dim=DIM))[..., 0]


def labels_inside(labels: Bytes, mask: Mask | None) -> npt.NDArray[np.float32]:
    """Return a scene's patch labels, [64, maps] in [0, 1], of what a segment leaves sharp."""
    whole = labels.astype(np.float32) / np.float32(255)
    if mask is None:
        return whole
    cover = mask.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3), dtype=np.float32).reshape(-1, 1)
    return (whole * np.minimum(2 * cover, 1)).astype(np.float32)


def segment_labels(scene: Scene, mask: Mask) -> npt.NDArray[np.float32]:
    """Return what a segment is, [maps]: the organ or lesion it fits, with the lesion's place."""
    labels = np.zeros(len(MAPS), np.float32)
    for lesion in scene.lesions:
        if overlaps(mask[None], lesion_mask(lesion))[0] > RIGHT:
            for name in (lesion.type, lesion.size, lesion.organ):
                labels[MAPS.index(name)] = 1
            return labels
    for organ in scene.organs:
        if overlaps(mask[None], organ_mask(scene, organ.name))[0] > RIGHT:
            labels[MAPS.index(organ.name)] = 1
    return labels


def question_text(scene: Scene, question: Question, *, prefix: bool) -> str:
    """Return what the text tower is given."""
    if not prefix:
        return question.text
    return PREFIX.format(region=scene.region, question=question.text)


def names_in(text: str) -> npt.NDArray[np.bool_]:
    """Return which organs and types of lesion a text names, bool [names]."""
    return np.array([name in text for name in _NAMES])


def ranking_loss(
    similarity: Tensor, right: Tensor, same_image: Tensor, nothing_shared: Tensor
) -> Tensor:
    """Return how badly questions find their segments.

    A question's segments compete with the others of their image and with those of other images
    that share no name with the question; whether the rest would fit it too is not known.

    Args:
        similarity: scaled, [questions, segments]; the others: bool of the same shape.
    """
    allowed = same_image | nothing_shared
    against = similarity.masked_fill(~allowed, -torch.inf).logsumexp(1)
    found = similarity.masked_fill(~right, -torch.inf).logsumexp(1)
    return (against - found).mean()


def write_clip(model: Any, folder: Path) -> None:
    """Write a folder for open_clip's `local-dir:`, its weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(clip_config(), indent=1)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    weights = {name: one.half().contiguous() for name, one in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS[0])
    clip_tokenizer().save_pretrained(folder)


def _train_alone(
    model: Any,
    heads: _Heads,
    scenes: Sequence[Scene],
    recipe: ClipRecipe,
    seed: int,
    say: Report,
) -> Log:
    """First stage: patches and images say what they show, texts what they ask about."""
    rates = recipe.alone_rate, recipe.alone_matrix_rate
    training = _Training(model, heads, rates, recipe.warmup, recipe.alone_steps, say)
    generator = np.random.default_rng((seed, 1))
    noise = torch.Generator().manual_seed(seed)
    tokenizer = clip_tokenizer()
    for step in range(1, recipe.alone_steps + 1):
        rows = generator.integers(len(scenes), size=recipe.alone_images)
        images, dense = list[Bytes](), list[npt.NDArray[np.float32]]()
        stream = Stream(_ASKED_ALONE, seed, step)
        texts, kinds = list[str](), list[int]()
        for place, row in enumerate(rows):
            scene = scenes[int(row)]
            mask = _some_mask(scene, generator) if place % 2 else None
            images.append(shown(draw(scene), mask))
            dense.append(labels_inside(patch_labels(scene), mask))
            if question := _question(scene, stream):
                texts.append(question_text(scene, question, prefix=stream.chance(0.5)))
                kinds.append(KINDS.index(question.kind))
        labels = torch.from_numpy(np.stack(dense))
        patches, embedding = _look(model, images, noise)
        losses = {
            "dense": _label_loss(heads.patches(patches), labels, recipe),
            "image": _label_loss(heads.image(embedding), labels.amax(1), recipe),
        }
        if texts:
            asked = model.encode_text(_ids(tokenizer, texts))
            names = torch.from_numpy(np.stack([names_in(text) for text in texts])).float()
            losses |= {
                "names": nn.functional.binary_cross_entropy_with_logits(heads.names(asked), names),
                "kind": nn.functional.cross_entropy(heads.kind(asked), torch.tensor(kinds)),
            }
        training.step("alone", step, losses)
    return training.log


def _train_ranking(
    model: Any, heads: _Heads, cuts: Sequence[Cut], recipe: ClipRecipe, seed: int, say: Report
) -> Log:
    """Second stage: a question's embedding is nearest that of its segment.

    The labels of the first stage stay; those of whole images keep features and attention good
    where nothing is blurred.
    """
    rates = recipe.rate, recipe.matrix_rate
    training = _Training(model, heads, rates, recipe.warmup, recipe.steps, say)
    generator = np.random.default_rng((seed, 2))
    noise = torch.Generator().manual_seed(seed)
    tokenizer = clip_tokenizer()
    usable = [cut for cut in cuts if len(cut.segments)]
    for step in range(1, recipe.steps + 1 if usable else 1):
        rows = generator.permutation(len(usable))[: recipe.images]
        whole = [usable[int(row)] for row in rows]
        batch = _Batch(whole, recipe, Stream(_ASKED, seed, step))
        if not batch.texts:
            continue
        patches, embedding = _look(model, [*batch.images, *(cut.image for cut in whole)], noise)
        held = np.stack([labels_inside(patch_labels(cut.scene), None) for cut in whole])
        labels = torch.from_numpy(held)
        of_images = torch.cat([batch.segment_labels, labels.amax(1)])
        asked = model.encode_text(_ids(tokenizer, batch.texts))
        count = len(batch.images)
        texts = nn.functional.normalize(asked)
        segments = nn.functional.normalize(embedding[:count])
        similarity = model.logit_scale.exp() * texts @ segments.T
        losses = {
            "rank": ranking_loss(similarity, batch.right, batch.same, batch.nothing_shared),
            "dense": _label_loss(heads.patches(patches[count:]), labels, recipe),
            "image": _label_loss(heads.image(embedding), of_images, recipe),
            "names": nn.functional.binary_cross_entropy_with_logits(
                heads.names(asked), batch.names.float()
            ),
        }
        training.step("rank", step, losses)
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100)))
    return training.log


class _Training:
    """The optimisers of a stage with their schedule and its log."""

    def __init__(
        self,
        model: Any,
        heads: _Heads,
        rates: tuple[float, float],
        warmup: int,
        steps: int,
        say: Report,
    ) -> None:
        self.log: Log = []
        self._steps, self._say = steps, say
        self._parameters = [*model.parameters(), *heads.parameters()]
        inside = [model.visual.transformer, model.text.transformer]
        self._optimizers = optimizers([model, heads], inside, rate=rates[0], matrix_rate=rates[1])
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                one, lambda step: cosine_after_warmup(step, warmup, steps)
            )
            for one in self._optimizers
        ]
        self._sums: dict[str, float] = {}
        self._since = 0
        self._start = time.process_time()

    def step(self, stage: str, step: int, losses: dict[str, Tensor]) -> None:
        """Take a step down the sum of some losses, and note their means now and then."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            schedule.step()
        self._since += 1
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss.item()
        if step % _NOTED == 0 or step == self._steps:
            means = {name: round(total / self._since, 4) for name, total in self._sums.items()}
            seconds = round(time.process_time() - self._start, 1)
            self.log.append({"step": step, **means, "cpu_seconds": seconds})
            self._say(f"clip {stage} {self.log[-1]}")
            self._sums, self._since = {}, 0


class _Batch:
    """The segments and questions of some images, and which belong together.

    Attributes:
        images: one a segment, as shown; segment_labels: what each is, [segments, maps].
        texts: of questions that one of their image's segments answers; names: in each of them.
        right, same, nothing_shared: bool [texts, segments], as `ranking_loss` takes them.
    """

    def __init__(self, cuts: Sequence[Cut], recipe: ClipRecipe, stream: Stream) -> None:
        self.images: list[Bytes] = []
        self.texts: list[str] = []
        labels, owners = list[npt.NDArray[np.float32]](), list[int]()
        asked, right = list[int](), list[npt.NDArray[np.bool_]]()
        for number, cut in enumerate(cuts):
            self.images += [shown(cut.image, mask) for mask in cut.segments]
            labels += [segment_labels(cut.scene, mask) for mask in cut.segments]
            owners += [number] * len(cut.segments)
            for text, fits in _questions(cut, recipe.questions, stream):
                self.texts.append(text)
                asked.append(number)
                right.append(fits)
        self.segment_labels = torch.from_numpy(np.stack(labels))
        self.same = torch.tensor(asked)[:, None] == torch.tensor(owners)
        self.right = torch.zeros(self.same.shape, dtype=torch.bool)
        self.right[self.same] = torch.from_numpy(np.concatenate([*right, np.zeros(0, bool)]))
        names = np.array([names_in(text) for text in self.texts], bool).reshape(-1, len(_NAMES))
        self.names = torch.from_numpy(names)
        shared = self.names.float() @ self.segment_labels[:, : len(_NAMES)].T > 0
        # what names nothing may be about any segment of another image
        self.nothing_shared = self.names.any(1, keepdim=True) & ~shared


def _questions(cut: Cut, count: int, stream: Stream) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Return texts with the segments that are right for them, of those where any is."""
    found = list[tuple[str, npt.NDArray[np.bool_]]]()
    for _ in range(count):
        question = _question(cut.scene, stream)
        if question is None:
            continue
        region = region_mask(cut.scene, question.organs, question.lesions)
        fits = overlaps(cut.segments, region) > RIGHT
        if fits.any():
            found.append((question_text(cut.scene, question, prefix=stream.chance(0.5)), fits))
    return found


def _question(scene: Scene, stream: Stream) -> Question | None:
    """Ask anything in any phrasing: a CLIP has read more than the base model."""
    kind = stream.choose(KINDS)
    phrasing = stream.below(len(PHRASINGS[kind]))
    return ask(scene, kind, stream, phrasing=phrasing, want=stream.random())


def _some_mask(scene: Scene, generator: np.random.Generator) -> Mask:
    """Return a lesion, a decoy or an organ, or a disc anywhere."""
    place = generator.random()
    discs = (*scene.lesions, *scene.decoys)
    if place < 0.45 and discs:
        return lesion_mask(discs[int(generator.integers(len(discs)))])
    if place < 0.9:
        organ = scene.organs[int(generator.integers(len(scene.organs)))]
        return organ_mask(scene, organ.name)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    centre, radius = generator.uniform(0, SIZE, 2), generator.uniform(4, 12)
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2


def _ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    return tokenizer(list(texts), padding="max_length", return_tensors="pt")["input_ids"]


def _look(model: Any, images: Sequence[Bytes], noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the patches' features, [n, 64, width], and the embeddings, [n, d], of images."""
    grey = (torch.from_numpy(np.stack(images)).float() / 255 - MEAN) / DEVIATION
    pixels = jitter(grey[:, None].expand(-1, 3, -1, -1), noise)
    output = model.visual.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, output_fmt="NLC"
    )
    return output["image_intermediates"][-1], output["image_features"]


def _label_loss(logits: Tensor, labels: Tensor, recipe: ClipRecipe) -> Tensor:
    weight = torch.ones(len(MAPS))
    weight[len(ORGAN_NAMES) :] = recipe.lesion_weight
    return nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)


def as_pil(image: Bytes) -> Image.Image:
    """Return a grey image as the libraries take it."""
    return Image.fromarray(image).convert("RGB")
