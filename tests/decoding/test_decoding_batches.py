"""A sample's answer does not depend on its neighbours, and in half precision begins alike."""

from statistics import median

import numpy as np
import pytest
import torch

import medbench

DECODERS = [
    "greedy",
    "beam",
    "nucleus",
    "vcd",
    "vcd[select=sample]",
    "vcd[beams=3]",
    "blind",
    "avisc",
    "avisc[select=sample,masking_scheme=noise,variant=official]",
    "m3id",
    "damro",
    "damro[neg_mode=zero,beams=2]",
    "pai",
    "pai[pai_prefill=apply,uncond_prompt=question]",
    "pai[gamma=1,beams=3]",
    "dola",
    "dola[repetition_penalty=1.2,select=sample]",
    "opera",
    "opera[variant=official,scale_factor=300,threshold=1]",
    "controlmllm",
]
DECODERS_ON_OTHERS = [
    "greedy",
    "beam",
    "vcd[select=sample]",
    "vcd[beams=3]",
    "avisc",
    "m3id",
    "damro",
    "pai",
    "dola",
    "opera",
    "controlmllm",
]
BACKBONES = ["toy", "toy[text=mistral,kv_heads=1]", "toy[text=qwen2,kv_heads=4]"]
NAMES = [f"sample {index}" for index in range(8)]
TOKENS = 26
# A region in some part of the image for most of them, none for one, an empty one for another.
ROIS = [np.arange(400).reshape(20, 20) % (index + 2) == 0 for index in range(8)]
ROIS[3], ROIS[6] = None, np.zeros((20, 20), dtype=bool)


def answers(backbone, method, images, questions, *, order=range(8), batch_size, **options):
    decoded = medbench.generate(
        backbone,
        method=method,
        images=[images[index] for index in order],
        prompts=[questions[index] for index in order],
        ids=[NAMES[index] for index in order],
        rois=[ROIS[index] for index in order],
        batch_size=batch_size,
        **{"max_new_tokens": TOKENS} | options,
    )
    return dict(zip(order, decoded, strict=True))


def single_answers(toy, images, questions, method, spec):
    """Return a backbone and its answers one by one, some short and some long."""
    for ends in (6, 5, 7, 4, 8, 3, 9, 2):  # how many letters end an answer
        backbone = toy(spec, ends=ends)
        single = answers(backbone, method, images, questions, batch_size=1, record_attention=True)
        lengths = {len(answer.token_ids) for answer in single.values()}
        # OPERA's samples run one by one; its lengths tell nothing.
        if method.startswith("opera") or (len(lengths) >= 3 and max(lengths) >= 24):
            return backbone, single
    raise AssertionError("rows must leave the stack at different times, and some row stay long")


@pytest.mark.parametrize(
    ("spec", "method"),
    [(BACKBONES[0], method) for method in DECODERS]
    + [(backbone, method) for backbone in BACKBONES[1:] for method in DECODERS_ON_OTHERS],
)
def test_batched_and_shuffled_answers_are_those_of_single_runs(
    toy, images, questions, method, spec
):
    backbone, single = single_answers(toy, images, questions, method, spec)
    for order, batch_size in (([5, 2, 7, 0, 3, 6, 1, 4], 8), ([7, 6, 5, 4, 3, 2, 1, 0], 3)):
        batched = answers(
            backbone,
            method,
            images,
            questions,
            order=order,
            batch_size=batch_size,
            record_attention=True,
        )
        for index, answer in single.items():
            assert batched[index].token_ids == answer.token_ids
            assert batched[index].stop == answer.stop
            assert batched[index].forwards == answer.forwards
            attention = torch.from_numpy(batched[index].attention)
            assert torch.allclose(attention, torch.from_numpy(answer.attention), atol=1e-5)


@pytest.mark.parametrize("method", ["greedy", "nucleus", "vcd[select=sample]"])
def test_scores_of_a_ragged_batch_are_those_of_single_runs(toy, images, questions, method):
    single = answers(toy(), method, images, questions, batch_size=1, record_scores=TOKENS)
    batched = answers(toy(), method, images, questions, batch_size=8, record_scores=TOKENS)
    for index, answer in single.items():
        assert answer.scores.shape[0] == len(answer.token_ids)
        assert answer.scores.dtype == torch.float32
        kept = answer.scores.isfinite()
        assert torch.equal(batched[index].scores.isfinite(), kept)
        assert torch.allclose(batched[index].scores[kept], answer.scores[kept], rtol=0, atol=1e-4)


