"""Recorded attention against eager attention of the whole sequence, taught the same answer."""

import numpy as np
import pytest

import medbench

BACKBONES = ["toy", "toy[text=mistral,kv_heads=4]", "toy[text=qwen2,kv_heads=1]"]


def recomputed(reference, backbone, prompt, features, tokens):
    """Mean over layers, heads and the queries that generated the tokens, at image columns."""
    ids = prompt.ids.tolist()
    _, attention = reference.run(ids + tokens, features)
    rows = attention[:, :, len(ids) - 1 : len(ids) + len(tokens) - 1]
    columns = [place for place, token in enumerate(ids) if token == backbone.image_token_id]
    return rows[..., columns].mean((0, 1, 2)).numpy()


@pytest.mark.parametrize("spec", BACKBONES)
@pytest.mark.parametrize("method", ["greedy", "nucleus", "vcd", "beam", "vcd[beams=3]"])
def test_attention_is_the_mean_over_layers_heads_and_answer_queries(
    toy, eager, images, questions, spec, method
):
    backbone = toy(spec, ends=6)
    reference = eager(toy(spec))
    count = 4
    pixels = backbone.pixel_values(images[:count])
    decoded = medbench.generate(
        backbone,
        method=method,
        pixel_values=pixels,
        prompts=questions[:count],
        max_new_tokens=12,
        record_attention=True,
    )
    for index, answer in enumerate(decoded):
        features = reference.features(pixels[index])
        prompt = backbone.prompt(questions[index], features)
        expected = recomputed(reference, backbone, prompt, features, answer.token_ids)
        assert answer.attention.shape == (backbone.image_tokens,)
        assert answer.attention.dtype == np.float32
        assert 0.01 < answer.attention.sum() < 1
        assert np.abs(answer.attention - expected).max() < 1e-5
        assert np.ptp(expected) > 1e-3, "a flat map would hide a wrong order of columns"


def test_recording_attention_changes_no_token(toy, images, questions):
    for method in ("greedy", "beam", "vcd[select=sample]"):
        options = {
            "method": method,
            "images": images,
            "prompts": questions,
            "max_new_tokens": 16,
            "record_scores": 16,
        }
        seen = medbench.generate(toy(), record_attention=True, **options)
        unseen = medbench.generate(toy(), **options)
        for one, other in zip(seen, unseen, strict=True):
            assert one.token_ids == other.token_ids
            assert other.attention is None
            assert one.scores.equal(other.scores)


def test_an_answer_without_an_image_has_no_visual_attention(toy, images, questions):
    for batch_size in (1, 8):
        decoded = medbench.generate(
            toy(),
            method="blind",
            images=images,
            prompts=questions,
            max_new_tokens=4,
            batch_size=batch_size,
            record_attention=True,
        )
        assert all(answer.attention.shape == (16,) for answer in decoded)
        assert not any(answer.attention.any() for answer in decoded)
