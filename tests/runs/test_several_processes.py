"""Several processes that train one adapter together end with what one process makes."""

import json
import signal
import socket

import pytest
import torch
from safetensors.torch import load_file

ARGUMENTS = ("run", "--task", "mini", "--backbone", "toy", "--batch-size", "5", "--method")
ADAPTERS = "results/runs/adapters/mini/*/*/*"
# Sums over two shares are not in the order of one sum; Adam magnifies that where gradients are
# close to nothing.
LOSS, WEIGHT = 1e-5, 1e-3


class Launcher:
    """Starts a command in several processes, as accelerate and torchrun do."""

    def __init__(self, server, place):
        self.server, self.place = server, place

    def start(self, arguments, count=2, points=None, **options):
        """Start the processes and return their ids; points: process -> what to do in it."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            self.server.start(
                self.place,
                arguments,
                environment={
                    key: str(value)
                    for key, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()
                },
                suffix=f"-{rank}",
                points=(points or {}).get(rank, ()),
                **options,
            )
            for rank in range(count)
        ]

    def run(self, arguments, count=2, **options):
        """Return the exit codes."""
        return [self.server.wait(pid) for pid in self.start(arguments, count, **options)]

    def said(self, rank, stream="stderr"):
        return (self.place / f"{stream}-{rank}.txt").read_text()


@pytest.fixture
def launched(server, place):
    return Launcher(server, place)


def log_of(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def assert_same_training(mine, theirs):
    one, two = log_of(mine), log_of(theirs)
    assert [entry["step"] for entry in one] == [entry["step"] for entry in two]
    for left, right in zip(one, two, strict=True):
        assert left.keys() - {"gradient_norms"} == right.keys() - {"gradient_norms"}
        for name in ("loss", "language", "gradient_norm", "learning_rate"):
            assert left[name] == pytest.approx(right[name], rel=LOSS, abs=LOSS), name
    for path in mine.glob("*.safetensors"):
        wanted = load_file(theirs / path.name)
        for name, weight in load_file(path).items():
            torch.testing.assert_close(weight, wanted[name], rtol=0, atol=WEIGHT)


METHODS = {
    "lora": ("lora[dropout=0]", 2),
    "a3tune": ("a3tune[dropout=0,labels=roi]", 2),
    "heads chosen once, in small pieces": (
        "a3tune[dropout=0,labels=roi,head_selection=fixed,micro_batch=3,balance_weight=0.1]",
        2,
    ),
    # 21 samples: steps of 4, the last of 1, so that there is a process without any.
    "a process without a sample": ("a3tune[dropout=0,labels=roi,batch_size=4]", 3),
    "weights that no loss reaches": (
        "a3tune[dropout=0,labels=roi,kmoe_combine=last_write,weight_decay=0.1]",
        2,
    ),
}


@pytest.mark.parametrize("which", METHODS)
def test_processes_take_the_steps_of_one(launched, undisturbed, same, place, which):
    method, count = METHODS[which]
    arguments = (*ARGUMENTS, method)
    assert launched.run(arguments, count) == [0] * count, launched.said(0) + launched.said(1)
    mine, theirs = same.folder(place, ADAPTERS), same.folder(undisturbed(arguments), ADAPTERS)
    assert_same_training(mine, theirs)
    record = json.loads((mine / "adapter.json").read_text())
    assert record["processes"] == count
    assert sorted(path.name for path in mine.iterdir()) == sorted(
        path.name for path in theirs.iterdir()
    )
    # Only the first answered and spoke.
    assert len((same.folder(place) / "samples.jsonl").read_text().splitlines()) == 21
    assert "closed/paper" in launched.said(0, "stdout") and launched.said(0)
    for rank in range(1, count):
        assert launched.said(rank, "stdout") + launched.said(rank) == ""


def test_dropout_is_drawn_for_each_process_and_repeats_itself(launched, same, place, tmp_path):
    arguments = (*ARGUMENTS, "a3tune[dropout=0.3,labels=roi]")
    found = []
    for root in ("one", "two"):
        assert launched.run((*arguments, "--out", root)) == [0, 0]
        found.append(log_of(same.folder(place, f"{root}/adapters/mini/*/*/*")))
    assert found[0] == found[1]


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_a_killed_training_goes_on_with_any_number_of_processes(
    launched, undisturbed, same, place, before, after
):
    arguments = (*ARGUMENTS, "a3tune[dropout=0,labels=roi]")
    kill = [("medbench.tuning.loop:_step", "after", 4, "kill")]
    pids = launched.start(
        arguments, before, points=dict.fromkeys(range(before), kill), checkpoints=True
    )
    assert {launched.server.wait(pid) for pid in pids} == {-signal.SIGKILL}
    folder = same.folder(place, ADAPTERS)
    assert (folder / "checkpoint.pt").exists() and len(log_of(folder)) == 3
    assert launched.run(arguments, after, checkpoints=True) == [0] * after, launched.said(0)
    assert_same_training(folder, same.folder(undisturbed(arguments), ADAPTERS))
    assert not (folder / "checkpoint.pt").exists()


def test_what_is_trained_is_answered_by_the_first_and_the_others_end(launched, same, place):
    arguments = (*ARGUMENTS, "lora[dropout=0]")
    assert launched.run(arguments) == [0, 0]
    adapter = same.folder(place, ADAPTERS)
    before = (adapter / "adapter.json").stat().st_mtime_ns
    # Another decoder on the same adapter; a complete run; and one that trains nothing.
    for method in ("lora[dropout=0]+nucleus", "lora[dropout=0]", "greedy"):
        assert launched.run((*ARGUMENTS, method)) == [0, 0], method
    assert (adapter / "adapter.json").stat().st_mtime_ns == before
    assert len(list(place.glob("results/runs/mini/*/*/*/scores.json"))) == 3


def test_several_cells_share_their_processes(launched, place):
    arguments = (
        *ARGUMENTS,
        "lora[dropout=0],greedy,a3tune[dropout=0,labels=roi]",
        "--seeds",
        "0,1",
    )
    assert launched.run(arguments) == [0, 0], launched.said(0) + launched.said(1)
    assert len(list(place.glob("results/runs/mini/*/*/*/scores.json"))) == 6
    records = [json.loads(path.read_text()) for path in place.glob(f"{ADAPTERS}/adapter.json")]
    assert [record["processes"] for record in records] == [2] * 4


NAN = '''"""A loss that is not a number for one sample."""

from dataclasses import dataclass

import torch

from medbench.method import Tuner


@dataclass(frozen=True)
class Broken(Tuner):
    """Breaks at the sample named."""

    name = "broken"
    needs = ("training",)

    spoilt: str = ""

    def auxiliary(self, view):
        bad = torch.tensor([name == self.spoilt for name in view.batch.ids])
        return {"odd": torch.where(bad, torch.nan, 0.0)}
'''


def test_a_loss_that_is_not_finite_in_one_process_stops_all(launched, plugin, same, place):
    plugin("methods", "broken", NAN)
    for spoilt in ("train-3-1", "train-5-2"):
        codes = launched.run((*ARGUMENTS, f"broken[spoilt={spoilt}]"))
        assert codes == [2, 2], launched.said(0) + launched.said(1)
        what, why, _ = launched.said(0).splitlines()[-3:]
        assert what.startswith("the odd loss is not finite at step ")
        assert spoilt in why
        # The first tells the user; the others stop in silence.
        assert launched.said(1) == ""


def test_a_lock_held_by_another_run_stops_all_and_one_of_them_says_so(
    launched, server, same, place
):
    arguments = (*ARGUMENTS, "lora")
    pause = ("medbench.tuning.loop:_step", "after", 3, "pause")
    pid = server.start(place, arguments, points=[pause])
    same.wait_for(place / "paused")
    # The others must not wait for a second cell either.
    assert launched.run((*arguments, "--seeds", "0,1")) == [2, 2]
    assert "another process is writing this run" in launched.said(0)
    assert launched.said(1) == ""
    (place / "go").touch()
    assert server.wait(pid) == 0
