"""Every JSON file of a results folder with any value in any place: reports are made, and what is wrong is listed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from ddbench.benchmark.core.store import Launch
from ddbench.reports.output import formats, status
from ddbench.reports.results import rows
from ddbench.reports.tables import leaderboard

SCALARS = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 10**9, 10**40, 0.5, 1e300, "", "x", "../../x", "\x1b[2J", "3"]),
    st.integers(-3, 12),
    st.floats(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "seconds", "name"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished, failed, running and planned cells."""
    from tests.reports.conftest import Folder

    folder = Folder(tmp_path_factory.mktemp("fuzz") / "runs")
    for method, accuracy in (("dmgd", 60.0), ("random", 50.0)):
        folder.method(method, [[accuracy], [accuracy + 1]], prior="ab" * 32 if method == "dmgd" else None)
    folder.distill(folder.distill_spec("random", seed=7), status="failed", reason="why")
    begun = folder.distill_spec("random", seed=8)
    cell = folder.store.add(begun, Launch(label="begun"))
    noted = {"images_done": 3, "images_total": 10, "note": "at work", "pid": 7}
    (cell.path / "progress.json").write_text(json.dumps(noted))
    (cell.path / "spent.json").write_text(json.dumps({"attempts": 2, "seconds": {"distill": 2.5}}))
    student = folder.store.add(folder.evaluate_spec(begun), Launch(label="begun"))
    noted = {"epoch": 5, "epochs": 60, "accuracy": 81.2, "looked_at_epoch": 5}
    (student.path / "progress.json").write_text(json.dumps(noted))
    folder.plan("planned", folder.distill_spec("random", seed=9), 1)
    return Path(folder.out)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*at, key))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_reports_are_made_of_any_values(runs: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(runs.rglob("*.json"))))
    before = file.read_bytes()
    content = json.loads(before)
    at = data.draw(st.sampled_from(list(places(content))))
    place = content
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = data.draw(VALUES)
    try:
        file.write_text(json.dumps(content))
        found = rows.read(runs)
        console = Console(file=(said := io.StringIO()), width=200)
        status.print_terminal(status.build(found), console)
        board = leaderboard.build(found)
        formats.print_terminal(board, console)
        markdown = formats.markdown(board)
    finally:
        file.write_bytes(before)
    for text in (said.getvalue(), markdown):
        assert all(character.isprintable() or character == "\n" for character in text)
