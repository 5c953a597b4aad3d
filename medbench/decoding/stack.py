"""The row stack: rows of one growing batch, left-padded, with one key-value cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from medbench.model.attention import AttentionProbe
from medbench.model.llava import Backbone
from medbench.model.prompt import Prompt
from medbench.model.rows import RowMasks, left_padded, positions, where


class RowStack:
    """Rows that are decoded together: samples, branches of samples, or beams.

    Attributes:
        logits: float32 [rows, vocabulary], of each row's last token.
        attention: float32 [rows, N], visual attention of the queries that generated the tokens
            so far (the prompt's last token included), averaged over layers and heads and summed
            over the queries; None unless recorded. Rows without an image have zeros.
        forwards: rows times passes through the language model so far.
    """

    def __init__(
        self, backbone: Backbone, prompts: Sequence[Prompt], *, record_attention: bool = False
    ) -> None:
        self.backbone = backbone
        self.forwards = 0
        self._lengths = torch.tensor([len(prompt) for prompt in prompts], device=backbone.device)
        self._mask = left_padded([torch.ones_like(prompt.visual) for prompt in prompts])
        visual = left_padded([prompt.visual for prompt in prompts])
        question = left_padded([prompt.question for prompt in prompts])
        for state in backbone.row_states:
            state.begin(RowMasks(self._mask, visual, question, prompt=self._mask))
        self._columns = self._visual_columns(visual) if record_attention else None
        self._has_image = visual.any(1)
        self.attention: Tensor | None = None
        # No config: a sliding-window cache would drop keys, and with them the probe's columns.
        self._cache = DynamicCache()
        embeddings = left_padded([backbone.embed(prompt) for prompt in prompts])
        self.logits = self._forward(embeddings, positions(self._mask))

    def __len__(self) -> int:
        return len(self._lengths)

    def append(self, tokens: Tensor) -> None:
        """Add one token to each row, int64 [rows], and update `logits`."""
        embeddings = self.backbone.language_model.get_input_embeddings()(tokens[:, None])
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self.logits = self._forward(embeddings, self._lengths[:, None])
        self._lengths = self._lengths + 1

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, in this order; a row may be named more than once."""
        self._cache.batch_select_indices(rows)
        self._lengths, self._mask = self._lengths[rows], self._mask[rows]
        self._has_image, self.logits = self._has_image[rows], self.logits[rows]
        if self._columns is not None:
            self._columns = self._columns[rows]
        if self.attention is not None:
            self.attention = self.attention[rows]
        for state in self.backbone.row_states:
            state.keep(rows)

    def _forward(self, embeddings: Tensor, position_ids: Tensor) -> Tensor:
        seen: list[Tensor] = []
        output = self.backbone.language_model(
            inputs_embeds=embeddings,
            attention_mask=self._mask.long(),
            position_ids=position_ids,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **self._probe(embeddings.shape[1], seen),
        )
        if seen:
            rows = torch.stack(seen).mean(0) * self._has_image[:, None]
            self.attention = rows if self.attention is None else self.attention + rows
        self.forwards += len(embeddings)
        return output.logits[:, -1].float()

    def _visual_columns(self, visual: Tensor) -> Tensor:
        columns, _ = where(visual)
        if columns.shape[1]:
            return columns
        # Without any image, rows still get their zeros.
        return columns.new_zeros(len(visual), self.backbone.image_tokens)

    def _probe(self, new: int, seen: list[Tensor]) -> dict[str, AttentionProbe]:
        if self._columns is None:
            return {}
        last = torch.full((len(self), 1), new - 1, device=self._columns.device)
        return {
            "probe": AttentionProbe(
                last, self._columns, lambda _, rows: seen.append(rows[:, :, 0].mean(1))
            )
        }
