"""Checkpoints in the original LLaVA layout: language model, projector and tower in one folder.

The language model's tensors have transformers' own names there, so it is loaded from the folder as
it lies; projector and tower are read by name. config.json is read here and not by transformers,
which takes LLaVA-Med 1.0 for a model of default sizes and does not know the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

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
from medbench.model import attention
from medbench.model.geometry import Fit
from medbench.model.llava import Backbone
from medbench.model.llava_format import quiet, read_json
from medbench.model.placement import Placement
from medbench.model.template import Template
from medbench.model.vision import in_checkpoint, load_tower, tower_config, tower_geometry
from medbench.model.weights import Shapes, read_tensors, require, stored_shapes

# The placeholder of the originals; no token has this number.
IMAGE_TOKEN_ID = -200
PROJECTOR = "model.mm_projector."
VisionWeights = Literal["openai", "checkpoint"]

# model_type in config.json -> the text model's classes.
_TEXT: dict[str, tuple[Any, Any]] = {
    "llava": (LlamaConfig, LlamaForCausalLM),
    "llava_mistral": (MistralConfig, MistralForCausalLM),
    "llava_qwen2": (Qwen2Config, Qwen2ForCausalLM),
}
# What of config.json describes the text model; the rest speaks of the image or of training.
_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps",
    "rope_theta", "rope_scaling", "sliding_window", "use_sliding_window", "max_window_layers",
    "attention_bias", "attention_dropout", "mlp_bias", "tie_word_embeddings", "initializer_range",
    "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip


@dataclass(frozen=True)
class Original:
    """What a kind of original checkpoint is: all that config.json does not say.

    Attributes:
        name: of the backbone; offers: what methods may ask of it.
        model_type: that config.json must state.
        fit: how images are placed on the tower's square.
        template: of prompts.
        image_token_id: what stands for the image in ids.
        stop_strings: texts that end an answer.
    """

    name: str
    offers: tuple[str, ...]
    model_type: str
    fit: Fit
    template: Template
    image_token_id: int = IMAGE_TOKEN_ID
    stop_strings: tuple[str, ...] = ()


def load_original(
    kind: Original,
    directory: Path,
    *,
    tower: Path | None,
    vision_weights: VisionWeights,
    tokenizer: Any,
    placement: Placement,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> Backbone:
    """Load a checkpoint in the original layout.

    Args:
        kind: what it is.
        directory: its folder.
        tower: the vision tower's own folder; None if only the checkpoint's weights are wanted and
            the tower is a known one.
        vision_weights: "openai" takes the tower's weights from its own folder, "checkpoint" those
            stored with the model.
        tokenizer: loaded.
        placement: where the weights go, and as what.
        tensors: the weights, where they are not to be read from the folder.

    Raises:
        UserError: it is not such a checkpoint, files are missing or broken, or tensors are
            missing, left over, or of another shape.
    """
    config = read_original_config(directory, kind.model_type)
    vision = tower_config(tower, str(config.get("mm_vision_tower", "")))
    projector = _projector(config, vision.hidden_size)
    shapes = {k: tuple(v.shape) for k, v in tensors.items()} if tensors else None
    text = text_config(config)
    check_tensors(directory, shapes or stored_shapes(directory), text, projector)
    if vision_weights == "checkpoint":
        source = directory
    elif tower is not None:
        source = tower
    else:
        raise UserError(
            f"{kind.name}: the vision tower's folder is missing",
            "Its weights are not those in the checkpoint.",
            "Give it: vision=DIR, or take vision_weights=checkpoint.",
        )
    language_model = _load_text(directory, text, placement, tensors)
    own = cast("nn.Embedding", language_model.get_input_embeddings()).weight
    _fill_projector(projector, directory, tensors)
    return Backbone(
        name=kind.name,
        offers=kind.offers,
        vision_tower=_at_rest(load_tower(source, vision, own.dtype), own),
        projector=_at_rest(projector, own),
        language_model=language_model.eval().requires_grad_(False),
        tokenizer=tokenizer,
        template=kind.template,
        geometry=tower_geometry(tower, vision, kind.fit),
        image_token_id=kind.image_token_id,
        eos_token_ids=(int(tokenizer.eos_token_id),),  # as the originals' own evaluation
        vision_layer=int(config.get("mm_vision_select_layer", -2)),
        vision_select="full" if config.get("mm_vision_select_feature") == "cls_patch" else "patch",
        stop_strings=kind.stop_strings,
    )


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


def text_config(config: Mapping[str, Any]) -> Any:
    """Return the text model's config, as its own class, from the flat fields of config.json."""
    fields = {name: config[name] for name in _TEXT_FIELDS if name in config}
    return _TEXT[config["model_type"]][0](**fields)


def text_skeleton(text: Any) -> PreTrainedModel:
    """Return the text model of a config without weights, to ask for names and shapes."""
    with torch.device("meta"):
        return _text_class(text)(text)


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


def _text_class(text: Any) -> Any:
    return next(model for config, model in _TEXT.values() if type(text) is config)


def _load_text(
    directory: Path,
    text: Any,
    placement: Placement,
    tensors: Mapping[str, torch.Tensor] | None,
) -> PreTrainedModel:
    arguments = {**placement.arguments(), "attn_implementation": attention.register()}
    if tensors is not None:
        names = {name: tensor for name, tensor in tensors.items() if _is_text(name)}
        arguments["state_dict"] = names
    with quiet():
        try:
            model, report = _text_class(text).from_pretrained(
                None if tensors is not None else directory,
                config=text,
                local_files_only=True,
                output_loading_info=True,
                **arguments,
            )
        except (OSError, ValueError, RuntimeError) as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"cannot load {directory}", why, "Download it again.") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise RuntimeError(f"transformers did not find {report}")  # checked before: cannot be
    return model


def _is_text(name: str) -> bool:
    return not (in_checkpoint(name) or name.startswith(PROJECTOR))


def _projector(config: Mapping[str, Any], vision_width: int) -> nn.Module:
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


def _at_rest(part: Any, beside: torch.Tensor) -> Any:
    """Return a part that is not trained, on another weight's device and of its type."""
    return part.to(beside.device, beside.dtype).eval().requires_grad_(False)


def _fill_projector(
    projector: nn.Module, directory: Path, tensors: Mapping[str, torch.Tensor] | None
) -> None:
    found = tensors or read_tensors(directory, lambda name: name.startswith(PROJECTOR))
    own = {
        name.removeprefix(PROJECTOR): tensor
        for name, tensor in found.items()
        if name.startswith(PROJECTOR)
    }
    projector.load_state_dict(own, strict=True, assign=True)
