"""The vision tower of a CLIP: what its patches are, and what its class token looks at."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medbench.clip import CONFIG
from medbench.errors import UserError
from medbench.extras import importing
from medbench.model.geometry import Fit, Geometry

Feature = Literal["block_out", "post_ln", "projected"]
_SHOWN = 5


@dataclass(frozen=True)
class Tower:
    """A loaded vision tower with a class token; the text tower is not needed and not there.

    Attributes:
        visual: of open_clip: its own VisionTransformer, or one of timm.
        preprocess: the expert's own way from an image to pixels.
        mean, std: of these pixels.
        device: where it is.
    """

    visual: nn.Module
    preprocess: Callable[[Image], Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    device: torch.device

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return _parts(self.visual).grid

    def pixels(self, images: Sequence[Image], fit: Fit | None) -> Tensor:
        """Return float32 [images, 3, size, size].

        Args:
            fit: how images are placed; None takes the expert's own way.
        """
        if fit is None:
            return torch.stack([self.preprocess(image.convert("RGB")) for image in images])
        parts = _parts(self.visual)
        geometry = Geometry(parts.size, parts.patch, fit, self.mean, self.std)
        return torch.stack([geometry.pixels(image) for image in images])

    @torch.inference_mode()
    def look(self, pixels: Tensor, feature: Feature) -> tuple[Tensor, Tensor]:
        """Return what is seen in images, both float32.

        Args:
            pixels: [images, 3, size, size].
            feature: patches as the last block leaves them, after the final norm, or after the
                projection into the space shared with text.

        Returns:
            Patch features [images, n, width], and the class token's attention to the patches in
            the last block, averaged over heads, [images, n].
        """
        parts = _parts(self.visual)
        entered, left = list[Tensor](), list[Tensor]()
        hooks = [
            parts.attention.register_forward_pre_hook(_into(entered)),
            parts.block.register_forward_hook(_out_into(left)),
        ]
        try:
            self.visual(pixels.to(self.device))
        finally:
            for hook in hooks:
                hook.remove()
        inputs, tokens = (x if parts.batch_first else x.transpose(0, 1) for x in (*entered, *left))
        attention = parts.heads.class_row(inputs)[:, parts.prefix :]
        if feature != "block_out":
            tokens = parts.norm(tokens)
        if feature == "projected":
            tokens = parts.project(tokens)
        return tokens[:, parts.prefix :].float(), attention


def _into(seen: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda _, inputs: seen.append(inputs[0])


def _out_into(seen: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
    return lambda _, _inputs, output: seen.append(output)


@dataclass(frozen=True)
class _Heads:
    """The query and key projections of an attention layer, stacked above that of the value."""

    weight: Tensor
    bias: Tensor | None
    count: int
    scale: float
    query_norm: Callable[[Tensor], Tensor]
    key_norm: Callable[[Tensor], Tensor]

    def class_row(self, x: Tensor) -> Tensor:
        """Return what the first of the tokens x attends to, the mean over heads, [images, T]."""
        width = len(self.weight) // 3
        query, key = (
            nn.functional.linear(
                tokens,
                self.weight[start : start + width],
                None if self.bias is None else self.bias[start : start + width],
            )
            .unflatten(-1, (self.count, -1))
            .transpose(1, 2)
            for tokens, start in ((x[:, :1], 0), (x, width))
        )
        scores = self.query_norm(query) @ self.key_norm(key).transpose(2, 3)
        return (scores.float() * self.scale).softmax(-1).mean(1)[:, 0]


@dataclass(frozen=True)
class _Parts:
    """Where in a tower things are; `prefix` tokens stand before the patches."""

    block: nn.Module
    attention: nn.Module
    heads: _Heads
    norm: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], Tensor]
    grid: tuple[int, int]
    patch: int
    size: int
    prefix: int = 1
    batch_first: bool = True


def _parts(visual: Any) -> _Parts:
    return _timm_parts(visual) if hasattr(visual, "trunk") else _stock_parts(visual)


def _stock_parts(visual: Any) -> _Parts:
    """Take open_clip's own VisionTransformer apart."""
    if not hasattr(visual, "class_embedding"):
        raise _foreign(visual)
    block = visual.transformer.resblocks[-1]
    attention = block.attn
    if visual.attn_pool is not None:
        raise _foreign(visual.attn_pool)
    if not isinstance(attention, nn.MultiheadAttention):
        raise _foreign(attention)
    count = attention.num_heads
    return _Parts(
        block,
        attention,
        _Heads(
            cast(Tensor, attention.in_proj_weight),
            attention.in_proj_bias,
            count,
            (attention.embed_dim // count) ** -0.5,
            nn.Identity(),
            nn.Identity(),
        ),
        visual.ln_post,
        lambda tokens: tokens @ visual.proj,
        tuple(visual.grid_size),
        _square(visual.patch_size, visual),
        _square(visual.image_size, visual),
        batch_first=attention.batch_first,
    )


def _timm_parts(visual: Any) -> _Parts:
    """Take a tower of timm apart."""
    trunk = visual.trunk
    if getattr(trunk, "cls_token", None) is None or "pool" in visual.head._modules:
        raise _foreign(trunk)
    block = trunk.blocks[-1]
    attention = block.attn
    # The classes with other projections, or with turned positions, have other names.
    if type(attention).__name__ != "Attention" or not hasattr(attention, "qkv"):
        raise _foreign(attention)
    embed = trunk.patch_embed
    patch, size = _square(embed.patch_size, visual), _square(visual.image_size, visual)
    if embed.grid_size[0] * patch != size:
        raise _foreign(embed)  # made for images of another size
    return _Parts(
        block,
        attention,
        _Heads(
            attention.qkv.weight,
            attention.qkv.bias,
            attention.num_heads,
            attention.scale,
            attention.q_norm,
            attention.k_norm,
        ),
        trunk.norm,
        lambda tokens: visual.head(trunk.head(trunk.fc_norm(tokens))),
        tuple(embed.grid_size),
        patch,
        size,
        prefix=trunk.num_prefix_tokens,
    )


def _square(sides: Sequence[int], visual: nn.Module) -> int:
    if sides[0] != sides[1]:
        raise _foreign(visual)
    return int(sides[0])


def _foreign(module: nn.Module) -> UserError:
    return UserError(
        "this vision tower cannot be an expert",
        f"It has a {type(module).__name__} that is not understood.",
        "Take a plain vision transformer with a class token and square images.",
    )


def load_folder(folder: Path, weights: Path, device: torch.device | str = "cpu") -> Tower:
    """Load the vision tower of a folder as open_clip writes it.

    Args:
        weights: the file in the folder.

    Raises:
        UserError: the extra is not installed, files cannot be read, or tensors do not fit.
    """
    try:
        described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = described.get("model_cfg", described)
        visual = _build(config)
    except UserError:
        raise
    except Exception as error:  # configurations of other years fail in a dozen ways
        raise _broken(folder / CONFIG, error) from error
    _fill(visual, _read(weights), weights)
    return _ready(visual, described.get("preprocess_cfg", {}), device)


def load_checkpoint(path: Path, config: str, device: torch.device | str = "cpu") -> Tower:
    """Load the vision tower of a training checkpoint, such as UniMed-CLIP's.

    Args:
        path: a file of torch whose `state_dict` names the tower's tensors as open_clip does.
        config: name of one of open_clip's configurations, for the vision tower.

    Raises:
        UserError: the extra is not installed, the file cannot be read, or tensors do not fit.
    """
    with importing("labels"):
        import open_clip  # pyright: ignore[reportMissingImports]
    visual = _build(open_clip.get_model_config(config))
    _fill(visual, _read(path), path)
    return _ready(visual, {}, device)


def _build(config: Mapping[str, Any]) -> nn.Module:
    """Return an open_clip model's vision tower with weights of no meaning."""
    with importing("labels"):
        # The public way builds the text tower as well, for which more files have to be there.
        from open_clip.model import (  # pyright: ignore[reportMissingImports]
            _build_vision_tower as build,  # pyright: ignore[reportPrivateUsage]
        )
    # Nothing is ever downloaded here.
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    with torch.random.fork_rng(devices=[]):
        return build(config["embed_dim"], vision, config.get("quick_gelu", False))


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of the vision tower in a file."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            with _numpy_scalars():
                state = torch.load(
                    path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
                )
            state = state.get("state_dict", state)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        raise _broken(path, error) from error
    named = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {
        name.removeprefix("visual."): tensor
        for name, tensor in named.items()
        if name.startswith("visual.")
    }


@contextmanager
def _numpy_scalars() -> Generator[None]:
    """Let numbers of numpy through, which training checkpoints hold beside their tensors."""
    rebuild = np.float64(0).__reduce__()[0]
    kinds = [np.float64, np.float32, np.int64, np.int32, np.bool_]
    names = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]  # numpy 1 and 2
    allowed = [
        *((rebuild, name) for name in names),
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
        (_encode, "_codecs.encode"),
    ]
    with torch.serialization.safe_globals(cast(Any, allowed)):
        yield


