"""A task's files as the doctor tells of them: counts, copies, missing images, and no patient."""

import pytest

from medbench import plugins, spec
from medbench.doctor.task import check_task

TASK = '''
from dataclasses import dataclass, replace
from pathlib import Path
from medbench import UserError
from medbench.task import Edition, Sample, Task

@dataclass(frozen=True)
class Ward(Task):
    """A ward's images."""

    name = "ward"
    licence = "the ward's own"
    source = "https://example.org/ward"
    metrics = {metrics}
    passport = {{"test": {{"rows": 4}}, "train": {{"rows": 2}}}}
    restricted = {restricted}

    def samples(self, split):
        if not self.data:
            raise UserError("ward: no data folder given", "It needs files.", "Give data=DIR.")
        if split not in self.passport:
            raise UserError(f"ward has no split '{{split}}'")
        root = Path(self.data)
        if (root / "look-alike").exists():
            name = f"p1234567/{{split}}.csv"
            raise UserError("ward: this is the mirror's", f"In {{name}}.", "Take ours.")
        if (root / "broken").exists():
            raise ValueError("patient p1234567 has no age")
        for number in range(self.passport[split]["rows"]):
            image = root / f"p1234567-{{split}}-{{number // 2}}.png"
            yield Sample(f"p1234567-{{split}}-{{number}}", image, "ill?", "yes", "closed", "g")

    def edition(self, split):
        return Edition("official", (), "Two nurses wrote it." if split == "test" else "")
'''


@pytest.fixture
def ward(tmp_path, monkeypatch, finished):
    """Return a looker at a made-up task: (findings, what came of it)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "data").mkdir()

    def look(*, images=("test-0", "test-1", "train-0"), restricted=False, metrics=(), **options):
        text = TASK.format(restricted=restricted, metrics=metrics)
        (tmp_path / "tasks" / "ward.py").write_text(text, "utf-8")
        for name in images:
            (tmp_path / "data" / f"p1234567-{name}.png").write_bytes(b"")
        arguments = {"data": str(tmp_path / "data"), "splits": ("train", "test"), **options}
        plugin = plugins.get("task", "ward")
        return finished(check_task(plugin, spec.parse("ward"), **arguments))

    return look


def test_counts_licence_and_source(ward, problems, said):
    found, read = ward(metrics=("closed/strict",))
    assert problems(found) == []
    text = said(found)
    assert "good licence: the ward's own" in text
    assert "good source: https://example.org/ward" in text
    assert "good metrics that gave their known values: closed/strict" in text
    assert "good train: 2 of 2 questions about 1 image, official edition" in text
    assert "good test: 4 of 4 questions about 2 images, official edition" in text
    assert "note test: Two nurses wrote it." in text
    assert {split: len(samples) for split, samples in read.splits.items()} == {
        "train": 2,
        "test": 4,
    }


def test_data_check_is_named_for_more(ward, tmp_path):
    found, _ = ward()
    assert found[-1].state == "note"
    assert found[-1].do == f"To do both: medbench data check ward --data {tmp_path}/data"


def test_missing_images_are_counted(ward, problems, tmp_path):
    found, read = ward(images=("test-1", "train-0"))
    ((what, do),) = problems(found)
    assert what.startswith("ward: 2 of 4 test samples lack their image. The first should be at")
    assert "--allow-missing-images" in do
    assert len(read.splits["test"]) == 4


def test_only_the_splits_asked_for_are_read(ward, said):
    found, read = ward(splits=("test",), images=("test-0", "test-1"))
    assert list(read.splits) == ["test"]
    assert "train" not in said(found)


def test_what_no_split_has_is_said_once(ward, problems):
    found, read = ward(data="")
    assert problems(found) == [("ward: no data folder given. It needs files", "Give data=DIR.")]
    assert read.splits == {}
    assert "data check" not in str(found)


def test_a_look_alike_is_told_as_it_is(ward, problems, tmp_path):
    (tmp_path / "data" / "look-alike").touch()
    found, _ = ward()
    assert problems(found) == [("ward: this is the mirror's. In p1234567/train.csv", "Take ours.")]


def test_a_task_without_metrics_is_a_note(ward, said):
    assert "note no metric scores its answers yet" in said(ward()[0])


def test_a_metric_that_cannot_answer_is_a_problem(ward, problems):
    ((what, _),) = problems(ward(metrics=("bleu/none",))[0])
    assert what.startswith("no metric named 'bleu/none'")


@pytest.mark.parametrize("state", ["whole", "without images", "look-alike", "broken", "no data"])
def test_a_restricted_task_tells_counts_alone(ward, said, state, tmp_path):
    if state in ("look-alike", "broken"):
        (tmp_path / "data" / state).touch()
    options = {"images": ()} if state == "without images" else {}
    options |= {"data": ""} if state == "no data" else {}
    try:
        found, read = ward(restricted=True, **options)
    except Exception as error:  # the examination prints type and first line
        assert state == "broken"
        assert "p1234567" not in str(error)
        return
    text = said(found)
    assert "note restricted: access takes credentials" in text
    assert "https://example.org/ward" in text
    if state == "without images":
        assert "ward: 4 of 4 test samples lack their image" in text
    if state == "look-alike":
        assert "problem ward: this is the mirror's. In (withheld) -> Take ours." in text
    assert "p1234567" not in text and "yes" not in text


def test_a_task_that_needs_no_files(problems, said, finished):
    plugin = plugins.get("task", "phantom")
    found, read = finished(check_task(plugin, spec.parse("phantom"), data="", splits=("test",)))
    assert problems(found) == []
    assert "test: 2160 of 2160 questions about 720 images" in said(found)
    assert "data check" not in said(found)


def test_the_official_tasks_say_what_they_need(problems, finished, tmp_path):
    for plugin in plugins.find("task"):
        if plugin.name.startswith("phantom"):
            continue
        asked = spec.parse(plugin.name)
        for data in ("", str(tmp_path), str(tmp_path / "nowhere")):
            found, read = finished(check_task(plugin, asked, data=data, splits=("train", "test")))
            assert problems(found), plugin.name
            assert all(do for _, do in problems(found)), plugin.name
            assert not read.splits
            assert any(one.what.startswith("licence: ") for one in found), plugin.name
