"""The cache with room behind what it holds, against one that is written out."""

import torch
from transformers import DynamicCache

from medbench.decoding.cache import ROOM, join_rows, keep_column, move_rows, new_cache


def states(rows, new, seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, rows, 3, new, 4, generator=draw).unbind(0)


def update(cache, layers):
    """Append (keys, values) to both layers; return what attention would see."""
    return [cache.update(*layers[at], at) for at in range(2)]


def both(rows, lengths, seed=0):
    """Return a roomy cache and a plain one that took the same states."""
    roomy, plain = new_cache(), DynamicCache()
    for number, new in enumerate(lengths):
        pair = states(rows, new, seed + number)
        same(update(roomy, pair), update(plain, pair))
    return roomy, plain


def same(one, other):
    for (keys, values), (wanted_keys, wanted_values) in zip(one, other, strict=True):
        assert torch.equal(keys, wanted_keys)
        assert torch.equal(values, wanted_values)


def grow(roomy, plain, rows, seed, steps=3):
    for step in range(steps):
        pair = states(rows, 1, seed + step)
        same(update(roomy, pair), update(plain, pair))
    assert roomy.get_seq_length() == plain.get_seq_length()


def test_it_holds_what_a_plain_cache_holds_across_its_room():
    both(2, [5] + [1] * (ROOM + 5) + [3, 1])


def test_most_tokens_are_written_in_place():
    roomy, _ = both(2, [5, 1])
    before = roomy.layers[0].keys.data_ptr()
    update(roomy, states(2, 1, 9))
    assert roomy.layers[0].keys.data_ptr() == before


def test_it_goes_on_after_rows_are_taken_and_positions_cropped():
    roomy, plain = both(4, [5, 1, 1])
    rows = torch.tensor([3, 1, 1])
    for cache in (roomy, plain):
        cache.batch_select_indices(rows)
    grow(roomy, plain, 3, 50)
    for cache in (roomy, plain):
        cache.crop(-4)
    grow(roomy, plain, 3, 60, steps=6)


def test_rows_of_one_prompt_change_places_without_moving_it():
    roomy, plain = both(1, [5])
    for cache in (roomy, plain):
        cache.batch_select_indices(torch.tensor([0, 0, 0]))
    grow(roomy, plain, 3, 40)
    before = roomy.layers[0].keys.data_ptr()
    order = torch.tensor([2, 0, 0])
    move_rows(roomy, order, 5)
    plain.batch_select_indices(order)
    assert roomy.layers[0].keys.data_ptr() == before
    grow(roomy, plain, 3, 80)
    assert roomy.layers[0].keys.data_ptr() == before


def test_rows_of_another_cache_go_below_with_padding_in_front():
    for own, extra in ((7, 4), (4, 7), (5, 5)):
        roomy, plain = both(2, [own - 1, 1])
        other, theirs = both(1, [extra], seed=30)
        wanted = []
        for layer, one in zip(plain.layers, theirs.layers, strict=True):
            width = max(own, extra)
            for mine, added in ((layer.keys, one.keys), (layer.values, one.values)):
                whole = torch.zeros(3, 3, width, 4)
                whole[:2, :, width - own :], whole[2:, :, width - extra :] = mine, added
                wanted.append(whole)
        join_rows(roomy, other)
        held = [half for layer in roomy.layers for half in (layer.keys, layer.values)]
        assert all(torch.equal(one, two) for one, two in zip(held, wanted, strict=True))
        for layer, keys, values in zip(plain.layers, wanted[::2], wanted[1::2], strict=True):
            layer.keys, layer.values = keys, values
        grow(roomy, plain, 3, 70)


def test_one_of_several_last_positions_is_kept_for_each_row():
    roomy, plain = both(2, [5, 3])
    keep_column(roomy, 5, torch.tensor([2, 0]))
    for layer in plain.layers:
        for name in ("keys", "values"):
            whole = getattr(layer, name)
            chosen = torch.stack([whole[0, :, 7], whole[1, :, 5]])[:, :, None]
            setattr(layer, name, torch.cat([whole[:, :, :5], chosen], dim=2))
    same(*([(one.keys, one.values) for one in cache.layers] for cache in (roomy, plain)))
    grow(roomy, plain, 2, 90)
