"""Scores over some of a run's samples, chosen by what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medbench import store
from medbench.errors import UserError
from medbench.items import Items, hashed, is_mean, told
from medbench.restricted import check_texts
from medbench.tables.model import Where

if TYPE_CHECKING:
    from medbench.store import RunRecord


def members(run: RunRecord, where: Where) -> np.ndarray:
    """Return the hashes of the samples meant, as a run of the task knows them.

    Args:
        run: any of those over the task's samples.
        where: fields of a sample's `meta` and the values they may have; case does not count.

    Raises:
        UserError: there are none, or the run was exported without what is known of them.
    """
    wanted = {field: {value.lower() for value in values} for field, values in where}
    check_texts(run.folder, withheld=run.withheld, what="a column over some samples")
    meant = [
        row["id"]
        for row in told(store.read_rows(run.folder), restricted=run.restricted)
        if all(
            str(row.get("meta", {}).get(field, "")).lower() in values
            for field, values in wanted.items()
        )
    ]
    if not meant:
        words = " and ".join(f"{field} {' or '.join(values)}" for field, values in where)
        raise UserError(
            f"{run.task} has no sample with {words}",
            "A column of the layout asks for some, by the fields of their meta.",
            f"The fields stand in {run.folder / store.SAMPLES}.",
        )
    return hashed(meant)


def score_subset(run: RunRecord, items: Items, metric: str, meant: np.ndarray) -> dict[str, Any]:
    """Return a metric's score over some samples, as it would stand in scores.json.

    Args:
        run: whose score; items: its answers.
        metric: full name.
        meant: hashes of the samples.

    Raises:
        UserError: the metric applies to none of them, or is no mean over samples.
    """
    from medbench.stats import bootstrap_mean

    values = items.scores[metric]
    applies = ~np.isnan(values)
    if not is_mean(values[applies], run.scores[metric]["value"]):
        raise UserError(
            f"{metric} has no score over some samples only",
            "It is no mean over samples, so that the others cannot be left out.",
            "Take a metric that is, such as bleu4/nltk for bleu4/coco.",
        )
    applies &= np.isin(items.samples, meant)
    if not applies.any():
        raise UserError(f"{metric} applies to none of the samples meant in {run.task}")
    kept, groups = values[applies].tolist(), items.groups[applies].tolist()
    low, high = bootstrap_mean(kept, groups) or (None, None)
    return {
        "value": sum(kept) / len(kept),
        "low": low,
        "high": high,
        "n": len(kept),
        "groups": len(set(groups)),
    }
