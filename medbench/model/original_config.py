"""What config.json of a checkpoint in the original LLaVA layout says, and which tensors follow.

It is read here and not by transformers, which takes LLaVA-Med 1.0 for a model of default sizes and
does not know the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from medbench.errors import UserError
from medbench.model.llava_format import quiet, read_json
from medbench.model.using import using
from medbench.model.vision import in_checkpoint
from medbench.model.weights import Shapes, require

PROJECTOR = "model.mm_projector."
Select = Literal["patch", "full"]
# What config.json calls the choice of the tower's tokens.
_SELECT: dict[str, Select] = {"patch": "patch", "cls_patch": "full"}

# model_type in config.json -> the text model's classes.
_TEXT: dict[str, tuple[Any, Any]] = {
    "llava": (LlamaConfig, LlamaForCausalLM),
    "llava_mistral": (MistralConfig, MistralForCausalLM),
    "llava_qwen2": (Qwen2Config, Qwen2ForCausalLM),
}
# Without these there is no model, and a default would be another one.
_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
)  # fmt: skip
# What of config.json describes the text model; the rest speaks of the image or of training.
_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps",
    "rope_theta", "rope_scaling", "sliding_window", "use_sliding_window", "max_window_layers",
    "attention_bias", "attention_dropout", "mlp_bias", "tie_word_embeddings", "initializer_range",
    "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip


def read_original_config(directory: Path, model_type: str) -> dict[str, Any]:
    """Read config.json and make sure that it is of the kind expected.

    Raises:
        UserError: it cannot be read, or describes another kind of checkpoint.
    """
    if not (directory / "config.json").is_file():
        raise UserError(
            f"no checkpoint in {directory}",
            "There is no config.json in it.",
            "Give the folder that holds config.json and the weights.",
        )
    if (directory / "adapter_config.json").is_file():
        raise UserError(
            f"{directory} holds an adapter beside the weights",
            "transformers would put it on without a word (adapter_config.json).",
            "Merge the adapter into the weights, or move its files away.",
        )
    config = read_json(directory / "config.json")
    found = config.get("model_type")
    if found != model_type or "text_config" in config or "mm_vision_tower" not in config:
        said = f"The model_type in its config.json is '{found}', not '{model_type}'."
        if found == model_type:
            said = "It lacks 'mm_vision_tower'."
            if "text_config" in config:
                said = "It is in transformers' own LLaVA format; the backbone llava-hf reads it."
        raise UserError(
            f"{directory} is another kind of checkpoint",
            said,
            "medbench list backbones tells which backbone reads what.",
        )
    return config


def text_config(directory: Path, config: Mapping[str, Any]) -> Any:
    """Return the text model's config, as its own class, from the flat fields of config.json.

    Raises:
        UserError: a value cannot be used.
    """
    fields = {name: config[name] for name in _TEXT_FIELDS if name in config}
    with using(directory), quiet():
        missing = [name for name in _SIZES if not isinstance(fields.get(name), int)]
        if missing:
            raise ValueError(f"'{missing[0]}' is {fields.get(missing[0])!r} and no number")
        text = _TEXT[config["model_type"]][0](**fields)
        text_skeleton(text)
        return text


def visual_tokens(directory: Path, config: Mapping[str, Any], blocks: int) -> tuple[int, Select]:
    """Return the tower's layer whose states are taken, and whether its class token is among them.

    Args:
        blocks: of the tower.

    Raises:
        UserError: there is no such layer or choice.
    """
    layer, select = config.get("mm_vision_select_layer", -2), "patch"
    with using(directory):
        if not isinstance(layer, int) or not -blocks - 1 <= layer <= blocks:
            raise ValueError(f"'mm_vision_select_layer' is {layer!r}; the tower has {blocks}")
        select = config.get("mm_vision_select_feature", select)
        if select not in _SELECT:
            raise ValueError(f"'mm_vision_select_feature' is {select!r}")
    return layer, _SELECT[select]


def text_skeleton(text: Any) -> PreTrainedModel:
    """Return the text model of a config without weights, to ask for names and shapes."""
    with torch.device("meta"):
        return text_class(text)(text)


def check_tensors(directory: Path, found: Shapes, text: Any, projector: nn.Module) -> None:
    """Make sure that text model and projector are there as config.json says, and nothing else.

    A tower in the file is checked when it is loaded.

    Raises:
        UserError: tensors are missing, left over, or of another shape.
    """
    own = text_skeleton(text).state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if text.tie_word_embeddings and "lm_head.weight" not in found:
        del expected["lm_head.weight"]
    expected |= {
        f"{PROJECTOR}{name}": tuple(tensor.shape) for name, tensor in projector.state_dict().items()
    }
    kept = {name: shape for name, shape in found.items() if not in_checkpoint(name)}
    require(directory, kept, expected)


def text_class(text: Any) -> Any:
    """Return the model class of a text model's config."""
    return next(model for config, model in _TEXT.values() if type(text) is config)


def new_projector(config: Mapping[str, Any], vision_width: int) -> nn.Module:
    """Return the untrained projector that config.json describes.

    Raises:
        UserError: it is of a kind that no paper here uses.
    """
    kind = str(config.get("mm_projector_type", "linear"))
    width = int(config["hidden_size"])
    deep = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if deep is None and kind != "linear":
        raise UserError(
            f"a projector of type '{kind}' is not known",
            "medbench knows linear and mlpNx_gelu.",
            "Export the checkpoint to transformers' LLaVA format, and take llava-hf.",
        )
    first = nn.Linear(vision_width, width)
    if deep is None:
        return first
    rest = [part for _ in range(int(deep[1]) - 1) for part in (nn.GELU(), nn.Linear(width, width))]
    return nn.Sequential(first, *rest)
