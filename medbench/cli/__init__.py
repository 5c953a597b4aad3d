"""The command line: the verbs, what each mistake prints, and the exit codes.

Exit codes: 0 done, 1 worse or incomplete, 2 asked wrongly, 130 interrupted.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import click

from medbench import __version__
from medbench.errors import ToldError, UserError

# Verb -> (module:command, one line for --help). Only the verb asked for is imported.
VERBS = {
    "run": (
        "medbench.cli.run:run",
        "Run methods on tasks with a backbone; go on where it stopped.",
    ),
    "sweep": (
        "medbench.cli.sweep:sweep",
        "Run a whole grid of runs, here or on a cluster.",
    ),
    "rescore": (
        "medbench.cli.rescore:rescore",
        "Score finished runs again, or by further metrics.",
    ),
    "import": (
        "medbench.cli.import_:import_",
        "Score answers that another program wrote, or take in an exported run.",
    ),
    "export": (
        "medbench.cli.export:export",
        "Pack a run into one file; write samples as Parquet or CSV.",
    ),
    "table": ("medbench.cli.table:table", "Print the runs found as methods x tasks."),
    "compare": ("medbench.cli.compare:compare", "Compare two methods question by question."),
    "check": ("medbench.cli.check:check", "Say whether runs are worse than a baseline."),
    "plot": ("medbench.cli.plot:plot", "Draw figures: ablations, attention, cost."),
    "view": ("medbench.cli.view:view", "Write a page of samples, answers and attention."),
    "data": ("medbench.cli.data:data", "Check and describe a download; unpack its archives."),
    "labels": (
        "medbench.cli.labels:labels",
        "Compute a task's weak labels ahead; count them, show them.",
    ),
    "backbone": ("medbench.cli.backbone:backbone", "Write checkpoints in other formats."),
    "doctor": (
        "medbench.cli.doctor:doctor",
        "Say what stands in the way of a run, and what to do about it.",
    ),
    "list": (
        "medbench.cli.list:list_",
        "List methods, tasks, backbones, metrics, providers, runs.",
    ),
    "show": ("medbench.cli.show:show", "Describe a method, task, backbone, metric or provider."),
    "new": ("medbench.cli.new:new", "Begin a method or a task: write its file and its test."),
}


class LazyGroup(click.Group):
    """A click group whose commands stand in `VERBS` and are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of `VERBS`."""
        # Not list(VERBS): once `medbench list` is imported, that name is its module here.
        return [*VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs' lines without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names.

        Raises:
            UserError: there is no such verb.
        """
        if args[0] not in VERBS and not args[0].startswith("-"):
            from medbench.plugins import close

            raise UserError(f"no verb '{args[0]}'", close(args[0], VERBS), "See: medbench --help")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="VERB [ARGUMENTS]",
    epilog="\b\nFor a start: medbench run --method greedy,vcd --task phantom --backbone phantom",
)
@click.version_option(__version__, message="medbench %(version)s")
def cli() -> None:
    """Measure what hallucination mitigation does to a medical vision-language model."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: the words after `medbench`; those of the process by default.
    """
    try:
        code = cli.main(arguments, prog_name="medbench", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except UserError as error:
        return _refuse(error)
    except click.ClickException as error:
        return _refuse(_as_user_error(error))
    except click.Abort:
        click.echo("Interrupted. Run the same command again to go on.", err=True)
        return 130
    return code if isinstance(code, int) else 0


def _refuse(error: UserError) -> int:
    for line in [] if isinstance(error, ToldError) else error.lines():
        click.echo(line, err=True)
    return 2


def _as_user_error(error: click.ClickException) -> UserError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    do = f"See: {context.command_path} --help" if context else ""
    if isinstance(error, click.NoSuchOption):
        names = error.possibilities or ()
        why = f"Did you mean {' or '.join(sorted(names))}?" if names else ""
        return UserError(f"no option '{error.option_name}'", why, do)
    return UserError(error.format_message(), "", do)
