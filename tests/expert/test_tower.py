"""The vision tower against open_clip's own outputs, and loading it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from medbench.errors import UserError
from medbench.expert.tower import Tower, load_checkpoint, load_folder
from medbench.model.geometry import Geometry
from tests.expert.conftest import STOCK, TIMM, MakeFolder

TOWERS = {"stock": STOCK, "timm": TIMM}
Load = Callable[[str], Tower]


@pytest.fixture
def load(folder_of: MakeFolder) -> Load:
    def loaded(kind: str) -> Tower:
        folder = folder_of(TOWERS[kind])
        return load_folder(folder, folder / "open_clip_model.safetensors")

    return loaded


@pytest.fixture(params=TOWERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_it_has_the_folders_weights_and_no_text_tower(load: Load, model_of: Any, kind: str) -> None:
    wanted = model_of(TOWERS[kind]).visual.state_dict()
    found = load(kind).visual.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_attention_of_the_class_token_is_what_the_layer_itself_computes(
    load: Load, pictures: list[Image.Image], kind: str
) -> None:
    tower = load(kind)
    pixels = tower.pixels(pictures, None)
    _, found = tower.look(pixels, "block_out")
    visual: Any = tower.visual
    seen: list[Tensor] = []
    if kind == "stock":
        attention = visual.transformer.resblocks[-1].attn

        def again(module: Any, inputs: Any) -> None:
            handle.remove()
            with torch.no_grad():
                _, weights = module(*inputs, need_weights=True, average_attn_weights=True)
            seen.append(weights)

        handle = attention.register_forward_pre_hook(again)
    else:
        attention = visual.trunk.blocks[-1].attn
        attention.fused_attn = False
        attention.attn_drop.register_forward_hook(
            lambda _, inputs, output: seen.append(output.mean(1))
        )
    with torch.no_grad():
        visual(pixels)
    count = tower.grid[0] * tower.grid[1]
    assert found.shape == (5, count)
    close(found, seen[0][:, 0, -count:])
    assert float(found.sum(1).max()) < 1


def test_projected_patches_go_the_way_of_the_class_token(
    load: Load, pictures: list[Image.Image], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medbench.expert import tower as module

    tower = load(kind)
    pixels = tower.pixels(pictures, None)
    with torch.no_grad():
        embedding = tower.visual(pixels)
    parts = module._parts(tower.visual)
    assert parts.prefix == 1
    # With no token before the patches, the class token itself is shown first.
    whole = module._Parts(**{**vars(parts), "prefix": 0})
    monkeypatch.setattr(module, "_parts", lambda _: whole)
    tokens, attention = tower.look(pixels, "projected")
    assert tokens.shape == (5, tower.grid[0] * tower.grid[1] + 1, 12)
    close(tokens[:, 0], embedding)
    close(attention.sum(1), torch.ones(5))


@pytest.mark.parametrize("feature", ["block_out", "post_ln"])
def test_patches_are_those_of_open_clips_intermediates(
    load: Load, pictures: list[Image.Image], kind: str, feature: Any
) -> None:
    tower = load(kind)
    pixels = tower.pixels(pictures, None)
    found, _ = tower.look(pixels, feature)
    visual: Any = tower.visual
    with torch.no_grad():
        output = visual.forward_intermediates(
            pixels, indices=1, normalize_intermediates=feature == "post_ln", output_fmt="NLC"
        )
    close(found, output["image_intermediates"][-1])
    assert found.dtype == torch.float32


def test_nothing_stays_behind(load: Load, pictures: list[Image.Image], kind: str) -> None:
    tower = load(kind)
    first = tower.look(tower.pixels(pictures, None), "projected")
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in tower.visual.modules())
    assert not any(one.requires_grad for one in tower.visual.parameters())
    again = tower.look(tower.pixels(pictures, None), "projected")
    assert all(torch.equal(*both) for both in zip(first, again, strict=True))


def test_images_are_placed_as_the_expert_or_as_the_student_does(
    load: Load, folder_of: MakeFolder, pictures: list[Image.Image]
) -> None:
    import open_clip

    tower = load("stock")
    preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder_of(STOCK)}")[1]
    own = torch.stack([preprocess(one) for one in pictures])
    assert torch.equal(tower.pixels(pictures, None), own)
    for fit in ("pad", "crop", "squash"):
        geometry = Geometry(32, 8, fit, (0.3, 0.4, 0.5), (0.2, 0.3, 0.4))  # type: ignore[arg-type]
        wanted = torch.stack([geometry.pixels(one) for one in pictures])
        assert torch.equal(tower.pixels(pictures, fit), wanted)  # type: ignore[arg-type]
        assert fit == "crop" or not torch.allclose(wanted, own, atol=0.1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"attentional_pool": True, "attn_pooler_heads": 4}, "AttentionalPooler"),
        ({"qk_norm": True}, "Attention"),
        ({"timm_model_name": "test_vit2", "image_size": 160}, "VisionTransformer"),
        ({"timm_model_name": "test_vit", "image_size": 64}, "PatchEmbed"),
        ({"layers": [1, 1, 1, 1], "width": 8}, "ModifiedResNet"),
        ({"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"}, "ResNet"),
    ],
)
def test_a_tower_of_another_kind_is_a_users_error(
    folder_of: MakeFolder, change: dict[str, Any], why: str
) -> None:
    described = copy.deepcopy(STOCK)
    described["model_cfg"]["vision_cfg"] |= change
    folder = folder_of(described)
    with pytest.raises(UserError, match="this vision tower cannot be an expert") as raised:
        load_folder(folder, folder / "open_clip_model.safetensors")
    assert why in raised.value.why


UNIMED = "tiny-unimed"


@pytest.fixture
def checkpoint(model_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what writes a checkpoint as training leaves it, with changed tensors."""
    import open_clip

    monkeypatch.setattr(
        open_clip,
        "get_model_config",
        lambda name: STOCK["model_cfg"] if name == UNIMED else None,
    )

    def written(change: Callable[[dict[str, Any]], Any] = lambda _: None, **more: Any) -> Path:
        state = {
            f"module.{name}": tensor
            for name, tensor in model_of(STOCK).state_dict().items()
            if name.startswith("visual.") or name == "logit_scale"
        }
        state["module.text_encoder.embeddings.weight"] = torch.ones(3)
        change(state)
        whole = {"epoch": 5, "name": "x", "state_dict": state, **more}
        torch.save(whole, tmp_path / "epoch.pt")
        return tmp_path / "epoch.pt"

    return written


