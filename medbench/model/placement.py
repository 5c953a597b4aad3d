"""Where a model's weights go, and as what: device, type, several cards, four bits."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from medbench.extras import importing

DeviceMap = Literal["none", "auto", "balanced", "sequential"]
Quantize = Literal["none", "4bit"]


@dataclass(frozen=True)
class Placement:
    """How weights are loaded.

    Attributes:
        device: where everything goes that is not spread.
        dtype: of the weights; with four bits, of what is computed with them.
        device_map: "none", or how accelerate spreads the language model over all cards, and over
            main memory and disk where these are not enough: "auto", "balanced", "sequential", or
            the device of each module by name.
        quantize: "4bit" loads the language model's matrices as 4-bit NormalFloat (bitsandbytes).
    """

    device: torch.device
    dtype: torch.dtype
    device_map: DeviceMap | Mapping[str, str] = "none"
    quantize: Quantize = "none"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of transformers' `from_pretrained` for the language model.

        Raises:
            UserError: four bits were asked for and bitsandbytes is not installed.
        """
        spread = self.device_map
        if not isinstance(spread, str):
            spread = dict(spread)
        elif spread == "none":
            spread = {"": self.device}  # straight there: no second copy in main memory
        chosen: dict[str, Any] = {"dtype": self.dtype, "device_map": spread}
        if self.quantize == "4bit":
            with importing("4bit"):
                importlib.import_module("bitsandbytes")
            from transformers import BitsAndBytesConfig

            chosen["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=self.dtype,
                llm_int8_skip_modules=["lm_head"],
            )
        return chosen


def compute_as_asked(model: Any) -> None:
    """Keep matrices of four bits to the type that was asked for, on every CPU.

    On a CPU with AVX512-BF16, bitsandbytes packs such a matrix anew at its first use and computes
    in bfloat16 from then on, whatever was asked; on another it does not. Answers would depend on
    the machine, and a matrix narrower than a block of 64 weights cannot be packed at all.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
