"""Checkpoints in the original LLaVA layout: language model, projector and tower in one folder.

The language model's tensors have transformers' own names there, so it is loaded from the folder as
it lies; projector and tower are read by name. `original_config` reads config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from medbench.errors import UserError
from medbench.model import attention
from medbench.model.geometry import Fit
from medbench.model.llava import Backbone, computes_on
from medbench.model.llava_format import quiet
from medbench.model.original_config import (
    PROJECTOR,
    check_tensors,
    new_projector,
    read_original_config,
    text_class,
    text_config,
    visual_tokens,
)
from medbench.model.placement import Placement, compute_as_asked
from medbench.model.template import Template
from medbench.model.tokenizer import check_vocabulary
from medbench.model.vision import (
    check_tower,
    in_checkpoint,
    load_tower,
    tower_config,
    tower_geometry,
)
from medbench.model.weights import read_tensors, stored_shapes

# The placeholder of the originals; no token has this number.
IMAGE_TOKEN_ID = -200
VisionWeights = Literal["openai", "checkpoint"]


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
        penalises_prompt: whether a repetition penalty sees the prompt (`Backbone`).
    """

    name: str
    offers: tuple[str, ...]
    model_type: str
    fit: Fit
    template: Template
    image_token_id: int = IMAGE_TOKEN_ID
    stop_strings: tuple[str, ...] = ()
    penalises_prompt: bool = False


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
        tower: the vision tower's own folder; None only with vision_weights="checkpoint", of a
            known tower.
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
    text = text_config(directory, config)
    vision = tower_config(tower, str(config["mm_vision_tower"]))
    projector = new_projector(config, vision.hidden_size)
    layer, select = visual_tokens(directory, config, int(vision.num_hidden_layers))
    shapes = (
        {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if tensors
        else stored_shapes(directory)
    )
    check_tensors(directory, shapes, text, projector)
    check_tower(directory, shapes, vision)
    check_vocabulary(directory, tokenizer, int(text.vocab_size))
    source = directory if vision_weights == "checkpoint" else cast("Path", tower)
    language_model = _load_text(directory, text, placement, tensors)
    embedding = cast("nn.Embedding", language_model.get_input_embeddings())
    _fill_projector(projector, directory, tensors)
    return Backbone(
        name=kind.name,
        offers=kind.offers,
        vision_tower=_at_rest(load_tower(source, vision, embedding.weight.dtype), embedding),
        projector=_at_rest(projector, embedding),
        language_model=language_model.eval().requires_grad_(False),
        tokenizer=tokenizer,
        template=kind.template,
        geometry=tower_geometry(tower, vision, kind.fit),
        image_token_id=kind.image_token_id,
        eos_token_ids=(int(tokenizer.eos_token_id),),  # as the originals' own evaluation
        vision_layer=layer,
        vision_select=select,
        stop_strings=kind.stop_strings,
        penalises_prompt=kind.penalises_prompt,
    )


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
            model, report = text_class(text).from_pretrained(
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
    compute_as_asked(model)
    return model


def _is_text(name: str) -> bool:
    return not (in_checkpoint(name) or name.startswith(PROJECTOR))


def _at_rest(part: Any, beside: nn.Embedding) -> Any:
    """Return a part that is not trained, on the embedding's device and of its type."""
    return part.to(computes_on(beside), beside.weight.dtype).eval().requires_grad_(False)


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
