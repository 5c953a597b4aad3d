"""Data that ships beside the code: layouts of tables and figures, and published numbers."""

from __future__ import annotations

from pathlib import Path

import medbench


def results(name: str) -> Path:
    """Return a file or folder of `results/`; it need not be there.

    Installed, `results/` lies inside the package; in a checkout it lies beside it.

    Args:
        name: below `results/`, such as "tables" or "figures/figure8.toml".
    """
    folders = [Path(entry) / "results" for entry in medbench.__path__]
    return next((folder for folder in folders if folder.is_dir()), folders[-1]) / name