def test_shuffled_gives_each_question_the_next_image_in_every_batch_size(toy, images, questions):
    backbone = toy(ends=6)
    shuffled = answers(backbone, "shuffled", images, questions, batch_size=3)
    again = answers(backbone, "shuffled", images, questions, batch_size=8)
    rolled = images[1:] + images[:1]
    expected = answers(backbone, "greedy", rolled, questions, batch_size=1)
    own = answers(backbone, "greedy", images, questions, batch_size=1)
    for index in range(8):
        assert shuffled[index].token_ids == expected[index].token_ids == again[index].token_ids
    assert any(shuffled[i].token_ids != own[i].token_ids for i in range(8))


def test_blind_answers_are_those_of_the_prompt_without_its_image(toy, images, questions):
    backbone = toy(ends=6)
    blind = answers(backbone, "blind", images, questions, batch_size=8)
    prompts = [
        backbone.prompt(question, torch.zeros(backbone.image_tokens, 32)).without_image().ids
        for question in questions
    ]
    text = medbench.generate(
        backbone, input_ids=[ids.tolist() for ids in prompts], max_new_tokens=TOKENS, batch_size=1
    )
    other = answers(backbone, "blind", images[::-1], questions, batch_size=8)
    for index in range(8):
        assert blind[index].token_ids == text[index].token_ids == other[index].token_ids


@pytest.mark.parametrize("method", ["nucleus", "vcd[select=sample]"])
def test_draws_follow_the_seed_and_the_id(toy, images, questions, method):
    first = answers(toy(), method, images, questions, batch_size=8, seed=1)
    same = answers(toy(), method, images, questions, batch_size=8, seed=1)
    other_seed = answers(toy(), method, images, questions, batch_size=8, seed=2)
    renamed = medbench.generate(
        toy(),
        method=method,
        images=images,
        prompts=questions,
        ids=[f"other {index}" for index in range(8)],
        seed=1,
        max_new_tokens=TOKENS,
    )
    for index in range(8):
        assert same[index].token_ids == first[index].token_ids
        assert other_seed[index].token_ids != first[index].token_ids
        assert renamed[index].token_ids != first[index].token_ids


def test_equal_ids_draw_equally_and_other_ids_do_not(toy, images):
    decoded = medbench.generate(
        toy(),
        method="nucleus",
        images=[images[0]] * 3,
        prompts=["what is it?"] * 3,
        ids=["a", "b", "a"],
        max_new_tokens=16,
    )
    assert decoded[0].token_ids == decoded[2].token_ids != decoded[1].token_ids


@pytest.mark.parametrize(
    ("method", "rows"), [("greedy", 1), ("vcd", 2), ("blind", 1), ("nucleus", 1)]
)
def test_forwards_count_each_branch_once_per_token(toy, images, questions, method, rows):
    decoded = answers(toy(ends=6), method, images, questions, batch_size=8)
    for answer in decoded.values():
        assert answer.forwards == rows * len(answer.token_ids)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_forwards_count_each_pass_that_changes_the_prompt(toy, images, questions, steps):
    method = f"controlmllm[steps={steps},early_stop_percent=none]"
    decoded = answers(toy(ends=6), method, images, questions, batch_size=8)
    for index, answer in decoded.items():
        passes = steps if ROIS[index] is not None and ROIS[index].any() else 0
        assert answer.forwards == passes + len(answer.token_ids)


def test_beam_forwards_count_the_prompt_once_and_then_every_beam(toy, images, questions):
    decoded = answers(toy(), "beam", images, questions, batch_size=8, max_new_tokens=6)
    assert {answer.forwards for answer in decoded.values()} == {1 + 5 * 5}
    branched = answers(toy(), "vcd[beams=3]", images, questions, batch_size=8, max_new_tokens=6)
    assert {answer.forwards for answer in branched.values()} <= {2 * (1 + 5 * 3)} | {
        2 * (1 + steps * 3) for steps in range(5)
    }


