"""Tasks that ask for reports of patients' images: which metrics score them."""

from __future__ import annotations

from dataclasses import dataclass

from medbench.task import Task


@dataclass(frozen=True)
class ReportTask(Task):
    """Base of the tasks whose answers are reports; what a machine lacks is left unscored."""

    metrics = (
        # The columns of the paper's report tables, as its code computes them.
        "bleu4/nltk",
        "rougeL/google",
        "meteor/nltk",
        "bertscore",
        "chexbert/embedding",
        "radgraph/combined",
        "ratescore[release=0.5.0]",
        # The same as others compute them.
        "bleu4/coco",
        "rougeL/coco",
        "meteor/1.5",
        "chexbert/labels",
        "radgraph/simple",
        "radgraph/partial",
        "radgraph/complete",
        "ratescore",
    )
