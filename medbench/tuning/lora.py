"""LoRA through peft: put on a language model, saved, loaded, and taken off again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from transformers import PreTrainedModel

from medbench.method import Tuner

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def add(language_model: PreTrainedModel, tuner: Tuner, seed: int) -> PeftModel:
    """Put fresh LoRA layers on the language model, initialised from the seed."""
    config = LoraConfig(
        r=tuner.rank,
        lora_alpha=tuner.alpha,  # type: ignore[arg-type]  # a float scales as well
        lora_dropout=tuner.dropout,
        target_modules=list(tuner.lora_targets()),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        return get_peft_model(language_model, config)  # type: ignore[return-value]


def load(language_model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put the LoRA layers saved in a folder on the language model.

    Raises:
        OSError, ValueError, RuntimeError, SafetensorError: files are missing, broken, or do not
            fit; the language model is then as before.
    """
    weights = load_file(folder / WEIGHTS)
    # Given the content, peft never looks for a missing file on the hub.
    config = PeftConfig.from_peft_type(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    with torch.random.fork_rng(devices=[]), _quiet():
        model: PeftModel = get_peft_model(language_model, config)  # type: ignore[assignment]
        try:
            wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
            if odd := sorted(wanted.keys() ^ weights.keys()):
                raise ValueError(f"{len(odd)} tensors are missing or left over, such as {odd[0]}")
            set_peft_model_state_dict(model, weights)
        except BaseException:
            remove(model)
            raise
    return model


def save(model: PeftModel, folder: Path) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`."""
    with _quiet():
        model.save_pretrained(str(folder), save_embedding_layers=False)
    # peft writes a model card that names local paths.
    (folder / "README.md").unlink(missing_ok=True)


def remove(model: PeftModel) -> PreTrainedModel:
    """Take the LoRA layers off; the language model has its own modules again."""
    plain = model.unload()
    # peft leaves its configuration on the model it wrapped.
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    return plain


@contextmanager
def _quiet() -> Generator[None]:
    """Leave out warnings of peft and transformers about each other that a user cannot act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated")
        # peft asks the hub whether the vocabulary grew; it did not, and there may be no hub.
        warnings.filterwarnings("ignore", message="Could not find a config file")
        yield
