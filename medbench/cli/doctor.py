"""`medbench doctor`: what stands in the way of a run, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from medbench import spec
from medbench.cli.options import runs_folder
from medbench.errors import UserError


@click.command()
@click.option("--backbone", default="", help="A backbone's spec: are its files there and whole?")
@click.option("--task", default="", help="A task's spec: which edition is there, are its images?")
@click.option("--method", default="", help="A method's spec or chain: is there what it needs?")
@click.option("--metric", default="", help="Metrics: specs. Is there what they compute with?")
@click.option("--python", default="", help="Another Python, whose packages compute the metrics.")
@click.option("--data", default="", help="Folder with the task's official files.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--dtype", default="auto", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--batch-size", type=int, help="Samples decoded together [16 in float32, else 1].")
@runs_folder("Where run folders go.")
@click.option("--fetch", is_flag=True, help="Download what backbone, method and metrics name.")
@click.option("--answer", is_flag=True, help="Load the backbone and ask it something.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(
    fetch: bool,
    answer: bool,
    as_json: bool,
    out: Path,
    metric: str,
    python: str,
    **options: Any,
) -> int:
    """Say what is installed, what is there, what is missing, and how to get it.

    Without options: the installation, and whether tiny models answer here as they do elsewhere.
    With the options of a run: whether that run can start, and what it will take. Nothing is
    downloaded without --fetch. The page tells nothing of a data set but counts, and ~ for the
    home folder, so that it can be pasted. Exit code 1: something stands in the way.

    \b
    medbench doctor
    medbench doctor --backbone llava-med-1.5 --fetch
    medbench doctor --metric bertscore,chexbert/labels --fetch
    medbench doctor --backbone llava-med-1.5 --task slake --data DIR --method a3tune+vcd
    """
    from medbench.cell import Request
    from medbench.doctor.asked import look_up

    if answer and not options["backbone"]:
        raise UserError("--answer of what?", "", "Add --backbone SPEC.")
    if fetch and not (metric or any(options[name] for name in ("backbone", "method", "task"))):
        do = "Add --backbone SPEC, --method SPEC, --task SPEC or --metric SPEC."
        raise UserError("--fetch of what?", "", do)
    names = spec.parse_list(metric) if metric else []
    request = Request(out=out, **options)
    asked = look_up(request, metrics=names, python=python)

    from medbench.doctor.examination import examine
    from medbench.doctor.page import lines, verdict

    findings = []
    heading = ""
    for finding in examine(asked, fetch=fetch, answer=answer):
        findings.append(finding)
        if as_json:
            continue
        if finding.section != heading:
            click.secho(f"{chr(10) if heading else ''}{finding.section}", bold=True)
            heading = finding.section
        for line in lines(finding):
            click.secho(line, bold=finding.state == "problem")
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        content = {"problems": problems, "findings": [asdict(one) for one in findings]}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        click.echo(f"\n{verdict(findings)}")
    return 1 if problems else 0
