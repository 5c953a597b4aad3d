"""Runs over the first N samples: which they are, what they are called, and that they stay so."""

import json

import pytest

from medbench import store
from medbench.run_index import find_runs


def rows(folder):
    costs = ("seconds", "peak_bytes")
    return [{k: v for k, v in row.items() if k not in costs} for row in store.read_rows(folder)]


def test_a_limited_run_is_the_beginning_of_the_whole_one_and_says_that_it_is_partial(
    place, run, medbench
):
    whole, five, eight = run(), run("greedy", "--limit", "5"), run("greedy", "--limit", "8")
    assert len({whole, five, eight}) == 3
    # The same answers whatever the batch: 5 and 8 are no multiples of it.
    assert rows(five) == rows(whole)[:5]
    assert rows(eight) == rows(whole)[:8]
    records = {record.folder.name: record for record in find_runs()}
    assert records[whole.name].state == "complete"
    for folder, limit in ((five, 5), (eight, 8)):
        record = records[folder.name]
        assert (record.state, record.limit) == ("partial", limit)
        assert (record.done, record.total) == (limit, limit)
        assert json.loads((folder / "run.json").read_text())["partial"]
        assert record.scores["coverage/sum"]["n"] <= limit
    words = ("run", "--method", "greedy", "--task", "mini", "--backbone", "toy", "--plan")
    assert "  partial: the first 5 of 21\n" in medbench(*words, "--limit", "5")[2]
    assert "partial" not in medbench(*words, "--limit", "21")[2]


def test_a_limited_run_is_resumed(server, place):
    words = ["run", "--method", "nucleus", "--task", "mini", "--backbone", "toy"]
    words += ["--batch-size", "2", "--limit", "7"]
    for count in (2, 1):
        points = [("medbench.answering:_answer", "after", count, "kill")]
        assert server.run(place, words, points=points) < 0
    (record,) = find_runs()
    assert (record.state, record.done, record.total) == ("unfinished", 2, 7)
    assert server.run(place, words) == 0
    (record,) = find_runs()
    assert (record.state, record.done, record.total) == ("partial", 7, 7)


@pytest.mark.parametrize("method", ["shuffled", "nucleus"])
def test_what_a_sample_draws_is_the_same_with_and_without_a_limit(place, run, method):
    whole = {row["id"]: row for row in rows(run(method, "--seed", "4"))}
    some = rows(run(method, "--seed", "4", "--limit", "6"))
    assert len(some) == 6
    assert all(whole[row["id"]] == row for row in some)


def test_shuffled_takes_an_image_of_another_group_which_the_seed_draws(place, run):
    own = {row["id"]: row["image"] for row in rows(run())}
    drawn = [{row["id"]: row["image"] for row in rows(run("shuffled", "--seed", s))} for s in "01"]
    for images in drawn:
        assert all(images[name] != own[name] for name in own)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_of_nothing_is_refused(place, refused, limit):
    words = ("--method", "greedy", "--task", "mini", "--backbone", "toy", "--limit", limit)
    assert refused(*words) == [
        f"--limit {limit} makes no sense",
        "It is a count.",
        "Take 1 or more.",
    ]
