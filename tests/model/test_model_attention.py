"""Probes and edits against eager attention: values, gradients, padding, cache, registrations."""

import copy

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import eager_mask

from medbench.model import attention
from medbench.model.attention import AttentionEdit, AttentionProbe, attention_rows
from medbench.model.rows import positions

SPECS = ["toy", "toy[kv_heads=4]", "toy[text=mistral,kv_heads=1]", "toy[text=qwen2]"]


def collected(model, probe_queries, probe_columns, **inputs):
    """Return (output, rows stacked over layers) of one probed pass."""
    layers = {}
    probe = AttentionProbe(probe_queries, probe_columns, layers.__setitem__)
    output = model(probes=(probe,), **inputs)
    assert sorted(layers) == list(range(model.config.num_hidden_layers))
    return output, torch.stack([layers[index] for index in sorted(layers)])


def eager_copy(model):
    copied = copy.deepcopy(model)
    copied.set_attn_implementation("eager")
    return copied


def batch(padding, rows=3, width=17):
    draw = torch.Generator().manual_seed(1)
    embeddings = torch.randn(rows, width, 32, generator=draw)
    filled = torch.ones(rows, width, dtype=torch.bool)
    for row, pad in enumerate(padding):
        filled[row, :pad] = False
        embeddings[row, :pad] = 0
    return {
        "inputs_embeds": embeddings,
        "attention_mask": filled.long(),
        "position_ids": positions(filled),
    }


@pytest.mark.parametrize("padding", [(0, 0, 0), (0, 4, 9)])
@pytest.mark.parametrize("spec", SPECS)
@torch.no_grad()
def test_rows_are_those_of_eager_attention(toy, spec, padding):
    model = toy(spec).language_model
    inputs = batch(padding)
    queries = torch.tensor([[16, 9, 12], [16, 5, 10], [16, 15, 9]])
    columns = torch.tensor([[2, 9, 0, 5], [6, 4, 15, 9], [9, 10, 16, 11]])
    output, rows = collected(model, queries, columns, **inputs)
    plain = eager_copy(model)(**inputs, output_attentions=True)
    assert rows.dtype == torch.float32
    assert rows.shape == (2, 3, 4, 3, 4)
    for layer, maps in enumerate(plain.attentions):
        for row in range(3):
            expected = maps[row][:, queries[row]][:, :, columns[row]]
            assert (rows[layer, row] - expected).abs().max() < 1e-5
    real = inputs["attention_mask"].bool()
    assert (output.logits - plain.logits)[real].abs().max() < 1e-4


@pytest.mark.parametrize("padding", [(0, 0, 0), (0, 4, 9)])
@pytest.mark.parametrize("spec", SPECS)
@torch.no_grad()
def test_rows_of_cached_steps_are_those_of_one_whole_pass(toy, spec, padding):
    model = toy(spec).language_model
    inputs = batch(padding)
    columns = torch.tensor([[1, 3, 8], [5, 6, 8], [9, 10, 11]])
    whole = torch.stack(eager_copy(model)(**inputs, output_attentions=True).attentions)
    cache = DynamicCache()
    # A chunk, then two tokens at once, then one by one.
    for start, stop in ((0, 12), (12, 14), (14, 15), (15, 16), (16, 17)):
        queries = torch.full((3, 1), stop - start - 1)
        _, rows = collected(
            model,
            queries,
            columns,
            inputs_embeds=inputs["inputs_embeds"][:, start:stop],
            attention_mask=inputs["attention_mask"][:, :stop],
            position_ids=inputs["position_ids"][:, start:stop],
            past_key_values=cache,
        )
        for row in range(3):
            expected = whole[:, row, :, stop - 1][:, :, columns[row]]
            assert (rows[:, row, :, 0] - expected).abs().max() < 1e-5


