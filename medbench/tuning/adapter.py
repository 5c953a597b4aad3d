"""Adapters: LoRA and what a tuner adds to it, attached to a backbone, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medbench.errors import UserError
from medbench.method import Tuner
from medbench.model.llava import Backbone
from medbench.model.rows import RowState
from medbench.tuning import lora

EXTENSION_FILE = "extension.safetensors"


class Extension(RowState, Protocol):
    """Trainable parts beyond LoRA: a module that hooks onto decoder layers and follows rows."""

    def attach(self, layers: nn.ModuleList) -> Callable[[], None]:
        """Hook onto the layers; return what takes the hooks off."""
        ...


@dataclass(frozen=True)
class Adapter:
    """What tuning produced, attached to a backbone.

    Attributes:
        backbone: the backbone with the adapter in its language model.
        model: the language model under peft; extension: what the tuner added, or None.
    """

    backbone: Backbone
    model: PeftModel
    extension: nn.Module | None

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that tuning changes, by name."""
        found = {
            f"lora.{name}": weight
            for name, weight in self.model.named_parameters()
            if weight.requires_grad
        }
        if self.extension is not None:
            found |= {f"extension.{k}": v for k, v in self.extension.named_parameters()}
        return found

    def state(self) -> dict[str, Tensor]:
        """Return everything that training can change, by name: weights, and buffers beside."""
        found: dict[str, Tensor] = {k: v.detach() for k, v in self.trainable().items()}
        if self.extension is not None:
            found |= {f"extension.{k}": v for k, v in self.extension.named_buffers()}
        return found

    def train(self, mode: bool) -> None:
        """Switch dropout on or off."""
        self.model.train(mode)
        if self.extension is not None:
            self.extension.train(mode)

    def save(self, folder: Path) -> None:
        """Write the adapter's weights into a folder."""
        lora.save(self.model, folder)
        if self.extension is not None:
            state = {
                k: v.detach().contiguous().cpu() for k, v in self.extension.state_dict().items()
            }
            save_file(state, folder / EXTENSION_FILE)


@contextmanager
def attached(
    backbone: Backbone, tuner: Tuner, *, seed: int = 0, folder: Path | None = None
) -> Generator[Adapter]:
    """Attach a tuner's adapter for the duration of a block; then the backbone is as before.

    Args:
        folder: a saved adapter to load; None starts a fresh one from the seed.

    Raises:
        UserError: the folder's weights do not fit.
    """
    plain = backbone.language_model
    with ExitStack() as undo:
        undo.callback(_put_back, plain, _switches(plain))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            extension = tuner.extend(backbone)
        if extension is not None and _spread(plain):
            raise UserError(
                f"{tuner.name} cannot run on a model spread over several devices",
                "What it adds beside LoRA lies on one.",
                "Take device_map=none, or lora, which is spread with the model.",
            )
        if folder is None:
            model = lora.add(plain, tuner, seed)
        else:
            with _explaining(folder):
                if extension is not None:
                    extension.load_state_dict(load_file(folder / EXTENSION_FILE), strict=True)
                model = lora.load(plain, folder)
        undo.callback(lora.remove, model)
        states: tuple[Any, ...] = ()
        if extension is not None:
            extension.to(backbone.device)
            undo.callback(cast(Extension, extension).attach(plain.model.layers))
            states = (extension,)
        adapted = replace(backbone, language_model=cast(Any, model), row_states=states)
        adapter = Adapter(adapted, model, extension)
        adapter.train(False)
        yield adapter


def _spread(model: nn.Module) -> bool:
    return len({weight.device for weight in model.parameters()}) > 1


def _switches(model: nn.Module) -> dict[str, bool]:
    """Return what peft and training turn on and off: training mode, and gradients by name."""
    return {name: one.requires_grad for name, one in model.named_parameters()} | {
        "": model.training
    }


def _put_back(model: nn.Module, switches: dict[str, bool]) -> None:
    model.train(switches[""])
    for name, weight in model.named_parameters():
        weight.requires_grad_(switches[name])


@contextmanager
def _explaining(folder: Path) -> Generator[None]:
    """Turn what goes wrong with an adapter's files into an error that names the folder."""
    try:
        yield
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"cannot load the adapter in {folder}",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "Delete the folder to train it again.",
        ) from error
