"""The SAM and the CLIP in the box: what they are taught, a small build, the shipped weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

try:
    import open_clip  # noqa: F401
    import segment_anything  # noqa: F401
except (ImportError, RuntimeError) as error:
    pytest.skip(f"medbench[labels] cannot be imported: {error}", allow_module_level=True)

from medbench.clip import load_clip
from medbench.labels.segment import Segmenter, build_sam, load_sam
from medbench.labels.settings import Segmentation
from medbench.phantom import stand_ins as stand_ins_module
from medbench.phantom.clip_examples import PREFIX, Cut, as_pil, labels_inside, segment_labels, shown
from medbench.phantom.clip_model import clip_tokenizer, new_clip, write_clip
from medbench.phantom.draw import draw, lesion_mask, organ_mask
from medbench.phantom.questions import PHRASINGS
from medbench.phantom.splits import SPLITS, items, pool
from medbench.phantom.stand_ins import SEGMENTATION, Recipe, build, cut, mixed, segment_scores
from medbench.phantom.train_clip import ranking_loss
from medbench.phantom.train_sam import SAM, SamRecipe, example, mask_losses, sam_losses, write_sam
from medbench.phantom.train_vision import MAPS, patch_labels
from medbench.phantom.world import SHIFTED, Scene, lay_out

SHIPPED = Path(stand_ins_module.__file__).parent / "labels"
shipped = pytest.mark.skipif(
    not (SHIPPED / "stand_ins.json").is_file(), reason="the stand-ins have not been built"
)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Return a scene with two lesions and a decoy."""
    scenes = (lay_out(seed, SHIFTED) for seed in range(1000))
    return next(one for one in scenes if len(one.lesions) == 2 and one.decoys)


def test_a_point_asks_for_the_disc_near_it_and_the_organ_under_it(scene: Scene) -> None:
    recipe = SamRecipe(points=200)
    one = example(scene, recipe, np.random.default_rng(0))
    discs = (*scene.lesions, *scene.decoys)
    seen = set[str]()
    for (x, y), (disc, organ, body) in zip(one.points, one.targets, strict=True):
        gaps = [((x - d.x) ** 2 + (y - d.y) ** 2) ** 0.5 - d.radius for d in discs]
        if min(gaps) > recipe.reach:
            assert not disc.any()
        else:
            assert np.array_equal(disc, lesion_mask(discs[int(np.argmin(gaps))]))
            seen.add("disc")
        if organ.any():
            assert organ[round(float(y)), round(float(x))]
            assert any(np.array_equal(organ, organ_mask(scene, o.name)) for o in scene.organs)
            assert (organ & ~body).sum() < 0.2 * organ.sum()
            seen.add("organ")
        seen.add("body" if body.any() else "nothing")
    assert seen == {"disc", "organ", "body", "nothing"}
    assert np.array_equal(one.image, draw(scene))
    assert {MAPS[row] for row in np.flatnonzero(one.dense.any((1, 2)))} == {
        *(organ.name for organ in scene.organs),
        *(disc.type for disc in discs),
    }


def test_a_right_mask_costs_nothing_and_no_mask_is_asked_of_nothing() -> None:
    wanted = torch.zeros(2, 3, 64, 64)
    wanted[0, :, 10:30, 10:30] = 1
    wanted[1, 0, 40:50, 40:50] = 1
    right = 40 * wanted - 20
    iou = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    level, error = mask_losses(right, iou, wanted, focal=10.0)
    assert level.tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert error.item() == pytest.approx(0)
    wrong = right.clone()
    wrong[1, 1:] = 20.0  # whatever is drawn where nothing is wanted, only its IoU counts
    level, error = mask_losses(wrong, iou, wanted, focal=10.0)
    assert level.tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert error.item() == pytest.approx(0)
    level, error = mask_losses(-right, iou, wanted, focal=10.0)
    assert (level > 1).all()
    assert error.item() == pytest.approx(4 / 6)


