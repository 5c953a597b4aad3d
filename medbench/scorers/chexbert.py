"""CheXbert: the state of fourteen findings in a report, and the vector it is read from.

The package f1chexbert reads one text at a time and takes a checkpoint that fills nothing; here are
the same tokens and the same heads in batches, and every weight must be there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medbench.errors import UserError
from medbench.scorers.batches import by_length, filled
from medbench.scorers.encoder import description, package_cache
from medbench.scorers.engine import Engine
from medbench.scorers.packages import versions
from medbench.scorers.weights import check_filled, hashes, of_folder, of_hub

HUB_ID, FILE = "StanfordAIMI/RRG_scorers", "chexbert.pth"
ENCODER = "bert-base-uncased"
# Thirteen findings are blank, positive, negative or uncertain; "no finding" is blank or positive.
FINDINGS, STATES, LAST_STATES = 14, 4, 2
# As many tokens together as one processor takes fastest.
TOKENS, _BATCH_TOKENS = 512, 1024


def chexbert(weights: str) -> Engine:
    """Return the engine of CheXbert.

    Args:
        weights: a folder with chexbert.pth and its encoder's config.json and tokenizer; "" for
            the published checkpoint.
    """
    return Engine(__name__, {"weights": weights})


def describe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of packages and the hashes of the checkpoint and the tokenizer.

    Raises:
        UnavailableError: the checkpoint or its encoder's description is not on this machine.
        UserError: a file is missing or damaged.
    """
    found = versions(["torch", "transformers", "tokenizers"], extra="clinical")
    return {**found, **hashes({FILE: _checkpoint(settings), **_description(settings)})}


def load(settings: Mapping[str, Any], device: str) -> Callable[[Sequence[tuple[str, ...]]], Any]:
    """Return a function from texts to what was found of each.

    That is "classes", the most likely of each finding's states (0 blank, 1 positive, 2 negative,
    3 uncertain); "embedding", the vector of the first token; and whether it was "cut" at 512.

    Raises:
        UserError: the checkpoint cannot be read, or does not fill the model.
    """
    import torch
    from transformers import BertTokenizer

    folder = _description(settings)["config.json"].parent
    tokenizer = BertTokenizer.from_pretrained(folder)
    model = _model(folder, _checkpoint(settings)).to(device)

    def values(texts: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
        ids, cut = tokens(tokenizer, [text for (text,) in texts])
        found: dict[int, dict[str, Any]] = {}
        for batch in by_length(ids, tokens=_BATCH_TOKENS):
            vectors, states = read([ids[at] for at in batch])
            for at, vector, row in zip(batch, vectors, states, strict=True):
                found[at] = {"classes": row, "embedding": vector, "cut": cut[at]}
        return [found[at] for at in range(len(texts))]

    @torch.inference_mode()
    def read(rows: Sequence[Sequence[int]]) -> tuple[list[list[float]], list[list[int]]]:
        ids, mask = filled(rows, 0)
        vectors = model["bert"](
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
        ).last_hidden_state[:, 0]
        states = torch.stack([head(vectors).argmax(-1) for head in model["linear_heads"]], dim=1)
        return vectors.tolist(), states.tolist()

    return values


def tokens(tokenizer: Any, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
    """Return the first 512 tokens of texts, the last of them the closing one, and who had more."""
    whole: list[list[int]] = tokenizer(list(texts))["input_ids"] if texts else []
    cut = [len(row) > TOKENS for row in whole]
    rows = zip(whole, cut, strict=True)
    return [[*row[: TOKENS - 1], row[-1]] if long else row for row, long in rows], cut


def _model(folder: Path, checkpoint: Path) -> Any:
    """Return the encoder and its heads, every weight taken from the checkpoint."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig.from_pretrained(folder)
    sizes = [STATES] * (FINDINGS - 1) + [LAST_STATES]
    heads = [torch.nn.Linear(config.hidden_size, size) for size in sizes]
    model = torch.nn.ModuleDict(
        {"bert": BertModel(config), "linear_heads": torch.nn.ModuleList(heads)}
    )
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)["model_state_dict"]
        weights = {name.replace("module.", ""): weight for name, weight in stored.items()}
        check_filled(str(checkpoint), model.state_dict(), weights)
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
    except UserError:
        raise
    except Exception as error:  # of the unpickler, of the archive, of shapes
        raise UserError(
            f"{checkpoint} cannot be read",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "It is another checkpoint, or broken; the published one has 1.31 GB.",
        ) from error
    return model.eval()


def _checkpoint(settings: Mapping[str, Any]) -> Path:
    if settings["weights"]:
        return of_folder(settings["weights"], [FILE], needed_by="chexbert/labels")[FILE]
    placed = package_cache("chexbert") / FILE
    if placed.is_file():
        return placed
    return of_hub(HUB_ID, [FILE], needed_by="chexbert/labels")[FILE]


def _description(settings: Mapping[str, Any]) -> dict[str, Path]:
    return description(settings["weights"] or ENCODER, needed_by="chexbert/labels")
