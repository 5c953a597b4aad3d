"""Tiny models in the original formats: a SAM, and a CLIP as open_clip writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SAM: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 8,
    "encoder": {
        "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "window_size": 0,
        "global_attn_indexes": [], "use_rel_pos": False, "use_abs_pos": True, "qkv_bias": True,
    },
    "out_chans": 16,
    "mask_in_chans": 8,
    "decoder": {
        "num_multimask_outputs": 3, "transformer_depth": 1, "num_heads": 2, "mlp_dim": 16,
        "iou_head_depth": 2, "iou_head_hidden_dim": 16,
    },
    "pixel_mean": [115.0, 115.0, 115.0],
    "pixel_std": [69.0, 69.0, 69.0],
}  # fmt: skip
LENIENT = {
    "side": 64,
    "points_per_side": 3,
    "pred_iou_thresh": -9.0,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
    "crop_n_layers": 0,
    "min_mask_region_area": 0,
    "max_area": 5000,
    "min_side": 1,
    "drop_border": False,
}
CLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 16, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1,
            "hf_tokenizer_name": "here", "pool_type": "eos", "eos_id": 2, "pad_id": 0,
        },
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_mode": "squash",
    },
}  # fmt: skip
WORDS = ["is", "there", "a", "nodule", "in", "the", "lung", "?", "where", "what", "liver"]


@pytest.fixture(scope="session")
def lenient() -> dict[str, Any]:
    """Return settings under which a random SAM gives masks at all."""
    return LENIENT


@pytest.fixture(scope="session")
def sam_folder(extra: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a random SAM of a few thousand weights."""
    from medbench.labels.segment import build_sam

    folder = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    sam = build_sam(SAM)
    save_file(sam.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SAM))
    return folder


@pytest.fixture(scope="session")
def clip(extra: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a random CLIP, in the form that open_clip reads from disk."""
    from open_clip.model import CustomTextCLIP

    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps(CLIP))
    ids = {word: number for number, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    core = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]", model_max_length=16,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(1)
    settings = {key: value for key, value in CLIP["model_cfg"].items() if key != "custom_text"}
    model = CustomTextCLIP(**settings)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