def _encode(text: str, encoding: str) -> bytes:
    """Do what `_codecs.encode` does to the bytes of a number."""
    return text.encode(encoding)


def _fill(visual: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    wanted = visual.state_dict()
    odd = {
        "missing": [name for name in wanted if name not in state],
        "left over": [name for name in state if name not in wanted],
        "of another shape": [
            name for name in wanted if name in state and wanted[name].shape != state[name].shape
        ],
    }
    if any(odd.values()):
        raise UserError(
            f"{path} does not hold this vision tower",
            "; ".join(_listed(what, names) for what, names in odd.items() if names) + ".",
            "Check that the weights are those of the expert named.",
        )
    visual.load_state_dict({name: tensor.float() for name, tensor in state.items()})


def _listed(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what}: {', '.join(f'visual.{name}' for name in names[:_SHOWN])}{more}"


def _ready(
    visual: nn.Module, preprocessing: Mapping[str, Any], device: torch.device | str
) -> Tower:
    from open_clip.transform import (  # pyright: ignore[reportMissingImports]
        PreprocessCfg,
        image_transform_v2,
    )

    given = {k: v for k, v in preprocessing.items() if k in PreprocessCfg.__dataclass_fields__}
    config = PreprocessCfg(**given | {"size": cast(Any, visual).image_size})
    tower = Tower(
        visual.to(device).eval().requires_grad_(False),
        image_transform_v2(config, is_train=False),
        cast(Any, tuple(config.mean)),
        cast(Any, tuple(config.std)),
        torch.device(device),
    )
    _parts(tower.visual)  # refuses what cannot be an expert before anything is computed
    return tower


def _broken(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot read {path}",
        f"{type(error).__name__}: {error}".splitlines()[0],
        "Get it again, or check that it is what it is meant to be.",
    )