def test_a_training_checkpoint_gives_its_vision_tower_alone(checkpoint: Any, model_of: Any) -> None:
    numbers = {
        "loss": np.float64(1.5), "step": np.int64(7), "rate": np.float32(0.1), "done": np.bool_(1),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
    }  # fmt: skip
    tower = load_checkpoint(checkpoint(**numbers), UNIMED)
    wanted = model_of(STOCK).visual.state_dict()
    found = tower.visual.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert tower.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_numbers_of_the_older_numpy_load_as_well(checkpoint: Any) -> None:
    path = checkpoint(loss=np.float64(1.5))
    torch.save(
        torch.load(path, weights_only=False), path, _use_new_zipfile_serialization=False
    )  # the form without a zip
    data = path.read_bytes()
    assert b"numpy._core.multiarray" in data
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    load_checkpoint(path, UNIMED)


class Evil:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


def test_a_checkpoint_runs_no_code(checkpoint: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(extra=Evil())
    with pytest.raises(UserError, match="cannot read"):
        load_checkpoint(path, UNIMED)
    assert capsys.readouterr().out == ""
    # What was let in for the numbers is not let in for good.
    loaded = checkpoint(loss=np.float64(1.5))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(loaded, weights_only=True)


@pytest.mark.parametrize("damage", [b"", b"not this", None])
def test_a_broken_checkpoint_is_a_users_error(checkpoint: Any, damage: bytes | None) -> None:
    path = checkpoint()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage is None else damage)
    with pytest.raises(UserError) as raised:
        load_checkpoint(path, UNIMED)
    assert str(path) in raised.value.what


def rename(state: dict[str, Any]) -> None:
    state["module.visual.ln_final.weight"] = state.pop("module.visual.ln_post.weight")


def shrink(state: dict[str, Any]) -> None:
    state["module.visual.proj"] = state["module.visual.proj"][:, :5]


def drop_block(state: dict[str, Any]) -> None:
    for name in [name for name in state if "resblocks.2." in name]:
        del state[name]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (rename, "missing: visual.ln_post.weight; left over: visual.ln_final.weight."),
        (shrink, "of another shape: visual.proj."),
        (drop_block, "and 7 more."),
        (lambda state: state.clear(), "missing: visual.class_embedding, "),
    ],
)
def test_tensors_that_do_not_fit_are_listed(checkpoint: Any, change: Any, why: str) -> None:
    with pytest.raises(UserError, match="does not hold this vision tower") as raised:
        load_checkpoint(checkpoint(change), UNIMED)
    assert why in raised.value.why


@pytest.mark.parametrize(
    ("name", "size", "patch", "width", "layers", "heads", "joint"),
    [
        ("ViT-L-14-336-quickgelu", 336, 14, 1024, 24, 16, 768),
        ("ViT-B-16-quickgelu", 224, 16, 768, 12, 12, 512),
    ],
)
def test_stock_configurations_are_those_of_unimed(
    extra: None, name: str, size: int, patch: int, width: int, layers: int, heads: int, joint: int
) -> None:
    import open_clip

    from medbench.expert.tower import _build, _parts

    with torch.device("meta"):
        visual: Any = _build(open_clip.get_model_config(name))
    parts = _parts(visual)
    assert (parts.size, parts.patch, parts.heads.count) == (size, patch, heads)
    assert parts.grid == (size // patch,) * 2
    assert visual.proj.shape == (width, joint)
    assert len(visual.transformer.resblocks) == layers
    assert isinstance(visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
