"""`bench new-method`: a plugin file with a method that runs as it is, and its test."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from string import Template
from typing import Annotated

import typer
from rich.console import Console

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS

new_method_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
TEMPLATES = Path(__file__).with_name("templates")


@new_method_app.command("new-method")
def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What tables call it: small-letters-and-hyphens.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The plugin file to write.", show_default="NAME.py, with _ for -"),
    ] = None,
) -> None:
    """Write a new method's plugin file, which runs as it is, and a test for it."""
    plugin, test = write(name, out)
    Console(emoji=False).print(next_steps(name, plugin, test), markup=False, highlight=False, soft_wrap=True)


def write(name: str, out: Path | None) -> tuple[Path, Path]:
    """Write the plugin file and its test beside it; returns both paths.

    Raises:
        UsageError: a name that cannot be one or is taken, or a file that is there already; then nothing is written.
    """
    usual = f"{name.replace('-', '_')}.py"
    plugin = out or Path(usual)
    test = plugin.with_name(f"test_{plugin.name}")
    if NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r}: expected a name of small letters, digits and single hyphens, like mean-shift")
    if name in METHODS.entries():
        raise UsageError(f"there is a method {METHODS.entry(name)}; choose another name")
    if plugin.suffix != ".py" or not plugin.stem.isidentifier():
        raise UsageError(f"--out {plugin}: expected a Python file whose name can be imported, like {usual}")
    if plugin.stem in sys.stdlib_module_names:
        raise UsageError(f"{plugin.name} would hide Python's own module {plugin.stem}; name another with --out")
    if not plugin.parent.is_dir():
        raise UsageError(f"--out {plugin}: there is no folder {plugin.parent}")
    there = [str(path) for path in (plugin, test) if path.exists()]
    if there:
        raise UsageError(f"{' and '.join(there)}: there already, and not overwritten; name another file with --out")
    words = name.split("-")
    fields = {
        "name": name,
        "title": " ".join(words).capitalize(),
        "class_name": "".join(word.capitalize() for word in words),
        "plugin": plugin.name,
    }
    for file, template in ((plugin, "method.py.txt"), (test, "test_method.py.txt")):
        file.write_text(Template((TEMPLATES / template).read_text()).substitute(fields))
    return plugin, test


def next_steps(name: str, plugin: Path, test: Path) -> str:
    """What to do with the files, as commands."""
    return (
        f"Wrote {plugin} and {test}. They run as they are:\n"
        f"  bench check {plugin}\n"
        f"  python -m pytest {test}\n"
        f"  bench run --plugin {plugin} --method {name},random,full --dataset digits --ipc 1,10"
    )
