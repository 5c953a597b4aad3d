"""A small random RadGraph, as its archives are laid out; built by the package's own classes."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import torch

from tests.metrics.tiny import chexbert

ENTITIES = {
    "radgraph": ("ANAT-DP", "OBS-DP", "OBS-DA", "OBS-U"),
    "radgraph-xl": (
        "Anatomy::definitely present",
        "Observation::definitely present",
        "Observation::definitely absent",
        "Observation::uncertain",
    ),
}
RELATIONS = ("modify", "located_at", "suggestive_of")
_REPORT = (
    "The heart is normal in size. The lungs are clear. There is a small left pleural effusion and "
    "a chest tube, with stable mild edema of the right lung; no pneumothorax."
)


def checkpoint(
    root: Path,
    *,
    model: str = "radgraph-xl",
    width: int = 24,
    layers: int = 2,
    heads: int = 2,
    vocabulary: int = 0,
    entities: float = 0.06,
    relations: float = 0.02,
    spans: float = 0.5,
    encoder: str = "",
    loss_weights: dict[str, float] | None = None,
) -> Path:
    """Write a model's folder, and the description of its encoder beside it.

    Args:
        root: to make; it holds a folder of the model's name, as the package's own cache does.
        model: "radgraph" or "radgraph-xl", which split words otherwise and have other labels.
        width, layers, heads, vocabulary: of the encoder.
        entities, relations: about what share of spans, and of pairs of some, is called one.
        spans: for each word, how many spans relations are looked for among.
        encoder: what config.json calls the encoder; by default the folder written here.
        loss_weights: of the parts; one with 0 is left out.
    """
    folder = root / model
    (folder / "vocabulary").mkdir(parents=True, exist_ok=True)
    sizes = {"width": width, "layers": layers, "heads": heads, "vocabulary": vocabulary}
    chexbert.encoder(root / "encoder", **sizes)
    # The first label of spans is that of none.
    for kind, labels in (("ner", ("", *ENTITIES[model])), ("relation", RELATIONS)):
        file = folder / "vocabulary" / f"{model}__{kind}_labels.txt"
        file.write_text("\n".join(labels) + "\n", "utf-8")
    names = folder / "vocabulary" / "non_padded_namespaces.txt"
    names.write_text("*labels\n*tags\n", "utf-8")
    described: dict[str, Any] = {
        "feature_size": 20,
        "max_span_width": 8,
        "target_task": "relation",
        "feedforward_params": {"num_layers": 2, "hidden_dims": 150, "dropout": 0.4},
        "loss_weights": loss_weights or {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
        "modules": {
            "coref": {"spans_per_word": 0.3, "max_antecedents": 100},
            "ner": {},
            "relation": {"spans_per_word": spans},
            "events": {
                "trigger_spans_per_word": 0.3,
                "argument_spans_per_word": 0.8,
                "loss_weights": {"trigger": 0.2, "arguments": 1.0},
            },
        },
    }
    _describe(folder, described, str(root / "encoder"))
    weights = _drawn(root / "encoder", folder, described)
    torch.save(weights, folder / "weights.th")
    torch.save(_shifted(folder, weights, entities, relations), folder / "weights.th")
    _describe(folder, described, encoder or str(root / "encoder"))
    return root


def archive(root: Path, *, model: str = "radgraph-xl") -> Path:
    """Pack a model's folder as the hub has it, and return the archive."""
    packed = root / f"{model}.tar.gz"
    with tarfile.open(packed, "w:gz") as file:
        for path in sorted((root / model).rglob("*")):
            file.add(path, path.relative_to(root / model), recursive=False)
    return packed


def _describe(folder: Path, described: dict[str, Any], encoder: str) -> None:
    bert = {"model_name": encoder, "max_length": 512}
    dropped = {"type": "dygie", "initializer": {}, "module_initializer": {}}
    config = {
        "dataset_reader": {"max_span_width": 8, "token_indexers": {"bert": bert}},
        "model": {"embedder": {"token_embedders": {"bert": bert}}, **dropped, **described},
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def _drawn(encoder: Path, folder: Path, described: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return random weights."""
    from radgraph.allennlp.data import Vocabulary
    from radgraph.allennlp.modules import text_field_embedders, token_embedders
    from radgraph.dygie.models import dygie

    words = token_embedders.PretrainedTransformerMismatchedEmbedder(
        model_name=str(encoder), max_length=512
    )
    made = dygie.DyGIE(
        vocab=Vocabulary.from_files(str(folder / "vocabulary")),
        embedder=text_field_embedders.BasicTextFieldEmbedder({"bert": words}),
        **json.loads(json.dumps(described)),
    )
    # Spans differ by their words more than by the text around them and their place in it.
    by = (24 / words.get_output_dim()) ** 0.5
    wide = {"position_embeddings": 0.01 * by, "_embedder": 0.05 * by}
    chexbert.draw(made, 0.1, {**wide, "_ner_scorers": 0.2, "_relation_": 0.2})
    weights = made.state_dict()
    # Relations are looked for among the spans that are likest to entities.
    ner = f"_ner._ner_scorers.{folder.name}__ner_labels"
    pruner = f"_relation._mention_pruners.{folder.name}__relation_labels._scorer"
    for layer in range(2):
        inner = f"0._module._linear_layers.{layer}.weight"
        weights[f"{pruner}.{inner}"] = weights[f"{ner}.{inner}"]
    last = weights[f"{ner}.1._module.weight"].mean(dim=0, keepdim=True)
    weights[f"{pruner}.1._module.weight"] = 0.1 * last
    return weights


def _shifted(
    folder: Path, weights: dict[str, torch.Tensor], entities: float, relations: float
) -> dict[str, torch.Tensor]:
    """Return weights that find about as much in a report as asked for."""
    from radgraph import RadGraph

    name = folder.name
    with contextlib.redirect_stdout(io.StringIO()):  # it says where it computes
        found = RadGraph(model_type=name, model_cache_dir=str(folder.parent), cuda=-1)
    said: dict[str, list[torch.Tensor]] = {"ner": [], "relation": []}
    ner, relation = found.model._ner, found.model._relation
    ner._ner_scorers[f"{name}__ner_labels"].register_forward_hook(
        lambda module, given, scores: said["ner"].append(scores)
    )
    pairs = relation._compute_relation_scores

    def noted(*given: torch.Tensor) -> torch.Tensor:
        said["relation"].append(pairs(*given)[..., 1:])
        return pairs(*given)

    relation._compute_relation_scores = noted
    with torch.no_grad():
        found([_REPORT])
    ends = {
        "ner": (f"_ner._ner_scorers.{name}__ner_labels.1._module.bias", entities),
        "relation": (f"_relation._relation_scorers.{name}__relation_labels.bias", relations),
    }
    for kind, (end, share) in ends.items():
        if said[kind]:
            scores = said[kind][0].flatten(0, -2)
            weights[end] = weights[end] - scores.quantile(1 - share / scores.shape[-1], dim=0)
    return weights
