"""The answers of a run: batch by batch, a line a sample, and no sample twice."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from medbench import store
from medbench.cell import Cell
from medbench.decoding.answer import Answer
from medbench.decoding.context import DecodeContext, DecodeSettings
from medbench.decoding.loop import decode
from medbench.decoding.select import resolve
from medbench.images import ImageEncoder, stacked
from medbench.memory import explaining_full_memory, forget_peak, peak_bytes
from medbench.metrics.attention import encode_map, encode_mask
from medbench.model.llava import Backbone
from medbench.order import partners
from medbench.reporting import Report
from medbench.rows import PatchMap, Row, row_of
from medbench.task import Sample

Batch = tuple[Sample, ...]


def batches(cell: Cell) -> list[Batch]:
    """Return the samples in batches; their borders never move.

    So a run that was continued, or cut into parts, computes what one in a piece does.
    """
    starts = range(0, len(cell.samples), cell.batch_size)
    return [cell.samples[start : start + cell.batch_size] for start in starts]


def left(cell: Cell, given: Sequence[Batch]) -> list[Batch]:
    """Return those of some batches that have a sample without an answer."""
    done = {row["id"] for row in store.read_rows(cell.folder)}
    return [batch for batch in given if any(sample.id not in done for sample in batch)]


def answer(
    cell: Cell, backbone: Backbone, given: Sequence[Batch], part: str, report: Report
) -> None:
    """Answer those samples of some batches that the folder lacks."""
    done = {row["id"] for row in store.read_rows(cell.folder)}
    encoder = ImageEncoder(backbone, cell.decoder)
    swapped = partners(cell.every, cell.request.seed) if cell.decoder.image == "other" else {}
    wanted = [sample.id for batch in given for sample in batch]
    total, count = len(wanted), sum(name in done for name in wanted)
    report.stage("decode", f"{count} of {total} already there" if count else "")
    report.progress(count, total, "")
    waiting = left(cell, given)
    with store.appending(cell.folder, part) as append:
        for batch, following in zip(waiting, [*waiting[1:], ()], strict=False):
            half = "Take fewer: --batch-size {}, which is another run."
            with explaining_full_memory("answering", cell.batch_size, half):
                rows = _answer(cell, backbone, encoder, batch, following, swapped)
            fresh = [row for row in rows if row["id"] not in done]
            append(fresh)
            count += len(fresh)
            report.progress(count, total, "")


def _answer(
    cell: Cell,
    backbone: Backbone,
    encoder: ImageEncoder,
    batch: Sequence[Sample],
    following: Sequence[Sample],
    swapped: Mapping[str, Sample],
) -> list[Row]:
    forget_peak(cell.device)
    begin = time.perf_counter()
    images = [encoder(swapped.get(sample.id, sample)) for sample in batch]
    encoder.ahead(swapped.get(sample.id, sample) for sample in following)
    prompts = [
        backbone.prompt(cell.task.ask(sample), image.features)
        for sample, image in zip(batch, images, strict=True)
    ]
    # On another sample's image this sample's region means nothing.
    own = cell.decoder.image == "own"
    by_step = own and cell.request.record_steps
    wants_attention = by_step or (
        own and any("attention" in metric.needs for metric in cell.metrics)
    )
    needs_roi = wants_attention or "roi" in cell.decoder.needs
    rois = tuple(sample.roi() if needs_roi and sample.roi else None for sample in batch)
    context = DecodeContext(
        backbone,
        tuple(sample.id for sample in batch),
        seed=cell.request.seed,
        pixel_values=stacked([image.pixels for image in images]),
        rois=rois,
        looked=stacked([image.looked for image in images]),
    )
    settings = DecodeSettings(
        resolve(cell.decoder, cell.request.preset),
        max_new_tokens=cell.task.max_new_tokens,
        record_attention="steps"
        if by_step
        else wants_attention and any(roi is not None for roi in rois),
    )
    answers = decode(cell.decoder, prompts, context, settings)
    seconds = (time.perf_counter() - begin) / len(batch)
    held = peak_bytes(cell.device)
    rows = []
    for sample, image, roi, answer in zip(batch, images, rois, answers, strict=True):
        row = _row(sample, cell.task.ask(sample), answer)
        row |= {"image": image.digest, "seconds": round(seconds, 6)}
        if held is not None:
            row["peak_bytes"] = held
        if roi is not None or by_step:
            row |= _looked(backbone, answer, roi)
        rows.append(row)
    return rows


def _looked(backbone: Backbone, answer: Answer, roi: Any) -> dict[str, Any]:
    """Return what a row says of where its answer looked; nothing if it had no image."""
    if answer.attention is None or not answer.attention.any():
        return {}
    grid = backbone.geometry.grid

    def packed(maps: Any) -> PatchMap:
        # Where the class token is among the features, it stands before the patches.
        return encode_map(maps[..., -grid[0] * grid[1] :].reshape(*maps.shape[:-1], *grid))

    found: dict[str, Any] = {"attention": packed(answer.attention)}
    if roi is not None:
        found["roi"] = encode_mask(backbone.geometry.mask_to_grid(roi) > 0)
    if answer.attention_steps is not None:
        pieces = backbone.pieces(answer.token_ids)
        found["steps"] = {"attention": packed(answer.attention_steps), "pieces": pieces}
    return found


def _row(sample: Sample, prompt: str, answer: Answer) -> Row:
    return {
        **row_of(sample, answer.text),
        "prompt": prompt,
        "tokens": list(answer.token_ids),
        "stop": answer.stop,
        "forwards": answer.forwards,
    }
