"""``bench`` is a command and a group: ``bench FILE`` measures, ``bench compare`` compares."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from toolkit.cli.bench.compare import compare
from toolkit.cli.bench.run import bench
from toolkit.cli.flags import grouped


class RunOrCommand(TyperGroup):
    """Runs itself, with options after its arguments, unless the first word is a command of it."""

    allow_extra_args = False
    allow_interspersed_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Click's hook: a command's words are its own to parse."""
        if args and args[0] in self.commands:
            ctx.invoked_subcommand, *ctx.args = args
            return list(ctx.args)
        return super(TyperGroup, self).parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Click's hook after parsing."""
        name = ctx.invoked_subcommand
        if name is None:
            return super(TyperGroup, self).invoke(ctx)
        # As a child of this context the command would show this one's FILE in its usage.
        path = f"{ctx.info_name} {name}"
        with self.commands[name].make_context(path, ctx.args, parent=ctx.parent) as below:
            return below.command.invoke(below)


def register(app: typer.Typer) -> None:
    """Add the command and those below it."""
    group = typer.Typer(cls=RunOrCommand, subcommand_metavar="| COMMAND ...")
    group.callback()(grouped(bench))
    group.command("compare")(compare)
    app.add_typer(group, name="bench")
