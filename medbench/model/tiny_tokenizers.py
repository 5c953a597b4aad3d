"""Tokenizer files of tiny checkpoints: the formats of the published ones, a few hundred tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers.convert_slow_tokenizer import import_protobuf

from medbench.atomic import write_json

_WORDS = ["▁a", "▁i", "▁t", "he", "▁the", "in", "▁in", "is", "es", "▁y", "yes", "no", "lu", "ng"]


def write_sentencepiece(directory: Path, *, image_tokens: bool) -> int:
    """Write a `tokenizer.model` with byte fallback; return the vocabulary's size."""
    proto: Any = import_protobuf()
    model = proto.ModelProto()
    model.trainer_spec.model_type = 2  # byte pair encoding
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    letters = ["▁", *(chr(code) for code in range(33, 127))]
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    pieces += [(f"<0x{byte:02X}>", 6) for byte in range(256)]
    pieces += [(text, 1) for text in (*_WORDS, *letters)]
    for number, (text, kind) in enumerate(pieces):
        piece = model.pieces.add()
        piece.piece, piece.type, piece.score = text, kind, float(-number if kind == 1 else 0)
    (directory / "tokenizer.model").write_bytes(model.SerializeToString())
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    about = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": True, **ends}
    write_json(directory / "tokenizer_config.json", about)
    write_json(directory / "special_tokens_map.json", ends)
    if not image_tokens:
        return len(pieces)
    added = ["<im_patch>", "<im_start>", "<im_end>"]
    numbers = {token: len(pieces) + number for number, token in enumerate(added)}
    write_json(directory / "added_tokens.json", numbers)
    return len(pieces) + len(added)


def write_bytewise(directory: Path) -> int:
    """Write `vocab.json` and `merges.txt`; return the number of embedding rows.

    As in the published checkpoint there are more rows than tokens.
    """
    merges = ["i s", "y e", "ye s", "n o", "l u", "n g", "Ġ i", "Ġ t"]
    tokens = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in merges)]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    write_json(directory / "vocab.json", {token: at for at, token in enumerate(tokens)})
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    decoder = {
        str(len(tokens) + at): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for at, token in enumerate(special)
    }
    about = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": decoder,
        "eos_token": special[0],
        "pad_token": special[0],
        "bos_token": None,
    }
    write_json(directory / "tokenizer_config.json", about)
    return len(tokens) + len(special) + 8