@torch.no_grad()
def test_rows_over_all_columns_sum_to_one(toy):
    model = toy().language_model
    inputs = batch((0, 4, 9))
    columns = torch.arange(17).expand(3, 17)
    _, rows = collected(model, torch.full((3, 1), 16), columns, **inputs)
    assert torch.allclose(rows.sum(-1), torch.ones_like(rows.sum(-1)), atol=1e-5)
    assert rows[:, 2, :, 0, :9].abs().max() == 0, "padding must get nothing"


@pytest.mark.parametrize("spec", SPECS)
def test_the_gradient_through_the_rows_is_that_of_eager_attention(toy, spec):
    model = copy.deepcopy(toy(spec).language_model).requires_grad_(True)
    plain = eager_copy(model)
    inputs = batch((0, 4, 9))
    queries = torch.tensor([[16, 9], [16, 5], [16, 15]])
    columns = torch.tensor([[2, 9, 0], [6, 4, 15], [9, 10, 16]])
    weights = torch.randn(2, 3, 4, 2, 3, generator=torch.Generator().manual_seed(2))
    output, rows = collected(model, queries, columns, **inputs)
    loss = (rows * weights).sum() + output.logits[:, -1].logsumexp(-1).sum()
    loss.backward()
    other = plain(**inputs, output_attentions=True)
    picked = torch.stack(
        [
            torch.stack([maps[row][:, queries[row]][:, :, columns[row]] for row in range(3)])
            for maps in other.attentions
        ]
    )
    ((picked * weights).sum() + other.logits[:, -1].logsumexp(-1).sum()).backward()
    largest = 0.0
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is None:
            assert name.endswith("embed_tokens.weight")
            continue
        assert ours.grad.isfinite().all()
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5), name
        largest = max(largest, float(theirs.grad.abs().max()))
    assert largest > 0.1


def test_the_attention_term_alone_reaches_queries_and_keys(toy):
    model = copy.deepcopy(toy().language_model).requires_grad_(True)
    _, rows = collected(
        model, torch.full((3, 1), 16), torch.arange(10, 14).expand(3, 4), **batch((0, 4, 9))
    )
    rows.sum().backward()
    for layer in model.model.layers:
        assert layer.self_attn.q_proj.weight.grad.abs().max() > 0
        assert layer.self_attn.k_proj.weight.grad.abs().max() > 0
    assert model.model.layers[-1].self_attn.v_proj.weight.grad is None


@torch.no_grad()
def test_a_probe_changes_no_logit_and_does_not_outlive_its_pass(toy):
    model = toy().language_model
    inputs = batch((0, 4, 9))
    calls = []
    probe = AttentionProbe(
        torch.full((3, 1), 16),
        torch.zeros(3, 1, dtype=torch.long),
        lambda *seen: calls.append(seen),
    )
    probed = model(probes=(probe,), **inputs).logits
    assert len(calls) == 2
    assert torch.equal(model(**inputs).logits, probed)
    assert len(calls) == 2


