"""BERTScore by bert-score: pieces of words in context, each with the likest of the other text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medbench.errors import UserError
from medbench.extras import importing
from medbench.scorers.engine import Engine
from medbench.scorers.packages import versions
from medbench.scorers.weights import check_filled, hashes, of_folder, of_hub

HUB_ID = "roberta-large"
# The vocabulary is read from these two: what is made of tokenizer.json depends on transformers.
FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt")
# The layer is what the package takes for this model; more tokens it does not read.
LAYER, TOKENS = 17, 512


def bertscore(weights: str) -> Engine:
    """Return the engine of BERTScore by the 17th layer of a RoBERTa.

    Args:
        weights: its folder; "" for roberta-large in the hub's cache.
    """
    return Engine(__name__, {"weights": weights})


def describe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of packages and the hashes of the model's files.

    Raises:
        UnavailableError: the package or the model is not on this machine.
        UserError: a file of the model is missing or damaged.
    """
    packages = versions(["bert-score", "transformers", "tokenizers", "torch"], extra="report")
    return {**packages, **hashes(_files(settings))}


def load(settings: Mapping[str, Any], device: str) -> Callable[[Sequence[tuple[str, ...]]], Any]:
    """Return a function from (output, gold) pairs to what was found of each.

    That is "f1", "rescaled", and whether one of the texts was "cut" at 512 tokens.

    Raises:
        UserError: the checkpoint does not fill the model.
    """
    with importing("report"):
        from bert_score import utils  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    tokenizer, model = _tokenizer(settings), _encoder(settings, device)
    weight = defaultdict(lambda: 1.0, {tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0})
    baseline = _baseline()

    def values(pairs: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
        outputs, golds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        # It takes each text once, and the long ones first, so that batches are filled up little.
        found = utils.bert_cos_score_idf(model, golds, outputs, tokenizer, weight, device=device)
        f1 = found[:, 2]
        rescaled = (f1 - baseline) / (1 - baseline)
        long = {text: _is_long(tokenizer, text) for pair in pairs for text in pair}
        return [
            {"f1": one, "rescaled": other, "cut": any(long[text] for text in pair)}
            for one, other, pair in zip(f1.tolist(), rescaled.tolist(), pairs, strict=True)
        ]

    return values


def _files(settings: Mapping[str, Any]) -> dict[str, Path]:
    """Return the paths of the model's files by their names."""
    folder = settings["weights"]
    if folder:
        return of_folder(folder, FILES, needed_by="bertscore")
    return of_hub(HUB_ID, FILES, needed_by="bertscore")


def _tokenizer(settings: Mapping[str, Any]) -> Any:
    """Return the tokenizer as the package means it: a text's first word follows a blank too.

    The package asks for that with each text, which transformers 5 no longer hears.
    """
    from tokenizers.models import BPE
    from transformers import RobertaTokenizer

    files = _files(settings)
    vocabulary, merges = BPE.read_file(str(files["vocab.json"]), str(files["merges.txt"]))
    return RobertaTokenizer(
        vocab=vocabulary,
        merges=merges,  # pyright: ignore[reportArgumentType] (it passes them on to BPE)
        add_prefix_space=True,
        model_max_length=TOKENS,
    )


def _is_long(tokenizer: Any, text: str) -> bool:
    return len(tokenizer(text, verbose=False)["input_ids"]) > TOKENS


def _encoder(settings: Mapping[str, Any], device: str) -> Any:
    """Return the layers that are needed, every parameter of which is in the checkpoint."""
    import torch
    from transformers import AutoConfig, RobertaModel

    folder = _files(settings)["config.json"].parent
    config = AutoConfig.from_pretrained(folder)
    if config.model_type != "roberta" or config.num_hidden_layers < LAYER:
        raise UserError(
            f"bertscore: {folder} is not of roberta-large's kind",
            f"It is a {config.model_type} of {config.num_hidden_layers} layers; "
            f"the values come from the {LAYER}th of a roberta.",
            "Name the folder of such a model.",
        )
    config.num_hidden_layers = LAYER
    loaded: Any = RobertaModel.from_pretrained(
        folder,
        config=config,
        add_pooling_layer=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    model, about = loaded
    names = list(model.state_dict())
    named = settings["weights"] or HUB_ID
    check_filled(named, names, set(names) - set(about["missing_keys"]))
    return model.to(device).eval()


def _baseline() -> Any:
    """Return the F1 of unrelated texts, as the package has measured it for this layer."""
    import bert_score  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    import torch

    table = Path(str(bert_score.__file__)).parent / "rescale_baseline" / "en" / f"{HUB_ID}.tsv"
    rows = (line.split(",") for line in table.read_text("utf-8").splitlines()[1:])
    return next(torch.tensor(float(row[3])) for row in rows if int(row[0]) == LAYER)
