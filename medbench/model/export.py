"""Writing a loaded backbone as a directory in transformers' own LLaVA format."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from medbench.atomic import write_json
from medbench.model.llava import Backbone
from medbench.model.llava_format import quiet
from medbench.model.template import IMAGE
from medbench.model.tokenizer import written_pipeline

SHARD_SIZE = "2GB"


def write_llava_hf(backbone: Backbone, out: Path) -> None:
    """Write a backbone as a `LlavaForConditionalGeneration` directory that `llava-hf` loads.

    Where the vocabulary has no token for the image, `<image>` is added to it; its output row is
    that of token 0, so that it is never the most likely one. A projector of one layer becomes two,
    of which the second is the identity, since the format knows no other.

    Args:
        backbone: with its weights on one device, not quantised.
        out: an empty folder.
    """
    tokenizer, image_id = _with_image_token(backbone)
    text = cast(Any, backbone.language_model)
    rows = max(image_id + 1, text.get_input_embeddings().num_embeddings)
    text_config = copy.deepcopy(text.config)
    text_config.vocab_size = rows
    single = isinstance(backbone.projector, nn.Linear)
    config = LlavaConfig(
        vision_config=backbone.vision_tower.config.to_dict(),
        text_config=text_config.to_dict(),
        image_token_index=image_id,
        image_seq_length=backbone.image_tokens,
        projector_hidden_act="linear" if single else "gelu",
        vision_feature_layer=backbone.vision_layer,
        vision_feature_select_strategy="default" if backbone.vision_select == "patch" else "full",
        tie_word_embeddings=text.config.tie_word_embeddings,
    )
    with torch.device("meta"):
        model: Any = LlavaForConditionalGeneration(config)
    model.model.language_model = text.model
    model.model.vision_tower = backbone.vision_tower
    model.model.multi_modal_projector.load_state_dict(_projector(backbone.projector), assign=True)
    own = text.get_input_embeddings(), text.get_output_embeddings()
    try:
        model.model.language_model.embed_tokens = _longer(own[0], rows)
        model.lm_head = _longer(own[1], rows)
        with quiet():
            model.save_pretrained(out, max_shard_size=SHARD_SIZE)
    finally:
        text.model.embed_tokens = own[0]
    tokenizer.save_pretrained(out)
    _write_processor(backbone, out)
    _write_prompt(backbone, tokenizer, out)


def _with_image_token(backbone: Backbone) -> tuple[PreTrainedTokenizerFast, int]:
    """Return the tokenizer as a plain fast one, and the number of the image's token in it."""
    known = cast(PreTrainedTokenizerFast, backbone.tokenizer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=written_pipeline(known),
        bos_token=known.bos_token,
        eos_token=known.eos_token,
        unk_token=known.unk_token,
        pad_token=known.pad_token,
        clean_up_tokenization_spaces=False,
    )
    if backbone.image_token_id >= 0:
        return tokenizer, backbone.image_token_id
    tokenizer.add_tokens(IMAGE, special_tokens=True)
    return tokenizer, cast(int, tokenizer.convert_tokens_to_ids(IMAGE))


def _longer(layer: Any, rows: int) -> nn.Module:
    """Return a layer with as many rows, the new ones like row 0; with enough, itself."""
    weight: Tensor = layer.weight
    missing = rows - len(weight)
    if not missing:
        return layer
    longer = torch.cat([weight, weight[:1].expand(missing, -1)])
    if isinstance(layer, nn.Embedding):
        return nn.Embedding.from_pretrained(longer)
    head = nn.Linear(weight.shape[1], rows, bias=False, device="meta")
    head.weight = nn.Parameter(longer, requires_grad=False)
    return head


def _projector(projector: nn.Module) -> dict[str, Tensor]:
    state = projector.state_dict()
    if isinstance(projector, nn.Linear):
        return {
            "linear_1.weight": state["weight"],
            "linear_1.bias": state["bias"],
            "linear_2.weight": torch.eye(len(state["bias"])).to(state["weight"]),
            "linear_2.bias": torch.zeros_like(state["bias"]),
        }
    return {
        name.replace("0.", "linear_1.").replace("2.", "linear_2."): tensor
        for name, tensor in state.items()
    }


def _write_processor(backbone: Backbone, out: Path) -> None:
    geometry = backbone.geometry
    side = {"height": geometry.size, "width": geometry.size}
    padded = geometry.fit == "pad"
    processor = {
        "image_processor_type": "LlavaImageProcessor" if padded else "CLIPImageProcessor",
        "do_pad": padded,
        "do_resize": True,
        "do_center_crop": True,
        "size": {"shortest_edge": geometry.size},
        "crop_size": side,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": list(geometry.mean),
        "image_std": list(geometry.std),
    }
    write_json(out / "preprocessor_config.json", processor)


def _write_prompt(backbone: Backbone, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    template = backbone.template
    write_json(
        out / "medbench.json",
        {
            "prompt": template.text,
            "training": template.training,
            "before_answer": template.before_answer,
            "after_answer": template.after_answer,
            "special_tokens": template.special_tokens,
            "image": template.image or IMAGE,
            "stop": list(backbone.stop_strings),
        },
    )
