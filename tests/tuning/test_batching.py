"""Neighbours, padding, micro-batches, cached steps and moved rows change nothing (float32)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medbench import generate
from medbench.decoding.lookahead import BeamStack
from medbench.decoding.stack import RowStack
from medbench.method import Tuner
from medbench.model.llava import Backbone
from medbench.model.prompt import Prompt
from medbench.tuning import loop
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.batch import IGNORE, Example, TrainBatch, collate
from medbench.tuning.step import forward, losses

MakeTuner = Callable[..., Tuner]
MakeExample = Callable[[int], Example]
TUNERS = [
    ("lora", {}),
    ("a3tune", {}),
    ("a3tune", {"kmoe_text_lora": "shared", "moe_router": "mlp", "qmoe_apply": "text"}),
    ("a3tune", {"variant": "official", "R": 3, "moe_test_dropout": False}),
    ("a3tune", {"align_queries": "answer", "align_loss": "kl", "segment_reduce": "mean"}),
    ("a3tune", {"align_queries": "question", "kmoe_combine": "weighted_renorm"}),
    ("a3tune", {"align_queries": "last", "q_experts": 1, "kmoe": "off"}),
    ("a3tune", {"similarity_weight": 0.5}),
    ("medalign", {}),
    ("medalign", {"visual_map": "low_rank", "query_span": "response", "attn_norm": "softmax"}),
    ("medalign", {"variant": "official", "drop_wrapped_lora": True, "orthogonal_penalty": 0.1}),
    ("medalign", {"query_span": "all_text", "visual_map": "none"}),
]
PARTS = {
    "lora": {"language"},
    "a3tune": {"language", "alignment"},
    "medalign": {"language", "similarity", "attention"},
}
VARIED = pytest.mark.parametrize(("name", "options"), TUNERS)


# Float32 through two shaken layers; kernels of CPUs sum in orders of their own.
LOGITS = 1e-4
# Of steps of 1e-3. Adam makes a step of a gradient's sign, and rounding decides on tiny ones.
WEIGHTS = 5e-5


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def gradients(adapter: Adapter) -> dict[str, Tensor]:
    return {
        name: weight.grad.clone()
        for name, weight in adapter.trainable().items()
        if weight.grad is not None
    }


def backward(tuner: Tuner, adapter: Adapter, examples: Sequence[Example]) -> dict[str, Tensor]:
    parts = losses(tuner, adapter, collate(adapter.backbone, examples))
    torch.stack([part.sum() for part in parts.values()]).sum().backward()
    return {name: part.detach() for name, part in parts.items()}


@VARIED
def test_losses_and_gradients_of_a_padded_batch_are_those_of_single_samples(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
    name: str,
    options: dict[str, object],
) -> None:
    tuner = make_tuner(name, **options)
    examples = [example(i) for i in range(4)]
    assert len({len(one.prompt) + len(one.answer) for one in examples}) == 4
    with attached(backbone, tuner) as adapter:
        shake(adapter)
        adapter.train(True)
        single = [backward(tuner, adapter, [one]) for one in examples]
        alone = gradients(adapter)
        for weight in adapter.trainable().values():
            weight.grad = None
        batch = backward(tuner, adapter, examples)
        together = gradients(adapter)
    assert batch.keys() >= PARTS[name]
    for part, values in batch.items():
        close(values, torch.cat([one[part] for one in single]))
    assert alone.keys() == together.keys()
    for weight, gradient in alone.items():
        scale = max(float(gradient.abs().max()), 1.0)
        close(together[weight] / scale, gradient / scale)


@VARIED
def test_micro_batches_do_not_change_training(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    tmp_path: Path,
    name: str,
    options: dict[str, object],
) -> None:
    ends: list[dict[str, Tensor]] = []
    for micro_batch in (1, 3, 4):
        tuner = make_tuner(name, micro_batch=micro_batch, learning_rate=1e-3, **options)
        folder = tmp_path / str(micro_batch)
        folder.mkdir()
        with attached(backbone, tuner) as adapter:
            loop.train(tuner, adapter, 4, example, folder, seed=0, epochs=2)
            ends.append({k: v.clone() for k, v in adapter.state().items()})
    for end in ends[1:]:
        for weight, value in ends[0].items():
            close(end[weight], value, WEIGHTS)


@pytest.fixture
def collated(backbone: Backbone, example: MakeExample) -> TrainBatch:
    return collate(backbone, [example(i) for i in range(4)])


def test_answers_stand_at_the_right_end_and_nothing_wraps_around(
    backbone: Backbone, example: MakeExample, collated: TrainBatch
) -> None:
    width = collated.labels.shape[1]
    for row in range(4):
        one = example(row)
        prompt, answer = len(one.prompt), len(one.answer)
        begin = width - prompt - answer
        assert collated.labels[row, -answer:].tolist() == one.answer
        assert (collated.labels[row, :-answer] == IGNORE).all()
        last = begin + prompt - 1
        assert collated.last_prompt[row].nonzero().tolist() == [[last]]
        assert collated.generating[row].nonzero().flatten().tolist() == list(range(last, width - 1))
        first_after = begin + int(one.prompt.visual.nonzero()[-1]) + 1
        assert collated.after_image[row].nonzero().flatten().tolist() == list(
            range(first_after, width)
        )
        assert torch.equal(collated.masks.visual[row, begin:last], one.prompt.visual[:-1])
        assert int(collated.masks.question[row].sum()) == int(one.prompt.question.sum())
        assert int(collated.masks.filled[row].sum()) == prompt + answer
        assert torch.equal(
            collated.embeddings[row, begin : begin + prompt], backbone.embed(one.prompt)
        )
        assert not collated.embeddings[row, :begin].any()
    # A row whose first position is an answer token must not mark the last position.
    edge = replace(collated, labels=collated.labels.clone())
    edge.labels[0, 0] = 5
    assert not edge.generating[:, -1].any()


@pytest.fixture
def shaken(
    request: pytest.FixtureRequest,
    backbone: Backbone,
    make_tuner: MakeTuner,
    shake: Callable[[Adapter], None],
) -> Iterator[tuple[Tuner, Adapter]]:
    name, options = request.param
    tuner = make_tuner(name, **options)
    with attached(backbone, tuner) as adapter, torch.no_grad():
        shake(adapter)
        yield tuner, adapter


SHAKEN = pytest.mark.parametrize("shaken", TUNERS, indirect=True)


def tokens_of(step: int, rows: int) -> Tensor:
    return torch.tensor([(11 * step + 7 * row) % 60 + 10 for row in range(rows)])


@SHAKEN
def test_cached_steps_give_the_logits_of_one_whole_pass(
    shaken: tuple[Tuner, Adapter], example: MakeExample
) -> None:
    tuner, adapter = shaken
    examples = [example(i) for i in range(4)]
    stack = RowStack(adapter.backbone, [one.prompt for one in examples])
    seen = [stack.logits]
    answers = [tokens_of(step, 4) for step in range(5)]
    for tokens in answers:
        stack.append(tokens)
        seen.append(stack.logits)
    given = [
        replace(one, answer=[int(tokens[row]) for tokens in answers])
        for row, one in enumerate(examples)
    ]
    _, whole = forward(tuner, adapter, collate(adapter.backbone, given))
    close(torch.stack(seen, dim=1), whole, LOGITS)


@SHAKEN
def test_rows_that_are_removed_doubled_and_swapped_keep_their_logits(
    shaken: tuple[Tuner, Adapter], example: MakeExample
) -> None:
    _, adapter = shaken
    prompts = [example(i).prompt for i in range(4)]
    single = []
    for row, prompt in enumerate(prompts):
        stack = RowStack(adapter.backbone, [prompt])
        stack.append(tokens_of(0, 4)[row : row + 1])
        stack.append(tokens_of(1, 4)[row : row + 1])
        single.append(stack.logits[0])
    stack = RowStack(adapter.backbone, prompts)
    stack.append(tokens_of(0, 4))
    kept = torch.tensor([3, 1, 1, 0])
    stack.keep(kept)
    stack.append(tokens_of(1, 4)[kept])
    close(stack.logits, torch.stack([single[row] for row in kept]), LOGITS)


@SHAKEN
@pytest.mark.parametrize("shorter", ["first", "second"])
def test_rows_that_join_keep_their_logits(
    shaken: tuple[Tuner, Adapter], example: MakeExample, shorter: str
) -> None:
    _, adapter = shaken
    with_image = [example(i).prompt for i in range(3)]
    parts = [with_image, [prompt.without_image() for prompt in with_image]]
    if shorter == "first":
        parts.reverse()
    stack = RowStack(adapter.backbone, parts[0])
    stack.join(parts[1])
    kept = torch.tensor([4, 0, 5, 5])
    stack.append(tokens_of(0, 6))
    stack.keep(kept)
    stack.append(tokens_of(1, 6)[kept])
    for row, source in enumerate(kept.tolist()):
        alone = RowStack(adapter.backbone, [[*parts[0], *parts[1]][source]])
        alone.append(tokens_of(0, 6)[source : source + 1])
        alone.append(tokens_of(1, 6)[source : source + 1])
        close(stack.logits[row], alone.logits[0], LOGITS)


@SHAKEN
def test_beams_that_look_ahead_and_go_back_keep_their_logits(
    shaken: tuple[Tuner, Adapter], example: MakeExample
) -> None:
    """As many tokens again as the prompt has, so that a rerun could pass for a prompt."""
    _, adapter = shaken
    prompt = example(0).prompt
    stack = BeamStack(adapter.backbone, prompt, 2)
    answer = [tokens_of(step, 2) for step in range(len(prompt))]
    for tokens in answer:
        stack.propose(torch.stack([tokens, tokens + 1, tokens + 2], dim=1))
        stack.accept(torch.tensor([0, 1]), torch.zeros(2, dtype=torch.long))
    alone = RowStack(adapter.backbone, [prompt, prompt])
    for tokens in answer:
        alone.append(tokens)
    close(stack.logits, alone.logits, LOGITS)
    stack.append(tokens_of(99, 2))
    stack.rewind(torch.stack(answer, dim=1), None)
    close(stack.logits, alone.logits, LOGITS)


@SHAKEN
def test_a_blind_row_beside_rows_with_images_is_what_it_is_alone(
    shaken: tuple[Tuner, Adapter], example: MakeExample
) -> None:
    _, adapter = shaken
    prompts = [example(0).prompt, example(1).prompt.without_image(), example(2).prompt]
    together = RowStack(adapter.backbone, prompts)
    together.append(tokens_of(0, 3))
    for row, prompt in enumerate(prompts):
        alone = RowStack(adapter.backbone, [prompt])
        alone.append(tokens_of(0, 3)[row : row + 1])
        close(together.logits[row], alone.logits[0], LOGITS)


def first_logits(adapter: Adapter, prompt: Prompt) -> Tensor:
    return RowStack(adapter.backbone, [prompt]).logits[0]


def test_key_experts_do_nothing_to_a_prompt_without_an_image(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
) -> None:
    seen, blind = example(0).prompt, example(0).prompt.without_image()
    with attached(backbone, make_tuner("a3tune")) as adapter, torch.no_grad():
        shake(adapter)
        before = first_logits(adapter, seen), first_logits(adapter, blind)
        for name, weight in adapter.trainable().items():
            if ".key." in name:
                weight.zero_()
        after = first_logits(adapter, seen), first_logits(adapter, blind)
    assert not torch.allclose(before[0], after[0], atol=1e-3)
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("method", ["greedy", "beam"])
@SHAKEN
def test_answers_in_a_batch_are_those_of_single_samples(
    shaken: tuple[Tuner, Adapter], method: str
) -> None:
    _, adapter = shaken
    questions = ["what is it?", "how?", "where is the lesion in this image?"]
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    found = [
        generate(
            adapter.backbone,
            method=method,
            prompts=questions,
            pixel_values=pixels,
            max_new_tokens=5,
            batch_size=size,
        )
        for size in (1, 3)
    ]
    assert [one.token_ids for one in found[0]] == [one.token_ids for one in found[1]]
