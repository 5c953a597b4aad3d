"""Reading a transformers LLaVA directory into the parts of a backbone."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from medbench.errors import UserError
from medbench.model import attention
from medbench.model.geometry import Geometry
from medbench.model.llava import Backbone
from medbench.model.placement import Placement, compute_as_asked
from medbench.model.template import IMAGE, QUESTION, Template

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def load_llava(
    directory: Path,
    *,
    name: str,
    offers: tuple[str, ...],
    prompt: str,
    placement: Placement,
) -> Backbone:
    """Load a `LlavaForConditionalGeneration` directory.

    Raises:
        UserError: not such a directory, a file that cannot be read, or tensors missing or
            left over.
    """
    config = read_config(directory)
    # transformers passes over a broken generation_config.json, and the end tokens with it.
    if (directory / "generation_config.json").is_file():
        read_json(directory / "generation_config.json")
    with quiet():
        try:
            loaded: Any = LlavaForConditionalGeneration.from_pretrained(
                directory,
                config=config,
                attn_implementation={"text_config": attention.register(), "vision_config": "sdpa"},
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report, with their names
                **placement.arguments(),
            )
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"cannot load {directory}", why, "Download it again.") from error
    model, report = loaded
    _require_all_tensors(directory, report)
    compute_as_asked(model)
    return assemble(
        model.eval(),
        tokenizer=tokenizer,
        template=read_template(directory, tokenizer, prompt),
        geometry=read_geometry(directory, config),
        name=name,
        offers=offers,
        stop_strings=_stop_strings(directory),
    )


def assemble(
    model: LlavaForConditionalGeneration,
    *,
    tokenizer: Any,
    template: Template,
    geometry: Geometry,
    name: str,
    offers: tuple[str, ...],
    stop_strings: tuple[str, ...] = (),
) -> Backbone:
    """Take a LLaVA model apart; the parts share its weights."""
    config: Any = model.config
    model.requires_grad_(False)
    strategy = config.vision_feature_select_strategy
    return Backbone(
        name=name,
        offers=offers,
        vision_tower=model.model.vision_tower,
        projector=model.model.multi_modal_projector,
        language_model=_with_head(model),
        tokenizer=tokenizer,
        template=template,
        geometry=geometry,
        image_token_id=config.image_token_id,
        eos_token_ids=_end_tokens(model, tokenizer),
        vision_layer=config.vision_feature_layer,
        vision_select="patch" if strategy == "default" else "full",
        stop_strings=stop_strings,
    )


def read_config(directory: Path) -> LlavaConfig:
    """Read config.json and make sure that it is transformers' own LLaVA format.

    A LLaVA-Med 1.0 directory also says `"model_type": "llava"` but keeps the text model's fields
    flat; transformers would read it as a model of default sizes without an error.
    """
    data = read_json(directory / "config.json")
    if data.get("model_type") != "llava" or "text_config" not in data:
        raise UserError(
            f"{directory} is not in transformers' LLaVA format",
            f"Its model_type is '{data.get('model_type')}'"
            + ("." if "text_config" in data else " and it has no text_config."),
            "Export it to that format, or name the backbone that reads it.",
        )
    return LlavaConfig.from_dict(data)


def read_template(directory: Path, tokenizer: Any, prompt: str) -> Template:
    """Return the prompt template: the one given, `medbench.json`'s, or the chat template's."""
    end = tokenizer.eos_token or ""
    own = directory / "medbench.json"
    stated = read_json(own) if own.is_file() else {}
    if prompt or stated.get("prompt"):
        return Template(
            prompt or stated["prompt"],
            training="" if prompt else stated.get("training", ""),
            before_answer=stated.get("before_answer", " "),
            after_answer=stated.get("after_answer", f" {end}" if end else ""),
            special_tokens=stated.get("special_tokens", True),
            image=stated.get("image", IMAGE),
        )
    chat = tokenizer.chat_template
    if chat is None and (directory / "chat_template.jinja").is_file():
        chat = (directory / "chat_template.jinja").read_text(encoding="utf-8")
    if chat is None:
        return Template(f"USER: {IMAGE}\n{QUESTION} ASSISTANT:", after_answer=end)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=chat,
        tokenize=False,
        add_generation_prompt=True,
    )
    begin = tokenizer.bos_token
    begins = bool(begin) and text.startswith(begin)
    return Template(text, after_answer=end, special_tokens=not begins)


def _stop_strings(directory: Path) -> tuple[str, ...]:
    own = directory / "medbench.json"
    return tuple(read_json(own).get("stop", ())) if own.is_file() else ()


def read_geometry(directory: Path, config: LlavaConfig) -> Geometry:
    """Return the image geometry that the directory's image processor describes."""
    data: dict[str, Any] = {}
    if (directory / "preprocessor_config.json").is_file():
        data = read_json(directory / "preprocessor_config.json")
    elif (directory / "processor_config.json").is_file():
        data = read_json(directory / "processor_config.json").get("image_processor", {})
    vision: Any = config.vision_config
    size = vision.image_size
    stated = data.get("size", size)  # old files hold a number, newer ones name the side
    edge = stated.get("shortest_edge") if isinstance(stated, dict) else stated
    if edge not in (None, size):
        raise UserError(
            f"{directory} scales images in a way medbench does not know",
            f"Its processor scales the shorter side to {edge} pixels; the tower takes {size}.",
            "Export it with one size for both.",
        )
    fit = "squash"
    if data.get("do_pad"):
        fit = "pad"
    elif data.get("do_center_crop", True) and edge is not None:
        fit = "crop"
    return Geometry(
        size=size,
        patch=vision.patch_size,
        fit=fit,
        mean=tuple(data.get("image_mean", CLIP_MEAN)),
        std=tuple(data.get("image_std", CLIP_STD)),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or say which file is broken."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}", str(error), "Download it again.") from error
    if not isinstance(data, dict):
        raise UserError(f"cannot read {path}", "It holds no JSON object.", "Download it again.")
    return cast(dict[str, Any], data)


def _with_head(model: LlavaForConditionalGeneration) -> PreTrainedModel:
    """Return the text model as an ordinary causal language model over the same weights."""
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(model.config.text_config)
    causal.model = model.model.language_model
    causal.lm_head = model.lm_head
    causal.config = model.model.language_model.config
    return causal.eval()


def _end_tokens(model: LlavaForConditionalGeneration, tokenizer: Any) -> tuple[int, ...]:
    generation = getattr(model, "generation_config", None)
    found = generation.eos_token_id if generation is not None else None
    found = tokenizer.eos_token_id if found is None else found
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list) else (found,)


def _require_all_tensors(directory: Path, report: Any) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in report.get(kind, ()))
        if keys:
            shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
            raise UserError(
                f"{directory}: {len(keys)} {kind.replace('_keys', '')} tensors",
                shown,
                "The weights do not belong to config.json; download both again.",
            )


@contextmanager
def quiet() -> Generator[None]:
    """Keep transformers' progress bars and load reports off the screen while loading."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
