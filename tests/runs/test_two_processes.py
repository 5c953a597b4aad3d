"""Several processes on one run or one adapter: one works, the others stop or wait."""

import json
import os
import signal
import time

ARGUMENTS = ("run", "--task", "mini", "--backbone", "toy", "--batch-size", "5", "--method")
GREEDY = (*ARGUMENTS, "greedy")
LOAD_KILLS = [("medbench.runner:load", "before", 1, "kill")]


def test_a_second_process_on_a_run_stops_before_it_loads_a_model(server, undisturbed, same, place):
    first = server.start(
        place, GREEDY, points=[("medbench.answering:_answer", "after", 2, "pause")]
    )
    same.wait_for(place / "paused")
    assert server.run(place, GREEDY, points=LOAD_KILLS) == 2
    folder = same.folder(place)
    assert (place / "stderr.txt").read_text().splitlines()[-3:] == [
        "another process is writing this run",
        f"It holds {folder.relative_to(place) / '.lock'}.",
        "Wait for it to end, or stop it; then run the same command again.",
    ]
    (place / "go").touch()
    assert server.wait(first) == 0
    same.run(place, undisturbed(GREEDY))
    # Now it is done: the second has nothing to load, and prints the first one's scores.
    assert server.run(place, (*GREEDY, "--json"), points=LOAD_KILLS) == 0
    printed = json.loads((place / "stdout.txt").read_text())
    assert printed["scores"] == json.loads((folder / "scores.json").read_text())["scores"]


def test_the_lock_of_a_killed_process_does_not_hold(server, undisturbed, same, place):
    pid = server.start(place, GREEDY, points=[("medbench.answering:_answer", "after", 2, "pause")])
    same.wait_for(place / "paused")
    assert server.run(place, GREEDY) == 2
    os.kill(pid, signal.SIGKILL)
    assert server.wait(pid) == -signal.SIGKILL
    assert (same.folder(place) / ".lock").exists()
    assert server.run(place, GREEDY) == 0
    same.run(place, undisturbed(GREEDY))


def test_two_runs_of_one_adapter_train_it_once(server, place, same):
    pause = ("medbench.tuning.loop:_step", "after", 3, "pause")
    first = server.start(place, (*ARGUMENTS, "lora"), points=[pause])
    same.wait_for(place / "paused")
    never = ("medbench.adapting:_tune", "before", 1, "kill")
    second = server.start(place, (*ARGUMENTS, "lora+nucleus"), points=[never])
    # The second has written its run.json, then waits for the adapter.
    end = time.monotonic() + 60
    while not list(place.glob("results/runs/mini/toy/lora+nucleus/*/run.json")):
        assert time.monotonic() < end
        time.sleep(0.01)
    (place / "go").touch()
    assert server.wait(first) == 0
    assert server.wait(second) == 0, (place / "stderr.txt").read_text()
    folder = same.folder(place, "results/runs/adapters/mini/*/*/*")
    steps = [json.loads(line)["step"] for line in (folder / "train.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 7))
    assert len(list(place.glob("results/runs/mini/toy/*/*/scores.json"))) == 2


def test_another_process_waiting_takes_over_when_the_first_is_killed(server, place, same):
    pause = ("medbench.tuning.loop:_step", "after", 3, "pause")
    first = server.start(place, (*ARGUMENTS, "lora"), points=[pause])
    same.wait_for(place / "paused")
    second = server.start(place, (*ARGUMENTS, "lora+nucleus"))
    os.kill(first, signal.SIGKILL)
    assert server.wait(first) == -signal.SIGKILL
    assert server.wait(second) == 0, (place / "stderr.txt").read_text()
    assert (same.folder(place, "results/runs/adapters/mini/*/*/*") / "adapter.json").exists()
