"""Options of the commands that run cells, made from the fields of `RunSpec`, where they are declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from ddbench.benchmark.planning.run_spec import RunSpec, assignments

SPELLINGS = {
    "methods": ("--method", "-m"),
    "datasets": ("--dataset", "-d"),
    "jobs": ("--jobs", "-j"),
    "plugins": ("--plugin",),
}
"""Options that are not spelled as their field is."""

Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help=RunSpec.model_fields["plugins"].description)]
Split = Annotated[
    str | None, typer.Option("--split", help=RunSpec.model_fields["split"].description, show_default="its first")
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder or archive with the dataset's files.",
        show_default="$DDBENCH_DATA, else what `bench prepare` found",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the cells and which of them exist; run nothing.")]


def run_options(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put the options of `RunSpec` in the place of a command's parameter `given`, which gets those that the user gave.

    Args:
        without: fields that the command has no option for, or one of its own.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        fields = {name: field for name, field in RunSpec.model_fields.items() if name not in without}
        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command, eval_str=True).parameters.values():
            parameters += [_parameter(*field) for field in fields.items()] if own.name == "given" else [own]

        @functools.wraps(command)
        def called(**values: Any) -> None:
            said = {name: values.pop(name) for name in fields}
            given = {name: value for name, value in said.items() if value is not None and value is not False}
            if "set" in given:
                given["set"] = assignments(given["set"])
            command(given=given, **values)

        annotations = {parameter.name: parameter.annotation for parameter in parameters}
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = annotations
        return called

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """The option of a field. Its value is left to `RunSpec` to judge, so that everything wrong is told at once."""
    flag = field.annotation is bool
    default = field.get_default(call_default_factory=True)
    option = typer.Option(
        *SPELLINGS.get(name, (f"--{name.replace('_', '-')}",)),
        help=escape(field.description or ""),
        show_default=False if flag or default in (None, {}, []) or field.is_required() else str(default),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=False if flag else None,
        annotation=Annotated[bool if flag else _type(field.annotation), option],
    )


def _type(annotation: Any) -> Any:
    """What the command line parses: numbers and paths as such; lists of numbers, choices and the rest as text."""
    kinds = {annotation, *get_args(annotation)}
    if get_origin(annotation) is dict or list[str] in kinds:
        return list[str] | None
    if list[Path] in kinds:
        return list[Path] | None
    return next((kind | None for kind in (Path, float, int) if kind in kinds), str | None)
