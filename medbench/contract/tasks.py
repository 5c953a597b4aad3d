"""What every task keeps to, whichever files it reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pytest

from medbench import plugins
from medbench.contract.breach import breach, telling
from medbench.contract.reading import ReadingContract
from medbench.contract.scored import check_metric
from medbench.contract.task_samples import (
    is_text,
    needs_data,
    opened,
    read,
    split_or_none,
    written,
)
from medbench.errors import UserError
from medbench.plugins import Plugin
from medbench.restricted import withholding
from medbench.spec import Spec
from medbench.task import Kind, Sample, Task

# Images and regions that are opened: the first ones of the split.
_OPENED = 16
# Samples whose gold answers are scored.
_SCORED = 200


class TaskContract(ReadingContract):
    """What a task keeps to; a subclass names it, and gives its files.

    The fixture `data` is the folder of official files, "" for none; the tests that need files are
    skipped without it.
    """

    kind = "task"

    @pytest.fixture
    def data(self, request: pytest.FixtureRequest) -> str | Path:
        """The folder of official files; --data=DIR of `pytest --pyargs medbench.contract`."""
        return str(request.config.getoption("medbench_data", None) or "")

    @pytest.fixture
    def task(self, made: Any, data: str | Path) -> Task:
        """The task with its files, where it has what it needs."""
        task: Task = plugins.create("task", Spec(made.name, _data(data)))[1]
        if not str(data) and needs_data(task):
            pytest.skip(f"{task.name} needs its official files: give their folder with --data=DIR")
        return task

    @pytest.fixture
    def samples(self, task: Task) -> Sequence[Sample]:
        """The samples of the test split."""
        with telling(f"the test split of {task.name} cannot be read"):
            found = read(task, "test")
        if not found:
            breach(f"{task.name} has no test samples", "", "samples('test') must yield some.")
        return found

    def test_its_kind_of_questions_is_known(self, samples: Sequence[Sample]) -> None:
        """Each sample is open, closed, choice or report."""
        for sample in samples:
            if sample.kind not in get_args(Kind):
                breach(
                    f"the kind of {sample.name} is {sample.kind!r}",
                    "Metrics choose their samples by it.",
                    f"Take one of {', '.join(get_args(Kind))}.",
                )
            if sample.kind == "choice" and not sample.meta.get("options"):
                breach(
                    f"{sample.name} is a choice without options",
                    "Its metrics compare the answer with them.",
                    "Put them into meta: {'options': [...]}.",
                )

    def test_its_ids_are_unique_and_stay(self, task: Task, samples: Sequence[Sample]) -> None:
        """Reading again gives the same samples in the same order."""
        name, count = Counter(sample.id for sample in samples).most_common(1)[0]
        if count > 1:
            named = next(sample.name for sample in samples if sample.id == name)
            breach(
                f"{count} test samples have the id of {named}",
                "Answers are kept by id.",
                "Give every sample of the split an id of its own, from the data set where it can.",
            )
        again = [written(sample) for sample in read.__wrapped__(task, "test")]
        if again != [written(sample) for sample in samples]:
            breach(
                "read again, the test samples are others or stand in another order",
                "A run is continued by reading the split again.",
                "Yield them in the files' order; sort what comes from folders or sets.",
            )

    def test_its_texts_are_texts(self, samples: Sequence[Sample]) -> None:
        """Question, answer and group are there, and what else it tells can be written as JSON."""
        for sample in samples:
            for field in ("id", "question", "group"):
                if not is_text(getattr(sample, field)):
                    breach(f"the {field} of {sample.name} is no text, or an empty one")
            if not is_text(sample.answer, empty=True):
                breach(f"the answer of {sample.name} is no text", "", "Write it with str().")
            try:
                same = json.loads(json.dumps(dict(sample.meta))) == dict(sample.meta)
            except (TypeError, ValueError):
                same = False
            if not same:
                breach(
                    f"the meta of {sample.name} does not come back from JSON as it was",
                    "It stands in samples.jsonl.",
                    "Keep text, numbers, lists and mappings from text in it.",
                )
        if not any(sample.answer.strip() for sample in samples):
            breach("no test sample has an answer", "", "Put the gold answers into Sample.answer.")

    def test_no_image_is_in_training_and_test(self, task: Task, samples: Sequence[Sample]) -> None:
        """Test and train share no group, unless `shared_images` says why."""
        train = split_or_none(task, "train")
        shared = {one.group for one in train or ()} & {one.group for one in samples}
        if shared and not task.shared_images:
            breach(
                f"{len(shared)} groups of test samples are groups of training samples too",
                "A tuned model would be asked about images that it has seen.",
                "Split by image; if the published split is so, say it: shared_images = '...'.",
            )
        if task.shared_images and train is not None and not shared:
            breach(
                "no image is shared, but shared_images says so",
                "",
                "Leave it out; see that group is the id of the image.",
            )

    def test_its_images_open(self, task: Task, samples: Sequence[Sample]) -> None:
        """The first images open as RGB, and those that are no files have a stamp."""
        for sample in samples[:_OPENED]:
            if not isinstance(sample.image, Path) and not sample.stamp:
                breach(
                    f"the image of {sample.name} is no file and has no stamp",
                    "Nothing would tell when its content changes.",
                    "Set stamp to a hash, or to whatever decides how it is drawn.",
                )
            opened(task, samples, sample)

    def test_its_regions_fit(self, task: Task, samples: Sequence[Sample]) -> None:
        """The first regions are bool and of the size of their images."""
        with_region = [sample for sample in samples if sample.roi is not None]
        for sample in with_region[:_OPENED]:
            assert sample.roi is not None
            width, height = opened(task, samples, sample).size
            with telling(f"the region of {sample.name} does not open"), withholding(task, samples):
                region = sample.roi()
            if str(getattr(region, "dtype", None)) != "bool":
                breach(f"the region of {sample.name} is no bool array", "", "mask > 0 makes one.")
            if region.shape != (height, width):
                breach(
                    f"the region of {sample.name} is {region.shape}, its image {(height, width)}",
                    "Both are [height, width] in the image's own pixels.",
                    "Resize it to the image by the nearest neighbour.",
                )
        if with_region and "roi" not in task.offers:
            breach(
                f"{len(with_region)} samples have a region, but the task does not offer any",
                "",
                "Write offers = ('roi',).",
            )

    def test_it_asks_something(self, task: Task, samples: Sequence[Sample]) -> None:
        """What is put to the model is a text, and not the answer."""
        for sample in samples:
            with withholding(task, samples):
                asked = task.ask(sample)
            if not is_text(asked):
                breach(f"ask() gives no text for {sample.name}", "", "Return the prompt's text.")

    def test_its_metrics_score_the_gold_answers(
        self, task: Task, samples: Sequence[Sample]
    ) -> None:
        """Each metric exists, calls the gold answers perfect, and bears empty outputs."""
        if not task.metrics:
            breach(f"{task.name} names no metrics", "", "metrics = ('closed/strict', ...).")
        for name in task.metrics:
            check_metric(name, samples[:_SCORED], {sample.kind for sample in samples})

    def test_its_examples_are_true(self, task: Task, samples: Sequence[Sample]) -> None:
        """`examples`, where it has them, are its first two test samples."""
        first = tuple((s.id, s.kind, s.question, s.answer) for s in islice(samples, 2))
        if task.examples and task.examples != first:
            breach("'examples' are not the first two test samples", "", "Copy them again.")

    def test_a_wrong_folder_is_a_users_mistake(
        self, sound: Plugin, made: Any, tmp_path: Path
    ) -> None:
        """No folder, one that is not there, and an empty one are UserErrors of a line each."""
        if not needs_data(made):
            return
        (tmp_path / "empty").mkdir()
        for folder in ("", str(tmp_path / "nowhere"), str(tmp_path / "empty")):
            task: Task = plugins.create("task", Spec(sound.name, _data(folder)))[1]
            what = f"the folder {folder}" if folder else "no folder"
            try:
                found = list(task.samples("test"))
            except UserError as error:
                if any("\n" in line for line in error.lines()):
                    breach(f"given {what}, its error is longer than three lines")
            except Exception as error:
                error.add_note(
                    f"Given {what}, users would see this traceback. Find files with "
                    "medbench.data.find.find_file, or raise UserError(what, why, do) yourself."
                )
                raise
            else:
                breach(f"given {what}, it yields {len(found)} samples and no error")

    def test_it_runs(self, task: Task, samples: Sequence[Sample], tmp_path: Path) -> None:
        """`medbench run --method greedy --backbone toy --limit 4` answers and scores."""
        from medbench.runner import run

        spec = Spec(task.name, (*_data(task.data), ("max_new_tokens", "8")))
        with telling("a run with greedy on toy fails"):
            done = run(
                "greedy",
                str(spec),
                backbone="toy",
                limit=4,
                device="cpu",
                dtype="float32",
                out=tmp_path / "runs",
                allow_missing_images=True,
            )
        if len(done.samples) != min(4, len(samples)):
            breach(f"a run over 4 samples answers {len(done.samples)}")


def _data(folder: str | Path) -> tuple[tuple[str, str], ...]:
    return (("data", str(folder)),) if str(folder) else ()
