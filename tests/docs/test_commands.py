"""The commands that README and docs print do what the pages say.

Those on the phantom run as printed, on a smaller phantom. Those on real data run on a few
questions in the official layout where they need nothing else, and otherwise as far as to the
files that are not there: all names, values and options are read before.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, commands

# For the sake of time.
SHORTER = {"--seeds 0-4": "--seeds 0", 'seeds = "0-4"': 'seeds = "0"'}
# What asks for files that no test can have: each is refused for want of them, and for nothing else.
WANTING = (
    "$SAM", "sam_vit_h", "training_segments", "weights=PATH", "weights=FOLDER", "weights=DELTA",
    "iu_xray_report", "vqa_rad", "table1.toml", "answers.jsonl", "--fetch", "expert=biomedclip",
    "/path/to/python", "ablation 8 --output", "layer=8", "RUN", "SPEC", "METHOD", "PARAMETER",
    "FILE", " A ", " N", "...", "[weights=DIR",
)  # fmt: skip

# A run of a3tune, as the pages name it.
KEY = "72ddcb116258"


def lines(page):
    return [one for one in commands(page) if not one.elsewhere]


def test_every_page_is_looked_at_and_most_commands_are_run():
    every = [one for page in PAGES for one in lines(page)]
    run = [one for one in every if not any(word in one.text for word in WANTING)]
    assert len(every) > 100
    assert len(run) > 60, [one.text for one in every if one not in run]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if lines(page)])
def test_the_commands_of_a_page_run(page, place, slake, llava_med_15, medbench):
    _prepare(page, place)
    for one in lines(page):
        if any(word in one.text for word in WANTING):
            continue
        text = one.text
        for printed, shorter in SHORTER.items():
            text = text.replace(printed, shorter)
        words = type(one)(page, text).words
        if words is None:
            code, told = _in_a_shell(text, place)
        else:
            words = [_given(word, slake, llava_med_15, place) for word in _expanded(words, place)]
            code, out, err = medbench(*words)
            told = out + err
        # Something is missing, or worse, and the command says so: it is not asked wrongly.
        allowed = (0, 1) if words and words[0] in ("doctor", "check", "data") else (0,)
        assert code in allowed, f"{one.text}\n{told}"


@pytest.mark.parametrize("page", [page for page in PAGES if lines(page)])
def test_commands_about_files_that_are_not_there_are_refused_for_that_alone(
    page, tmp_path, monkeypatch, medbench
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for one in lines(page):
        if not any(word in one.text for word in WANTING[:15]) or one.words is None:
            continue
        words = [word.replace("$SLAKE", "nowhere").replace("$SAM", "sam.pth") for word in one.words]
        if "--fetch" in words:
            continue
        code, _, err = medbench(*words, *(["--plan"] if words[0] == "run" else []))
        assert code in (1, 2), one.text
        assert not any(
            wrong in err
            for wrong in ("no option", "no verb", "named '", "has no parameter", "cannot read '")
        ), f"{one.text}\n{err}"


def _expanded(words, place):
    """Return words with patterns of files as a shell leaves them."""
    for word in words:
        yield from sorted(map(str, place.glob(word))) if word.endswith("*.zip") else [word]


def _given(word, slake, llava_med_15, place):
    """Return a word of a command with a user's files in the place of those that it stands for."""
    if word in ("DIR", "$SLAKE"):
        return str(slake)
    if word == KEY:
        return sorted((place / "results/runs/phantom/phantom/a3tune").iterdir())[0].name
    return llava_med_15 if word == "llava-med-1.5" else word


def _in_a_shell(text, place):
    """Run a line that needs a shell; here, on the whole phantom and so only a few samples."""
    shim = place / "bin"
    shim.mkdir(exist_ok=True)
    script = shim / "medbench"
    limit = 'case "$1" in run) set -- "$@" --limit 4;; esac\n'
    script.write_text(f'#!/bin/sh\n{limit}exec {sys.executable} -m medbench "$@"\n', "utf-8")
    script.chmod(0o755)
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PATH": f"{shim}:{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "SLURM_ARRAY_TASK_ID": "1",
    }
    done = subprocess.run(
        ["bash", "-c", text], cwd=place, env=environment, capture_output=True, text=True
    )
    shutil.rmtree(shim)
    return done.returncode, done.stdout + done.stderr


def _prepare(page, place):
    """Put into the working folder what a page has shown before its commands."""
    import re

    from tests.docs.pages import ROOT

    text = (ROOT / page).read_text(encoding="utf-8")
    if page.endswith("add-a-method.md"):
        (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        (place / "methods").mkdir(exist_ok=True)
        (place / "methods" / "blurred.py").write_text(source, encoding="utf-8")
    if page.endswith("add-a-task.md"):
        from tests.test_docs import write_ward

        (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        (place / "tasks").mkdir()
        (place / "tasks" / "ward.py").write_text(source, encoding="utf-8")
        write_ward(place / "ward")
    if page in ("README.md", "docs/sweep.md"):
        text = (ROOT / "docs/sweep.md").read_text(encoding="utf-8")
        grid = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
        for printed, shorter in SHORTER.items():
            grid = grid.replace(printed, shorter)
        (place / "grid.toml").write_text(grid, encoding="utf-8")
    if page in ("README.md", "docs/ci.md"):
        from medbench.cli import main

        (place / "results").mkdir(exist_ok=True)
        update = ["check", "results/runs/phantom", "--against", "results/baseline.json"]
        assert main([*update, "--update"]) == 0
