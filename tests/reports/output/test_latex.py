"""LaTeX that compiles, whatever the names, and says by its type what the numbers say."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddbench.reports.output import latex
from ddbench.reports.output.latex_text import breakable, escaped
from ddbench.reports.output.latex_wide import wide
from ddbench.reports.results import rows
from ddbench.reports.tables.leaderboard import build
from ddbench.reports.tables.views import Leaderboard

HOSTILE = (
    r"\input{/etc/passwd}",
    r"\write18{ls} $x_1$ 50% a&b #1 ~^",
    r"}\end{document}",
    "é ß Ł σ Σ 中 🙂 -- ,, '' ?` !` <<x>> \"|",
    "[x] *",
)


def answers(rng: np.random.Generator, accuracy: float, sets: int) -> list[list[np.ndarray]]:
    return [[rng.random(500) < accuracy for _ in range(2)] for _ in range(sets)]


@pytest.fixture
def board(folder: Any) -> Leaderboard:
    rng = np.random.default_rng(0)
    for ipc in (1, 10):
        folder.method("dmgd", answers(rng, 0.9, 3), ipc=ipc, distill={"cost": folder.cost(12.0, 1234.5)})
        folder.method("dmgd[ot_scale=0.05,semantic_window=0.75]", answers(rng, 0.8, 3), ipc=ipc, params={"x": 1})
        folder.method("random", answers(rng, 0.5, 3), ipc=ipc)
        folder.method("random-first", answers(rng, 0.45, 1), ipc=ipc)
    folder.method("full", answers(rng, 0.99, 1), ipc=None)
    failed = folder.distill_spec("mgd3")
    folder.plan("mgd3", failed, students=2)
    folder.distill(failed, "mgd3", status="oom", reason="out of memory_100% \\input{x}")
    for index, name in enumerate(HOSTILE):
        images = f"{index:02x}" * 32
        folder.student(folder.evaluate_spec(images), name, 70.0 - index, images=images)
    return build(rows.read(folder.out))


def body(text: str, place: int = 0) -> list[list[str]]:
    """Cells of the place-th tabular's rows."""
    inner = re.findall(r"\\begin\{tabular\}\{.*?\}\n(.*?)\\end\{tabular\}", text, flags=re.S)[place]
    lines = [line for line in inner.splitlines() if line.endswith(r"\\")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line[:-2])] for line in lines]


def test_tables_compile(board: Leaderboard, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    (tmp_path / "tables.tex").write_text(latex.tables(board, best=True))
    (tmp_path / "wide.tex").write_text(wide(board))
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        "\\input{tables}\n\\input{wide}\nThe end is reached.\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "/etc/passwd" not in done.stdout
    assert "multiply defined" not in done.stdout
    assert re.search(r"Output written on main.pdf \(\d pages", done.stdout)


def test_every_row_stands_with_its_numbers(board: Leaderboard) -> None:
    text = latex.tables(board)
    assert text.count(r"\begin{table*}") == len(board.tables) == 2
    for place, table in enumerate(board.tables):
        _, *lines = body(text, place)
        assert len(lines) == len(table.rows)
        assert len({len(cells) for cells in body(text, place)}) == 1
        for cells, row in zip(lines, table.rows, strict=True):
            assert row.acc_last is None or f"{row.acc_last.mean:.2f}" in cells[2]
            assert row.acc_last is None or row.acc_last.std is None or f"{row.acc_last.std:.2f}" in cells[2]


def test_best_is_bold_and_second_is_underlined_among_ranked_complete_rows(board: Leaderboard) -> None:
    for place, table in enumerate(board.tables):
        _, *lines = body(latex.tables(board), place)
        ranked = sorted((r.acc_last.mean for r in table.rows if r.acc_last and not r.reference), reverse=True)
        bold = [cells[2] for cells in lines if "textbf" in cells[2]]
        underlined = [cells[2] for cells in lines if "underline" in cells[2]]
        assert [re.findall(r"[\d.]+", cell)[0] for cell in bold] == [f"{ranked[0]:.2f}"]
        assert [re.findall(r"[\d.]+", cell)[0] for cell in underlined] == [f"{ranked[1]:.2f}"]


def test_an_unfinished_row_is_never_bold_and_equal_numbers_are_marked_alike(folder: Any) -> None:
    for name, accuracy in (("dmgd", 80.0), ("dit", 80.0), ("random", 70.0)):
        folder.method(name, [[accuracy], [accuracy]])
    folder.method("mgd3", [[99.0]])
    folder.plan("mgd3", folder.distill_spec("mgd3", seed=1), students=1)
    _, *lines = body(latex.tables(build(rows.read(folder.out))))
    styles = {cells[1].split("$")[0]: re.findall(r"textbf|underline", cells[2]) for cells in lines}
    assert styles == {"dmgd": ["textbf"], "dit": ["textbf"], "random": ["underline"], "mgd3": []}


def test_ties_are_said_where_bold_might_mislead(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [82.0]])
    folder.method("dit", [[79.0], [82.0]])
    assert r"for 2 methods a two-sided 5\,\% test finds none better" in latex.tables(build(rows.read(folder.out)))


def test_ties_over_columns_are_said_in_a_sentence(folder: Any) -> None:
    folder.method("dmgd", [[80.0], [82.0]])
    folder.method("dit", [[79.0], [82.0]])
    text = wide(build(rows.read(folder.out)))
    assert r"alone: for up to 2 methods a two-sided 5\,\% test finds none better" in text


