"""The command line. Every verb is a file of its own and imported when it is used, so that help answers at once."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.markup import escape

from ddbench.benchmark.commands.lazy_commands import LazyCommands
from ddbench.benchmark.commands.streams import mend_standard_streams
from ddbench.benchmark.core.errors import RunError, UsageError

app = typer.Typer(
    name="bench",
    cls=LazyCommands,
    help="A benchmark of dataset distillation: run methods, train students under a fixed protocol, read leaderboards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def bench() -> None:
    """The commands are registered as data (builtin.py); this makes a group of them."""


def main() -> None:
    """Entry point of `bench`: problems become one message and an exit code, 2 for usage, 1 for failure."""
    mend_standard_streams()
    from ddbench.benchmark.core.store import OUTSIDE_CAUSES

    try:
        app()
    except UsageError as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        # The reader of our output went away (`bench list methods | head`); that is no failure of ours.
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:  # an author's own code may raise anything; what is ours is raised on
        if isinstance(error, OSError) and error.errno in OUTSIDE_CAUSES:
            what = error.filename or "standard output, or a file that the system does not name"
            _fail(f"{error.strerror}: {what}", 1)
        from ddbench.benchmark.commands.authors_code import failure

        if (told := failure(error)) is None:
            raise
        _fail(told, 1)


def _fail(message: str, code: int) -> None:
    from ddbench.reports.results.rows import printable

    console = Console(emoji=False, stderr=True)
    lines = printable(message).splitlines() or ["failed without a message"]
    console.print(f"[bold red]error:[/] {escape(lines[0])}", highlight=False, soft_wrap=True)
    for line in lines[1:]:
        console.print(f"       {escape(line)}", highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
