"""Training: packing changes nothing, a small build runs through, the shipped weights answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from medbench.phantom import build as build_module
from medbench.phantom.build import Recipe, build
from medbench.phantom.draw import draw
from medbench.phantom.evaluate import Majority, answers, evaluate, patches_in
from medbench.phantom.model import (
    SPECIAL,
    TOKENS,
    new_model,
    read_model,
    to_pixels,
    tokenizer,
    visual_features,
    vocabulary,
    write_model,
)
from medbench.phantom.muon import orthogonal
from medbench.phantom.packing import IGNORED, Encoder, pack
from medbench.phantom.questions import PHRASINGS
from medbench.phantom.splits import SPLITS, items, pool
from medbench.phantom.train_language import (
    Corpus,
    KindSampler,
    LanguageRecipe,
    answer_losses,
    initialise,
)
from medbench.phantom.train_vision import MAPS, cosine_after_warmup, draw_all, encode, patch_labels
from medbench.phantom.world import REFERENCE, lay_out

WEIGHTS = Path(build_module.__file__).parent / "weights"
shipped = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the weights have not been built")


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    torch.manual_seed(3)
    return new_model().eval()


def test_the_tokenizer_knows_every_word(tmp_path: Path) -> None:
    words = tokenizer()
    assert words.convert_ids_to_tokens(list(range(5))) == list(SPECIAL)
    for texts in PHRASINGS.values():
        for text in texts:
            filled = text.format(type="cyst", organ="left lung", first="mass", second="edema")
            assert words.unk_token_id not in words(filled)["input_ids"]
    for item in items(SPLITS["reports"]):
        ids = words(item.question.answer, add_special_tokens=False)["input_ids"]
        assert words.decode(ids) == item.question.answer
    words.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "user : <image> Is there a cyst? assistant :"
    assert again(text)["input_ids"] == words(text)["input_ids"]
    assert again(text)["input_ids"].count(words.convert_tokens_to_ids("<image>")) == 1


def test_packed_questions_are_answered_as_if_alone(model: LlavaForConditionalGeneration) -> None:
    encoder = Encoder(tokenizer())
    pairs = [("is there a cyst?", "yes"), ("where is the mass?", "left lung"), ("report?", "no")]
    projected = torch.randn(2, TOKENS, 128)
    rows = [pairs, pairs[1:]]
    with torch.no_grad():
        packed = pack(rows, encoder)
        together = answer_losses(model, projected, packed, encoder)
        for row, row_pairs in enumerate(rows):
            for turn, pair in enumerate(row_pairs):
                single = pack([[pair]], encoder)
                alone = answer_losses(model, projected[row : row + 1], single, encoder)
                inside = (packed.turns[row] == turn) & (packed.labels[row] != IGNORED)
                expected = alone[single.labels != IGNORED]
                torch.testing.assert_close(together[row][inside], expected, atol=1e-5, rtol=1e-4)


def test_patch_labels_follow_the_masks() -> None:
    scene = next(s for s in (lay_out(n, REFERENCE) for n in range(99)) if len(s.lesions) == 1)
    labels = patch_labels(scene)
    lesion = scene.lesions[0]
    patch = int(lesion.y) // 8 * 8 + int(lesion.x) // 8
    assert labels[patch, MAPS.index(lesion.type)] > 0
    assert labels[patch, MAPS.index(lesion.organ)] > 0
    shown = {MAPS[index] for index in np.nonzero(labels.max(0))[0]}
    assert shown == {organ.name for organ in scene.organs} | {lesion.type, lesion.size}


def test_a_roi_covers_at_least_one_patch() -> None:
    mask = np.zeros((64, 64), bool)
    assert patches_in(mask).sum() == 0
    mask[0, 0] = True
    assert patches_in(mask).tolist() == [1.0] + [0.0] * 63
    mask[8:16, 8:16] = True
    assert patches_in(mask).nonzero().flatten().tolist() == [9]


def test_orthogonal_evens_out_singular_values() -> None:
    for shape in ((2, 16, 40), (1, 40, 16)):
        torch.manual_seed(0)
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape) ** 3))
        assert values.min() > 0.4
        assert values.max() < 1.5


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [cosine_after_warmup(step, 10, 100) for step in range(101)]
    assert rates[9] == max(rates) == 1
    assert rates[100] == pytest.approx(0)


def test_kinds_with_a_higher_loss_come_more_often() -> None:
    scenes = pool(0, 50)
    corpus = Corpus(scenes, torch.zeros(50, TOKENS, 96))
    recipe = replace(LanguageRecipe(), adapt=0.7)
    sampler = KindSampler(corpus, recipe, seed=1)
    for _ in range(300):
        sampler.observe("where", 0.0)
    kinds = [kind for _ in range(30) for row in sampler.batch(recipe.stages[-1])[1] for kind in row]
    assert kinds.count("where") < 0.4 * kinds.count("what")


def test_written_weights_answer_as_transformers_generates(tmp_path: Path) -> None:
    torch.manual_seed(5)
    fresh = new_model()
    initialise(fresh, torch.randn(40, TOKENS, 96))
    write_model(fresh, tmp_path)
    model, words = read_model(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    asked = list(items(SPLITS["validation"]))[:6]
    pixels = to_pixels(np.stack([draw(item.scene) for item in asked]))
    features = visual_features(model, pixels).detach()
    found = answers(model, [item.question for item in asked], features, Encoder(tokenizer()))
    for item, pixel, answer in zip(asked, pixels, found, strict=True):
        prompt = f"user : {'<image> ' * TOKENS}{item.question.text} assistant :"
        inputs = words(prompt, return_tensors="pt")
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=pixel[None],
            max_new_tokens=6,
        )
        new = output[0, inputs["input_ids"].shape[1] :]
        assert words.decode(new, skip_special_tokens=True) == answer.replace("<pad>", "").strip()


@pytest.mark.slow
def test_a_small_build_runs_through_and_repeats(tmp_path: Path) -> None:
    recipe = Recipe().scaled(0.004)
    split = replace(SPLITS["reference_validation"], images=16)
    logs = [
        build(tmp_path / name, recipe=recipe, seed=7, workers=1, splits=[split], say=lambda _: None)
        for name in ("first", "second")
    ]
    assert logs[0]["scores"] == logs[1]["scores"]
    assert json.loads((tmp_path / "first/build.json").read_text())["seed"] == 7
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]
    assert len(weights[0]) < 6_000_000
    assert set(logs[0]["scores"]["reference_validation"]) > {"exist", "closed", "open", "all"}


@shipped
def test_the_shipped_weights_are_small_and_belong_to_this_world() -> None:
    log = json.loads((WEIGHTS / "build.json").read_text())
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 6_000_000
    assert log["world"] == 1
    assert read_model(WEIGHTS).config.text_config.vocab_size == len(vocabulary())


@shipped
def test_the_shipped_weights_see() -> None:
    torch.set_num_threads(1)
    model = read_model(WEIGHTS)
    split = replace(SPLITS["reference_validation"], images=80)
    asked = list(items(split))
    scenes = list({item.number: item.scene for item in asked}.values())
    scores = evaluate(
        model, asked, encode(model, draw_all(scenes).images), Majority(pool(0, 400), 4000)
    )
    assert scores["all"]["accuracy"] > 0.85
    assert scores["closed"]["accuracy"] > scores["closed"]["majority"] + 0.2
    assert scores["closed"]["in_format"] > 0.98
