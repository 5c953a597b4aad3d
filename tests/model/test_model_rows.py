import torch

from medbench.model.rows import left_padded, positions, where


def test_rows_are_padded_on_the_left():
    padded = left_padded([torch.tensor([1, 2]), torch.tensor([3]), torch.tensor([4, 5, 6])])
    assert padded.tolist() == [[0, 1, 2], [0, 0, 3], [4, 5, 6]]
    wide = left_padded([torch.ones(1, 2), torch.ones(2, 2)], width=3)
    assert wide.shape == (2, 3, 2)
    assert wide[:, :, 0].tolist() == [[0, 0, 1], [0, 1, 1]]
    assert left_padded([torch.tensor([True]), torch.tensor([True, False])]).dtype == torch.bool


def test_positions_start_at_zero_where_each_row_does():
    filled = torch.tensor([[False, False, True, True], [True, True, True, True]])
    assert positions(filled).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


def test_where_lists_the_true_positions_in_order():
    mask = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
    found, real = where(mask)
    assert found.tolist() == [[1, 3, 4], [0, 0, 0], [0, 0, 0]]
    assert real.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert where(torch.zeros(2, 4, dtype=torch.bool))[0].shape == (2, 0)
    assert where(torch.zeros(0, 4, dtype=torch.bool))[0].shape == (0, 0)


def test_where_keeps_the_order_in_long_rows():
    mask = torch.rand(3, 700, generator=torch.Generator().manual_seed(0)) > 0.4
    found, real = where(mask)
    for row in range(3):
        assert found[row][real[row]].tolist() == mask[row].nonzero().flatten().tolist()
