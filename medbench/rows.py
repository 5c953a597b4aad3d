"""Rows: what a run writes down for each sample, one JSON object a line in `samples.jsonl`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Required, TypedDict

if TYPE_CHECKING:
    from medbench.task import Sample


class PatchMap(TypedDict):
    """A map over the image patches, small enough to stand in a line of text.

    Attributes:
        grid: [rows, columns]; [steps, rows, columns] where there is a map for every step.
        data: base64 of the values in row-major order, float16 for attention, packed bits for
            masks (see `medbench.metrics.attention`).
    """

    grid: list[int]
    data: str


class Steps(TypedDict):
    """An answer step by step.

    Attributes:
        attention: of each step, the visual attention of the query that its token was chosen from,
            averaged over layers and heads; the row's `attention` is their mean.
        pieces: the text that each token adds, special tokens spelled out. A letter made of several
            tokens comes with the last of them.
    """

    attention: PatchMap
    pieces: list[str]


class Row(TypedDict, total=False):
    """One answered sample.

    Rows that were exported without texts lack also what is required
    (`medbench.sharing.withholding`); what needs it asks `medbench.restricted.check_texts` first.

    Attributes:
        id, group, kind, question, gold, meta: of the sample (`gold` is its answer).
        prompt: the text put to the model, without template.
        output: what the model said, special tokens removed, otherwise as it came.
        tokens: ids of the new tokens, the end token included where there was one.
        stop: why it ended: "eos", "stop" (a stop string) or "length".
        seconds: wall time of its batch divided by the batch's samples.
        peak_bytes: the most memory held while its batch was answered (`medbench.memory`); not
            there where the system does not tell.
        forwards: tokens that went through the language model in all rows, a prompt as one.
        image: sha256 of the image's pixels as loaded.
        attention: visual attention averaged over layers, heads and answer tokens; sums to the
            share of attention on the image.
        roi: the ground-truth region on the same grid, a patch being in where its centre is.
        steps: the answer's tokens and where each looked; there if asked for.
        scores: metric name -> value of this item, None where the metric does not apply.
    """

    id: Required[str]
    group: Required[str]
    kind: Required[str]
    question: str
    gold: Required[str]
    meta: dict[str, Any]
    prompt: str
    output: Required[str]
    tokens: list[int]
    stop: str
    seconds: float
    peak_bytes: int
    forwards: int
    image: str
    attention: PatchMap
    roi: PatchMap
    steps: Steps
    scores: dict[str, float | None]


def row_of(sample: Sample, output: str) -> Row:
    """Return the row of a sample that was answered so; what else is known is added to it."""
    return {
        "id": sample.id,
        "group": sample.group,
        "kind": sample.kind,
        "question": sample.question,
        "gold": sample.answer,
        "meta": dict(sample.meta),
        "output": output,
    }
