"""`bench compare`: what it says of planted results, and that it says no more than they show."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ddbench.benchmark.commands.compare import compare_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.reports.output import compare_text
from ddbench.reports.results import rows
from ddbench.reports.tables.compare import Line, compare_methods

N_TEST = 500
rng = np.random.default_rng(0)
EASINESS = rng.random(N_TEST)


def students(lift: float, count: int = 2) -> list[np.ndarray]:
    return [rng.random(N_TEST) < np.clip(EASINESS + lift, 0, 1) for _ in range(count)]


def only_line(folder: Any, *methods: str, margin: float = 1.0) -> Line:
    (line,) = compare_methods(rows.read(folder.out), methods, margin).lines
    return line


def test_a_large_difference_is_found_and_named(folder: Any) -> None:
    folder.method("dmgd", [students(0.25) for _ in range(4)])
    folder.method("dit", [students(0.0) for _ in range(4)])
    line = only_line(folder, "dmgd", "dit")
    assert line.verdict == "dmgd better"
    assert only_line(folder, "dit", "dmgd").verdict == "dmgd better"
    assert line.comparison.difference == pytest.approx(line.accuracy[0] - line.accuracy[1])
    assert line.bootstrap is not None
    assert line.bootstrap[0] > 0
    assert len(line.student_pairs) == 8
    assert all(pair.p_value < 0.05 and pair.only_a > pair.only_b for pair in line.student_pairs)
    assert len(line.classes) == 10
    assert np.mean([one.difference for one in line.classes]) == pytest.approx(line.comparison.difference)


def test_equal_students_are_equivalent_and_what_varies_is_said(folder: Any) -> None:
    same = [[EASINESS > 0.5, EASINESS > 0.5] for _ in range(3)]
    folder.method("dmgd", same)
    folder.method("dit", same)
    line = only_line(folder, "dmgd", "dit")
    assert line.verdict == "equivalent"
    assert line.spread[0].sets == line.spread[0].students == 0.0
    share = 100 * (EASINESS > 0.5)
    assert line.spread[0].test_images == pytest.approx(np.std(share, ddof=1) / np.sqrt(N_TEST))


def test_one_set_each_is_not_tested(folder: Any) -> None:
    folder.method("dmgd", [students(0.25)])
    folder.method("dit", [students(0.0)])
    line = only_line(folder, "dmgd", "dit")
    assert (line.verdict, line.p_holm, line.p_equivalent, line.visible) == ("not tested", None, None, None)


def test_correction_counts_all_lines(folder: Any) -> None:
    for name in ("dmgd", "dit", "random"):
        folder.method(name, [students(0.0) for _ in range(3)])
        folder.method(name, [students(0.0) for _ in range(3)], ipc=1)
    lines = compare_methods(rows.read(folder.out), ["dmgd", "dit", "random"], 1.0).lines
    assert len(lines) == 4  # two tables, two pairs with the first
    smallest = min(lines, key=lambda line: line.comparison.p_value or 1.0)
    assert smallest.comparison.p_value is not None
    assert smallest.p_holm == pytest.approx(min(1.0, 4 * smallest.comparison.p_value))


def test_what_cannot_be_compared_is_said(folder: Any) -> None:
    folder.method("dmgd", [students(0.0)])
    folder.method("dit", [students(0.0)], ipc=1)
    found = rows.read(folder.out)
    with pytest.raises(UsageError, match="no results of nonesuch; there are some of dit, dmgd"):
        compare_methods(found, ["dmgd", "nonesuch"], 1.0)
    with pytest.raises(UsageError, match="no table has finished students of two of dmgd, dit"):
        compare_methods(found, ["dmgd", "dit"], 1.0)
    with pytest.raises(UsageError, match="two or more different methods"):
        compare_methods(found, ["dmgd", "dmgd"], 1.0)
    with pytest.raises(UsageError, match="--margin 0"):
        compare_methods(found, ["dmgd", "dit"], 0.0)
    for beyond in (100.5, 1e308, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="expected points above 0, up to 100"):
            compare_methods(found, ["dmgd", "dit"], beyond)


def test_the_command_prints_verdicts_and_power(folder: Any) -> None:
    folder.method("dmgd", [students(0.25) for _ in range(3)])
    folder.method("dit", [students(0.0) for _ in range(3)])
    ran = CliRunner().invoke(compare_app, ["dmgd", "dit", "--runs", str(folder.out)])
    assert ran.exit_code == 0, ran.output
    words = " ".join(ran.output.split())
    assert "dmgd against dit: 1 win" in words
    assert "with 500 test images and 3 sets, a true difference below" in words
    as_json = CliRunner().invoke(compare_app, ["dmgd", "dit", "--runs", str(folder.out), "--json"])
    assert '"p_holm"' in as_json.output


def test_with_unequal_seeds_the_numbers_add_up_and_say_what_is_left_out(folder: Any) -> None:
    lucky = [students(lift) for lift in (0.0, 0.05, 0.3)]  # the third seed is dmgd's alone
    folder.method("dmgd", lucky)
    folder.method("dit", [students(0.0) for _ in range(2)])
    line = only_line(folder, "dmgd", "dit")
    assert (line.sets, line.sets_left_out) == ((2, 2), (1, 0))
    assert line.accuracy[0] - line.accuracy[1] == pytest.approx(line.comparison.difference)
    assert line.accuracy[0] == pytest.approx(100 * np.mean(lucky[:2]))
    assert np.mean([one.difference for one in line.classes]) == pytest.approx(line.comparison.difference)
    printed = CliRunner().invoke(compare_app, ["dmgd", "dit", "--runs", str(folder.out)]).output
    assert "left out, since the other has no set of their seeds: 1 of dmgd and 0 of dit" in " ".join(printed.split())


@pytest.mark.parametrize("width", [60, 70, 80, 100, 120, 160])
@pytest.mark.parametrize("name", ["dmgd[ot_scale=0.05,semantic_window=0.75]", "dmgd"])
def test_on_a_narrow_terminal_names_numbers_and_verdicts_stay(folder: Any, width: int, name: str) -> None:
    """At 80 columns neither the methods nor the verdict could be seen, and numbers were cut."""
    folder.method(name, [students(0.25) for _ in range(4)])
    folder.method("mgd3-minimax", [students(0.0) for _ in range(4)])
    console = Console(file=io.StringIO(), width=width, highlight=False)
    report = compare_methods(rows.read(folder.out), [name, "mgd3-minimax"], 1.0)
    compare_text.print_terminal(report, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    table = shown[: shown.index("\n- ")]
    assert "…" not in table.replace(" … ", "")
    assert max(map(len, table.splitlines())) <= width
    rule = next(number for number, text in enumerate(table.splitlines()) if text.startswith("──"))
    below = "".join(text.split("   ")[0].strip() for text in table.splitlines()[rule + 1 :])
    assert below.replace(" ", "") == f"{name}−mgd3-minimax".replace(" ", "")
    (line,) = report.lines
    assert f"{line.comparison.difference:+.2f}" in table
    assert "better" in table
    assert ("Too narrow for: " in shown) == ("p equivalent" not in table)
