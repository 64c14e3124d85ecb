"""How many sets and students a comparison needs, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from ddbench.reports.output.number_text import number
from ddbench.reports.output.terminal import hanging, ruled
from ddbench.reports.results.words import counted
from ddbench.reports.tables.how_many import HowMany


def print_terminal(found: Sequence[HowMany], console: Console) -> None:
    """Print, for each table, what designs would show and which see the wanted difference."""
    for one in found:
        console.print(Text(one.table, style="bold"))
        numbers = list(dict.fromkeys(key.partition("×")[2] for key in one.visible))
        drawn = ruled()
        drawn.add_column("sets a method", justify="right")
        for per_set in numbers:
            drawn.add_column(counted(per_set, "student") + " a set", justify="right", no_wrap=True)
        for sets in dict.fromkeys(key.partition("×")[0] for key in one.visible):
            drawn.add_row(sets, *(number(one.visible.get(f"{sets}×{per_set}"), 1) for per_set in numbers))
        console.print(drawn)
        for line in sentences(one):
            console.print(hanging(line, style="dim"))
        console.print()


def sentences(one: HowMany) -> list[str]:
    """What a design needs, and what that rests on."""
    spread = [f"{one.std_over_sets:.2f} over sets"]
    if one.std_over_students is not None:
        spread.append(f"{one.std_over_students:.2f} over students of a set")
    how = "with common seeds" if one.paired else "of independent seeds"
    return [
        "In the table: the smallest true difference, in points, that the 5 % test finds four times in five.",
        _needed(one),
        f"From {one.methods} methods {how}: std {', '.join(spread)}; {one.std_over_test_images:.2f} of a difference "
        f"over draws of the {one.n_test:,} test images, which no number of sets takes away. A method that is noisier "
        "than these needs more.",
    ]


def _needed(one: HowMany) -> str:
    seen = {per_set: sets for per_set, sets in one.sets_needed.items() if sets is not None}
    if not seen:
        return f"To see {one.points:g} points no number of sets is enough: the test images are too few."
    ways = [
        f"{sets} sets × {counted(str(per_set), 'student')} ({sets * per_set} trainings a method)"
        for per_set, sets in seen.items()
    ]
    return f"To see {one.points:g} points: {', or '.join(ways)}."
