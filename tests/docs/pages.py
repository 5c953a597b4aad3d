"""The commands that README and docs print, in their order, with what stands for a user's files."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

# What is not run here, by how the line begins, and why.
ELSEWHERE = {
    "python -m venv": "sets up an environment; continuous integration does",
    "pip install": "installs",
    "python benchmarks/": "tests/test_benchmarks.py",
    "ray start": "tests/runs/test_sweep_ray.py starts a cluster",
    "medbench sweep table1.toml --executor ray": "tests/runs/test_sweep_ray.py",
    "git ": "not ours",
    "#": "a comment",
    "#!/bin/bash": "the head of a job",
    "pytest --pyargs medbench.contract": "tests/contract",
    "pytest tests/": "tests/test_new.py",
    "medbench view": "tests/viewer",
}


@dataclass(frozen=True)
class Command:
    """One printed line: where it stands, and as it is printed, without its comment."""

    page: str
    text: str

    @property
    def elsewhere(self):
        return any(self.text.startswith(begin) for begin in ELSEWHERE)

    @property
    def words(self):
        """Return the words after `medbench`; None for what only a shell can run."""
        if not self.text.startswith("medbench ") or re.search(r"[&;<>]|\$[(\[]", self.text):
            return None
        return shlex.split(self.text)[1:]


def commands(page):
    """Return the commands of a page: those in blocks of shell, and whole ones in the text."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    lines = [
        line.strip() for _, block in blocks for line in block.replace("\\\n", " ").splitlines()
    ]
    # In a table, pipes are written with a stroke before them. Without an option it is only a name.
    inline = [one.replace("\\|", "|") for one in re.findall(r"`(medbench [^`]*--[^`]+)`", text)]
    found = [Command(page, _without_comment(line)) for line in (*lines, *inline)]
    return [one for one in found if one.text]


def _without_comment(line):
    if line.startswith("#"):
        return line
    return re.split(r"\s+# ", line)[0].strip()
