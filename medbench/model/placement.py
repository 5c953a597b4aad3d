"""Where a model's weights go, and as what: device, type, several cards, four bits."""

from __future__ import annotations

import importlib
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
        device_map: "none", or how accelerate spreads the language model over all cards, main
            memory and disk: "auto", "balanced", "sequential".
        quantize: "4bit" loads the language model's matrices as 4-bit NormalFloat (bitsandbytes).
    """

    device: torch.device
    dtype: torch.dtype
    device_map: DeviceMap = "none"
    quantize: Quantize = "none"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of transformers' `from_pretrained` for the language model.

        Raises:
            UserError: four bits were asked for and bitsandbytes is not installed.
        """
        spread = self.device_map != "none"
        chosen: dict[str, Any] = {
            "dtype": self.dtype,
            # Straight to the device: no second copy in main memory.
            "device_map": self.device_map if spread else {"": self.device},
        }
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
