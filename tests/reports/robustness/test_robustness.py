"""How accuracy falls on shifted test sets, from results whose numbers are known."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from shifted_looks import FOG, V2, foggy, look, record, with_looks
from typer.testing import CliRunner

from ddbench.benchmark.commands.robust import robust_app
from ddbench.benchmark.core.store import Launch
from ddbench.reports.results import rows
from ddbench.reports.results.groups import group
from ddbench.reports.robustness import table, text
from ddbench.reports.robustness.frames import robustness_frame


@pytest.fixture
def filled(folder: Any) -> Any:
    return with_looks(folder)


def test_means_drops_and_the_drop_beside_randoms(filled: Any) -> None:
    (found,) = table.build(rows.read(filled.out)).tables
    herding, random = found.rows
    assert (herding.method, random.method) == ("herding", "random")  # by accuracy on the shifted images
    assert found.test_on == "imagenet-c-made[corruption=frost,fog,severity=1,5]"
    assert (found.n_conditions, found.n_images, found.n_classes) == (4, 500, 10)
    assert random.clean is not None
    assert random.shifted is not None
    assert random.drop is not None
    assert herding.drop is not None
    assert (random.clean.mean, random.shifted.mean, random.shifted.n) == (65, 40, 2)
    assert random.shifted.std == pytest.approx(50**0.5)
    assert (random.drop.mean, random.drop.std) == (25, 0)
    assert (herding.drop.mean, herding.drop.std) == (35.5, pytest.approx(0.5**0.5))
    assert (herding.drop_beside_random, random.drop_beside_random) == (10.5, 0)
    assert herding.kept_percent == pytest.approx(100 * 45.5 / 81)
    assert random.by_corruption == {"frost": 45, "fog": 35}
    assert random.by_severity == {"1": 50, "5": 30}


def test_students_of_a_set_are_averaged_first(filled: Any) -> None:
    look(filled, "random", 0, 64, foggy(64, (30, 30), (30, 30)), repeat=1)  # drop 34
    (found,) = table.build(rows.read(filled.out)).tables
    random = next(row for row in found.rows if row.method == "random")
    assert random.drop is not None
    assert (random.done, random.n_sets) == (3, 2)
    assert random.drop.mean == ((25 + 34) / 2 + 25) / 2


def test_a_student_without_and_others_with_are_one_student(filled: Any) -> None:
    before = group(rows.read(filled.out))[0]
    look(filled, "random", 0, 60, {})
    look(filled, "random", 0, 60, {V2: record(V2, 60, {"": 55})})
    results = rows.read(filled.out)
    after = group(results)[0]
    assert [len(row.cells) for row in after.rows] == [len(row.cells) for row in before.rows] == [2, 2]
    assert [row.accuracies("acc_last") for row in after.rows] == [row.accuracies("acc_last") for row in before.rows]
    fog, v2 = table.build(results).tables
    assert [row.n_sets for row in fog.rows] == [2, 2]
    assert v2.test_on == "imagenet-v2"
    assert [(row.method, row.n_sets) for row in v2.rows] == [("random", 1)]
    assert v2.rows[0].by_corruption == {}


def test_other_pixels_are_another_table(filled: Any) -> None:
    look(filled, "random", 2, 60, foggy(60, (50, 30), (40, 20), content="dd" * 32))
    found = table.build(rows.read(filled.out)).tables
    assert sorted((one.test_on[-10:], len(one.rows)) for one in found) == [("(cccccccc)", 2), ("(dddddddd)", 1)]


def test_what_is_not_done_is_counted(filled: Any) -> None:
    made_by = filled.distill_spec("herding", seed=2)
    filled.distill(made_by, "herding")
    spec = filled.evaluate_spec(made_by, seed=2000).model_copy(update={"test_on": (FOG,)})
    filled.student(spec, "herding", 50, images="", made_by=made_by, status="failed", reason="no")
    (found,) = table.build(rows.read(filled.out)).tables
    herding = next(row for row in found.rows if row.method == "herding")
    assert (herding.done, herding.expected, herding.n_sets) == (2, 3, 2)
    filled.plan("el2n", filled.distill_spec("el2n"), 1)
    asked = filled.evaluate_spec(filled.distill_spec("el2n")).model_copy(update={"test_on": (FOG,)})
    filled.store.add(asked, Launch(label="el2n"))
    (found,) = table.build(rows.read(filled.out)).tables
    last = found.rows[-1]
    assert (last.method, last.done, last.expected, last.shifted) == ("el2n", 0, 1, None)


def test_notes(folder: Any) -> None:
    look(folder, "herding", 0, 18, foggy(18, (12, 12), (12, 12)))
    (found,) = table.build(rows.read(folder.out)).tables
    said = " ".join(found.notes)
    assert "needs random in this table" in said
    assert "herding is below twice what guessing gives on the clean images (10 %)" in said
    assert "1 row of one set" in said
    assert "imagecorruptions-imaug 1.1.5" in said
    assert found.rows[0].drop_beside_random is None


def test_what_people_see(filled: Any) -> None:
    report = table.build(rows.read(filled.out))
    shown = io.StringIO()
    text.print_terminal(report, Console(file=shown, width=160))
    said = shown.getvalue()
    assert "45.50 ± 0.71" in said
    assert "+10.50" in said
    narrow = io.StringIO()
    text.print_terminal(report, Console(file=narrow, width=40), "corruption")
    said = narrow.getvalue()
    assert said.count("\nmethod ") == 2  # in two parts, each with the methods' names
    assert "45.0" in said.partition("frost")[2]
    assert "…" not in said
    lines = text.markdown(report).splitlines()
    assert "| herding | 2 | 81.00 ± 1.41 | 45.50 ± 0.71 | 35.50 ± 0.71 | +10.50 | 56.2 |" in lines
    frame = robustness_frame(report)
    assert frame["drop"].tolist() == [35.5, 25]
    assert frame["method"].tolist() == ["herding", "random"]


def test_a_conditions_name_is_text(folder: Any) -> None:
    """It comes from a result, which may be somebody else's: no markup of the terminal's, and no column is lost."""
    looks = {"[red]x/[/]": 50.0, "clean %/1": 40.0, "no severity": 30.0}
    look(folder, "random", 0, 60, {FOG: record(FOG, 60, looks)})
    report = table.build(rows.read(folder.out))
    shown = io.StringIO()
    text.print_terminal(report, Console(file=shown, width=160), "corruption")
    text.print_terminal(report, Console(file=shown, width=160), "severity")
    by_corruption, by_severity = re.findall(r"method +(.*?) *\n", shown.getvalue())
    assert re.split("  +", by_corruption) == ["sets", "clean %", "[red]x", "clean %", "no severity"]
    assert re.split("  +", by_severity) == ["sets", "clean %", "[/]", "1"]
    narrow = io.StringIO()
    text.print_terminal(report, Console(file=narrow, width=8), "severity")  # where a row does not fit on a line
    assert "[/]" in narrow.getvalue()
    assert "| random | 1 | 60.00 | 50.0 | 40.0 | 30.0 |" in text.markdown(report, "corruption")


def test_the_command(filled: Any, tmp_path: Path) -> None:
    for words, said in (
        (["--format", "csv"], "drop_beside_random"),
        (["--format", "markdown", "--by", "severity"], "| random | 2 | 65.00 ± 7.07 | 50.0 | 30.0 |"),
        (["--json"], '"kept_percent"'),
        (["--dataset", "digits"], "drop: clean − shifted"),
    ):
        done = CliRunner().invoke(robust_app, ["--runs", str(filled.out), *words])
        assert done.exit_code == 0, done.output
        assert said in done.output


def test_nothing_yet(folder: Any) -> None:
    folder.method("random", [[60.0]])
    assert table.build(rows.read(folder.out)).tables == []
    assert "bench run --test-on" in text.markdown(table.build(rows.read(folder.out)))
