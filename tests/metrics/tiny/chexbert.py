"""A small random CheXbert: a BERT that reads as bert-base-uncased does, and fourteen heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

WORDS = (
    "the", "heart", "lung", "lungs", "is", "are", "clear", "normal", "no", "pleural", "effusion",
    "pneumothorax", "edema", "size", "in", "and", "of", "left", "right", "there", "small", "large",
    "mild", "bilateral", "lobe", "opacity", "consolidation", "cm", "chest", "stable", "tube",
)  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:-()/'"
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def encoder(
    folder: Path, *, width: int = 24, layers: int = 2, heads: int = 2, vocabulary: int = 0
) -> BertConfig:
    """Write what describes a BERT and its tokenizer, as bert-base-uncased is laid out.

    Args:
        folder: to make.
        width, layers, heads: of the encoder; its inner layers are four times as wide.
        vocabulary: rows of the embedding, if more than the words known here.
    """
    words = [*_SPECIAL, *WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    numbers = {word: at for at, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(_SPECIAL)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    about = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), "utf-8")
    config = BertConfig(
        vocab_size=max(vocabulary, len(words)),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=512,
    )
    config.save_pretrained(folder)
    return config


def checkpoint(
    folder: Path, *, width: int = 24, layers: int = 2, heads: int = 2, vocabulary: int = 0
) -> Path:
    """Write chexbert.pth, and beside it what describes its encoder.

    Args:
        folder: to make.
        width, layers, heads, vocabulary: as in `encoder`.
    """
    config = encoder(folder, width=width, layers=layers, heads=heads, vocabulary=vocabulary)
    model = torch.nn.ModuleDict(
        {
            "bert": BertModel(config),
            "linear_heads": torch.nn.ModuleList(
                [torch.nn.Linear(width, 4 if head < 13 else 2) for head in range(14)]
            ),
        }
    )
    # Heads as wide as this say different things of different texts.
    draw(model, 2.0 / width**0.5, {"linear_heads": 1.0 / width**0.5})
    weights = {f"module.{name}": weight for name, weight in model.state_dict().items()}
    content = {"epoch": 1, "model_state_dict": weights, "optimizer_state_dict": {"state": {}}}
    torch.save(content, folder / "chexbert.pth")
    return folder


def draw(model: torch.nn.Module, spread: float, wide: dict[str, float]) -> None:
    """Draw a model's matrices anew, and take away what is added to their products.

    Args:
        model: to change.
        spread: standard deviation; wide: another one for names that hold a word.
    """
    generator = np.random.default_rng(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                by = next((by for word, by in wide.items() if word in name), spread)
                drawn = generator.standard_normal(weight.shape, np.float32)
                weight.copy_(torch.from_numpy(drawn) * by)
            elif name.endswith("bias"):
                weight.zero_()
