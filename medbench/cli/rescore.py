"""`medbench rescore`: score finished runs again, or by further metrics."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medbench import spec
from medbench.cli.options import runs_folder


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--metric", default="", help="Metrics: specs, split at commas. [those of the task]")
@click.option("--python", default="", help="Another Python, whose packages compute the metrics.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N.")
@runs_folder("Where runs are, for keys.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def rescore(
    runs: tuple[str, ...], metric: str, python: str, device: str, out: Path, as_json: bool
) -> int:
    """Score the RUNS with metrics, from the answers in their folders; no model is loaded.

    A run is named by its folder, by a folder that holds some, or by its key. Other scores stay.
    Exit code 1: a metric could not be computed; the others were.

    \b
    medbench rescore results/runs/iu_xray_report --metric "chexbert/labels,radgraph/combined"
    medbench rescore 72ddcb116258 --metric ratescore --python /path/to/venv312/bin/python
    """
    names = spec.parse_list(metric) if metric else []
    from medbench.choose import find
    from medbench.cli.progress import reporting
    from medbench.cli.scores import as_lines, unscored_lines
    from medbench.metric import Setting
    from medbench.rescore import rescore
    from medbench.scorers.worker import find_python
    from medbench.scoring import load_metric

    for name in names:
        load_metric(name)  # a typo ends here
    if python:
        find_python(python)
    folders = find(runs, out)
    from medbench.model.load import resolve_device

    setting = Setting(resolve_device(device, "auto")[0], python)
    with reporting() as report:
        contents, failures = rescore(folders, names, setting=setting, report=report)
    wanted = [load_metric(name).full_name for name in names]
    for folder, content in zip(folders, contents, strict=True):
        if as_json:
            click.echo(json.dumps({"folder": str(folder), **content}, sort_keys=True))
            continue
        shown = {n: s for n, s in content["scores"].items() if not wanted or n in wanted}
        click.echo(str(folder))
        for line in as_lines(shown):
            click.echo(f"  {line}")
    unscored = {name: [e.what, e.why, e.do] for name, e in failures.items()}
    for line in unscored_lines(unscored):
        click.echo(line, err=True)
    return 1 if failures else 0
