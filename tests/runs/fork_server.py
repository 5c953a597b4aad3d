"""Forks processes that run medbench, so that many of them cost one import of torch.

Reads one JSON object a line from standard input and answers each with one:

    {"start": {"folder", "arguments", "points", "checkpoints", "file_size", "environment",
               "suffix"}} -> {"pid"}
    {"wait": pid} -> {"status"}, negative for a signal

A point is [target, "before" or "after", which call of it, action]; targets are
"module:function" and "module:Class.method". Actions: "kill" the process, "cut N" bytes off the
file just synced and kill it, or "pause" until the file `go` is in the folder.
"""

import functools
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

import medbench.runner
from medbench.cli import main

PAUSE_SECONDS = 60


def arm(folder, target, when, count, action):
    """Make the count-th call of a function do something before or after."""
    module, _, path = target.partition(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    function = getattr(owner, name)
    calls = iter(range(1, 1_000_000))

    @functools.wraps(function)
    def armed(*arguments, **options):
        if next(calls) != count:
            return function(*arguments, **options)
        if when == "before":
            act(folder, action, arguments)
        result = function(*arguments, **options)
        if when == "after":
            act(folder, action, arguments)
        return result

    setattr(owner, name, armed)


def act(folder, action, arguments):
    word, _, number = action.partition(" ")
    if word == "pause":
        (folder / "paused").touch()
        end = time.monotonic() + PAUSE_SECONDS
        while not (folder / "go").exists() and time.monotonic() < end:
            time.sleep(0.01)
        return
    if word == "cut":
        length = os.fstat(arguments[0]).st_size
        os.truncate(arguments[0], max(0, length - int(number)))
    os.kill(os.getpid(), signal.SIGKILL)


def child(
    folder,
    arguments,
    points=(),
    checkpoints=False,
    file_size=None,
    environment=None,
    suffix="",
):
    """Run medbench as a process of its own would; never returns."""
    folder = Path(folder)
    os.chdir(folder)
    os.environ.update(environment or {})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, number in (("stdout", 1), ("stderr", 2)):
        file = os.open(f"{stream}{suffix}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
    if checkpoints:
        importlib.import_module("medbench.tuning.loop").SHORTEST = 0.0
        importlib.import_module("medbench.tuning.loop").PATIENCE = 0
    for point in points:
        arm(folder, *point)
    if file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    code = 1
    try:
        code = main(arguments)
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve():
    torch.set_num_threads(1)
    for line in sys.stdin:
        (what, value), *_ = json.loads(line).items()
        if what == "wait":
            status = os.waitstatus_to_exitcode(os.waitpid(value, 0)[1])
            answer = {"status": status}
        else:
            pid = os.fork()
            if not pid:
                child(**value)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    assert medbench.runner
    serve()
