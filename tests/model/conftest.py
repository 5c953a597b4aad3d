"""Tiny checkpoints in their authors' formats, which tests load, take apart and damage."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

BACKBONES = {
    "llava": "llava-med",
    "llava_mistral": "llava-med-1.5",
    "llava_qwen2": "huatuogpt-vision-7b",
}
TOWERS = {
    "llava": "openai/clip-vit-large-patch14",
    "llava_mistral": "openai/clip-vit-large-patch14-336",
    "llava_qwen2": "checkpoint/vit/clip_vit_large_patch14_336",
}


@dataclass(frozen=True)
class Tiny:
    """A tiny checkpoint on disk: a folder with `checkpoint` and its tower below it."""

    kind: str
    root: Path

    @property
    def checkpoint(self):
        return self.root / "checkpoint"

    @property
    def tower(self):
        return self.root / TOWERS[self.kind]

    @property
    def config(self):
        return json.loads((self.checkpoint / "config.json").read_text("utf-8"))

    def spec(self, **options):
        """Return the backbone's spec; `vision=None` leaves the tower to config.json."""
        options = {"weights": self.checkpoint, "vision": self.tower, **options}
        given = [f'{key}="{value}"' for key, value in options.items() if value is not None]
        return f"{BACKBONES[self.kind]}[{','.join(given)}]"

    def load(self, dtype="float32", **options):
        import medbench

        return medbench.load_backbone(self.spec(**options), device="cpu", dtype=dtype)

    def change(self, path="checkpoint/config.json", **changes):
        """Change fields of a JSON file below the root; `...` takes a field out."""
        file = self.root / path
        content = {**json.loads(file.read_text("utf-8")), **changes}
        kept = {key: value for key, value in content.items() if value is not ...}
        file.write_text(json.dumps(kept), "utf-8")

    def tensors(self, folder=None):
        """Return all tensors of the checkpoint or another folder, read by the formats' own."""
        import torch
        from safetensors.torch import load_file

        found = {}
        for path in sorted((folder or self.checkpoint).iterdir()):
            if path.suffix == ".safetensors":
                found |= load_file(path)
            elif path.suffix == ".bin":
                found |= torch.load(path, weights_only=True)
        return found

    def store(self, content, name="model.safetensors", **options):
        """Replace the stored weights by one file; what is no dict of tensors must be a *.bin."""
        import torch
        from safetensors.torch import save_file

        for pattern in ("model*", "pytorch_model*"):
            for path in self.checkpoint.glob(pattern):
                path.unlink()
        path = self.checkpoint / name
        if path.suffix == ".bin":
            torch.save(content, path, **options)
        else:
            whole = {key: tensor.contiguous() for key, tensor in content.items()}
            save_file(whole, path, metadata={"format": "pt"})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return a writer of tiny checkpoints, one of each kind; they are shared and stay whole."""
    from medbench.model.tiny_original import write_tiny

    made = {}

    def write(kind, *, pickled=False):
        if (kind, pickled) not in made:
            root = tmp_path_factory.mktemp(kind)
            write_tiny(kind, root, pickled=pickled)
            made[kind, pickled] = Tiny(kind, root)
        return made[kind, pickled]

    return write


@pytest.fixture(scope="session")
def backbone(tiny):
    """Return a loader of the shared checkpoints; what it returns is shared as well."""
    made = {}

    def load(kind, dtype="float32", **options):
        key = kind, dtype, *options.items()
        if key not in made:
            made[key] = tiny(kind).load(dtype, **options)
        return made[key]

    return load


@pytest.fixture
def copied(tiny, tmp_path):
    """Return a copier of tiny checkpoints, for tests that damage them."""

    def copy(kind, name="copy", **options):
        root = shutil.copytree(tiny(kind, **options).root, tmp_path / name)
        return Tiny(kind, root)

    return copy


@pytest.fixture
def refused():
    """Return a check that loading is refused in three short lines; it returns them."""
    import medbench
    from medbench import UserError

    def check(checkpoint, **options):
        text = checkpoint if isinstance(checkpoint, str) else checkpoint.spec(**options)
        with pytest.raises(UserError) as error:
            medbench.load_backbone(text, device="cpu", dtype="float32")
        said = (error.value.what, error.value.why, error.value.do)
        assert all(line.strip() == line and line and "\n" not in line for line in said), said
        return said

    return check
