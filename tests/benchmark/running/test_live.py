"""The live view of a run: which rows there are, in which colours, how far running cells are, and how long is left."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.progress_bar import ProgressBar

from ddbench.benchmark.cells.progress import Progress
from ddbench.benchmark.core.result import EvaluateResult, Metrics
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.engines.local import LocalEngine
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running import live
from ddbench.benchmark.running.live import LiveView, PlainView, duration, progress_of
from ddbench.benchmark.running.runner import Fate, Item, Runner
from ddbench.benchmark.running.tally import Tally

NOW = 1000.0
COLOUR = {"green": "32", "red": "31", "yellow": "33", "cyan": "36"}
"""The codes of ECMA-48 for the foreground."""


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: NOW))


def planned_items(root: Path, ipc: str = "1", shards: int = 1) -> list[Item]:
    """Two sets of `random` an IPC, and a student of each."""
    options = {"methods": "random", "datasets": "digits", "ipc": ipc, "seeds": "0-1", "repeats": 1, "device": "cpu"}
    plan, _, _ = plan_run(run_spec({}, options | {"shards": shards}))
    items = Runner(Store(root), plan, LocalEngine()).items
    for item in items:
        item.cell.path.mkdir(parents=True)
    return items


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    return planned_items(tmp_path)


def of_stage(items: list[Item], stage: str, ipc: int = 1) -> list[Item]:
    return [item for item in items if item.stage == stage and item.spec.ipc == ipc and not item.merges]


def done(item: Item, seconds: float) -> None:
    item.fate, item.seconds = Fate.DONE, seconds


def running(item: Item, since: float, **progress: Any) -> None:
    item.fate, item.began = Fate.RUNNING, NOW - since
    noted = Progress(item.cell.path / "progress.json")
    noted.update(**progress)
    noted.flush()


def shown(view: LiveView, width: int = 100) -> str:
    """What the view draws, with its colours."""
    console = Console(file=StringIO(), force_terminal=True, color_system="standard", width=width, height=40)
    console.print(view.render())
    return console.file.getvalue()  # type: ignore[attr-defined]


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def row(text: str, title: str) -> str:
    (found,) = [line for line in text.splitlines() if title in plain(line)]
    return found


# How far a cell is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noted", "fraction", "words"),
    [
        ({}, 0.0, "starting"),
        ({"note": "k-means"}, 0.0, "starting"),
        ({"images_total": 20}, 0.0, "0/20 images"),
        ({"images_done": 5, "images_total": 20}, 0.25, "5/20 images"),
        ({"images_done": 20, "images_total": 20, "note": "step 3/50"}, 1.0, "20/20 images · step 3/50"),
        ({"epochs": 40}, 0.0, "epoch 0/40"),
        ({"epoch": 10, "epochs": 40}, 0.25, "epoch 10/40"),
        ({"epoch": 30, "epochs": 40, "accuracy": 61.26}, 0.75, "epoch 30/40 · 61.3 %"),
    ],
)
def test_progress_is_what_the_cell_noted(noted: dict[str, Any], fraction: float, words: str, items: list[Item]) -> None:
    running(items[0], 0, **noted)
    assert progress_of(items[0]) == (fraction, words)


def test_a_cell_that_has_noted_nothing_yet_is_starting(items: list[Item]) -> None:
    assert progress_of(items[0]) == (0.0, "starting")
    (items[0].cell.path / "progress.json").write_text('{"images_to')
    assert progress_of(items[0]) == (0.0, "starting")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# Time left ------------------------------------------------------------------------------------------------------------


def test_nothing_is_foretold_before_each_stage_has_ended_once(items: list[Item]) -> None:
    assert Tally(items).seconds_left(NOW) is None
    (first, _), (student, _) = of_stage(items, "distilled sets"), of_stage(items, "students")
    done(first, 10)
    assert Tally(items).seconds_left(NOW) is None
    done(student, 4)
    assert Tally(items).seconds_left(NOW) == 10 + 4


def test_nothing_is_left_of_what_has_ended(items: list[Item]) -> None:
    for item, fate in zip(items, (Fate.DONE, Fate.REUSED, Fate.FAILED, Fate.BLOCKED), strict=True):
        item.fate, item.seconds = fate, 10
    assert Tally(items).seconds_left(NOW) == 0


def test_failed_cells_set_no_pace(items: list[Item]) -> None:
    first, _ = of_stage(items, "distilled sets")
    first.fate, first.seconds = Fate.FAILED, 0.1
    assert Tally(items).seconds_left(NOW) is None


def test_the_pace_is_the_mean_of_the_same_stage_and_ipc(tmp_path: Path) -> None:
    items = planned_items(tmp_path, "1,10")
    small, large = of_stage(items, "distilled sets"), of_stage(items, "distilled sets", 10)
    for student in [*of_stage(items, "students"), *of_stage(items, "students", 10)]:
        done(student, 1000)
    done(small[0], 10)
    assert Tally(items).seconds_left(NOW) == 10 + 10 + 10, "no set of IPC 10 has ended: as the others of its stage"
    done(large[0], 90)
    assert Tally(items).seconds_left(NOW) == 10 + 90
    done(small[1], 20)
    large[0].fate = Fate.WAITING
    assert Tally(items).seconds_left(NOW) == 15 + 15


def test_cells_side_by_side_share_the_time_and_what_they_have_spent_is_gone(items: list[Item]) -> None:
    first, second = of_stage(items, "distilled sets")
    for student in of_stage(items, "students"):
        done(student, 5)
    done(first, 10)
    running(second, 3)
    assert Tally(items).seconds_left(NOW) == 7
    students = of_stage(items, "students")
    students[0].fate = Fate.WAITING
    assert Tally(items).seconds_left(NOW) == 7 + 5, "one slot"
    running(students[0], 1)
    assert Tally(items).seconds_left(NOW) == (7 + 4) / 2, "two slots"
    running(second, 30)
    assert Tally(items).seconds_left(NOW) == (0 + 4) / 2, "a cell that takes longer than expected owes nothing"


def test_a_merge_of_shards_takes_no_time(tmp_path: Path) -> None:
    items = planned_items(tmp_path, shards=2)
    shards = of_stage(items, "shards")
    assert len(shards) == 4
    assert sum(item.merges for item in items) == 2
    for student in of_stage(items, "students"):
        done(student, 5)
    done(shards[0], 10)
    assert Tally(items).seconds_left(NOW) == 30


# What is drawn --------------------------------------------------------------------------------------------------------


def test_rows_are_the_ended_and_the_running_not_the_waiting(items: list[Item]) -> None:
    view = LiveView(Console(file=StringIO(), force_terminal=True, width=100), items)
    (first, second), (student, waiting) = of_stage(items, "distilled sets"), of_stage(items, "students")
    done(first, 12.3)
    view.changed(first)
    done(student, 4)
    student.result = EvaluateResult.model_construct(
        metrics=Metrics(acc_last=61.234, acc_best=70, top5_last=90, curve=[])
    )
    view.changed(student)
    running(second, 3, images_done=5, images_total=10, note="step 3/50")
    view.changed(second)
    view.began -= 75
    text = plain(shown(view, 120))
    assert re.search(rf"done +{re.escape(first.title)} +12 s", text)
    assert re.search(rf"done +{re.escape(student.title)} +4\.0 s +accuracy 61\.23 %", text)
    assert re.search(rf"running +{re.escape(second.title)} +\S+ +5/10 images · step 3/50", text)
    assert waiting.title not in text
    assert "2/4 cells · 1 waiting, 1 running, 2 done · 1 min 15 s · about 13 s left" in text


@pytest.mark.parametrize(
    ("fate", "colour"),
    [
        (Fate.DONE, "green"),
        (Fate.REUSED, "cyan"),
        (Fate.FAILED, "red"),
        (Fate.BLOCKED, "red"),
        (Fate.INTERRUPTED, "yellow"),
    ],
)
def test_a_fate_has_its_colour_and_a_failure_its_reason(fate: Fate, colour: str, items: list[Item]) -> None:
    view = LiveView(Console(file=StringIO(), force_terminal=True, width=100), items)
    items[0].fate, items[0].reason = fate, "the first line [red]as it is\nthe second"
    view.changed(items[0])
    drawn = row(shown(view), items[0].title)
    assert f"\x1b[{COLOUR[colour]}m{fate}" in drawn
    assert "the first line [red]as it is" in plain(drawn)
    assert "the second" not in shown(view)


def test_the_bar_is_as_long_as_the_progress(items: list[Item]) -> None:
    view = LiveView(Console(file=StringIO(), force_terminal=True, width=100), items)
    running(items[0], 3, images_done=3, images_total=4)
    view.changed(items[0])
    table = view.render().renderables[0]  # type: ignore[union-attr]
    (bar,) = [cell for column in table.columns for cell in column.cells if isinstance(cell, ProgressBar)]  # type: ignore[union-attr]
    assert bar.completed / bar.total == 0.75


def test_a_cell_of_another_process_is_shown_as_such(items: list[Item]) -> None:
    view = LiveView(Console(file=StringIO(), force_terminal=True, width=100), items)
    running(items[0], 3, images_done=3, images_total=4)
    items[0].fate = Fate.ELSEWHERE
    view.changed(items[0])
    assert re.search(rf"elsewhere +{re.escape(items[0].title)} +\S+ +3/4 images", plain(shown(view)))


def test_only_the_last_ended_stay_on_the_screen(tmp_path: Path) -> None:
    items = planned_items(tmp_path, "1,10")
    view = LiveView(Console(file=StringIO(), force_terminal=True, width=100, height=20), items)
    assert len(items) == 8
    for item in items:
        done(item, 1)
        view.changed(item)
    text = plain(shown(view))
    assert [item.title in text for item in items] == [False] * 2 + [True] * 6
    assert "8/8 cells · 8 done · 0.0 s" in text
    assert "left" not in text, "there is nothing left"


@pytest.mark.parametrize("width", [40, 60, 200])
def test_long_titles_are_cut_and_no_line_is_wider_than_the_terminal(width: int, items: list[Item]) -> None:
    view = LiveView(Console(file=StringIO(), force_terminal=True, width=width), items)
    items[0].planned = items[0].planned.model_copy(update={"label": "a-method-with-a-very-long-name" * 3})
    running(items[0], 3, images_done=3, images_total=4)
    view.changed(items[0])
    lines = plain(shown(view, width)).splitlines()
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= 1 + -(-len("0/4 cells · 3 waiting, 1 running · 0.0 s") // width), "a row is a line"


def test_the_screen_is_drawn_again_in_place(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveView, "REFRESH_SECONDS", 0.0)
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=100, height=40)
    with LiveView(console, items) as view:
        running(items[0], 3, images_done=1, images_total=4)
        view.changed(items[0])
        running(items[0], 3, images_done=2, images_total=4)
        view.tick()
        before = file.getvalue()
        assert "1/4 images" in before
        assert "2/4 images" in before
        done(items[0], 9)
        view.changed(items[0])
    text = file.getvalue()
    assert "\x1b[1A" in text, "the cursor goes up over what was there"
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is back"
    last = plain(text[text.rindex("\x1b[1A") :])
    assert "1/4 cells" in last


def test_the_screen_is_drawn_four_times_a_second_at_most(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [NOW]
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now[0]))
    drawn: list[float] = []
    view = LiveView(Console(file=StringIO(), force_terminal=True, width=100), items)
    monkeypatch.setattr(view, "render", lambda: drawn.append(now[0] - NOW) or "")
    with view:
        for _ in range(9):
            view.changed(items[0])
            view.tick()
            now[0] += 0.125
        items[0].fate = Fate.INTERRUPTED  # as a run does at its end, without a word
    assert drawn == [0.0, 0.25, 0.5, 0.75, 1.0, 1.125], "and once when it ends"
    assert view.tally.counts[Fate.INTERRUPTED] == 1


def test_a_change_costs_as_much_in_a_long_run_as_in_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [0]

    def look(item: Item) -> Fate:
        looks[0] += 1
        return item.__dict__["fate"]

    monkeypatch.setattr(Item, "fate", property(look, lambda item, fate: item.__dict__.update(fate=fate)))
    costs: dict[str, list[int]] = {"plain": [], "live": []}
    for number, ipcs in enumerate(("1", "1,2,3,4,5,6,7,8,9,10")):
        items = planned_items(tmp_path / str(number), ipcs)
        for name, view in ("plain", PlainView(Console(file=StringIO()), items)), ("live", LiveView(Console(), items)):
            before = looks[0]
            items[0].fate = Fate.RUNNING if name == "plain" else Fate.DONE
            view.changed(items[0])
            if isinstance(view, LiveView):
                view.render()
            costs[name].append(looks[0] - before)
    assert costs["plain"][0] == costs["plain"][1]
    assert costs["live"][0] == costs["live"][1]


def test_a_terminal_gets_the_live_view_and_a_pipe_gets_lines(items: list[Item]) -> None:
    assert isinstance(live.view(Console(file=StringIO(), force_terminal=True), items), LiveView)
    file = StringIO()
    with live.view(Console(file=file), items) as view:
        assert isinstance(view, PlainView)
        running(items[0], 3)
        view.changed(items[0])
        view.tick()
        done(items[0], 3)
        view.changed(items[0])
    title = items[0].title
    assert file.getvalue() == f"[0/4] running {title}\n[1/4] done {title} in 3.0 s\n"
