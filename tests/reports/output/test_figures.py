"""Figures show the numbers of the leaderboard, at the sizes of papers, whatever the names, with equal bytes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from typer.testing import CliRunner

from ddbench.benchmark.commands.figures import figures_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.reports.output.figures import across_tables, per_table
from ddbench.reports.output.figures import style as figure_style
from ddbench.reports.output.figures.labels import label_points
from ddbench.reports.output.figures.parts import Drawing
from ddbench.reports.results import rows
from ddbench.reports.tables.leaderboard import build
from ddbench.reports.tables.pareto import pareto_front
from ddbench.reports.tables.views import TableView

HOSTILE = r"$x_1$ <script>alert(1)</script> & \input{x} 中"
METHODS = {"dmgd": (80.0, 95.0), "dit": (78.0, 93.0), "random": (60.0, 90.0), HOSTILE: (50.0, 70.0)}


def filled(folder: Any, methods: dict[str, tuple[float, ...]] = METHODS, sets: int = 3) -> list[TableView]:
    for index, (name, accuracies) in enumerate(methods.items()):
        for ipc, accuracy in zip((1, 10), accuracies, strict=False):
            students = [[accuracy + spread] for spread in np.linspace(-1, 1, sets)]
            cost = {"cost": folder.cost(1.0, 10.0 ** (3 - index))}
            folder.method(name, students, ipc=ipc, distill=cost, params={"x": index})
    folder.method("full", [[99.0]], ipc=None)
    return build(rows.read(folder.out)).tables


def drawn(made: Drawing | str) -> Drawing:
    assert isinstance(made, Drawing), made
    return made


def test_files_are_whole_undated_and_equal_from_equal_results(folder: Any, tmp_path: Path) -> None:
    filled(folder)
    for name in ("a", "b"):
        ran = CliRunner().invoke(figures_app, ["--runs", str(folder.out), "--to", str(tmp_path / name)])
        assert ran.exit_code == 0, ran.output
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    kinds = {re.sub(r".*-(\w+)\.\w+$", r"\1", name) for name in files if name != "captions.md"}
    assert kinds == {"accuracy", "cost", "ipc"}
    assert len(files) == 2 * (2 + 2 + 1) + 1
    for name in files:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert b"CreationDate" not in content
        assert b"<dc:date>" not in content
    assert [Path(line).name for line in ran.stdout.splitlines()][-1] == "captions.md"
    assert "no published numbers" in ran.output


def test_fonts_are_embedded_as_type_42_and_pages_are_as_wide_as_columns(folder: Any, tmp_path: Path) -> None:
    tables = filled(folder)
    with figure_style.style():
        for width, inches in figure_style.WIDTHS.items():
            paths = figure_style.save(per_table.accuracy(tables[0], inches).figure, tmp_path, width)
            svg, pdf = (path.read_bytes() for path in paths)
            assert b"/FontFile2" in pdf
            assert b"/Type3" not in pdf
            box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", pdf)
            assert box is not None
            assert float(box[1]) == pytest.approx(72 * inches)
            assert ET.fromstring(svg).attrib["width"] == f"{72 * inches:g}pt"
            assert b"<script" not in svg


def test_the_dot_plot_shows_means_and_intervals_in_the_order_of_the_leaderboard(folder: Any) -> None:
    table = filled(folder)[1]
    with figure_style.style():
        figure = per_table.accuracy(table, 3.25).figure
    (axes,) = figure.axes
    shown = [row for row in table.rows if row.acc_last is not None]
    labels = [label.get_text().replace("\n", "") for label in axes.get_yticklabels()]
    assert labels[:3] == ["dmgd", "dit", "random"]
    assert labels[-1] == "full"
    assert r"$x_1$" in labels[3]
    assert "[U+4E2D]" in labels[3]
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() not in ("", "None")]
    assert points == [pytest.approx(row.acc_last.mean) for row in shown if row.acc_last]
    bars = [segment[:, 0].tolist() for bar in axes.collections for segment in bar.get_segments()]  # type: ignore[attr-defined]
    expected = [[row.acc_last.low, row.acc_last.high] for row in shown if row.acc_last and row.acc_last.n > 1]
    assert bars == [pytest.approx(ends) for ends in expected]
    assert list(axes.get_yticks()) == sorted(axes.get_yticks(), reverse=True)


def test_cost_marks_the_pareto_front(folder: Any) -> None:
    # The dearest method is the best but one, so that it is not on the front.
    table = filled(folder, {"dear": (80.0,), "good": (85.0,), "cheap": (60.0,), "bad": (50.0,)})[0]
    with figure_style.style():
        figure = drawn(per_table.against_cost(table, 3.25)).figure
    (axes,) = figure.axes
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert list(zip(steps.get_xdata(), steps.get_ydata(), strict=True)) == [(1.0, 50.0), (10.0, 60.0), (100.0, 85.0)]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert {line.get_ydata()[0] for line in marks if line.get_markerfacecolor() == figure_style.MAIN} == {
        50.0,
        60.0,
        85.0,
    }
    assert {line.get_ydata()[0] for line in marks if line.get_markerfacecolor() == "white"} == {80.0}
    assert {text.get_text() for text in axes.texts} >= {"dear", "good", "cheap", "bad"}


def test_cost_shows_one_kind_of_hardware(folder: Any, make_folder: Any) -> None:
    filled(folder, {"good": (85.0,), "cheap": (60.0,)})
    other = {"hardware": {"cpu": "Another CPU", "gpus": []}, "device": "cpu"}
    make_folder(folder.out, environment=other).method("elsewhere", [[90.0], [91.0]], ipc=1)
    table = build(rows.read(folder.out)).tables[0]
    with figure_style.style():
        made = drawn(per_table.against_cost(table, 3.25))
    assert {text.get_text() for text in made.figure.axes[0].texts} >= {"good", "cheap"}
    assert "elsewhere" not in {text.get_text() for text in made.figure.axes[0].texts}
    assert made.caption.endswith("Measured on other hardware and not shown: elsewhere.")


def test_many_methods_are_numbered_with_a_key(folder: Any) -> None:
    table = filled(folder, {f"method-{i:02d}": (50.0 + i,) for i in range(15)}, sets=2)[0]
    with figure_style.style():
        figure = drawn(per_table.against_cost(table, 3.25)).figure
    axes, key = figure.axes
    assert {text.get_text() for text in axes.texts if text.get_text()} <= {str(number) for number in range(1, 16)}
    entries = [text.get_text() for text in key.texts]
    assert len(entries) == 15
    assert {entry.split()[1] for entry in entries} == {f"method-{i:02d}" for i in range(15)}


@pytest.mark.parametrize(("methods", "panels"), [(4, 1), (9, 9)])
def test_ipc_is_one_panel_for_few_methods_and_one_each_for_many(folder: Any, methods: int, panels: int) -> None:
    tables = filled(folder, {f"m{i}": (50.0 + i, 70.0 + i) for i in range(methods)}, sets=2)
    with figure_style.style():
        figure = drawn(across_tables.against_ipc(tables, 3.25)).figure
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == panels
    strong = [line for axes in shown for line in axes.lines if line.get_marker() in figure_style.MARKS]
    assert sorted(tuple(line.get_ydata()) for line in strong) == [(50.0 + i, 70.0 + i) for i in range(methods)]
    assert len({line.get_marker() for line in strong}) == (methods if panels == 1 else 1)


def test_one_ipc_gives_a_reason_instead_of_a_figure(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [81.0]])
    assert "one IPC" in str(across_tables.against_ipc(build(rows.read(folder.out)).tables, 3.25))


def test_published_numbers_stand_against_our_best_look(make_folder: Any, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "woof", dataset="woof", split="imagenet", resolution=256)
    protocol = folder.evaluate_spec("ab" * 32).protocol.model_copy(update={"name": "hard-dmgd-adamw"})
    for ipc, accuracy in ((10, 40.0), (50, 60.0)):
        folder.method("dmgd", [[accuracy], [accuracy + 2]], ipc=ipc, protocol=protocol, student="resnet_ap10")
    tables = build(rows.read(folder.out)).tables
    with figure_style.style():
        (axes,) = drawn(across_tables.against_papers(tables, 3.25)).figure.axes
    (points,) = [line for line in axes.lines if line.get_marker() == "o"]
    rows_with_papers = [table.rows[0] for table in tables]
    assert list(points.get_xdata()) == [row.papers[0].value for row in rows_with_papers]
    assert list(points.get_ydata()) == [row.acc_best.mean for row in rows_with_papers if row.acc_best]
    assert {text.get_text() for text in axes.texts if text.get_text()} == {"dmgd 10", "dmgd 50"}


def test_labels_lie_on_nothing(folder: Any) -> None:
    rng = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in rng.random((14, 2))]
    with figure_style.style():
        figure: Figure = figure_style.blank(3.25, 3.0)
        axes = figure.subplots()
        axes.plot(*zip(*points, strict=True), "o")
        without = label_points(axes, points, [f"name {i}" for i in range(14)])
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        texts = [text for text in axes.texts if isinstance(text, Annotation) and text.get_text()]
        boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    assert len(boxes) == 14 - len(without)
    assert len(without) <= 2
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    marks = [axes.transData.transform(point) for point in points]
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    assert all(axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max) for box in boxes)


def test_nothing_to_draw_is_said(folder: Any) -> None:
    folder.plan("dmgd", folder.distill_spec(), students=1)
    with pytest.raises(UsageError, match="nothing to draw"):
        CliRunner().invoke(figures_app, ["--runs", str(folder.out)], catch_exceptions=False)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_the_pareto_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    def dominates(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return (a[0] < b[0] and a[1] >= b[1]) or (a[0] <= b[0] and a[1] > b[1])

    front = pareto_front(points)
    assert front == [i for i, b in enumerate(points) if not any(dominates(a, b) for a in points)]