def test_the_caption_says_what_was_run(board: Leaderboard) -> None:
    caption = re.findall(r"\\caption\{(.*)\}\n", latex.tables(board))[1]
    for said in ("digits (default split), 10 images per class", "quick@1", "convnet3 at 8 px", "500 test images"):
        assert said in caption
    assert r"1--3 distilled sets $\times$ 1--2 students" in caption
    assert "Hardware: Testing CPU." in caption


def test_long_names_may_be_broken_between_their_parameters() -> None:
    assert (
        breakable("quick[epochs=10,lr=a], 1,000")
        == r"quick{[}\allowbreak{}epochs=10,\allowbreak{}lr=\allowbreak{}a], 1,000"
    )


@pytest.mark.parametrize("uneven", [False, True])
def test_replication_is_a_column_only_where_it_differs(folder: Any, uneven: bool) -> None:
    folder.method("dmgd", [[80.0, 81.0], [82.0, 83.0]])
    folder.method("random", [[60.0, 61.0], [62.0, 63.0]][: 1 if uneven else 2])
    text = latex.tables(build(rows.read(folder.out)))
    head, *lines = body(text)
    assert (r"Sets$\times$st." in head) is uneven
    assert ({cells[head.index(r"Sets$\times$st.")] for cells in lines} if uneven else set()) == (
        {r"2$\times$2", r"1$\times$2"} if uneven else set()
    )
    extent = "1--2 distilled sets" if uneven else "2 distilled sets"
    assert rf"{extent} $\times$ 2 students" in re.findall(r"\\caption\{(.*)\}\n", text)[0]


def test_wide_has_a_row_for_each_method_and_a_column_for_each_ipc(folder: Any) -> None:
    for ipc, accuracies in ((1, (60.0, 50.0)), (10, (70.0, 90.0)), (50, (95.0, 94.0))):
        for name, accuracy in zip(("dmgd", "random"), accuracies, strict=True):
            folder.method(name, [[accuracy], [accuracy]], ipc=ipc)
    folder.method("mgd3", [[75.0], [75.0]], ipc=10)
    folder.method("full", [[99.0]], ipc=None)
    head, *lines = body(wide(build(rows.read(folder.out))))
    assert re.findall(r"IPC \d+", " ".join(head)) == ["IPC 1", "IPC 10", "IPC 50"]
    assert [line[0] for line in lines] == ["random", "dmgd", "mgd3", "full"]
    numbers = {line[0]: [re.findall(r"[\d.]{5,}|--", cell)[0] for cell in line[1:]] for line in lines}
    assert numbers["dmgd"] == ["60.00", "70.00", "95.00"]
    assert numbers["mgd3"] == ["--", "75.00", "--"]
    assert numbers["full"] == ["99.00"] * 3
    assert [["textbf" in cell for cell in line[1:]] for line in lines[:2]] == [
        [False, True, False],
        [True, False, True],
    ]


def test_paper_numbers_have_their_own_column(make_folder: Any, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "woof", dataset="woof", split="imagenet", resolution=256)
    protocol = folder.evaluate_spec("ab" * 32).protocol.model_copy(update={"name": "hard-dmgd-adamw"})
    for ipc in (10, 50):
        folder.method("dmgd", [[50.0], [52.0]], ipc=ipc, protocol=protocol, student="resnet_ap10")
    board = build(rows.read(folder.out))
    published = [row.papers[0].value for table in board.tables for row in table.rows if row.papers]
    assert published
    head, (_, *cells) = body(wide(board))[1:]
    assert head.count("paper") == len(published)
    printed = [cell for name, cell in zip(head[1:], cells, strict=True) if name == "paper"]
    assert [float(re.findall(r"[\d.]+", cell)[0]) for cell in printed] == published
    assert "Paper (" in latex.tables(board)
    assert latex.tables(board).count("Paper: its best look") == len(board.tables)
    assert "ours minus it" not in latex.tables(board)  # there is no such number in these cells


def test_one_label_is_not_given_twice(board: Leaderboard) -> None:
    twice = board.model_copy(update={"tables": [*board.tables, *board.tables]})
    labels = re.findall(r"\\label\{(.*)\}", latex.tables(twice))
    assert len(set(labels)) == len(labels) == 4


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_escaped_text_runs_nothing(text: str) -> None:
    for made in (escaped(text), breakable(text)):
        assert set(re.findall(r"\\([a-zA-Z]+)", made)) <= COMMANDS
        without_escapes = re.sub(r"\\(?:[{}$&#%_`'^~\"=.]|[a-zA-Z]+)", "", made)
        assert not set(re.sub(r"\$.*?\$", "", without_escapes)) & set("\\&#%_~^$")
        assert made.isascii()
        assert made.isprintable()
        opened = re.sub(r"\\[{}]", "", made)
        assert opened.count("{") == opened.count("}")


COMMANDS = {
    name
    for character in map(chr, range(0x3000))
    if unicodedata.category(character) != "Cs"
    for name in re.findall(r"\\([a-zA-Z]+)", escaped(f"x{character}x"))
} | {"allowbreak"}


def test_the_commands_that_escaping_writes_are_harmless() -> None:
    assert not COMMANDS & {
        "input",
        "include",
        "write",
        "openin",
        "openout",
        "def",
        "csname",
        "catcode",
        "read",
        "special",
    }
