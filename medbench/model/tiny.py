"""The toy model: transformers' own classes in a few thousand seeded weights."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from medbench.backbones.toy import VISION_LAYERS
from medbench.model import attention
from medbench.model.geometry import Geometry
from medbench.model.llava import Backbone
from medbench.model.llava_format import CLIP_MEAN, CLIP_STD, assemble
from medbench.model.template import Template

if TYPE_CHECKING:
    from medbench.backbones.toy import Toy

IMAGE_SIZE, PATCH = 16, 4
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
TEXT_CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}


def build_toy(toy: Toy, *, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Return the toy backbone; the same seed gives the same weights everywhere."""
    tokenizer = toy_tokenizer()
    text = TEXT_CONFIGS[toy.text](
        vocab_size=len(tokenizer),
        hidden_size=toy.width,
        intermediate_size=2 * toy.width,
        num_hidden_layers=toy.layers,
        num_attention_heads=toy.heads,
        num_key_value_heads=toy.kv_heads,
        max_position_embeddings=2048,
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=SPECIAL.index("</s>"),
        pad_token_id=SPECIAL.index("<pad>"),
    )
    vision = CLIPVisionConfig(
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=(IMAGE_SIZE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws weights of its own first
        model: Any = LlavaForConditionalGeneration(config)
    model.set_attn_implementation({"text_config": attention.register()})
    _fill(model, toy.seed, toy.spread)
    return assemble(
        model.eval().to(device, dtype),
        tokenizer=tokenizer,
        template=Template("user: <image> {question} assistant:", after_answer="</s>"),
        geometry=Geometry(IMAGE_SIZE, PATCH, "crop", CLIP_MEAN, CLIP_STD),
        name=toy.name,
        offers=toy.offers,
    )


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """Return a character tokenizer over printable ASCII, with a begin token in front."""
    letters = [letter for letter in string.printable if letter.isprintable() or letter == "\n"]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )


def _fill(model: LlavaForConditionalGeneration, seed: int, spread: float) -> None:
    """Draw every weight from one generator of its own, in the order of the names."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            drawn = torch.randn(weight.shape, generator=generator) * spread
            weight.copy_(1 + drawn / 10 if name.endswith("norm.weight") else drawn)
