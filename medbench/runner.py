"""The straight line of a run: load -> tune -> decode -> score, one folder in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medbench import __version__, provenance, spec, store
from medbench.adapter_plan import RECORD, AdapterPlan, hash_weights
from medbench.atomic import explaining_full_disks, write_json
from medbench.cell import Cell, Request, plan
from medbench.decoding.answer import Answer
from medbench.decoding.context import DecodeContext, DecodeSettings
from medbench.decoding.loop import decode
from medbench.decoding.select import resolve
from medbench.images import ImageEncoder, stacked
from medbench.memory import explaining_full_memory, forget_peak, peak_bytes
from medbench.metrics.attention import encode_map, encode_mask
from medbench.model.llava import Backbone
from medbench.needs import check_depth
from medbench.order import partners
from medbench.processes import Team, team
from medbench.provider import Surroundings
from medbench.reporting import Report
from medbench.restricted import withholding
from medbench.rows import PatchMap, Row
from medbench.shard import Shard
from medbench.task import Sample
from medbench.task_scores import finish
from medbench.tuning.adapter import attached
from medbench.tuning.batch import Example
from medbench.tuning.loop import CHECKPOINT, Progress, last_loss, train

Batch = tuple[Sample, ...]
# For so many seconds a part waits for others that begin, or look whether it has ended.
_MOMENT = 20.0


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: its folder.
        scores: the content of scores.json; empty in a process that only helped to train
            (`medbench.processes`), and where other parts of the run have samples left.
    """

    folder: Path
    scores: dict[str, Any]

    @property
    def samples(self) -> list[Row]:
        """The answered samples with their scores."""
        return store.read_rows(self.folder)


def run(method: str, task: str, *, report: Report | None = None, **options: Any) -> Run:
    """Run a method on a task with a backbone, or continue where it stopped.

    Args:
        method: a spec or chain, e.g. "lora+vcd[alpha=0.5]".
        task: a spec, e.g. "slake[closed_rule=dataset]".
        report: where to tell how far it is.
        options: backbone=, data=, seed=, limit=, batch_size=, device=, dtype=, preset=,
            allow_missing_images=, record_steps=, out= (see `medbench.cell.Request`).

    Raises:
        UserError: anything asked for that cannot work.
    """
    if "out" in options:
        options["out"] = Path(options["out"]).expanduser()
    return execute(plan(Request(method=method, task=task, **options)), report=report)


def load(cell: Cell, report: Report) -> Backbone:
    """Load a cell's backbone."""
    report.stage("load", cell.display["backbone"])
    return cell.checkpoint.load(device=torch.device(cell.device), dtype=getattr(torch, cell.dtype))


def execute(
    cell: Cell,
    *,
    load: Callable[[Cell, Report], Backbone] = load,
    shard: Shard | None = None,
    wait: bool | float = False,
    report: Report | None = None,
) -> Run:
    """Run a planned cell; what its folder already holds is not done again.

    Of several processes started together, all help to train and the leading one does the rest.

    Args:
        load: gives the cell's backbone; called only if there is something to do.
        shard: answer only this part of the samples, beside other processes that answer others;
            where with it all are answered, the run is scored.
        wait: for another process that writes the same: for so many seconds, or not at all.

    Raises:
        UserError: another process is at it, the folder is broken or newer, or data cannot be read.
    """
    with withholding(cell.task, cell.every):
        return _execute(cell, load, shard, wait, report or Report())


def prepare(
    cell: Cell,
    *,
    load: Callable[[Cell, Report], Backbone] = load,
    report: Report | None = None,
) -> None:
    """Train a cell's adapter if it has one that is not there; answer nothing.

    Raises:
        UserError: it cannot be trained.
    """
    if cell.adapter is None or cell.adapter.ready:
        return
    report = report or Report()
    with (
        withholding(cell.task, cell.every),
        explaining_full_disks(cell.adapter.folder),
        _adapted(cell, load(cell, report), report, Team(), lambda _: None),
    ):
        pass


def _execute(
    cell: Cell,
    load: Callable[[Cell, Report], Backbone],
    shard: Shard | None,
    wait: bool | float,
    report: Report,
) -> Run:
    trains = cell.adapter is not None and not cell.adapter.given
    together = team(cell.device)
    if not together.leads:
        if trains:
            _help(cell, load, together)
        return Run(cell.folder, {})
    # Locks are the leading process's alone: the others wait for its word, not for its locks.
    with (
        (together if trains else Team()).telling() as tell,
        explaining_full_disks(cell.folder),
    ):
        store.check(cell.folder, cell.key)

        def answer(begin: Callable[[], None], batches: Sequence[Batch], part: str = "") -> None:
            store.repair(cell.folder, part)
            if not _left(cell, batches):
                return
            backbone = load(cell, report)
            for method in filter(None, (cell.tuner, cell.decoder)):
                check_depth(method, backbone.depth)  # where no file said it before
            begin()
            with _adapted(cell, backbone, report, together, tell) as ready:
                _decode(cell, ready, batches, part, report)

        if shard is None:
            return _whole(cell, answer, wait, report)
        return _part(cell, answer, shard, wait, report)


