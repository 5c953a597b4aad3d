"""The adapter of a run: trained now, or found where another run with the same has left it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from medbench import __version__, provenance, spec, store
from medbench.adapter_plan import RECORD, AdapterPlan, hash_weights
from medbench.atomic import write_json
from medbench.cell import Cell
from medbench.images import ImageEncoder
from medbench.memory import explaining_full_memory
from medbench.model.llava import Backbone
from medbench.processes import Team
from medbench.provider import Surroundings
from medbench.reporting import Report
from medbench.restricted import withholding
from medbench.tuning.adapter import attached
from medbench.tuning.batch import Example
from medbench.tuning.loop import CHECKPOINT, Progress, last_loss, train


@contextmanager
def adapted(
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


def help_train(cell: Cell, load: Callable[[Cell, Report], Backbone], together: Team) -> None:
    """Take part in the leading process's training, if there is one; write nothing."""
    assert cell.adapter is not None
    silent = Report()
    if together.hear():
        _tune(cell, cell.adapter, lambda: load(cell, silent), silent, together)


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
