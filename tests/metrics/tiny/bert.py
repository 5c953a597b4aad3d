"""A small random model in the format of roberta-large."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import RobertaConfig, RobertaForMaskedLM

# Pairs that are joined, in this order; a space is written as this alphabet writes it.
_MERGES = (
    "t h", "th e", "Ġ the", "i n", "o n", "a l", "e r", "r i", "l u", "Ġ h", "Ġh e", "n o", "Ġ n",
    "Ġn o", "e a", "n g", "s i", "u r", "Ġ l", "Ġl u", "i s", "Ġ is", "c l", "ea r", "r a", "T he",
    "Ġ T", "ĠT he", "m al", "r mal", "ĠT h", "Ġ p",
)  # fmt: skip


def checkpoint(
    folder: Path,
    *,
    width: int = 16,
    layers: int = 24,
    heads: int = 2,
    vocabulary: int = 0,
) -> Path:
    """Write a masked language model, as roberta-large is laid out.

    Args:
        folder: to make.
        width, layers, heads: of the encoder; its inner layers are four times as wide.
        vocabulary: rows of the embedding, if more than the pieces known here.
    """
    joined = [merge.replace(" ", "") for merge in _MERGES]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet())]
    pieces = list(dict.fromkeys([*pieces, *joined, "<mask>"]))
    merges = [m for m in _MERGES if all(part in pieces for part in m.split())]
    config = RobertaConfig(
        vocab_size=max(vocabulary, len(pieces)),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model = RobertaForMaskedLM(config)
    generator = np.random.default_rng(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                drawn = generator.standard_normal(weight.shape, np.float32)
                weight.copy_(torch.from_numpy(drawn) * 0.15)
    model.save_pretrained(folder)
    numbers = {piece: at for at, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(numbers), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 512}', "utf-8")
    return folder