def test_the_sam_is_small_and_comes_back_from_its_folder(scene: Scene, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sam: Any = build_sam(SAM)
    assert sum(parameter.numel() for parameter in sam.parameters()) < 1_000_000
    write_sam(sam, tmp_path)
    again: Any = load_sam(tmp_path)
    for name, weights in sam.state_dict().items():
        assert torch.equal(weights.half().float(), again.state_dict()[name])
    recipe = SamRecipe(points=3)
    head = nn.Conv2d(SAM["out_chans"], 16, 1)
    one = example(scene, recipe, np.random.default_rng(0))
    losses = sam_losses(sam, head, [one, one], recipe)
    assert losses.shape == (5,)
    assert torch.allclose(losses, sam_losses(sam, head, [one], recipe), atol=1e-5)


def test_the_clip_reads_every_word(tmp_path: Path) -> None:
    words = clip_tokenizer()
    for texts in PHRASINGS.values():
        for text in texts:
            filled = text.format(type="cyst", organ="left lung", first="mass", second="edema")
            ids = words(PREFIX.format(region="chest", question=filled))["input_ids"]
            assert words.unk_token_id not in ids
            assert ids[-1] == words.sep_token_id
            assert len(ids) <= 32


def test_the_clip_comes_back_from_its_folder(scene: Scene, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = new_clip().eval().half().float()
    write_clip(model, tmp_path)
    clip = load_clip(tmp_path)
    texts = ["is there a cyst in the left lung?", "Where is the mass?"]
    ids = clip_tokenizer()(texts, padding="max_length", return_tensors="pt")["input_ids"]
    assert torch.equal(clip.tokenizer(texts), ids)
    image = draw(scene)
    pixels = (torch.from_numpy(image).float() / 255 - 0.3) / 0.25
    assert torch.allclose(clip.preprocess(as_pil(image)), pixels.expand(3, -1, -1), atol=1e-6)
    with torch.no_grad():
        plain = model.encode_image(pixels.expand(1, 3, -1, -1), normalize=True)
        assert torch.allclose(clip.images([as_pil(image)]), plain, atol=1e-5)
        assert torch.allclose(clip.texts(texts), model.encode_text(ids, normalize=True), atol=1e-5)


def test_a_question_competes_with_what_cannot_fit_it() -> None:
    similarity = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    same = torch.tensor([[True, True, False, False]])
    right = torch.tensor([[True, False, False, False]])
    nothing_shared = torch.tensor([[False, False, True, False]])
    loss = ranking_loss(similarity, right, same, nothing_shared)
    assert loss.item() == pytest.approx(-np.log(np.exp(1) / np.exp([1, 2, 3]).sum()))


def test_labels_say_what_is_left_sharp(scene: Scene) -> None:
    lesion = scene.lesions[0]
    mask, image = lesion_mask(lesion), draw(scene)
    sharp = shown(image, mask)
    assert np.array_equal(sharp[mask], image[mask])
    assert sharp[~mask].mean() < 0.5 * image[~mask].mean()
    labels = patch_labels(scene)
    inside = labels_inside(labels, mask)
    assert np.array_equal(labels_inside(labels, None), labels / np.float32(255))
    assert inside[:, MAPS.index(lesion.type)].max() > 0.3
    patches = mask.reshape(8, 8, 8, 8).any((1, 3)).reshape(64)
    assert not inside[~patches].any()
    found = segment_labels(scene, mask)
    names = {lesion.type, lesion.size, lesion.organ}
    assert {MAPS[index] for index in np.flatnonzero(found)} == names
    assert not segment_labels(scene, np.ones((64, 64), bool)).any()


def test_no_split_and_no_base_model_shares_an_image() -> None:
    ours = {s.seed for seed in (0, 1) for n in (0, 2, 4) for s in mixed(seed, n, 10, 0.6)}
    assert len(ours) == 60
    assert min(ours) > max(scene.seed for scene in pool(100, 10))
    assert all(split.first_seed + 1000 * split.images < min(ours) for split in SPLITS.values())


def test_the_best_mask_counts(scene: Scene) -> None:
    masks = np.stack(
        [lesion_mask(scene.lesions[0]), *(organ_mask(scene, o.name) for o in scene.organs)]
    )
    scores = segment_scores([Cut(scene, draw(scene), masks), Cut(scene, draw(scene), masks[:0])])
    assert scores["organs"] == {"n": 2 * len(scene.organs), "iou": 0.5, "right": 0.5}
    assert scores["lesions"]["n"] == 4
    assert scores["lesions"]["right"] == 0.25
    assert scores["masks"] == {"n": 2, "mean": len(masks) / 2, "least": 0}


@pytest.mark.slow  # writes, trains and measures everything twice
def test_a_small_build_runs_through(tmp_path: Path) -> None:
    recipe = Recipe().scaled(0.002)
    splits = [replace(SPLITS["validation"], images=4)]
    lines = list[str]()
    log = build(tmp_path, recipe=recipe, seed=3, splits=splits, say=lines.append)
    written = json.loads((tmp_path / "stand_ins.json").read_text())
    assert written == json.loads(json.dumps(log))
    assert {path.name for path in tmp_path.iterdir()} == {"sam", "clip", "stand_ins.json"}
    assert log["sam_parameters"] < 1_000_000
    first = log["scores"]["validation"]["clip"]["with region"]["first 1"]["all"]
    assert first["n"] == 12
    again = build(tmp_path, recipe=recipe, seed=3, splits=splits, keep_sam=True, say=lines.append)
    assert again["sam"] == log["sam"]
    assert again["scores"] == log["scores"]


@shipped
def test_the_shipped_figures_reach_what_is_asked_of_stand_ins() -> None:
    log = json.loads((SHIPPED / "stand_ins.json").read_text())
    for split in ("validation", "test"):
        scores = log["scores"][split]
        assert scores["sam"]["organs"]["iou"] >= 0.85
        assert scores["sam"]["lesions"]["iou"] >= 0.65
        first = scores["clip"]["with region"]["first 1"]["all"]
        assert first["hit_matched"] >= 0.8
        assert first["hit_matched"] > first["chance_matched"] + 0.3
    assert Segmentation(**log["recipe"]["segmentation"]) == SEGMENTATION


@shipped
def test_the_shipped_sam_finds_organs() -> None:
    asked = items(replace(SPLITS["validation"], images=6))
    scenes = {item.number: item.scene for item in asked}
    segmenter = Segmenter(load_sam(SHIPPED / "sam"), SEGMENTATION)
    scores = segment_scores([cut(scene, segmenter) for scene in scenes.values()])
    assert scores["organs"]["iou"] > 0.8
    assert scores["masks"]["least"] > 0
