"""Attention of every step: its mean is that recorded alone, its rows are eager attention's."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import medbench
from medbench.decoding.lookahead import BeamStack
from medbench.errors import UserError
from medbench.model.tiny_tokenizers import write_bytewise, write_sentencepiece
from medbench.model.tokenizer import load_llama_tokenizer, load_qwen_tokenizer

DECODERS = [
    "greedy",
    "nucleus",
    "beam",
    "vcd",
    "vcd[beams=3]",
    "dola",
    "opera",
    "avisc",
    "m3id",
    "damro",
    "pai",
    "controlmllm",
]
# What changes no attention, so that a whole pass over the answer has the same.
UNCHANGED = ["greedy", "nucleus", "beam", "vcd", "vcd[beams=3]", "opera"]
# Of tests/decoding/test_references_opera.py: it goes back, more than once to the same place.
BACK = (
    "toy[seed=2,layers=3,kv_heads=4]",
    "opera[beams=2,num_attn_candidates=2,threshold=0,opera_compat={}]",
)
REGION = np.arange(400).reshape(20, 20) % 3 == 0


@pytest.fixture
def recorded(images, questions):
    """Return a decoder of the samples of these indices, with attention or as told."""

    def answers(backbone, method, attention="steps", *, indices=(0, 1, 2, 3), **options):
        return medbench.generate(
            backbone,
            method=method,
            images=[images[index] for index in indices],
            prompts=[questions[index] for index in indices],
            ids=[f"sample {index}" for index in indices],
            rois=[REGION for _ in indices],
            record_attention=attention,
            **{"max_new_tokens": 14} | options,
        )

    return answers


@pytest.fixture
def rewinds(monkeypatch):
    """Return a count of how often a search goes back."""
    counted, rewind = Counter(), BeamStack.rewind

    def counting(self, *arguments):
        counted["rewinds"] += 1
        rewind(self, *arguments)

    monkeypatch.setattr(BeamStack, "rewind", counting)
    return counted


def check_mean(answers, plain):
    """Assert that answers have a map a token, and otherwise are those without."""
    for answer, other in zip(answers, plain, strict=True):
        assert answer.token_ids == other.token_ids
        assert answer.attention_steps.shape == (len(answer.token_ids), 16)
        assert answer.attention_steps.dtype == np.float32
        assert other.attention_steps is None
        assert np.array_equal(answer.attention, other.attention), "not a bit may move"
        np.testing.assert_allclose(answer.attention_steps.mean(0), answer.attention, rtol=1e-5)


def check_steps(answer, reference, backbone, image, question):
    """Assert that each step is the eager attention of the query that its token came from."""
    [pixels] = backbone.pixel_values([image])
    features = reference.features(pixels)
    ids = backbone.prompt(question, features).ids.tolist()
    _, attention = reference.run(ids + answer.token_ids, features)
    columns = [place for place, token in enumerate(ids) if token == backbone.image_token_id]
    rows = attention.mean((0, 1))[len(ids) - 1 : -1, columns].numpy()
    assert np.abs(answer.attention_steps - rows).max() < 1e-5
    assert np.abs(np.diff(rows, axis=0)).max() > 1e-4, "equal steps would hide a wrong order"


@pytest.mark.parametrize("method", DECODERS)
def test_the_steps_mean_is_the_mean_recorded_alone(toy, recorded, method):
    backbone = toy("toy[layers=3]", ends=12)
    answers = recorded(backbone, method)
    check_mean(answers, recorded(backbone, method, True))
    assert len({len(answer.token_ids) for answer in answers}) > 1


@pytest.mark.parametrize("method", UNCHANGED)
def test_each_step_is_the_query_that_its_token_was_chosen_from(
    toy, eager, recorded, images, questions, method
):
    backbone = toy("toy[layers=3]", ends=4)
    reference = eager(toy("toy[layers=3]"))
    for index, answer in enumerate(recorded(backbone, method)):
        check_steps(answer, reference, backbone, images[index], questions[index])


@pytest.mark.parametrize("compat", ["false", "true"])
def test_a_search_that_goes_back_leaves_the_steps_of_its_answer(
    toy, eager, recorded, images, questions, rewinds, compat
):
    backbone, method = toy(BACK[0]), BACK[1].format(compat)
    options = {"indices": [2], "max_new_tokens": 45}
    answers = recorded(backbone, method, **options)
    assert rewinds["rewinds"] > 1
    check_mean(answers, recorded(backbone, method, True, **options))
    check_steps(answers[0], eager(backbone), backbone, images[2], questions[2])


@pytest.mark.parametrize("method", DECODERS)
def test_steps_of_a_batch_are_those_of_single_runs(toy, recorded, method):
    backbone = toy("toy[layers=3]", ends=6)
    single = recorded(backbone, method, batch_size=1)
    for one, other in zip(recorded(backbone, method, batch_size=4), single, strict=True):
        np.testing.assert_allclose(one.attention_steps, other.attention_steps, atol=1e-5)


def test_an_answer_without_an_image_looks_nowhere_at_any_step(toy, recorded):
    for answer in recorded(toy(), "blind", max_new_tokens=3):
        assert answer.attention_steps.shape == (len(answer.token_ids), 16)
        assert not answer.attention_steps.any()


def test_an_answer_of_one_step_has_steps_too(toy, recorded):
    for method in ("greedy", "beam", "opera"):
        for answer in recorded(toy(), method, max_new_tokens=1):
            assert np.array_equal(answer.attention_steps, answer.attention[None])


def test_what_cannot_be_recorded_is_told(toy, recorded):
    with pytest.raises(UserError, match='record_attention is False, True or "steps"'):
        recorded(toy(), "greedy", "step")


def test_pieces_are_the_texts_that_tokens_add(toy):
    backbone = toy()
    tokens = backbone.tokenizer("left lung.", add_special_tokens=False).input_ids
    assert backbone.pieces([*tokens, 2]) == [*"left lung.", "</s>"]
    assert backbone.pieces([]) == []


def sentencepiece(folder, *, slow):
    write_sentencepiece(folder, image_tokens=False)
    return load_llama_tokenizer(folder, slow=slow)


def bytewise(folder):
    write_bytewise(folder)
    return load_qwen_tokenizer(folder)


@pytest.mark.parametrize(
    ("load", "end"),
    [
        (lambda folder: sentencepiece(folder, slow=True), "</s>"),
        (lambda folder: sentencepiece(folder, slow=False), "</s>"),
        (bytewise, "<|im_end|>"),
    ],
    ids=["sentencepiece, slow", "sentencepiece, fast", "bytewise"],
)
def test_pieces_keep_blanks_and_whole_letters(toy, tmp_path, load, end):
    """Letters of two to four bytes are as many tokens, of which the last one has the text."""
    tokenizer = load(tmp_path)
    backbone, text = replace(toy(), tokenizer=tokenizer), "is the lung 5 µm, ≥ 😀?"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    pieces = backbone.pieces([*ids, tokenizer.convert_tokens_to_ids(end)])
    assert "".join(pieces) == text + end
    assert pieces[-1] == end
    assert pieces.count("") >= 1 + 2 + 3
    assert {"µ", "≥", "😀"} <= {piece.strip() for piece in pieces}
    # An answer that is cut inside a letter, or has bytes that are none, still has all its tokens.
    (smile,) = (at for at, piece in enumerate(pieces) if "😀" in piece)
    for cut in (ids[: smile - 1], [*ids[: smile - 1], *ids[:3]]):
        assert len(backbone.pieces(cut)) == len(cut)
        assert "".join(backbone.pieces(cut)) == tokenizer.decode(cut)
