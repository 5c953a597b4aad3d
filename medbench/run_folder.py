"""Where a run's folder lies below the folder of runs, and what it cannot be named."""

from __future__ import annotations

from pathlib import Path

from medbench import spec
from medbench.errors import UserError


def run_folder(root: Path, *, task: str, backbone: str, method: str, key: str) -> Path:
    """Return a run's folder: root/task/backbone/method/key.

    Args:
        root: folder of the runs.
        task, backbone, method: specs, the last one may be a chain; their names count.
    """
    names = "+".join(one.name for one in spec.parse_chain(method))
    return root / spec.parse(task).name / spec.parse(backbone).name / names / key


def check_names(*specs: str) -> None:
    """Make sure that the names in specs and chains can be those of folders.

    Raises:
        UserError: they cannot.
    """
    for text in specs:
        for one in spec.parse_chain(text):
            if "/" in one.name or one.name.startswith("."):
                raise UserError(
                    f"'{text}' cannot be the name of a folder",
                    "Runs lie in folders named after method and backbone.",
                    "Take letters, digits, - and _.",
                )
