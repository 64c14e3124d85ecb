"""`bench env`."""

from __future__ import annotations

import json

import typer
from rich.console import Console

from ddbench.benchmark.commands.options import AsJson

env_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@env_app.command()
def env(as_json: AsJson = False) -> None:
    """What results from this machine will say of it: versions, hardware, source revision."""
    import torch  # noqa: F401 - the determinism flags are torch's

    from ddbench.benchmark.commands.list import show_mapping
    from ddbench.benchmark.core import environment

    captured = environment.capture()
    if as_json:
        print(json.dumps(captured, indent=1))
    else:
        show_mapping(captured, Console(emoji=False))