def _whole(cell: Cell, answer: Callable[..., None], wait: bool | float, report: Report) -> Run:
    """Answer all samples and score them."""
    with _held(cell, wait), store.parts_locked(cell.folder):
        scores = store.read_scores(cell.folder)
        if scores is None:
            answer(lambda: store.begin(cell.folder, describe(cell)), _batches(cell))
            scores = _score(cell, report)
        return Run(cell.folder, scores)


def _part(
    cell: Cell, answer: Callable[..., None], shard: Shard, wait: bool | float, report: Report
) -> Run:
    """Answer a part of the samples; score all if that makes them complete."""
    wait = wait or _MOMENT

    def begin() -> None:
        record = describe(cell)
        with _held(cell, wait):
            store.begin(cell.folder, record)

    batches = shard.share(_batches(cell))
    if store.read_scores(cell.folder) is None:
        with _held(cell, wait, shard.name):
            answer(begin, batches, shard.name)
    # Whoever is last to let go of its part finds no other held.
    try:
        with _held(cell, wait), store.parts_locked(cell.folder):
            scores = store.read_scores(cell.folder)
            if scores is None and not _left(cell, _batches(cell)):
                scores = _score(cell, report)
            return Run(cell.folder, scores or {})
    except store.HeldError:
        return Run(cell.folder, {})


def _held(cell: Cell, wait: bool | float, part: str = "") -> AbstractContextManager[None]:
    what = f"run's part {part}" if part else "run"
    private = cell.task.restricted
    return store.locked(cell.folder, wait=wait, what=what, private=private, part=part)