@torch.no_grad()
def test_without_the_mask_function_padded_rows_would_be_wrong(toy):
    """Why `register` makes two registrations: the pitfall is real and silent."""
    model = copy.deepcopy(toy().language_model)
    inputs = batch((0, 4, 9))
    right = model(**inputs).logits[:, -1]
    AttentionInterface.register("half_registered", attention.probed_attention)
    model.set_attn_implementation("half_registered")
    wrong = model(**inputs).logits[:, -1]
    assert (wrong[0] - right[0]).abs().max() < 1e-4
    assert (wrong[1:] - right[1:]).abs().max() > 0.1
    name = attention.register()
    assert name in AttentionInterface().valid_keys()
    assert name in AttentionMaskInterface().valid_keys()
    assert model.config._attn_implementation != name
    assert toy().language_model.config._attn_implementation == name


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_rows_are_the_softmax_written_out(kv_heads):
    """No model: head h reads key head h // group, the mask bars, the softmax sees every key."""
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(2, 6, 5, 4, generator=draw)
    key = torch.randn(2, kv_heads, 9, 4, generator=draw)
    mask = torch.rand(2, 1, 5, 9, generator=draw) > 0.3
    mask[..., 0] = True
    queries, columns = torch.tensor([[4, 0], [1, 3]]), torch.tensor([[8, 0, 3], [2, 2, 7]])
    taken = columns[:, None, None].expand(2, 6, 2, 3)
    rows = attention_rows(query, key, mask, queries, 0.7).gather(3, taken)
    causal = attention_rows(query, key, None, queries, 0.7).gather(3, taken)
    for b, h, q, n in torch.cartesian_prod(
        torch.arange(2), torch.arange(6), torch.arange(2), torch.arange(3)
    ).tolist():
        place, column = int(queries[b, q]), int(columns[b, n])
        scores = [
            0.7 * float(query[b, h, place] @ key[b, h // (6 // kv_heads), k]) for k in range(9)
        ]
        for result, seen in (
            (rows, [bool(mask[b, 0, place, k]) for k in range(9)]),
            (causal, [k <= place + 4 for k in range(9)]),
        ):
            weights = torch.tensor(scores).exp() * torch.tensor(seen)
            expected = weights[column] / weights.sum()
            assert float(result[b, h, q, n]) == pytest.approx(float(expected), abs=1e-6)


def test_masks_that_are_not_boolean_are_refused():
    shape = torch.zeros(1, 1, 2, 4)
    wanted = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(TypeError, match="boolean"):
        attention_rows(shape, shape, torch.zeros(1, 1, 2, 2), wanted, 1.0)


@pytest.mark.parametrize("layers", [(0, 2), (1,), range(1, 3), ()])
@torch.no_grad()
def test_a_probe_reads_the_layers_it_names(toy, layers):
    model = toy("toy[layers=3]").language_model
    inputs = batch((0, 4, 9))
    queries, columns = torch.full((3, 1), 16), torch.tensor([[2, 9], [6, 4], [9, 16]])
    _, every = collected(model, queries, columns, **inputs)
    some = {}
    model(probes=(AttentionProbe(queries, columns, some.__setitem__, layers),), **inputs)
    assert sorted(some) == list(layers)
    for layer, rows in some.items():
        assert torch.equal(rows, every[layer])
        assert all(layer == other or not torch.equal(rows, every[other]) for other in range(3))


@pytest.mark.parametrize("spec", SPECS)
@torch.no_grad()
def test_without_columns_a_probe_gets_every_key(toy, spec):
    model = toy(spec).language_model
    inputs = batch((0, 4, 9))
    queries = torch.tensor([[16, 9, 12], [5, 16, 10], [16, 15, 9]])
    _, rows = collected(model, queries, None, **inputs)
    assert rows.shape == (2, 3, 4, 3, 17)
    whole = eager_copy(model)(**inputs, output_attentions=True).attentions
    for row in range(3):
        expected = torch.stack([maps[row][:, queries[row]] for maps in whole])
        assert (rows[:, row] - expected).abs().max() < 1e-5
    cache = DynamicCache()
    for start, stop in ((0, 16), (16, 17)):
        _, rows = collected(
            model,
            torch.full((3, 1), stop - start - 1),
            None,
            inputs_embeds=inputs["inputs_embeds"][:, start:stop],
            attention_mask=inputs["attention_mask"][:, :stop],
            position_ids=inputs["position_ids"][:, start:stop],
            past_key_values=cache,
        )
        assert rows.shape[-1] == stop
        expected = torch.stack(whole)[:, :, :, stop - 1 : stop, :stop]
        assert (rows - expected).abs().max() < 1e-5


def written_out(module, query, key, value, attention_mask, scaling, edited=None, **_):
    """Attend head by head over every score; `edited` is (layers, bool [rows, T, T], change)."""
    layers, place, change = edited
    outputs, weights = [], []
    for head in range(query.shape[1]):
        own = head * key.shape[1] // query.shape[1]
        scores = scaling * query[:, head] @ key[:, own].transpose(1, 2)
        if module.layer_idx in layers:
            scores = torch.where(place, change(scores), scores)
        weights.append((scores + attention_mask[:, 0]).softmax(-1))
        outputs.append(weights[-1] @ value[:, own])
    return torch.stack(outputs, 2), torch.stack(weights, 1)


def written_out_pass(model, inputs, layers, queries, columns, change):
    """Return logits, and attention [layers, rows, heads, T, T], of one pass without a cache.

    Args:
        queries: positions whose scores are changed.
        columns: bool [rows, T], the keys at which they are.
    """
    AttentionInterface.register("written_out", written_out)
    AttentionMaskInterface.register("written_out", eager_mask)
    copied = copy.deepcopy(model)
    copied.set_attn_implementation("written_out")
    changed = torch.zeros(1, columns.shape[1], 1, dtype=torch.bool)
    changed[:, list(queries)] = True
    edited = (layers, changed & columns[:, None, :], change)
    output = copied(**inputs, output_attentions=True, edited=edited)
    return output.logits, torch.stack(output.attentions)


def some_columns():
    """Return different columns for each row of a batch, padding among them."""
    columns = torch.zeros(3, 17, dtype=torch.bool)
    columns[0, 3:8] = columns[1, 2:7] = columns[1, 16] = columns[2, 5:14] = True
    return columns


def stronger(scores):
    return scores + 0.8 * scores.abs()


def backwards(scores):
    return 2 - 0.5 * scores


EDITED = [*SPECS, "toy[layers=4,heads=8,kv_heads=2]"]


@pytest.mark.parametrize("change", [stronger, backwards])
@pytest.mark.parametrize("padding", [(0, 0, 0), (0, 4, 9)])
@pytest.mark.parametrize("spec", EDITED)
@torch.no_grad()
def test_an_edit_changes_the_last_query_of_each_row_and_nothing_before_it(
    toy, spec, padding, change
):
    model = toy(spec).language_model
    inputs, columns = batch(padding), some_columns()
    layers = range(1, model.config.num_hidden_layers)
    out = model(edit=AttentionEdit(layers, columns, change), **inputs).logits
    expected, _ = written_out_pass(model, inputs, layers, [16], columns, change)
    real = inputs["attention_mask"].bool()
    assert (out - expected)[real].abs().max() < 1e-4
    plain = model(**inputs).logits
    real[:, -1] = False
    assert (out - plain)[real].abs().max() < 1e-5
    assert ((out - plain)[:, -1].abs().amax(-1) > 0.1).all()


@pytest.mark.parametrize("padding", [(0, 0, 0), (0, 4, 9)])
@pytest.mark.parametrize("spec", SPECS)
@torch.no_grad()
def test_an_edit_of_cached_steps_is_that_of_one_whole_pass(toy, spec, padding):
    """Each pass changes its own last query: what it leaves in the cache is as changed."""
    model = toy(spec).language_model
    inputs, columns = batch(padding), some_columns()
    parts = ((0, 12), (12, 14), (14, 15), (15, 16), (16, 17))
    last = [stop - 1 for _, stop in parts]
    expected, maps = written_out_pass(model, inputs, (0, 1), last, columns, stronger)
    cache = DynamicCache()
    for start, stop in parts:
        output, rows = collected(
            model,
            torch.full((3, 1), stop - start - 1),
            None,
            inputs_embeds=inputs["inputs_embeds"][:, start:stop],
            attention_mask=inputs["attention_mask"][:, :stop],
            position_ids=inputs["position_ids"][:, start:stop],
            past_key_values=cache,
            edit=AttentionEdit((0, 1), columns[:, :stop], stronger),
        )
        assert (output.logits[:, -1] - expected[:, stop - 1]).abs().max() < 1e-4
        assert (rows[:, :, :, 0] - maps[:, :, :, stop - 1, :stop]).abs().max() < 1e-5
    plain = model(**inputs).logits[:, -1]
    assert ((expected[:, -1] - plain).abs().amax(-1) > 0.1).all()


@pytest.mark.parametrize("spec", SPECS)
@torch.no_grad()
def test_a_probe_sees_edited_rows_as_edited_and_others_as_they_are(toy, spec):
    model = toy(spec).language_model
    inputs, columns = batch((0, 4, 9)), some_columns()
    queries = torch.tensor([[9, 16, 12], [16, 5, 10], [16, 15, 16]])
    # Only the first layer: what the second one sees is changed before it by this edit alone.
    edit = AttentionEdit((0,), columns, stronger)
    _, rows = collected(model, queries, None, edit=edit, **inputs)
    _, maps = written_out_pass(model, inputs, (0,), [16], columns, stronger)
    _, plain = collected(model, queries, None, **inputs)
    for row in range(3):
        expected = maps[:, row][:, :, queries[row]]
        assert (rows[:, row] - expected).abs().max() < 1e-5
        for at, query in enumerate(queries[row].tolist()):
            gap = (rows - plain)[:, row, :, at].abs().amax(dim=(1, 2))
            assert (gap > 0.01).all() if query == 16 else (gap < 1e-5).all()


@pytest.mark.parametrize("spec", SPECS)
@torch.no_grad()
def test_an_edit_that_changes_no_score_changes_no_logit(toy, spec):
    model = toy(spec).language_model
    inputs = batch((0, 4, 9))
    plain = model(**inputs).logits[:, -1]
    every, none = torch.ones(3, 17, dtype=torch.bool), torch.zeros(3, 17, dtype=torch.bool)
    for edit in (
        AttentionEdit(range(2), every, lambda scores: scores),
        AttentionEdit(range(2), none, stronger),
        # The same for every score: the softmax does not see it.
        AttentionEdit(range(2), every, lambda scores: scores + 3),
    ):
        edited = model(edit=edit, **inputs).logits[:, -1]
        assert (edited - plain).abs().max() < 1e-5
    beyond = AttentionEdit((5,), every, stronger)
    assert torch.equal(model(edit=beyond, **inputs).logits[:, -1], plain)


@pytest.mark.parametrize("edited", [(0,), (1,), (2,), (0, 2)])
@torch.no_grad()
def test_an_edit_reaches_the_layers_it_names(toy, edited):
    model = toy("toy[layers=3]").language_model
    inputs, columns = batch((0, 4, 9)), some_columns()
    queries = torch.full((3, 1), 16)
    edit = AttentionEdit(edited, columns, stronger)
    output, rows = collected(model, queries, None, edit=edit, **inputs)
    logits, maps = written_out_pass(model, inputs, edited, [16], columns, stronger)
    assert (rows[:, :, :, 0] - maps[:, :, :, 16]).abs().max() < 1e-5
    assert (output.logits - logits)[:, -1].abs().max() < 1e-4
    _, plain = collected(model, queries, None, **inputs)
    first = edited[0]
    assert torch.equal(rows[:first], plain[:first]), "layers before the first are as they were"
    assert (rows[first] - plain[first]).abs().max() > 0.01


@torch.no_grad()
def test_an_edit_draws_no_attention_to_padding(toy):
    model = toy().language_model
    inputs = batch((0, 4, 9))
    every = torch.ones(3, 17, dtype=torch.bool)
    edit = AttentionEdit(range(2), every, lambda scores: scores + 100 * scores.abs())
    _, rows = collected(model, torch.full((3, 1), 16), None, edit=edit, **inputs)
    assert rows[:, 1, :, 0, :4].abs().max() == rows[:, 2, :, 0, :9].abs().max() == 0
    assert torch.allclose(rows.sum(-1), torch.ones_like(rows.sum(-1)), atol=1e-5)


@torch.no_grad()
def test_an_edit_does_not_outlive_its_pass(toy):
    model = toy().language_model
    inputs = batch((0, 4, 9))
    before = model(**inputs).logits
    edited = model(edit=AttentionEdit(range(2), some_columns(), stronger), **inputs).logits
    assert not torch.equal(edited, before)
    assert torch.equal(model(**inputs).logits, before)
