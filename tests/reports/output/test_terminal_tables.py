"""Long tables look as rich's do, character by character and colour by colour."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from ddbench.reports.output.terminal import print_table, ruled


def table(rows: list[tuple[Text | str, ...]]) -> Any:
    made = ruled()
    made.add_column("state", no_wrap=True)
    made.add_column("method", overflow="fold", min_width=12)
    made.add_column("IPC", justify="right", no_wrap=True)
    made.add_column("", overflow="fold")
    for number, row in enumerate(rows):
        made.add_row(*row, style="bold" if number == 1 else "")
    return made


ROWS: list[tuple[Text | str, ...]] = [
    (Text("ok", "green"), Text("dmgd"), "1", Text("70.00 %")),
    (Text("failed", "red"), Text("a method with [brackets]"), "1000", Text("")),
    (Text("absent", "dim"), Text("蒸留 naïve"), "–", Text("e\N{COMBINING ACUTE ACCENT}poch 1/40")),
]


def drawn(draw: Any, width: int) -> list[tuple[str, str]]:
    """What reaches the console: each character with its style."""
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system="standard")
    draw(console)
    text = Text.from_ansi(console.file.getvalue())  # type: ignore[attr-defined]
    return [(letter, str(text.get_style_at_offset(console, place))) for place, letter in enumerate(text.plain)]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], []], ids=["several", "one", "none"])
@pytest.mark.parametrize("width", [30, 47, 48, 49, 50, 51, 52, 53, 54, 55, 100, 160])
def test_it_is_what_rich_prints(rows: list[tuple[Text | str, ...]], width: int) -> None:
    def ours(console: Console) -> None:
        print_table(table(rows), console)

    def richs(console: Console) -> None:
        console.print(table(rows))

    seen, expected = drawn(ours, width), drawn(richs, width)
    assert "".join(letter for letter, _ in seen) == "".join(letter for letter, _ in expected)
    coloured = [(letter, style) for letter, style in seen if letter.strip() and style != "none"]
    assert coloured == [(letter, style) for letter, style in expected if letter.strip() and style != "none"]


def test_a_row_of_two_lines_is_left_to_rich() -> None:
    rows: list[tuple[Text | str, ...]] = [(Text("ok"), Text("one\ntwo"), "1", Text(""))]
    assert drawn(lambda console: print_table(table(rows), console), 100) == drawn(
        lambda console: console.print(table(rows)), 100
    )


def test_the_status_of_a_folder_needs_no_statistics() -> None:
    code = (
        "import sys, ddbench.reports.output.status; print([name for name in ('scipy', 'torch') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
