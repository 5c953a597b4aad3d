"""Tiny checkpoints in the original formats: seeded weights, real configs and tokenizer files.

They have the key names, config fields, tokenizer files and ways of storing weights of the published
ones, so that everything between a folder on disk and an answer can be tried in a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from medbench.atomic import write_json
from medbench.model.original_config import PROJECTOR, text_config, text_skeleton
from medbench.model.tiny_tokenizers import write_bytewise, write_sentencepiece

ModelType = Literal["llava", "llava_mistral", "llava_qwen2"]

WIDTH, VISION_WIDTH, LAYERS, HEADS, PATCH = 32, 16, 2, 4, 4
TOWERS = {
    "llava": "openai/clip-vit-large-patch14",
    "llava_mistral": "openai/clip-vit-large-patch14-336",
    "llava_qwen2": "./vit/clip_vit_large_patch14_336",
}
IMAGE_SIZES = {"llava": 16, "llava_mistral": 24, "llava_qwen2": 24}


def write_tiny(
    model_type: ModelType,
    root: Path,
    *,
    seed: int = 0,
    pickled: bool = False,
    width: int = WIDTH,
) -> Path:
    """Write a checkpoint of a kind and the tower it names; return the checkpoint's folder.

    Args:
        model_type: "llava" is LLaVA-Med 1.0, "llava_mistral" 1.5, "llava_qwen2" HuatuoGPT-Vision.
        root: gets the folder `checkpoint`, and the tower where config.json says it is.
        seed: of the weights.
        pickled: write the language model's weights as *.bin, as old checkpoints have them.
        width: of the language model.
    """
    directory = root / "checkpoint"
    directory.mkdir(parents=True)
    inside = model_type == "llava_qwen2"
    tower = (directory if inside else root) / TOWERS[model_type]
    vision = write_tower(tower, IMAGE_SIZES[model_type], seed=seed + 1)
    if inside:
        vocabulary = write_bytewise(directory)
    else:
        vocabulary = write_sentencepiece(directory, image_tokens=model_type == "llava")
    config = _config(model_type, vocabulary, width)
    write_json(directory / "config.json", config)
    ends = {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]}
    write_json(directory / "generation_config.json", ends)
    tensors = _draw(text_skeleton(text_config(directory, config)).state_dict(), seed)
    tensors |= _draw(_projector_shapes(config), seed + 2)
    if model_type != "llava":
        # Others than the tower's own folder has, so that a mistake is seen.
        prefix = "model.vision_tower.vision_tower."
        stored = _draw(vision, seed + 3)
        tensors |= {f"{prefix}{name}": tensor for name, tensor in stored.items()}
    _write_shards(directory, tensors, pickled=pickled)
    return directory


def write_tower(directory: Path, image_size: int, *, seed: int) -> dict[str, Tensor]:
    """Write a whole CLIP as OpenAI's folders hold it; return its vision part's tensors."""
    config = CLIPConfig(
        vision_config={
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 2 * VISION_WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": PATCH,
        },
        text_config={
            "hidden_size": 8,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 16,
            "max_position_embeddings": 8,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        projection_dim=8,
    )
    with torch.device("meta"):
        skeleton = CLIPModel(config)
    directory.mkdir(parents=True)
    tensors = _draw(skeleton.state_dict(), seed)
    # Old files hold this buffer too.
    positions = torch.arange((image_size // PATCH) ** 2 + 1)[None]
    tensors["vision_model.embeddings.position_ids"] = positions
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_json(directory / "config.json", config.to_dict())
    side = {"height": image_size, "width": image_size}
    processor = {"size": {"shortest_edge": image_size}, "crop_size": side, "resample": 3}
    write_json(directory / "preprocessor_config.json", processor)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith("vision_model.") and tensor.is_floating_point()
    }


def _config(model_type: ModelType, vocabulary: int, width: int) -> dict[str, Any]:
    common = {
        "model_type": model_type,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "use_cache": True,
        "mm_hidden_size": VISION_WIDTH,
        "mm_vision_tower": TOWERS[model_type],
        "mm_vision_select_layer": -2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if model_type == "llava":
        own: dict[str, Any] = {
            "architectures": ["LlavaLlamaForCausalLM"],
            "rms_norm_eps": 1e-6,
            "mm_use_im_start_end": True,
        }
        return {**common, **own}
    modern = {
        "num_key_value_heads": 2,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "image_aspect_ratio": "pad",
        "sliding_window": None,
    }
    if model_type == "llava_mistral":
        own = {"architectures": ["LlavaMistralForCausalLM"], "rms_norm_eps": 1e-5}
        return {**common, **modern, **own, "rope_theta": 10000.0}
    own = {
        "architectures": ["LlavaQwen2ForCausalLM"],
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        # Stated and switched off: who reads only the number cuts every answer's view.
        "sliding_window": 8,
        "use_sliding_window": False,
        "max_window_layers": LAYERS,
        "bos_token_id": vocabulary - 11,
        "eos_token_id": vocabulary - 11,
    }
    return {**common, **modern, **own}


def _projector_shapes(config: Mapping[str, Any]) -> dict[str, Tensor]:
    width = config["hidden_size"]
    first = {"weight": (width, VISION_WIDTH), "bias": (width,)}
    if "mm_projector_type" not in config:
        shapes = {f"{PROJECTOR}{name}": shape for name, shape in first.items()}
    else:
        second = {"weight": (width, width), "bias": (width,)}
        shapes = {f"{PROJECTOR}0.{name}": shape for name, shape in first.items()}
        shapes |= {f"{PROJECTOR}2.{name}": shape for name, shape in second.items()}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _draw(like: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Draw weights of these shapes, in the order of the names."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for name, tensor in sorted(like.items()):
        if not tensor.is_floating_point():
            continue
        values = torch.randn(tensor.shape, generator=generator) * 0.3
        is_norm = "norm" in name and name.endswith("weight")
        drawn[name] = (1 + values / 10 if is_norm else values).to(torch.bfloat16)
    return drawn


def _write_shards(directory: Path, tensors: Mapping[str, Tensor], *, pickled: bool) -> None:
    """Write weights in two files with an index."""
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    names = sorted(tensors)
    placed: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"{stem}-{number:05d}-of-00002.{suffix}"
        some = {name: tensors[name].contiguous() for name in part}
        if pickled:
            some["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
            torch.save(some, directory / file)
        else:
            save_file(some, directory / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    write_json(directory / f"{stem}.{suffix}.index.json", index)
