"""The small LLaVA: its sizes, its tokenizer, and the directory it is written to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from medbench.phantom.questions import COUNTS, PHRASINGS
from medbench.phantom.world import LESIONS, ORGAN_NAMES, ORGANS, SIZE

PATCH = 8
GRID = SIZE // PATCH
TOKENS = GRID * GRID
MEAN, DEVIATION = 0.3, 0.25
PROMPT = "user : <image> {question} assistant :"
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
_PROCESSOR = {
    "processor_class": "LlavaProcessor",
    "patch_size": PATCH,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
    "image_token": "<image>",
}
_VISION_WIDTH, _TEXT_WIDTH = 96, 128
_VISION_LAYERS, _TEXT_LAYERS, _HEADS = 4, 4, 4


def vocabulary() -> tuple[str, ...]:
    """Return every token: the special ones first, then all words in alphabetical order."""
    blanks = {"type": "", "organ": "", "first": "", "second": ""}
    phrasings = [text.format(**blanks) for texts in PHRASINGS.values() for text in texts]
    names = [*ORGANS, *ORGAN_NAMES, *LESIONS, *COUNTS]
    others = "yes no nothing small large upper lower user assistant : . no lesion in"
    splitter = pre_tokenizers.Whitespace()
    words = {
        word for text in [*phrasings, *names, others] for word, _ in splitter.pre_tokenize_str(text)
    }
    return (*SPECIAL, *sorted(words))


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer: lower case, split at blanks and punctuation."""
    ids = {word: index for index, word in enumerate(vocabulary())}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        model_max_length=256,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = (
        "{{ bos_token }}{% for message in messages %}{{ message['role'] }} : "
        "{% for part in message['content'] %}"
        "{{ '<image> ' if part['type'] == 'image' else part['text'] }}{% endfor %} {% endfor %}"
        "{% if add_generation_prompt %}assistant :{% endif %}"
    )
    return fast


def new_model() -> LlavaForConditionalGeneration:
    """Return an untrained model of the shipped size."""
    words = len(vocabulary())
    ids = {word: index for index, word in enumerate(SPECIAL)}
    vision = CLIPVisionConfig(
        hidden_size=_VISION_WIDTH,
        intermediate_size=4 * _VISION_WIDTH,
        num_hidden_layers=_VISION_LAYERS,
        num_attention_heads=_HEADS,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=_VISION_WIDTH,
    )
    text = LlamaConfig(
        vocab_size=words,
        hidden_size=_TEXT_WIDTH,
        intermediate_size=4 * _TEXT_WIDTH,
        num_hidden_layers=_TEXT_LAYERS,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=ids["<pad>"],
        bos_token_id=ids["<s>"],
        eos_token_id=ids["</s>"],
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids["<image>"],
        image_seq_length=TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    return LlavaForConditionalGeneration(config)


def to_pixels(images: npt.NDArray[np.uint8]) -> Tensor:
    """Return normalised pixels, float32 [images, 3, 64, 64], of grey images [images, 64, 64]."""
    grey = (torch.from_numpy(images).float() / 255 - MEAN) / DEVIATION
    return grey[:, None].expand(-1, 3, -1, -1)


def visual_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Return what the projector reads, [images, 64, width]: the last layer without CLS."""
    outputs = model.model.vision_tower(pixel_values=pixels, output_hidden_states=True)
    return outputs.hidden_states[-1][:, 1:]


def write_model(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Write weights in float16 with everything needed to load and to prompt them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=24,
        pad_token_id=SPECIAL.index("<pad>"),
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=SPECIAL.index("</s>"),
    )
    model.half().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    processor = CLIPImageProcessor(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        do_rescale=True,
        image_mean=[MEAN] * 3,
        image_std=[DEVIATION] * 3,
    )
    processor.save_pretrained(folder)
    _write_json(folder / "processor_config.json", _PROCESSOR)
    _write_json(folder / "medbench.json", {"prompt": PROMPT, "grid": [GRID, GRID]})


def read_model(folder: Path) -> LlavaForConditionalGeneration:
    """Load a written model in float32, ready to evaluate."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
