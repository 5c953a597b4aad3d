import pytest
import torch

from medbench.decoding.reading import Reading, VisualEdit
from medbench.decoding.stack import RowStack


@pytest.fixture
def prompts(toy, images, questions):
    backbone = toy()
    features = backbone.encode(backbone.pixel_values(images[:4]))
    made = [backbone.prompt(q, f) for q, f in zip(questions[:4], features, strict=True)]
    return [*made[:3], made[3].without_image()]


@torch.no_grad()
def test_rows_follow_keep_in_any_order_and_more_than_once(toy, eager, prompts):
    stack = RowStack(toy(), prompts, Reading(attention=True))
    stack.append(torch.tensor([10, 11, 12, 13]))
    order = [3, 1, 1, 0]
    stack.keep(torch.tensor(order))
    stack.append(torch.tensor([20, 21, 22, 23]))
    stack.keep(torch.tensor([2, 0, 3]))
    stack.append(torch.tensor([30, 31, 32]))
    texts = [(1, [11, 22, 30]), (3, [13, 20, 31]), (0, [10, 23, 32])]
    for row, (source, tokens) in enumerate(texts):
        prompt = prompts[source]
        ids = prompt.ids.tolist() + tokens
        logits, attention = eager(toy()).run(ids, prompt.features)
        assert (stack.logits[row] - logits[-1]).abs().max() < 1e-4
        queries = attention[:, :, len(prompt.ids) - 1 :].mean((0, 1)).sum(0)
        expected = queries[: len(prompt.ids)][prompt.visual]
        if prompt.features is None:
            expected = torch.zeros(16)
        assert (stack.attention[row] - expected).abs().max() < 1e-5
    assert stack.forwards == 4 + 4 + 4 + 3
    assert len(stack) == 3


@torch.no_grad()
def test_padding_moves_no_logit(toy, prompts):
    together = RowStack(toy(), prompts).logits
    for row, prompt in enumerate(prompts):
        alone = RowStack(toy(), [prompt]).logits[0]
        assert (together[row] - alone).abs().max() < 1e-4
        assert together.dtype == torch.float32


@torch.no_grad()
def test_adapters_that_follow_rows_hear_of_every_batch_and_every_choice(toy, prompts):
    from dataclasses import replace

    heard = []

    class State:
        def begin(self, masks, *, joins):
            heard.append(masks)

        def settle(self):
            heard.append("settled")

        def keep(self, rows):
            heard.append(rows.tolist())

    stack = RowStack(replace(toy(), row_states=(State(),)), prompts)
    stack.keep(torch.tensor([2, 0]))
    masks, settled, kept = heard
    assert settled == "settled"
    assert kept == [2, 0]
    assert masks.filled.sum(1).tolist() == [len(prompt) for prompt in prompts]
    assert masks.visual.sum(1).tolist() == [16, 16, 16, 0]
    assert masks.question.sum(1).tolist() == [int(prompt.question.sum()) for prompt in prompts]
    assert torch.equal(masks.prompt, masks.filled)
    assert masks.filled[:, -1].all()


@torch.no_grad()
def test_rows_that_join_are_not_edited(toy, prompts):
    edit = VisualEdit(range(2), lambda scores: scores + 3)
    stack = RowStack(toy(), prompts[:2], Reading(edit=edit))
    stack.join(prompts[:2])
    plain = RowStack(toy(), prompts[:2])
    edited = RowStack(toy(), prompts[:2], Reading(edit=edit))
    for _ in range(2):
        assert (stack.logits - torch.cat([edited.logits, plain.logits])).abs().max() < 1e-4
        assert (edited.logits - plain.logits).abs().max() > 0.1
        stack.append(torch.tensor([10, 11, 10, 11]))
        plain.append(torch.tensor([10, 11]))
        edited.append(torch.tensor([10, 11]))