def describe(cell: Cell) -> dict[str, Any]:
    """Return what run.json says about a cell."""
    return {
        "key": cell.key,
        "identity": cell.identity,
        "display": cell.display,
        "samples": len(cell.samples),
        "partial": cell.partial,
        "missing_images": len(cell.missing),
        "samples_with_region": sum(sample.roi is not None for sample in cell.samples),
        "data": provenance.describe_data(cell.task, cell.passport),
        "adapter": cell.adapter.key if cell.adapter else None,
        "metrics": list(cell.task.metrics),
        "device": cell.device,
        "command": cell.request.command,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(cell.device),
        "git": provenance.git_state(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _help(cell: Cell, load: Callable[[Cell, Report], Backbone], together: Team) -> None:
    """Take part in the leading process's training, if there is one; write nothing."""
    assert cell.adapter is not None
    silent = Report()
    if together.hear():
        _tune(cell, cell.adapter, lambda: load(cell, silent), silent, together)


@contextmanager
def _adapted(
    cell: Cell, backbone: Backbone, report: Report, together: Team, tell: Callable[[bool], None]
) -> Generator[Backbone]:
    """Yield the backbone with the cell's adapter on it, trained now or before.

    Args:
        tell: tells the other processes whether to train.
    """
    if cell.tuner is None or cell.adapter is None:
        yield backbone
        return
    folder = cell.adapter.folder
    trained = False
    if not cell.adapter.ready:
        report.stage("wait", "for another process that trains the same")
        private = cell.task.restricted
        with store.locked(folder, wait=True, what="adapter", private=private):
            if not cell.adapter.ready:
                trained = True
                tell(True)
                _tune(cell, cell.adapter, lambda: backbone, report, together)
    if not trained:
        tell(False)
    if not cell.adapter.given:
        # Only now: until the adapter is whole, hours of training may hang on it.
        (folder / CHECKPOINT).unlink(missing_ok=True)
    with attached(backbone, cell.tuner, folder=folder) as adapter:
        yield adapter.backbone


def _tune(
    cell: Cell,
    planned: AdapterPlan,
    load: Callable[[], Backbone],
    report: Report,
    together: Team,
) -> None:
    assert cell.tuner is not None
    half = f'Write "{cell.tuner.name}[micro_batch={{}}]" for fewer.'
    with (
        withholding(cell.task, planned.train),
        explaining_full_memory("training on", cell.tuner.micro_batch, half),
    ):
        _train(cell, planned, together.together(load), report, together)


def _train(
    cell: Cell, planned: AdapterPlan, backbone: Backbone, report: Report, together: Team
) -> None:
    tuner, samples = cell.tuner, planned.train
    assert tuner is not None and tuner.epochs is not None
    around = Surroundings(cell.task, backbone.geometry.fit, cell.device, report.progress)
    given: dict[str, Any] = {}
    for name, provider in cell.providers.items():
        report.stage("label", provider.name)
        # The others find on disk what the leading process computed.
        given[name] = together.first(lambda provider=provider: provider.open(samples, around))
    encoder, targets = ImageEncoder(backbone), tuner.targets(backbone, given)

    def example(index: int) -> Example:
        sample = samples[index]
        return Example(
            sample.id,
            backbone.prompt(cell.task.ask(sample), encoder(sample).features, training=True),
            backbone.template.encode_answer(backbone.tokenizer, sample.answer),
            {name: target(sample) for name, target in targets.items()},
        )

    def tell(progress: Progress) -> None:
        report.progress(progress.step, progress.steps, f"loss {progress.loss:.3f}")

    report.stage("train", f"{len(samples)} samples, {tuner.epochs} epochs")
    with attached(backbone, tuner, seed=cell.request.seed) as adapter:
        train(
            tuner,
            adapter,
            len(samples),
            example,
            planned.folder,
            seed=cell.request.seed,
            epochs=tuner.epochs,
            soon=lambda indices: encoder.ahead(samples[index] for index in indices),
            report=tell,
            team=together,
        )
        if not together.leads:
            return
        adapter.save(planned.folder)
        size = sum(weight.nelement() for weight in adapter.trainable().values())
    supervised = {
        name: sum(bool(len(target(sample))) for sample in samples)
        for name, target in targets.items()
    }
    write_json(
        planned.folder / RECORD,
        {
            "schema": store.SCHEMA,
            "key": planned.key,
            "identity": planned.identity,
            "files": hash_weights(planned.folder),
            "method": str(spec.parse_chain(cell.display["method"])[0]),
            "task": cell.display["task"],
            "restricted": cell.task.restricted,
            "backbone": cell.display["backbone"],
            "seed": cell.request.seed,
            "epochs": tuner.epochs,
            "samples": len(samples),
            "samples_with": supervised,
            "parameters": size,
            "loss": last_loss(planned.folder),
            "processes": together.count,
            "medbench": __version__,
            "versions": provenance.versions(),
        },
    )


def _batches(cell: Cell) -> list[Batch]:
    """Return the samples in batches; their borders never move.

    So a run that was continued, or cut into parts, computes what one in a piece does.
    """
    starts = range(0, len(cell.samples), cell.batch_size)
    return [cell.samples[start : start + cell.batch_size] for start in starts]


def _left(cell: Cell, batches: Sequence[Batch]) -> list[Batch]:
    """Return those of some batches that have a sample without an answer."""
    done = {row["id"] for row in store.read_rows(cell.folder)}
    return [batch for batch in batches if any(sample.id not in done for sample in batch)]


def _decode(
    cell: Cell, backbone: Backbone, batches: Sequence[Batch], part: str, report: Report
) -> None:
    """Answer those samples of some batches that the folder lacks."""
    done = {row["id"] for row in store.read_rows(cell.folder)}
    encoder = ImageEncoder(backbone, cell.decoder)
    swapped = partners(cell.every, cell.request.seed) if cell.decoder.image == "other" else {}
    wanted = [sample.id for batch in batches for sample in batch]
    total, count = len(wanted), sum(name in done for name in wanted)
    report.stage("decode", f"{count} of {total} already there" if count else "")
    report.progress(count, total, "")
    left = _left(cell, batches)
    with store.appending(cell.folder, part) as append:
        for batch, following in zip(left, [*left[1:], ()], strict=False):
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
        "id": sample.id,
        "group": sample.group,
        "kind": sample.kind,
        "question": sample.question,
        "gold": sample.answer,
        "meta": dict(sample.meta),
        "prompt": prompt,
        "output": answer.text,
        "tokens": list(answer.token_ids),
        "stop": answer.stop,
        "forwards": answer.forwards,
    }


def _score(cell: Cell, report: Report) -> dict[str, Any]:
    store.begin(cell.folder, describe(cell))  # scores may be of other versions than answers
    done = {row["id"]: row for row in store.read_rows(cell.folder)}
    return finish(
        cell.folder,
        [done[sample.id] for sample in cell.samples],
        cell.task,
        cell.every,
        metrics=cell.metrics,
        unavailable=cell.unavailable,
        device=cell.device,
        report=report,
    )
