"""Rows of tokens put together for a model, so that little is filled up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def by_length(rows: Sequence[Sequence[int]], *, tokens: int) -> Iterator[list[int]]:
    """Yield the places of rows, short ones first, as many together as make so many tokens.

    Args:
        rows: token ids.
        tokens: of a batch, its filling included; a row that is longer stands alone.
    """
    batch: list[int] = []
    for at in sorted(range(len(rows)), key=lambda at: len(rows[at])):
        if batch and len(rows[at]) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def filled(rows: Sequence[Sequence[int]], filler: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return rows made as long as the longest, and a mask of 1 where they have tokens.

    By length and not by token: a text may hold the filler's name, which models read.
    """
    longest = max(map(len, rows))
    ids = [[*row, *[filler] * (longest - len(row))] for row in rows]
    return ids, [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
