"""docs/columns.md from the models' own words: `python -P tests/reports/columns_document.py > docs/columns.md`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Sequence

from ddbench.reports.quality.frames import QUALITY
from ddbench.reports.quality.measures import MEASURES
from ddbench.reports.results.columns import Columns
from ddbench.reports.results.frames import SETS, STUDENTS
from ddbench.reports.robustness.frames import ROBUSTNESS
from ddbench.reports.tables.frames import COMPARISON, COSTS, LEADERBOARD

HEAD = """# Columns

What every column of the data frames, of CSV and of Parquet files means. Units are in the names; accuracies are percent,
differences and standard deviations percent points. Lists are joined to a text with `; `. A value that is missing is NA
in a data frame, null in Parquet and empty in CSV. Types are pandas': a column has one type in every file.

This page is written from the models' own words by `python -P tests/reports/columns_document.py`; a test holds that.
"""
FRAMES = (
    ("Students", "`ddbench.results(folder)`: one row per student that was asked for or is there.", STUDENTS),
    ("Distilled sets", "`ddbench.sets(folder)`: one row per distilled set, made here or elsewhere.", SETS),
    (
        "Leaderboards",
        "`ddbench.leaderboard(folder)`, `bench leaderboard --format csv` or `--to board.parquet`: one row per row of "
        "every table.",
        LEADERBOARD,
    ),
    (
        "Leaderboards by cost",
        "`ddbench.costs(folder)`, `bench leaderboard --by cost` or `--by bytes` with `--format csv` or `--to "
        "costs.parquet`: one row per row of every table.",
        COSTS,
    ),
    (
        "Comparisons",
        "`ddbench.compare(folder, a, b)`: one row per pair of methods and table, first minus second.",
        COMPARISON,
    ),
    (
        "Robustness",
        "`ddbench.robustness(folder)`, `bench robust --format csv`: one row per method, table and shifted test set.",
        ROBUSTNESS,
    ),
    ("Quality", "`bench quality --format csv`: one row per row of the measured tables.", QUALITY),
)


def meanings(model: type) -> dict[str, str]:
    """The text under each field of a class and of those that it is made from, on one line."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if not one.__module__.startswith("ddbench."):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def described(parts: Sequence[Columns]) -> list[tuple[str, str, str]]:
    """(name, type, meaning) of each column."""
    found = []
    for part in parts:
        said = meanings(part.model)
        of = f"{part.prefix.replace('_', ' ').strip()}: " if part.prefix else ""
        for column in part:
            meaning = said.get(column.field, "")
            found.append((column.name, column.dtype, of + meaning if meaning else ""))
    return found


def document() -> str:
    blocks = [HEAD]
    for title, what, parts in FRAMES:
        lines = [f"## {title}", what, "", "| column | type | meaning |", "|:--|:--|:--|"]
        lines += [f"| `{name}` | {dtype} | {meaning.replace('|', '/')} |" for name, dtype, meaning in described(parts)]
        blocks.append("\n".join(lines) + "\n")
    measures = [f"| `{measure.key}` | {measure.unit} | {measure.what} |" for measure in MEASURES]
    blocks.append(
        "\n".join(
            [
                "A measure has two columns, `<measure>_mean` and `<measure>_std` (Float64).",
                "",
                "| measure | unit | meaning |",
                "|:--|:--|:--|",
                *measures,
            ]
        )
        + "\n"
    )
    return "\n".join(blocks)


if __name__ == "__main__":
    print(document(), end="")
