"""One forward pass of training: the language loss and what auxiliary losses may look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medbench.method import Tuner
from medbench.model.attention import AttentionProbe
from medbench.model.rows import positions, where
from medbench.tuning.adapter import Adapter
from medbench.tuning.batch import IGNORE, TrainBatch


@dataclass(frozen=True)
class TrainView:
    """What a forward pass showed.

    Attributes:
        batch: its samples.
        attention: [samples, layers, heads, Q, N], probabilities of the rows and layers the tuner
            asked for (`Tuner.queries`, `Tuner.attention_layers`) at the visual columns,
            normalised over all keys; None if it asked for none.
        valid: bool [samples, Q], which of these rows are real.
        extension: the tuner's own module, or None.
    """

    batch: TrainBatch
    attention: Tensor | None
    valid: Tensor | None
    extension: nn.Module | None


def losses(tuner: Tuner, adapter: Adapter, batch: TrainBatch) -> dict[str, Tensor]:
    """Return every loss by name, each float32 [samples]; "language" is always there."""
    view, logits = forward(tuner, adapter, batch)
    labels = batch.labels[:, 1 - logits.shape[1] :]
    return {"language": language_loss(logits, labels), **tuner.auxiliary(view)}


def forward(tuner: Tuner, adapter: Adapter, batch: TrainBatch) -> tuple[TrainView, Tensor]:
    """Return what a pass shows, and the logits [samples, A + 1, vocabulary] of its end.

    A is the length of the longest answer.
    """
    for state in adapter.backbone.row_states:
        state.begin(batch.masks)
    queries, valid = None, None
    maps: dict[int, Tensor] = {}
    arguments = {}
    wanted = tuner.queries(batch)
    if wanted is not None:
        queries, valid = where(wanted)
        columns, _ = where(batch.masks.visual)

        def take(layer: int, rows: Tensor) -> None:
            # Gradient checkpointing runs a layer twice; the second run must not replace the first.
            maps.setdefault(layer, rows)

        layers = tuner.attention_layers(adapter.backbone)
        arguments["probes"] = (AttentionProbe(queries, columns, take, layers),)
    longest = int(batch.answer.sum(1).max())
    output = adapter.model(
        inputs_embeds=batch.embeddings,
        attention_mask=batch.masks.filled.long(),
        position_ids=positions(batch.masks.filled),
        use_cache=False,
        logits_to_keep=longest + 1,
        **arguments,
    )
    attention = torch.stack([maps[layer] for layer in sorted(maps)], dim=1) if maps else None
    return TrainView(batch, attention, valid, adapter.extension), output.logits


def language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over each sample's answer tokens (Eq. 11), [samples].

    Args:
        logits: [samples, A + 1, vocabulary], of the last A + 1 positions.
        labels: int64 [samples, A], IGNORE where there is no answer token.
    """
    predicted = logits[:, :-1].float().transpose(1, 2)
    token = nn.functional.cross_entropy(predicted, labels, ignore_index=IGNORE, reduction="none")
    return token.sum(1) / (labels != IGNORE).sum(1)
