"""One forward pass of training: the language loss and what auxiliary losses may look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from medbench.method import Tuner
from medbench.model.attention import AttentionTap, KeptLayer
from medbench.model.rows import positions, where
from medbench.tuning.adapter import Adapter
from medbench.tuning.batch import IGNORE, TrainBatch
from medbench.tuning.maps import AttentionMaps


@dataclass(frozen=True)
class TrainView:
    """What a forward pass showed.

    Attributes:
        batch: its samples.
        maps: the attention rows and layers that the tuner asked for (`Tuner.queries`,
            `Tuner.attention_layers`), computed when something is read of them; None if it asked
            for none.
        valid: bool [samples, Q], which of these rows are real.
        extension: the tuner's own module, or None.
        notes: what `Tuner.auxiliary` leaves for `Tuner.observe`.
    """

    batch: TrainBatch
    maps: AttentionMaps | None
    valid: Tensor | None
    extension: nn.Module | None
    notes: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def attention(self) -> Tensor | None:
        """Probabilities at the visual columns, [samples, layers, heads, Q, N], all of them kept.

        They are normalised over all keys. Where a few heads are enough, `maps` takes less memory.
        """
        return None if self.maps is None else self.maps.whole


def losses(tuner: Tuner, adapter: Adapter, batch: TrainBatch) -> dict[str, Tensor]:
    """Return every loss by name, each float32 [samples]; "language" is always there."""
    return seen_losses(tuner, adapter, batch)[1]


def seen_losses(
    tuner: Tuner, adapter: Adapter, batch: TrainBatch
) -> tuple[TrainView, dict[str, Tensor]]:
    """Return what a pass shows, and every loss as `losses` does."""
    view, logits = forward(tuner, adapter, batch)
    labels = batch.labels[:, 1 - logits.shape[1] :]
    return view, {"language": language_loss(logits, labels), **tuner.auxiliary(view)}


def forward(tuner: Tuner, adapter: Adapter, batch: TrainBatch) -> tuple[TrainView, Tensor]:
    """Return what a pass shows, and the logits [samples, A + 1, vocabulary] of its end.

    A is the length of the longest answer.
    """
    for state in adapter.backbone.row_states:
        state.begin(batch.masks)
    valid = None
    layers: dict[int, KeptLayer] = {}
    arguments = {}
    wanted = tuner.queries(batch)
    if wanted is not None:
        queries, valid = where(wanted)

        def take(layer: int, kept: KeptLayer) -> None:
            # Gradient checkpointing runs a layer twice; the second run must not replace the first.
            layers.setdefault(layer, kept)

        read = tuner.attention_layers(adapter.backbone)
        arguments["taps"] = (AttentionTap(queries, take, read),)
    longest = int(batch.answer.sum(1).max())
    output = adapter.model(
        inputs_embeds=batch.embeddings,
        attention_mask=batch.masks.filled.long(),
        position_ids=positions(batch.masks.filled),
        use_cache=False,
        logits_to_keep=longest + 1,
        **arguments,
    )
    maps = AttentionMaps(layers, batch.masks.visual) if layers else None
    return TrainView(batch, maps, valid, adapter.extension), output.logits


def language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over each sample's answer tokens (Eq. 11), [samples].

    Args:
        logits: [samples, A + 1, vocabulary], of the last A + 1 positions.
        labels: int64 [samples, A], IGNORE where there is no answer token.
    """
    predicted = logits[:, :-1].float().transpose(1, 2)
    token = nn.functional.cross_entropy(predicted, labels, ignore_index=IGNORE, reduction="none")
    return token.sum(1) / (labels != IGNORE).sum(1)
