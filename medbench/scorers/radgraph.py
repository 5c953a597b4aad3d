"""RadGraph: the entities of a report, and which of them modify, locate or suggest which."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from medbench.digests import cache_folder
from medbench.errors import UserError
from medbench.extras import importing
from medbench.scorers.encoder import description, package_cache
from medbench.scorers.engine import Engine
from medbench.scorers.packages import versions
from medbench.scorers.weights import hashes, of_folder, of_hub

HUB_ID = "StanfordAIMI/RRG_scorers"
FILES = ("config.json", "weights.th", "vocabulary/non_padded_namespaces.txt")
# Words and marks as the package splits them; a report of 512 words has some 600. Memory grows with
# their square, and a line of 5000 commas would ask for a hundred GB.
TOKENS = 640
# Whose literal downloads hold a model's archive.
_METRICS = {"radgraph": "radgraph/combined", "radgraph-xl": "radgraph/partial"}


def radgraph(model: str, weights: str) -> Engine:
    """Return the engine of a RadGraph.

    Args:
        model: "radgraph" or "radgraph-xl".
        weights: a folder that holds the model's, as the package's cache does; "" for the published
            ones.
    """
    # One text after the other, as the package reads them: a batch is no faster on a processor.
    return Engine(__name__, {"model": model, "weights": weights}, batch=8)


def describe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's name, versions of packages, and the hashes of its and its encoder's files.

    The hub's archive is unpacked into medbench's cache when it is first met.

    Raises:
        UnavailableError: the package, the model, or what describes its encoder, is not here.
        UserError: a file is missing or damaged.
    """
    packages = versions(["radgraph", "transformers", "tokenizers", "torch"], extra="clinical")
    root, model = _root(settings), str(settings["model"])
    files = _files(root, model)
    vocabulary = sorted((root / model / "vocabulary").iterdir())
    files |= {f"{model}/vocabulary/{path.name}": path for path in vocabulary}
    encoder = description(_encoder(files[f"{model}/config.json"]), needed_by=_METRICS[model])
    files |= {f"encoder/{name}": path for name, path in encoder.items()}
    return {**packages, "model": model, **hashes(files)}


def load(settings: Mapping[str, Any], device: str) -> Callable[[Sequence[tuple[str, ...]]], Any]:
    """Return a function from texts to what was found of each.

    That is "entities", as the package has them: by number, each with its "tokens", "label" and
    "relations", pairs of a label and another's number; and whether the text was "cut".

    Raises:
        UserError: the weights do not fill the model, or the package skips a text.
    """
    with importing("clinical"):
        import torch

        # Where the package is not installed, pyright takes this file for it.
        from radgraph import RadGraph, utils  # pyright: ignore
    adapt()
    model = str(settings["model"])
    reader = _reader(RadGraph, _root(settings), model, device)

    @torch.inference_mode()
    def value(text: str) -> dict[str, Any]:
        words: list[str] = utils.preprocess_reports([text], model)[0]["sentences"][0]
        cut = len(words) > TOKENS
        if not words:  # of a text such as "\n", written with a backslash, nothing is left
            return {"entities": {}, "cut": cut}
        # One by one: of several it leaves out those that it cannot read.
        found = reader([" ".join(words[:TOKENS]) if cut else text])
        if "0" not in found:
            raise UserError(
                f"{model} skips a text",
                f"The package finds no entities or no relations in one of {len(words)} words.",
                "Its model is of another kind, or broken; fetch it again.",
            )
        return {"entities": found["0"]["entities"], "cut": cut}

    return lambda texts: [value(text) for (text,) in texts]


def adapt() -> None:
    """Give transformers' tokenizers two methods that the package calls and version 5 took away."""
    from transformers import PreTrainedTokenizerBase as Tokenizer

    def encode_plus(self: Any, *arguments: Any, **options: Any) -> Any:
        return self(*arguments, **options)

    def build_inputs_with_special_tokens(self: Any, ids: list[int]) -> list[int]:
        return [self.cls_token_id, *ids, self.sep_token_id]

    for method in (encode_plus, build_inputs_with_special_tokens):
        if not hasattr(Tokenizer, method.__name__):
            setattr(Tokenizer, method.__name__, method)


def _reader(kind: Any, root: Path, model: str, device: str) -> Any:
    """Return the package's reader of reports."""
    number = -1 if device == "cpu" else int(device.partition(":")[2] or 0)
    try:
        return kind(model_type=model, model_cache_dir=str(root), cuda=number)
    except Exception as error:  # of the unpickler, of names and shapes of weights, of the config
        raise UserError(
            f"{root / model} cannot be read",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "It is another model, or broken; fetch it again.",
        ) from error


def _encoder(config: Path) -> str:
    """Return what a model's config calls its encoder: an id of the hub, or a folder."""
    try:
        content = json.loads(config.read_text("utf-8"))
        return str(content["model"]["embedder"]["token_embedders"]["bert"]["model_name"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{config} cannot be read",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "It is no RadGraph's, or broken; fetch it again.",
        ) from error


def _files(root: Path, model: str) -> dict[str, Path]:
    return of_folder(str(root), [f"{model}/{name}" for name in FILES], needed_by=_METRICS[model])


def _root(settings: Mapping[str, Any]) -> Path:
    """Return the folder that holds the model's folder."""
    model = str(settings["model"])
    if settings["weights"]:
        root = Path(settings["weights"]).expanduser()
        _files(root, model)
        return root
    version = versions(["radgraph"], extra="clinical")["radgraph"]
    placed = package_cache("radgraph") / version
    if all((placed / model / name).is_file() for name in FILES):
        return placed
    return _unpacked(model)


def _unpacked(model: str) -> Path:
    """Return the folder that the hub's archive of a model is unpacked in; done once."""
    name = f"{model}.tar.gz"
    archive = of_hub(HUB_ID, [name], needed_by=_METRICS[model])
    root = cache_folder() / "radgraph" / hashes(archive)[name][:16]
    if (root / model).is_dir():
        return root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as part:
            with tarfile.open(archive[name]) as file:
                file.extractall(Path(part) / model, filter="data")
            # Another process may have been faster.
            with suppress(OSError):
                (Path(part) / model).rename(root / model)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(
            f"{name} cannot be unpacked",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "Make room, or delete it and fetch it again.",
        ) from error
    return root