def test_a_finished_row_takes_no_further_part(toy, images, questions, monkeypatch):
    """The forward passes of the language model shrink as rows finish."""
    backbone = toy(ends=6)
    seen = []
    hook = backbone.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    try:
        decoded = answers(backbone, "vcd", images, questions, batch_size=8)
    finally:
        hook.remove()
    lengths = [len(answer.token_ids) for answer in decoded.values()]
    alive = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    # The prompts run branch by branch, the new tokens of both branches together.
    assert seen == [8, 8] + [2 * rows for rows in alive]
    assert len(set(alive)) > 2


def test_stop_strings_end_an_answer_and_are_cut_from_its_text(toy, images, questions):
    from dataclasses import replace

    plain = answers(toy(), "greedy", images, questions, batch_size=8)
    text = plain[1].text
    stop = text[5:7]
    backbone = replace(toy(), stop_strings=(stop,))
    for batch_size in (1, 8):
        stopped = answers(backbone, "greedy", images, questions, batch_size=batch_size)
        assert stopped[1].stop == "stop"
        assert stopped[1].text == text.partition(stop)[0].strip()
        assert stopped[1].token_ids == plain[1].token_ids[: len(stopped[1].token_ids)]
        assert len(stopped[1].token_ids) < TOKENS


def test_beams_with_stop_strings_go_on_to_the_end(toy, images, questions):
    """More beams may end at once than stand in reserve; the search must survive it."""
    from dataclasses import replace

    backbone = replace(toy(), stop_strings=tuple("abcdefghijklmnopqrstuvwxyz"))
    single = answers(backbone, "beam", images, questions, batch_size=1)
    batched = answers(backbone, "beam", images, questions, batch_size=8)
    for index in range(8):
        assert single[index].token_ids == batched[index].token_ids
        assert not any(letter in single[index].text for letter in "abcdefghijklmnopqrstuvwxyz")
    assert {answer.stop for answer in single.values()} >= {"stop"}


def test_the_limit_ends_an_answer_and_is_said_so(toy, images, questions):
    for method in ("greedy", "beam", "nucleus"):
        decoded = answers(toy(), method, images, questions, batch_size=8, max_new_tokens=3)
        assert {len(a.token_ids) for a in decoded.values() if a.stop == "length"} == {3}
        one = answers(toy(), method, images, questions, batch_size=8, max_new_tokens=1)
        assert {len(a.token_ids) for a in one.values()} == {1}


def test_an_end_token_is_kept_in_the_ids_and_left_out_of_the_text(toy, images, questions):
    backbone = toy("toy[text=qwen2,kv_heads=4]", ends=5)
    decoded = answers(backbone, "greedy", images, questions, batch_size=8)
    finished = [answer for answer in decoded.values() if answer.stop == "eos"]
    assert finished
    for answer in finished:
        assert answer.token_ids[-1] in backbone.eos_token_ids
        assert not set(answer.token_ids[:-1]) & set(backbone.eos_token_ids)
    assert backbone.text([30, 2]) == backbone.text([30]) != ""


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", [*DECODERS_ON_OTHERS, "nucleus", "opera[variant=official]"])
def test_half_precision_begins_with_about_the_same_scores(toy, images, questions, method, dtype):
    half = medbench.load_backbone("toy", device="cpu", dtype=dtype)
    whole, rough = (
        answers(backbone, method, images, questions, batch_size=8, record_scores=1)
        for backbone in (toy(), half)
    )
    alike = []
    for index, answer in whole.items():
        scores = torch.stack([answer.scores[0], rough[index].scores[0]]).flatten(1)
        # A token at the edge may be barred in one of them and not in the other.
        scores = scores[:, (scores.isfinite() & (scores > -500)).all(0)]
        assert scores.dtype == torch.float32
        alike.append(float(torch.corrcoef(scores)[0, 1]))
    # Rounding can choose another layer (DoLa) or other patches for one sample, not for most.
    assert median(alike) > 0.99
    assert min(alike) > 0.9
