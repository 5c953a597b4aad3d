"""Importing answers that another program wrote, as a run that is scored like any other."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from medbench import keys, plugins, provenance, spec, store
from medbench.atomic import explaining_full_disks
from medbench.cell import create_task, shown
from medbench.data.passport import check_questions, hash_ids, hash_questions
from medbench.order import in_order
from medbench.pairing import Pairing, pair
from medbench.predictions import Prediction, Predictions, read_predictions
from medbench.read_splits import check_ids
from medbench.reporting import Report
from medbench.restricted import read_split, withholding
from medbench.rows import Row, row_of
from medbench.run_folder import check_names, run_folder
from medbench.scoring import load_metric
from medbench.task import Sample, Task
from medbench.task_scores import finish, ready_metrics

# Tables show imported runs by themselves: how they pick tokens is nobody's preset.
PRESET = "imported"


@dataclass(frozen=True)
class ImportRequest:
    """An import as asked for.

    Attributes:
        file: of the answers.
        task: a spec; data: folder with the task's official files.
        method, backbone: what tables call them, written as specs.
        id, output: which fields of the file to read; "" for the known one that is there.
        partial: whether samples without an answer are left out.
        seed: of the other program.
        out: where run folders go.
    """

    file: Path
    task: str
    method: str
    backbone: str = "unknown"
    data: str = ""
    id: str = ""
    output: str = ""
    partial: bool = False
    seed: int = 0
    out: Path = Path("results/runs")

    @property
    def command(self) -> str:
        """The command line that asks for this import."""
        words = ["medbench", "import", str(self.file)]
        for one in fields(self)[1:]:
            value = getattr(self, one.name)
            if one.default is MISSING or value != one.default:
                words.append(f"--{one.name}")
                words += [] if value is True else [str(value)]
        return shlex.join(words)


@dataclass(frozen=True)
class Imported:
    """A run made of imported answers.

    Attributes:
        folder: its folder.
        scores: the content of its scores.json.
        known: whether it was there already.
        pairing: which answer is whose.
        fields: of the file that held ids and answers.
        missing: samples without an answer, left out.
    """

    folder: Path
    scores: dict[str, Any]
    known: bool
    pairing: Pairing
    fields: tuple[str, str]
    missing: int


def import_predictions(request: ImportRequest, report: Report | None = None) -> Imported:
    """Make a finished run of a file of answers; the same answers make the same run.

    No image is looked for: what the other program was shown is not known.

    Raises:
        UserError: a name is wrong, a file cannot be read, or the answers are not one for each
            sample of the task's test split.
    """
    check_names(request.method, request.backbone)
    spec.parse(request.backbone)
    task = create_task(spec.parse(request.task), request.data)
    every: list[Sample] = []
    with withholding(task, every):
        predictions = read_predictions(
            request.file.expanduser(),
            id_field=request.id,
            output_field=request.output,
            private=task.restricted,
        )
        every += read_split(task, "test")
        check_ids(task, "test", every)
        check_questions(task, "test", every)
        pairing = pair(task, every, predictions, partial=request.partial)
        samples = in_order(one for one in every if one.id in pairing.answers)
        rows = [_row(one, pairing.answers[one.id]) for one in samples]
        record: dict[str, Any] = {
            **_describe(request, task, samples, rows),
            "partial": len(samples) < len(every),
            "missing_answers": len(every) - len(samples),
            "data": provenance.describe_data(task, _passport(every)),
            "imported": _origin(predictions, pairing),
        }
        folder = run_folder(
            request.out.expanduser(),
            task=request.task,
            backbone=request.backbone,
            method=request.method,
            key=record["key"],
        )
        scores, known = _write(folder, record, task, every, rows, report or Report())
    missing, read = len(every) - len(samples), (predictions.id_field, predictions.output_field)
    return Imported(folder, scores, known, pairing, read, missing)


def _row(sample: Sample, answer: Prediction) -> Row:
    row = row_of(sample, answer.output)
    if answer.prompt is not None:
        row["prompt"] = answer.prompt
    return row


def _describe(
    request: ImportRequest, task: Task, samples: Sequence[Sample], rows: Sequence[Row]
) -> dict[str, Any]:
    """Return what run.json says about an import, as it does of any run."""
    task_spec = spec.parse(request.task)
    names = {
        "backbone": str(spec.parse(request.backbone)),
        "method": "+".join(map(str, spec.parse_chain(request.method))),
    }
    identity: dict[str, Any] = {
        "imported": names,
        "task": {
            **keys.identity(plugins.get("task", task_spec.name), task),
            "version": task.version,
            "split": "test",
            "samples": _digest(samples),
        },
        "answers": provenance.digest([[row["id"], row["output"]] for row in rows]),
        "preset": PRESET,
        "seed": request.seed,
        "limit": None,
    }
    return {
        "key": keys.key(identity),
        "identity": identity,
        "display": {"task": shown(task_spec, task), **names},
        "samples": len(samples),
        "missing_images": 0,
        "samples_with_region": sum(sample.roi is not None for sample in samples),
        "adapter": None,
        "metrics": list(task.metrics),
        "device": _device(task),
        "command": request.command,
        "versions": provenance.versions(),
        "hardware": {},
        "git": provenance.git_state(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _digest(samples: Sequence[Sample]) -> str:
    """Return one sha256 over what the samples ask; images are not in it."""
    return provenance.digest(
        [[s.id, s.question, s.answer, s.kind, s.group, dict(s.meta)] for s in samples]
    )


def _passport(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "rows": len(samples),
        "ids": hash_ids(sample.id for sample in samples),
        "questions": hash_questions(samples),
        "images": None,
    }


def _origin(predictions: Predictions, pairing: Pairing) -> dict[str, Any]:
    return {
        "file": predictions.path.name,
        "sha256": predictions.sha256,
        "id": predictions.id_field,
        "output": predictions.output_field,
        "ids": pairing.ids,
        "golds": pairing.golds,
    }


def _device(task: Task) -> str:
    """Return where the task's metrics compute; torch is asked only if one has a model."""
    if not any(load_metric(name).external for name in task.metrics):
        return "cpu"
    from medbench.model.load import resolve_device

    return resolve_device("auto", "auto")[0]


def _write(
    folder: Path,
    record: dict[str, Any],
    task: Task,
    every: Sequence[Sample],
    rows: Sequence[Row],
    report: Report,
) -> tuple[dict[str, Any], bool]:
    """Score the rows and write the folder; return its scores and whether they were there."""
    with (
        explaining_full_disks(folder),
        store.locked(folder, wait=False, what="run", private=task.restricted),
    ):
        store.check(folder, record["key"])
        scores = store.read_scores(folder)
        if scores is not None:
            return scores, True
        metrics, unavailable = ready_metrics(task, record["device"])
        store.begin(folder, record)
        scores = finish(
            folder,
            rows,
            task,
            every,
            metrics=metrics,
            unavailable=unavailable,
            device=record["device"],
            report=report,
        )
        return scores, False
