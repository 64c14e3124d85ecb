"""`bench merge`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ddbench.benchmark.commands import reading
from ddbench.benchmark.commands.options import DataFolder, Plugins
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import load_plugin
from ddbench.reports.results.words import counted

if TYPE_CHECKING:
    from ddbench.benchmark.transfer.merge import Merged

merge_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@merge_app.command()
def merge(
    bundles: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Bundles, as `bench bundle` makes them.")],
    runs: Annotated[Path, typer.Option("--runs", help="Results folder; made if it is not there.")] = Path("runs"),
    data: DataFolder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check them and say what would be merged.")] = False,
    plugin: Plugins = None,
) -> None:
    """Take over results from bundles that others have made, once they are checked.

    A bundle with anything wrong in it is refused as a whole; the others are merged. What lies in the results folder
    already is never replaced. Exit status 1 if a bundle was refused, or contradicts what is here.
    """
    from ddbench.benchmark.core.store import Store
    from ddbench.benchmark.transfer.data_at_hand import DataAtHand
    from ddbench.benchmark.transfer.merge import merge as merge_one

    for file in plugin or []:
        load_plugin(file)
    screen, at_hand, refused, conflicts = reading.console(), DataAtHand(data), list[str](), 0
    for bundle in bundles:
        try:
            with reading.progress() as progress:
                merged = merge_one(
                    bundle,
                    Store(runs),
                    data=at_hand,
                    dry_run=dry_run,
                    done=partial(progress, f"checking {bundle.name}"),
                )
        except (UsageError, RunError) as error:
            refused.append(str(error))
        else:
            _show(merged, screen, dry_run=dry_run)
            conflicts += len(merged.conflicts)
    if refused:
        raise RunError("\n".join(refused))
    if conflicts:
        raise typer.Exit(1)


def _show(merged: Merged, screen: Console, *, dry_run: bool) -> None:
    def say(text: str) -> None:
        screen.print(text, markup=False, soft_wrap=True)

    by = "" if merged.origin.by is None else f" by {merged.origin.by}"
    say(f"{merged.bundle}{by}, SHA-256 {merged.origin.sha256}")
    new = f"{counted(len(merged.added), 'cell')} and {counted(merged.sets, 'set')}"
    say(f"  {'would be merged' if dry_run else 'merged'}: {new}")
    for many, what in (
        (merged.same, "here already"),
        (merged.agreeing, "run here too, with the same numbers; ours stay"),
        (merged.unfinished, "begun here and not finished; ours stay"),
    ):
        if many:
            say(f"  {what}: {counted(len(many), 'cell')}")
    for why, cells in _by_reason(merged).items():
        say(f"  not verified, {why}: {counted(cells, 'cell')}")
    for conflict in merged.conflicts:
        screen.print(f"  [red]conflict, ours stays:[/] {escape(conflict)}", soft_wrap=True)


def _by_reason(merged: Merged) -> dict[str, int]:
    """What could not be recomputed -> of how many cells."""
    found: dict[str, int] = {}
    for finding in merged.proof.findings:
        why = f"{finding.what}: {finding.why}"
        found[why] = found.get(why, 0) + 1
    return found
