"""Every figure that some leaderboards give, as files."""

from __future__ import annotations

from pathlib import Path

from ddbench.benchmark.core.files import write_atomically
from ddbench.reports.output.captions import families
from ddbench.reports.output.figures.across_tables import against_ipc, against_papers
from ddbench.reports.output.figures.per_table import accuracy, against_cost
from ddbench.reports.output.figures.style import WIDTHS, save, style
from ddbench.reports.output.formats import escaped
from ddbench.reports.results.words import numbered
from ddbench.reports.tables.views import Leaderboard


def draw_all(board: Leaderboard, folder: Path, width: str) -> tuple[list[Path], list[str]]:
    """Write every figure that these leaderboards give, as SVG and PDF, and `captions.md`.

    Args:
        width: `column` or `page` (`style.WIDTHS`).

    Returns:
        (files, why there are not more).
    """
    folder.mkdir(parents=True, exist_ok=True)
    inches, files, said = WIDTHS[width], list[Path](), list[str]()
    with style():
        tables = [table for table in board.tables if any(row.acc_last for row in table.rows)]
        made = [
            *(accuracy(table, inches) for table in tables),
            *(against_cost(table, inches) for table in tables),
            *(against_ipc(some, inches) for some in families(tables)),
            against_papers(tables, inches),
        ]
        drawings = [one for one in made if not isinstance(one, str)]
        for drawing, name in zip(drawings, numbered([drawing.name for drawing in drawings]), strict=True):
            files += save(drawing.figure, folder, name)
            said.append(f"**{escaped(name)}.** {escaped(drawing.caption)}")
    if said:
        write_atomically(folder / "captions.md", "\n\n".join(said) + "\n")
        files.append(folder / "captions.md")
    return files, [reason for reason in made if isinstance(reason, str)]
