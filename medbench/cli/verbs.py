"""Verbs of verbs, such as `medbench data check`."""

from __future__ import annotations

import click

from medbench import plugins
from medbench.errors import UserError


class Verbs(click.Group):
    """A group whose mistyped verbs are answered as medbench's own."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names.

        Raises:
            UserError: there is no such verb.
        """
        if args[0] not in self.commands and not args[0].startswith("-"):
            close = plugins.close(args[0], self.commands)
            see = f"See: {ctx.command_path} --help"
            raise UserError(f"no verb '{args[0]}' of {ctx.command_path}", close, see)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs with the whole first lines of their descriptions."""
        with formatter.section("Verbs"):
            lines = {name: (one.help or "").split("\n")[0] for name, one in self.commands.items()}
            formatter.write_dl(list(lines.items()))
