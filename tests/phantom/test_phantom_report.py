"""Short reports of drawn images: every split its own scenes, every organ told."""

import numpy as np
import pytest

import medbench
from medbench.data.passport import hash_ids
from medbench.errors import UserError

SPLITS = {"train": 400, "validation": 100, "test": 200}


@pytest.fixture(scope="module")
def splits():
    task = medbench.load_task("phantom_report")
    return {name: list(task.samples(name)) for name in SPLITS}


def test_splits_match_their_passport_and_share_no_scene(splits):
    task = medbench.load_task("phantom_report")
    for name, samples in splits.items():
        assert len(samples) == SPLITS[name] == task.passport[name]["rows"]
        assert hash_ids(sample.id for sample in samples) == task.passport[name]["ids"]
    seeds = [sample.meta["seed"] for samples in splits.values() for sample in samples]
    assert len(set(seeds)) == len(seeds)


def test_the_tests_reports_are_the_phantoms_own(splits):
    theirs = list(medbench.load_task("phantom").samples("reports"))
    assert [(one.id, one.answer) for one in splits["test"]] == [
        (one.id, one.answer) for one in theirs
    ]


def test_a_report_tells_region_and_every_organ(splits):
    for sample in splits["train"][:50]:
        region, *organs = sample.answer.removesuffix(" .").split(" . ")
        assert sample.kind == "report"
        assert region == sample.meta["location"]
        assert organs and all(" " in organ for organ in organs)
        lesions = any(not organ.endswith("normal") for organ in organs)
        mask = np.asarray(sample.roi())
        assert mask.any() or not lesions


def test_no_other_split():
    with pytest.raises(UserError, match="no split 'reports'"):
        list(medbench.load_task("phantom_report").samples("reports"))


@pytest.mark.slow
def test_a_run_answers_and_says_what_it_cannot_score(tmp_path):
    run = medbench.run("greedy", "phantom_report", limit=8, out=str(tmp_path))
    told = {*run.scores["scores"], *run.scores["unscored"]}
    assert told == set(medbench.load_task("phantom_report").metrics)
    assert all(row["output"].count(" . ") >= 2 for row in run.samples)
