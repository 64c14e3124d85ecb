"""Sub-commands that are listed from the registry and imported only when one is used.

`typer.Typer(cls=LazyCommands)` gives the application's own commands and those that packages register (`COMMANDS`),
such as `bench leaderboard`. `--help` and shell completion of names read the registered summaries and import nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ddbench.benchmark.core.registry import COMMANDS, Entry

AT_HOME = re.compile(r"(--[\w-]+=)?(~(?:/.*)?)", re.DOTALL)


class _Listed(TyperCommand):
    """Stands for a command in listings; `resolve_command` puts the real one in its place."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name, help=entry.summary, short_help=entry.summary)


class LazyCommands(TyperGroup):
    """A group with the registered commands behind its own. A registered name cannot displace one of its own."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for entry in COMMANDS:
            if entry.name in self.commands:
                COMMANDS.broken[entry.name] = f"{entry.origin}: the command line has a command of that name"
            else:
                self.commands[entry.name] = _Listed(entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that `args` names, imported if it is a registered one; used to run, for its help, to complete.

        Raises:
            UsageError: importing it failed.
        """
        name, command, rest = super().resolve_command(ctx, list(map(_at_home, args)))
        if isinstance(command, _Listed) and command.name is not None:
            command = typer.main.get_command(COMMANDS.load(command.name))
            command.name = name
        return name, command, rest


def _at_home(word: str) -> str:
    """With the user's folder for a leading `~`, which shells leave in `--out=~/x`: a folder called ~ would be made."""
    match = AT_HOME.fullmatch(word)
    return word if match is None else f"{match[1] or ''}{Path(match[2]).expanduser()}"
