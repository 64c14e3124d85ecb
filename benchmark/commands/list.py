"""`bench list`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddbench.benchmark.commands.options import AsJson, Plugins
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import load_plugin
from ddbench.benchmark.planning.listing import REGISTRIES, in_full, rows, unavailable

list_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@list_app.command("list")
def list_(
    kind: Annotated[
        Literal["methods", "datasets", "protocols", "networks", "priors", "studies", "engines", "sets"],
        typer.Argument(help="What to list."),
    ],
    name: Annotated[str | None, typer.Argument(help="One of them, in full: its parameters, defaults, classes.")] = None,
    not_here: Annotated[
        bool, typer.Option("--unavailable", help="Names that papers use and that are not here, and why.")
    ] = False,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """What there is to run, run on, and be judged by."""
    for file in plugin or []:
        load_plugin(file)
    if not_here:
        _show_unavailable(kind, name, Console(emoji=False), as_json=as_json)
    elif as_json:
        print(json.dumps(rows(kind) if name is None else in_full(kind, name), indent=1, ensure_ascii=False))
    elif name is None:
        _show(kind, Console(emoji=False))
    else:
        _show_one(kind, name, Console(emoji=False))


def _show(kind: str, console: Console) -> None:
    listed = rows(kind)
    table = Table("name", "what it is", box=None, padding=(0, 2, 0, 0), header_style="bold")
    with_tags = any(row.get("tags") for row in listed)
    if with_tags:
        table.add_column("tags", overflow="fold")
    for row in listed:
        what = f"[red]unavailable:[/] {escape(row['unavailable'])}" if "unavailable" in row else escape(row["summary"])
        tags = [", ".join(row.get("tags", []))] if with_tags else []
        table.add_row(escape(row["name"]), what, *tags)
    console.print(table)
    if kind in REGISTRIES:
        console.print(f"`bench list {kind} NAME` shows one of them in full.", style="dim", highlight=False)
    if count := len(unavailable(kind)):
        hint = f"{count} names that papers use are not here: `bench list {kind} --unavailable` says why."
        console.print(hint, style="dim", highlight=False)


def _show_unavailable(kind: str, name: str | None, console: Console, *, as_json: bool) -> None:
    known = unavailable(kind)
    if name is not None:
        if name not in known:
            raise UsageError(
                f"no {kind[:-1]} {name!r} is known to be unavailable; `bench list {kind}` has what is here"
            )
        known = {name: known[name]}
    if as_json:
        print(json.dumps(known, indent=1, ensure_ascii=False))
        return
    table = Table("name", "why it is not here", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for each, why in known.items():
        table.add_row(escape(each), escape(why))
    console.print(table if known else f"No {kind} are known that are not here.")


def _show_one(kind: str, name: str, console: Console) -> None:
    full = in_full(kind, name)
    parameters = full.pop("parameters", None)
    show_mapping(full, console)
    if parameters:
        table = Table("parameter", "default", "what it is", title=f"Parameters of {name}", title_justify="left")
        for parameter in parameters:
            table.add_row(parameter["name"], json.dumps(parameter["default"]), escape(parameter["description"]))
        console.print(table)


def show_mapping(values: Mapping[str, Any], console: Console) -> None:
    """Nested mappings as an indented list."""
    for line in _lines(values, ""):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(values: Mapping[str, Any], indent: str) -> Iterable[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield f"{indent}{key}:"
            for item in value:
                yield f"{indent}  - " + ", ".join(f"{k} {v}" for k, v in item.items())
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            yield f"{indent}{key}: {'–' if value is None or value == [] or value == {} else text}"
