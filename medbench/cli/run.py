"""`medbench run`: plan the cells, then load, tune, decode and score what is missing."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medbench import processes, spec
from medbench.cli.options import runs_folder
from medbench.cli.progress import reporting
from medbench.cli.scores import tell_part, tell_run, unscored_lines
from medbench.grid import check_names, seeds_in
from medbench.shard import Shard
from medbench.shard import parse as parse_shard

if TYPE_CHECKING:
    from medbench.cell import Cell, Request


@click.command()
@click.option("--method", required=True, help="Methods: specs or chains, split at commas.")
@click.option("--task", required=True, help="Tasks: specs, split at commas.")
@click.option("--backbone", default="phantom", show_default=True, help="Backbones, likewise.")
@click.option("--data", default="", help="Folder with the task's official files.")
@click.option("--seed", "--seeds", "seeds", default="0", show_default=True, help="0,1,2 or 0-4.")
@click.option("--limit", type=int, help="Only the first N samples of a fixed order.")
@click.option("--batch-size", type=int, help="Samples decoded together [16 in float32, else 1].")
@click.option("--dtype", default="auto", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--preset",
    default="matched",
    show_default=True,
    help="matched: one way to pick tokens for all; published: each method's own.",
)
@click.option("--allow-missing-images", is_flag=True, help="Leave out samples without an image.")
@click.option(
    "--record-steps", is_flag=True, help="Keep the attention of every step, for `medbench view`."
)
@runs_folder("Where run folders go.")
@click.option("--shard", default="", help="Answer one part of the samples: 2/8, second of eight.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what would be done; load no model.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def run(
    method: str,
    task: str,
    backbone: str,
    seeds: str,
    out: Path,
    shard: str,
    plan_only: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run methods on tasks with backbones; what is already there is not done again.

    \b
    medbench run --method a3tune --task phantom
    medbench run --method "lora,lora+vcd[alpha=0.5|1.0]" --task vqa_rad --data DIR --seeds 0-4
    """
    backbones, tasks, methods = map(spec.parse_list, (backbone, task, method))
    numbers = seeds_in(seeds)
    part = parse_shard(shard) if shard else None
    # Every name is looked at before anything heavy: a typo in the last one must not cost minutes.
    check_names(backbones, tasks, methods)
    from medbench.cell import Request

    requests = [
        Request(method=m, task=t, backbone=b, seed=seed, out=out, **options)
        for b, t, m, seed in product(backbones, tasks, methods, numbers)
    ]
    if plan_only:
        _show_plan(requests)
    else:
        _run(requests, part, as_json)


def _run(requests: list[Request], shard: Shard | None, as_json: bool) -> None:
    from medbench.cell import plan
    from medbench.read_splits import Splits

    splits = Splits()
    # What cannot work in the last cell is said before the first one runs. Seeds change nothing
    # about that; and plans are not kept, since each holds all samples of its splits.
    for request in dict.fromkeys(replace(one, seed=0) for one in requests[1:]):
        plan(request, splits)
    load = None
    for number, request in enumerate(requests, start=1):
        cell = plan(request, splits)
        # Only now: data that are not there must not wait for torch.
        from medbench import runner
        from medbench.loading_once import LoadOnce

        load = load or LoadOnce()
        if not processes.leads():
            runner.execute(cell, load=load)
            continue
        _head(cell, number, len(requests))
        with reporting() as report:
            done = runner.execute(cell, load=load, shard=shard, report=report)
        if done.scores:
            tell_run(cell.folder, done.scores, as_json=as_json)
        else:
            tell_part(cell.folder, len(cell.samples), as_json=as_json)


def _head(cell: Cell, number: int, of: int) -> None:
    count = f"[{number}/{of}] " if of > 1 else ""
    shown = cell.display
    click.echo(
        f"{count}{shown['method']} on {shown['task']} with {shown['backbone']}, "
        f"seed {cell.request.seed}, {cell.request.preset}",
        err=True,
    )
    if cell.missing:
        whole = len(cell.every) + len(cell.missing)
        click.echo(f"  partial: {len(cell.missing)} of {whole} samples lack their image", err=True)
    train = cell.adapter.train if cell.adapter else ()
    if train and any("roi" in provider.needs for provider in cell.providers.values()):
        regions = sum(sample.roi is not None for sample in train)
        if regions < len(train):
            click.echo(
                f"  note: {regions} of {len(train)} training samples have a region to align with",
                err=True,
            )
    lacking = {name: [e.what, e.why, e.do] for name, e in cell.unavailable.items()}
    for line in unscored_lines(lacking, "will not be scored"):
        click.echo(f"  {line}", err=True)
    if "roi" in cell.decoder.needs:
        regions = sum(sample.roi is not None for sample in cell.samples)
        if regions < len(cell.samples):
            click.echo(
                f"  note: {regions} of {len(cell.samples)} samples have a region; "
                "the others are decoded without",
                err=True,
            )
    if cell.request.record_steps and cell.decoder.image == "own":
        _tell_steps(cell)
    if cell.request.limit and cell.identity["limit"]:
        click.echo(f"  partial: the first {len(cell.samples)} of {len(cell.every)}", err=True)


def _tell_steps(cell: Cell) -> None:
    """Say how many answers are there already that no steps were recorded of."""
    from medbench import store

    without = sum("steps" not in row for row in store.read_rows(cell.folder))
    if without:
        click.echo(
            f"  note: {without} of {len(cell.samples)} answers are there already, recorded without "
            "steps, and are not made again;\n"
            "        to record their steps name another folder: --out DIR",
            err=True,
        )


def _show_plan(requests: list[Request]) -> None:
    from medbench import store
    from medbench.cell import plan

    for request in requests:
        cell = plan(request)
        store.check(cell.folder, cell.key)
        _head(cell, 1, 1)
        complete = store.read_scores(cell.folder) is not None
        done = len(cell.samples) if complete else len(store.read_rows(cell.folder))
        state = "complete" if complete else f"{len(cell.samples) - done} samples to answer"
        click.echo(f"  {cell.folder}: {done} of {len(cell.samples)} answered, {state}")
        if cell.adapter is not None:
            ready = "trained" if cell.adapter.ready else f"to train on {len(cell.adapter.train)}"
            click.echo(f"  {cell.adapter.folder}: {ready}")
