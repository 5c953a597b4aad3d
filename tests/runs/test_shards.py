"""A run answered in parts, by processes that know nothing of each other, is the whole run."""

import os
import signal

import pytest

from medbench import shard, store
from medbench.errors import UserError

ARGUMENTS = ("run", "--task", "mini", "--backbone", "toy", "--batch-size", "5", "--method")
GREEDY = (*ARGUMENTS, "greedy")
ANSWERED = "medbench.answering:_answer"


def part(arguments, which):
    return (*arguments, "--shard", which)


@pytest.mark.parametrize(
    "order", ["1/1", "1/2 2/2", "2/2 1/2", "3/3 1/3 2/3", "9/9 4/9 1/9 2/9 3/9"]
)
def test_parts_in_any_order_make_the_run_in_one_piece(server, undisturbed, same, place, order):
    *others, last = order.split()
    for which in others:
        assert server.run(place, part(GREEDY, which)) == 0, (place / "stderr.txt").read_text()
    if others:
        assert not (same.folder(place) / "scores.json").exists()
    if last.endswith("/9"):  # five batches: the fifth part has one as well, the sixth none
        assert server.run(place, part(GREEDY, "6/9")) == 0
        assert server.run(place, part(GREEDY, "5/9")) == 0
    assert server.run(place, part(GREEDY, last)) == 0, (place / "stderr.txt").read_text()
    same.run(place, undisturbed(GREEDY))


@pytest.mark.parametrize("method", ["nucleus", "vcd[select=sample]", "shuffled", "a3tune+vcd"])
def test_parts_answered_at_once_make_the_run_in_one_piece(server, undisturbed, same, place, method):
    arguments = (*ARGUMENTS, method)
    started = [server.start(place, part(arguments, f"{n}/3")) for n in (1, 2, 3)]
    assert [server.wait(pid) for pid in started] == [0, 0, 0], (place / "stderr.txt").read_text()
    same.run(place, undisturbed(arguments))
    if "+" in method:
        same.adapter(place, undisturbed(arguments))


@pytest.mark.parametrize(
    "point",
    [
        (ANSWERED, "after", 2, "kill"),
        ("os:fsync", "after", 2 + 1, "cut 60"),
        ("medbench.runner:_score", "before", 1, "kill"),
        ("medbench.task_scores:measure", "after", 2, "kill"),
        ("medbench.store:write_json", "before", 1, "kill"),
        ("medbench.store:write_json", "after", 1, "kill"),
    ],
)
def test_a_part_killed_at_any_point_goes_on(server, undisturbed, same, place, point):
    assert server.run(place, part(GREEDY, "2/2")) == 0
    assert server.run(place, part(GREEDY, "1/2"), points=[point]) == -signal.SIGKILL
    assert server.run(place, part(GREEDY, "1/2")) == 0, (place / "stderr.txt").read_text()
    same.run(place, undisturbed(GREEDY))


def test_a_run_in_one_piece_takes_what_parts_of_other_cuts_left(server, undisturbed, same, place):
    assert server.run(place, part(GREEDY, "1/2")) == 0
    assert server.run(place, part(GREEDY, "2/3")) == 0
    folder = same.folder(place)
    there = {row["id"] for row in store.read_rows(folder)}
    assert len(there) == 11 + 5  # of batches of five and one of one, parts of both cuts
    record = store.read_record(folder)
    assert (record.state, record.done, record.total) == ("unfinished", 16, 21)
    # One batch is left.
    point = (ANSWERED, "before", 2, "kill")
    assert server.run(place, GREEDY, points=[point]) == 0, (place / "stderr.txt").read_text()
    same.run(place, undisturbed(GREEDY))


def test_nothing_is_loaded_where_a_part_is_answered(server, place):
    assert server.run(place, part(GREEDY, "1/2")) == 0
    point = ("medbench.runner:load", "before", 1, "kill")
    assert server.run(place, part(GREEDY, "1/2"), points=[point]) == 0
    assert "11 of 21 samples of the run are answered" in (place / "stdout.txt").read_text()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (part(GREEDY, "1/2"), GREEDY),
        (GREEDY, part(GREEDY, "1/2")),
        (part(GREEDY, "1/2"), part(GREEDY, "1/2")),
    ],
)
def test_a_run_and_its_parts_are_not_written_twice_at_once(server, place, same, first, second):
    pid = server.start(place, first, points=[(ANSWERED, "after", 1, "pause")])
    same.wait_for(place / "paused")
    other = place / "other"
    other.mkdir()
    assert server.run(place, second, suffix="2") == 2
    os.kill(pid, signal.SIGKILL)
    server.wait(pid)


def test_a_part_waits_for_none_of_the_others(server, undisturbed, same, place):
    pid = server.start(place, part(GREEDY, "1/2"), points=[(ANSWERED, "after", 1, "pause")])
    same.wait_for(place / "paused")
    assert server.run(place, part(GREEDY, "2/2")) == 0
    os.kill(pid, signal.SIGKILL)
    server.wait(pid)
    assert server.run(place, part(GREEDY, "1/2")) == 0
    same.run(place, undisturbed(GREEDY))


@pytest.mark.parametrize("text", ["3/2", "0/2", "1/0", "2", "a/b", "-1/2", "1/2/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UserError, match="cannot read the shard") as refused:
        shard.parse(text)
    assert "2/8" in refused.value.do


def test_parts_share_all_batches_and_none_twice():
    batches = list(range(11))
    for count in range(1, 14):
        shares = [one.share(batches) for one in shard.parts(count)]
        assert sorted(sum(shares, [])) == batches
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
