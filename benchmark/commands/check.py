"""`bench check`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console

from ddbench.benchmark.commands.options import AsJson, Plugins

check_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@check_app.command()
def check(
    methods: Annotated[
        list[str],
        typer.Argument(metavar="NAME|FILE…", help="A method, a plugin file with some, or all."),
    ],
    set_values: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: a parameter of the methods that have it.")
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Does a method keep its contract? Small runs on the CPU, with reasons; exit code 1 if a check fails.

    All runs are on a small part of the embedded digits, whose test images are canaries.
    """
    import json

    from ddbench.benchmark.check import report as check_report
    from ddbench.benchmark.check.canary import Planted
    from ddbench.benchmark.check.check import check_method, named
    from ddbench.benchmark.commands.reading import console
    from ddbench.benchmark.core.registry import METHODS, load_plugin
    from ddbench.benchmark.planning.run_spec import assignments

    for file in plugin or []:
        load_plugin(file)
    given = assignments(set_values or [])
    found = named(methods, given)
    planted, reports = Planted(), []
    progress = Console(emoji=False, stderr=True, highlight=False)
    for name, params in found:
        with _printing_aside():
            reports.append(check_method(name, params, planted))
        if len(found) > 1:
            progress.print(check_report.last_line(reports[-1]), markup=False, soft_wrap=True)
    unavailable = dict(METHODS.broken) if "all" in methods else {}
    if as_json:
        print(json.dumps(check_report.as_json(reports, unavailable), indent=1, ensure_ascii=False))
    else:
        check_report.show(reports, unavailable, console())
    if unavailable or any(report.failed for report in reports):
        raise typer.Exit(1)


@contextlib.contextmanager
def _printing_aside() -> Iterator[None]:
    """What a method under check prints, or a program that it starts, goes to standard error: the other is ours."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(ours, 1)
        os.close(ours)
