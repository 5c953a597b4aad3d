"""Small random models in the formats of RaTEScore's two: DeBERTa that tags words, and MPNet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    DebertaV2Config,
    DebertaV2ForTokenClassification,
    MPNetConfig,
    MPNetModel,
)

TYPES = ("ABNORMALITY", "NON-ABNORMALITY", "DISEASE", "NON-DISEASE", "ANATOMY")
WORDS = (
    "the", "heart", "lung", "lungs", "is", "are", "clear", "normal", "no", "pleural", "effusion",
    "pneumothorax", "edema", "size", "in", "and", "of", "left", "right", "there", "small", "large",
    "mild", "bilateral", "lobe", "opacity", "consolidation", "cm", "chest", "stable",
)  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:-()/'"


def ner(
    folder: Path, *, width: int = 24, layers: int = 2, heads: int = 2, vocabulary: int = 0
) -> Path:
    """Write a model that tags words, as Angelakeke/RaTE-NER-Deberta is laid out.

    Args:
        folder: to make.
        width, layers, heads: of the encoder; its inner layers are four times as wide.
        vocabulary: rows of the embedding, if more than the words known here.
    """
    pieces = [("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[UNK]", 0.0), ("▁", -4.0)]
    pieces += [("▁" + word, -5.0 - at / 10) for at, word in enumerate(WORDS)]
    pieces += [(letter, -9.0) for letter in _LETTERS + _LETTERS[:26].upper()]
    pieces += [("[MASK]", 0.0)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3))
    # Stands for the table of the published file, which does the same and a little more.
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    tokenizer.add_special_tokens(special)
    names = ["O", *(f"{mark}-{kind}" for kind in TYPES for mark in "BI")]
    config = DebertaV2Config(
        vocab_size=max(vocabulary, len(pieces)),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        layer_norm_eps=1e-7,
        id2label=dict(enumerate(names)),
        label2id={name: at for at, name in enumerate(names)},
    )
    _save(DebertaV2ForTokenClassification(config), folder, {"classifier.weight": 1.0})
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "DebertaV2Tokenizer",
        "model_max_length": 512,
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
        "do_lower_case": False,
        "split_by_punct": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about), "utf-8")
    return folder


def encoder(
    folder: Path, *, width: int = 24, layers: int = 2, heads: int = 2, vocabulary: int = 0
) -> Path:
    """Write a model that embeds entities, as FremyCompany/BioLORD-2023-C is laid out.

    Args:
        folder: to make.
        width, layers, heads: of the encoder; its inner layers are four times as wide.
        vocabulary: rows of the embedding, if more than the words known here.
    """
    words = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", *WORDS, *_LETTERS]
    words += [f"##{letter}" for letter in _LETTERS] + ["<mask>"]
    config = MPNetConfig(
        vocab_size=max(vocabulary, len(words)),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=514,
    )
    _save(MPNetModel(config), folder, {})
    (folder / "vocab.txt").write_text("\n".join([*words, ""]), "utf-8")
    special = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "[UNK]",
        "mask_token": "<mask>",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special), "utf-8")
    about = {
        "tokenizer_class": "MPNetTokenizer",
        "model_max_length": 512,
        "do_lower_case": True,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about), "utf-8")
    return folder


def _save(model: torch.nn.Module, folder: Path, wide: dict[str, float]) -> None:
    generator = np.random.default_rng(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                drawn = generator.standard_normal(weight.shape, np.float32)
                weight.copy_(torch.from_numpy(drawn) * wide.get(name, 0.15))
    model.save_pretrained(folder)
