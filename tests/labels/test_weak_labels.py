"""The whole way from samples to ranked segments, and that nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medbench import plugins
from medbench.errors import UserError
from medbench.labels import weak
from medbench.labels.pictures import key
from medbench.labels.present import present
from medbench.labels.segment import canvas
from medbench.memo import Memo
from medbench.provider import Region, Surroundings
from medbench.providers.sam_biomedclip import SamBiomedclip
from medbench.spec import parse
from medbench.task import Sample, Task


@dataclass(frozen=True)
class Drawn(Task):
    """Two questions about each of some pictures."""

    name = "drawn"
    region_text = (("lung", "lung {question}"), ("", "{question}"))

    def samples(self, split: str):
        for number in range(3):
            for question in ("is there a nodule ?", "where ?"):
                yield sample(number, question)


def sample(number: int, question: str) -> Sample:
    def image() -> Image.Image:
        pixels = np.random.default_rng(number).integers(0, 255, (40, 64, 3)).astype(np.uint8)
        return Image.fromarray(pixels)

    return Sample(
        f"s{number}-{question}", image, question, "a", "open", f"g{number}", stamp=str(number),
        meta={"location": "Lung_left" if number else "head"},
    )  # fmt: skip


SAMPLES = list(Drawn().samples("train"))
Make = Callable[..., SamBiomedclip]


@pytest.fixture
def make(sam_folder: Path, clip: Path, tmp_path: Path, lenient: dict[str, Any]) -> Make:
    """Return what makes the provider with tiny models and a cache of its own."""

    def provider(**settings: Any) -> SamBiomedclip:
        given = lenient | {"sam": str(sam_folder), "clip": str(clip), "prompt": "crop"} | settings
        return SamBiomedclip(cache=str(tmp_path / "cache"), **given)

    return provider


def opened(provider: SamBiomedclip) -> dict[str, list[Region]]:
    regions = provider.open(SAMPLES, Surroundings(Drawn()))
    return {one.id: list(regions(one)) for one in SAMPLES}


def same(one: dict[str, list[Region]], other: dict[str, list[Region]]) -> bool:
    return one.keys() == other.keys() and all(
        len(one[name]) == len(other[name])
        and all(
            np.array_equal(a.mask, b.mask) and a.score == b.score
            for a, b in zip(one[name], other[name], strict=True)
        )
        for name in one
    )


def test_segments_come_best_first_with_the_clips_own_scores(make: Make) -> None:
    provider = make()
    found = opened(provider)
    for sample in SAMPLES:
        regions = found[sample.id]
        scores = [one.score for one in regions]
        assert len(regions) > 3 and scores == sorted(scores, reverse=True)
        assert {one.size for one in regions} == {(40, 64)}
    # The formula, naively: 100 x the cosine of the crop's and the text's embeddings.
    import open_clip
    import torch

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{provider.clip}")
    tokens = open_clip.get_tokenizer(f"local-dir:{provider.clip}")
    pixels = canvas(SAMPLES[2].image(), provider)  # type: ignore[operator]
    text = f"lung {SAMPLES[2].question}"
    for region in found[SAMPLES[2].id][:3]:
        crop = present(pixels, region.mask, how="crop", blur=1, dim=1)
        with torch.no_grad():
            image = model.encode_image(preprocess(crop)[None])
            words = model.encode_text(tokens([text]))
        cosine = torch.nn.functional.cosine_similarity(image, words)
        assert region.score == pytest.approx(100 * float(cosine), abs=1e-3)


def test_a_second_method_seed_or_epoch_computes_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(make())

    def fail(*_: Any) -> None:
        raise AssertionError("a model was loaded again")

    monkeypatch.setattr(weak, "load_sam", fail)
    monkeypatch.setattr(weak, "load_clip", fail)
    assert same(opened(make()), first)


def test_the_questions_on_a_picture_share_its_segments(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = weak.Segmenter.__call__

    def counted(self: weak.Segmenter, image: Image.Image) -> np.ndarray:
        calls.append(1)
        return original(self, image)

    monkeypatch.setattr(weak.Segmenter, "__call__", counted)
    opened(make())
    assert len(calls) == 3
    # Another way to show segments, or other texts, needs no new segments.
    opened(make(prompt="blur"))
    opened(make(text="question"))
    assert len(calls) == 3
    # Another way to cut does.
    opened(make(points_per_side=2))
    assert len(calls) == 6


def test_a_killed_job_goes_on_where_it_was(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = opened(make(points_per_side=2))

    def kill(done: int, total: int, remark: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    provider = make()
    with pytest.raises(KeyboardInterrupt):
        provider.open(SAMPLES, Surroundings(Drawn(), progress=kill))
    labels = provider.weak_labels(Surroundings(Drawn()))
    assert labels.compute(SAMPLES) == 1
    assert labels.compute(SAMPLES) == 0
    assert opened(make()).keys() == whole.keys()


def test_the_names_of_the_files_hold_settings_and_weights(
    make: Make, tmp_path: Path, sam_folder: Path
) -> None:
    def names(provider: SamBiomedclip) -> list[str]:
        return [memo.path.name for memo in provider.memos()]

    plain = names(make())
    assert names(make(text="question")) == plain
    segments, scores = names(make(prompt="box"))
    assert segments == plain[0] and scores != plain[1]
    for changed in ({"points_per_side": 4}, {"fit": "squash"}, {"side": 32}):
        assert not set(names(make(**changed))) & set(plain)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in sam_folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert names(make(sam=str(moved))) == plain
    (moved / "config.json").write_text((sam_folder / "config.json").read_text() + " ")
    assert names(make(sam=str(moved)))[0] != plain[0]


def test_a_picture_counts_by_its_content(make: Make) -> None:
    one, two = (Image.new("RGB", size) for size in ((4, 6), (6, 4)))
    assert key(one) != key(two)
    assert key(one) == key(one.convert("L")) == key(Image.new("RGBA", (4, 6), (0, 0, 0, 255)))


def test_a_picture_without_segments_has_no_regions(make: Make) -> None:
    found = opened(make(pred_iou_thresh=9.0))
    assert all(regions == [] for regions in found.values())


def test_texts_are_the_tasks_the_published_ones_or_the_question(make: Make) -> None:
    def texts(**settings: Any) -> list[str]:
        labels = make(**settings).weak_labels(Surroundings(Drawn()))
        return [labels.text(one) for one in SAMPLES[1:3]]

    assert texts() == ["where ?", "lung is there a nodule ?"]
    assert texts(text="question") == ["where ?", "is there a nodule ?"]
    assert texts(text="published") == texts()


@pytest.mark.parametrize(
    ("task", "location", "ours", "published"),
    [
        (
            "slake",
            "Chest_lung",
            "Medical image of chest lung and lungs. Q",
            "Medical image of Chest_lung.Q",
        ),
        ("slake", "Lung", "Medical image of lung. Q", "Medical image of Lung.Q"),
        ("slake", "Abdomen", "Medical image of abdomen. Q", "Medical image of Abdomen.Q"),
        ("slake", "abdomen", "Medical image of abdomen. Q", "Medical imgaing of abdomen.Q"),
        ("vqa_rad", "abd", "Medical image of abdomen CT. Q", "Medical imgaing of abdomen CT.Q"),
    ],
)
def test_the_templates_of_tasks(task: str, location: str, ours: str, published: str) -> None:
    made = plugins.create("task", parse(task))[1]
    asked = replace(SAMPLES[0], question="Q", meta={"location": location})
    assert made.name_region(asked) == ours
    assert made.name_region(asked, published=True) == published


def test_what_is_missing_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the weights of a SAM"):
        list(SamBiomedclip().files())
    with pytest.raises(UserError, match="no SAM in"):
        list(SamBiomedclip(sam=str(tmp_path / "absent.pth")).files())
    (tmp_path / "sam.pth").write_text("")
    with pytest.raises(UserError, match="no CLIP in"):
        list(SamBiomedclip(sam=str(tmp_path / "sam.pth"), clip=str(tmp_path)).files())
    with pytest.raises(UserError, match="not on this machine") as error:
        list(SamBiomedclip(sam=str(tmp_path / "sam.pth"), clip="hf-hub:no-one/nothing").files())
    assert "hf download no-one/nothing" in error.value.do


def test_with_everything_kept_the_extra_is_not_needed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(make())
    for name in ("segment_anything", "open_clip"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    assert same(opened(make()), first)
    with pytest.raises(UserError, match="'segment_anything' is not installed") as error:
        opened(make(side=48))
    assert "medbench[labels]" in error.value.do


def test_memos_describe_themselves(make: Make) -> None:
    segments, scores = make().memos()
    assert isinstance(segments, Memo) and segments.path.parent == scores.path.parent
