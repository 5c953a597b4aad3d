"""The phantom's CLIP before training: towers of open_clip's classes, words, and its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from medbench.clip import CONFIG, WEIGHTS
from medbench.phantom.model import DEVIATION, MEAN, PATCH, SPECIAL, vocabulary
from medbench.phantom.world import SIZE

EMBEDDING, WIDTH = 64, 96
_VISION_LAYERS, _TEXT_LAYERS, _HEADS = 4, 2, 4
_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
_CONTEXT = 32


def new_clip() -> Any:
    """Return an untrained CLIP of the shipped size."""
    from open_clip import CustomTextCLIP  # type: ignore[import-untyped]

    config = dict(clip_config()["model_cfg"])
    config.pop("custom_text")
    return CustomTextCLIP(**config)


def clip_config() -> dict[str, Any]:
    """Return the description that open_clip reads; the text tower's tokenizer stands beside it."""
    return {
        "model_cfg": {
            "embed_dim": EMBEDDING,
            "custom_text": True,
            "vision_cfg": {
                "image_size": SIZE,
                "patch_size": PATCH,
                "width": WIDTH,
                "layers": _VISION_LAYERS,
                "head_width": WIDTH // _HEADS,
            },
            "text_cfg": {
                "context_length": _CONTEXT,
                "vocab_size": len(clip_vocabulary()),
                "width": WIDTH,
                "heads": _HEADS,
                "layers": _TEXT_LAYERS,
                "pool_type": "eos",
                "eos_id": _TOKENS.index("[SEP]"),
                "pad_id": _TOKENS.index("[PAD]"),
                # any name will do: open_clip takes the tokenizer from the model's own folder
                "hf_tokenizer_name": "phantom",
            },
        },
        "preprocess_cfg": {
            "size": SIZE,
            "mean": [MEAN] * 3,
            "std": [DEVIATION] * 3,
            "interpolation": "bicubic",
            # the default would cut the ends off elongated segments
            "resize_mode": "squash",
        },
    }


def clip_vocabulary() -> tuple[str, ...]:
    """Return every token of the text tower: the special ones first."""
    return (*_TOKENS, *sorted({*vocabulary()[len(SPECIAL) :], "medical"}))


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer: lower case, split at blanks and punctuation."""
    ids = {word: index for index, word in enumerate(clip_vocabulary())}
    core = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=_CONTEXT,
        padding_side="right",
    )


def write_clip(model: Any, folder: Path) -> None:
    """Write a folder for open_clip's `local-dir:`, its weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(clip_config(), indent=1)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    weights = {name: one.half().contiguous() for name, one in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS[0])
    clip_tokenizer().save_pretrained(folder)
