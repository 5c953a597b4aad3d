"""LLaVA-shaped models with random weights, of a size that is worth timing."""

from dataclasses import dataclass

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from medbench.model import attention
from medbench.model.geometry import Geometry
from medbench.model.llava import Backbone
from medbench.model.llava_format import CLIP_MEAN, CLIP_STD, assemble
from medbench.model.template import Template
from medbench.model.tiny import toy_tokenizer


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: its language model, then its vision tower.

    Attributes:
        heads, kv_heads: of the language model; width, inner: of its states and of its MLP.
        size, patch: of images in pixels.
    """

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    vision_layers: int
    vision_width: int
    size: int
    patch: int


SHAPES = {
    "tiny": Shape(4, 64, 128, 4, 2, 200, 2, 32, 32, 8),
    "mid": Shape(8, 512, 1408, 8, 8, 32000, 6, 384, 224, 14),
    "7b": Shape(32, 4096, 14336, 32, 8, 32000, 24, 1024, 336, 14),
}


def random_backbone(shape: Shape, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Return a model of that shape that never ends an answer by itself."""
    tokenizer = toy_tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=shape.size,
            patch_size=shape.patch,
            hidden_size=shape.vision_width,
            intermediate_size=4 * shape.vision_width,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=max(1, shape.vision_width // 64),
        ),
        text_config=LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=4096,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(shape.size // shape.patch) ** 2,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    # Drawn where it will run, in its own type: 7B in float32 would not fit everywhere.
    with torch.device(device):
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        model = LlavaForConditionalGeneration(config)
        torch.set_default_dtype(default)
    model.set_attn_implementation({"text_config": attention.register()})
    backbone = assemble(
        model.eval().to(device, dtype),
        tokenizer=tokenizer,
        template=Template("user: <image> {question} assistant:"),
        geometry=Geometry(shape.size, shape.patch, "crop", CLIP_MEAN, CLIP_STD),
        name="random",
        offers=(
            "pixels", "image_span", "attention", "hidden_states", "class_attention", "training",
        ),
    )  # fmt: skip
    object.__setattr__(backbone, "eos_token_ids", ())
    return backbone
