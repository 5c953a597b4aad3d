"""Bringing answers that another program wrote together with a task's samples: by id alone.

Where they came in another order, from another split or from another edition, most answers would
still be scored without a word; so ids must be known and come once, none may be missing, and a gold
answer that the file carries must be the task's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from medbench.counting import counted
from medbench.errors import UserError
from medbench.predictions import Prediction, Predictions
from medbench.task import Sample, Task

# A3Tune's files put this and a number behind the data set's own id.
_COUNTED = re.compile(r"_train\d+$")
_TEXT_LENGTH = 60


@dataclass(frozen=True)
class Pairing:
    """Which answer is whose.

    Attributes:
        answers: sample's id -> answer.
        ids: what the file's ids are: "id", the task's; "native_id", the data set's own;
            "native_id_train", the data set's own with a number behind.
        golds: how many gold answers were compared.
    """

    answers: Mapping[str, Prediction]
    ids: str
    golds: int


@dataclass(frozen=True)
class _Naming:
    """What samples may be called in a file.

    Attributes:
        own: the part of a file's id that names the sample.
        samples: by name, those that it tells apart; shared: names of several samples.
    """

    name: str
    own: Callable[[str], str]
    samples: Mapping[str, Sample]
    shared: frozenset[str] = frozenset()

    def known(self, item: Prediction) -> bool:
        """Say whether an answer's id names any sample."""
        return self.own(item.id) in self.samples or self.own(item.id) in self.shared


def pair(
    task: Task, samples: Sequence[Sample], predictions: Predictions, *, partial: bool
) -> Pairing:
    """Return each sample's answer.

    Args:
        samples: of the whole split.
        partial: whether samples may lack an answer.

    Raises:
        UserError: an id is unknown or comes twice, a sample has no answer, or a gold answer is not
            the task's; of a restricted task, no id and no text is told.
    """
    # The first of several that know as many.
    naming = max(_namings(samples), key=lambda one: sum(map(one.known, predictions.items)))
    _check_known(task, samples, predictions, naming)
    pairs = [(naming.samples[naming.own(item.id)], item) for item in predictions.items]
    answers: dict[str, Prediction] = {}
    twice: list[tuple[Prediction, Prediction]] = []
    for sample, item in pairs:
        before = answers.setdefault(sample.id, item)
        if before is not item:
            twice.append((before, item))
    if twice:
        before, item = twice[0]
        named = "" if task.restricted else f"'{item.id}', "
        raise UserError(
            f"{counted(len(twice), 'answer')} in {predictions.path} to samples that have one",
            f"The first are {named}{before.place} and {item.place}.",
            "Keep one answer for each sample.",
        )
    missing = [sample for sample in samples if sample.id not in answers]
    if missing and not partial:
        raise UserError(
            f"{len(missing)} of {len(samples)} test samples of {task.name} have no answer in "
            f"{predictions.path}",
            f"The first is {missing[0].name}.",
            "Complete the file, or import what there is with --partial.",
        )
    return Pairing(answers, naming.name, _check_golds(task, predictions, pairs))


def _namings(samples: Sequence[Sample]) -> list[_Naming]:
    natives = [(str(sample.meta.get("native_id", "")).strip(), sample) for sample in samples]
    counts = Counter(name for name, _ in natives if name)
    own = {name: sample for name, sample in natives if counts[name] == 1}
    shared = frozenset(name for name, count in counts.items() if count > 1)
    return [
        _Naming("id", str, {sample.id: sample for sample in samples}),
        _Naming("native_id", str, own, shared),
        _Naming("native_id_train", lambda id: _COUNTED.sub("", id), own, shared),
    ]


def _check_known(
    task: Task, samples: Sequence[Sample], predictions: Predictions, naming: _Naming
) -> None:
    unknown = [one for one in predictions.items if naming.own(one.id) not in naming.samples]
    if not unknown:
        return
    first = unknown[0]
    named = first.place if task.restricted else f"{first.place}, '{first.id}'"
    whole = f"{len(unknown)} of {len(predictions.items)} ids in {predictions.path}"
    if naming.own(first.id) in naming.shared:
        raise UserError(
            f"{whole} are of several test samples of {task.name}",
            f"The first is in {named}.",
            "The data set's own ids do not tell its samples apart here; use the task's.",
        )
    do = "Check the task, its edition and split; another field for the id: --id FIELD"
    if not task.restricted:
        native = samples[0].meta.get("native_id")
        also = "" if native in (None, "") else f", in the data set {native}"
        do = f"Its ids are like {samples[0].id}{also}; another field for them: --id FIELD"
    raise UserError(
        f"{whole} are of no test sample of {task.name}", f"The first is in {named}.", do
    )


def _check_golds(
    task: Task, predictions: Predictions, pairs: Sequence[tuple[Sample, Prediction]]
) -> int:
    """Compare the gold answers of the file with the task's; return how many there are."""
    compared = [(sample, item, *gold) for sample, item in pairs for gold in item.golds]
    wrong = [one for one in compared if not _is_gold(one[0], one[3])]
    if wrong:
        sample, item, field, gold = wrong[0]
        why = f"The first is in {item.place}"
        if not task.restricted:
            why += f", {sample.id}: '{_short(gold)}', and not '{_short(sample.answer)}'"
        raise UserError(
            f"{len(wrong)} of {len(compared)} gold answers in {predictions.path} are not "
            f"{task.name}'s",
            f"{why}.",
            f"Its ids are another split's or edition's; or '{field}' is no gold answer: then take "
            "it out.",
        )
    return len(compared)


def _is_gold(sample: Sample, text: str) -> bool:
    # Some tasks read what the data set has for an answer as one word or option, and keep its text.
    golds = (sample.answer, str(sample.meta.get("answer_text", sample.answer)))
    return _plain(text) in map(_plain, golds)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]}…"
