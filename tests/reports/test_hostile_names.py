"""Names from results of unknown origin: no escape sequence reaches a terminal, a page or a file, no formula a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shifted_looks import look, record

from ddbench.benchmark.commands import cli
from ddbench.benchmark.commands.execute import reporter
from ddbench.benchmark.core.spec import ProtocolSpec, ShiftedSpec
from ddbench.reports.results.rows import printable, read, shown

ESCAPES = "\x1b]0;owned\x07\x1b[31m\u202e\x9b2J\r"
FORMULAS = ("=", "+", "-", "@", "\t")
NAME = f"=cmd|' /C calc'!A0{ESCAPES}"


@pytest.fixture
def runs(make_folder: Callable[..., Any], tmp_path: Path) -> Path:
    """Every text that a foreign result can set is hostile."""
    hostile: dict[str, Any] = {field: f"{field}{NAME}" for field in ("dataset", "split", "warning")}
    environment = {"hardware": {"cpu": NAME, "gpus": [{"name": NAME}]}, "device": "cpu", "versions": {"torch": NAME}}
    folder = make_folder(tmp_path / "runs", **hostile, environment=environment)
    protocol = ProtocolSpec(name=NAME, version=1, overrides={NAME: NAME}, hash="11" * 32)
    for method in (NAME, f"@{NAME}", f"-2+3{NAME}"):
        for seed in (0, 1):
            spec = folder.distill_spec(method, seed=seed, prior="ab" * 32, params={NAME: NAME})
            images = folder.distill(spec, method, guidance={NAME: [0.1]})
            evaluate = folder.evaluate_spec(spec, seed=1000 * seed, protocol=protocol, student=NAME)
            folder.student(evaluate, method, 40 + seed, images=images, made_by=spec)
    strange = ShiftedSpec(name=NAME, corruptions=(NAME,), severities=(1,), sha256="0f" * 32)
    seen = record(strange, 60, {f"{NAME.replace('/', '')}/{NAME}": 50}).model_copy(update={"made_by": {NAME: NAME}})
    look(folder, NAME, 0, 60, {strange: seen}, prior="ab" * 32)
    failed = folder.distill_spec("random", seed=7)
    folder.distill(failed, f"failed{NAME}", status="failed", reason=f"reason{NAME}")
    folder.plan(f"planned{NAME}", folder.distill_spec("random", seed=9), 1, protocol=protocol, student=NAME)
    for file in folder.out.rglob("*.json"):
        text = file.read_text()
        for plain, bad in (("digits-dit", NAME), ('"trained_on": "t"', f'"trained_on": {json.dumps(NAME)}')):
            text = text.replace(plain, json.dumps(bad)[1:-1] if plain == "digits-dit" else bad)
        file.write_text(text)
    for place in ("cells", "plans", "sets"):
        (folder.out / place / f"stray{ESCAPES}").mkdir()
    (folder.out / "cells" / f"stray{ESCAPES}" / "result.json").write_text("{")
    (folder.out / "plans" / f"stray{ESCAPES}.json").write_text("{")
    return Path(folder.out)


@pytest.mark.parametrize("words", ["leaderboard", "leaderboard --mean-rank", "status", "compare :smile: a:fire:b"])
def test_words_between_colons_are_shown_as_they_are(
    make_folder: Callable[..., Any],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = make_folder(tmp_path / "runs")
    for method in (":smile:", "a:fire:b"):
        for seed in (0, 1):
            spec = folder.distill_spec(method, seed=seed)
            images = folder.distill(spec, method)
            evaluate = folder.evaluate_spec(spec, seed=1000 * seed)
            folder.student(evaluate, method, 40 + seed, images=images, made_by=spec)
    monkeypatch.setattr("sys.argv", ["bench", *words.split(), "--runs", str(folder.out)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = capfd.readouterr().out
    assert ":smile:" in said
    assert "a:fire:b" in said
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in said
    assert "\N{FIRE}" not in said


def test_what_is_refused_and_what_a_run_says_is_shown_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "eval", "--images", "hf:x", "-d", "digits"])
    with pytest.raises(SystemExit):
        cli.main()
    reporter().say("done train a:fire:b")
    reporter().warn("of a:fire:b")
    said = capfd.readouterr()
    assert said.err.startswith("error: hf:x: expected hf:OWNER/NAME")
    assert "done train a:fire:b" in said.out
    assert "of a:fire:b" in said.err


def unprintable(text: str) -> set[str]:
    return {character for character in text if not character.isprintable() and character != "\n"}


@pytest.mark.parametrize(
    "words",
    [
        "leaderboard", "leaderboard --format markdown", "leaderboard --format latex", "leaderboard --format latex-wide",
        "leaderboard --by cost", "leaderboard --by bytes --format markdown", "leaderboard --by cost --json",
        "robust", "robust --by corruption --format markdown", "robust --by severity", "robust --json",
        "leaderboard --mean-rank", "leaderboard --best", "status", "status --cells", "quality", "figures --to figures",
        "compare FIRST SECOND", "compare FIRST SECOND --json", "compare nothing else",
        "report --to site", "verify-results", "leaderboard --json", "status --json", "leaderboard --dataset nothing",
    ],
)  # fmt: skip
def test_nothing_that_commands_print_has_escape_sequences(
    runs: Path, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = {"FIRST": printable(NAME), "SECOND": printable(f"@{NAME}")}
    given = [shown.get(word, word) for word in words.split()]
    monkeypatch.setattr("sys.argv", ["bench", *given, "--runs", str(runs)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    assert (ended.value.code or 0) in (0, 1, 2)
    assert unprintable(said.out + said.err) == set(), ascii(said.out + said.err)
    if "compare FIRST" in words:
        assert ended.value.code in (0, None), said.err
    for file in (*tmp_path.glob("site/**/*.html"), *tmp_path.glob("figures/*")):
        assert unprintable(file.name + file.read_text(errors="ignore")) - {"\t"} == set() or file.suffix == ".pdf", file


def test_no_cell_of_a_table_is_a_formula(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for words in ("leaderboard", "leaderboard --by cost", "quality", "robust"):
        monkeypatch.setattr("sys.argv", ["bench", *words.split(), "--format", "csv", "--runs", str(runs)])
        with pytest.raises(SystemExit):
            cli.main()
        rows = list(csv.reader(io.StringIO(capfd.readouterr().out)))
        cells = [cell for row in rows for cell in row]
        assert [cell for cell in cells if cell.startswith(FORMULAS) and not is_number(cell)] == []
        if words == "leaderboard":
            assert f"'{printable(NAME)}" in cells, "the name is there, as text"
            assert unprintable("".join(cells)) == set()


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_only_strange_texts_are_changed(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "plain")
    folder.method("dmgd", [[80.0]], params={"a": "ü ± 中文", "b": 0.5})
    (cell,) = read(folder.out).distills.values()
    assert cell.spec == folder.distill_spec("dmgd", params={"a": "ü ± 中文", "b": 0.5})
    assert shown(cell.spec) is cell.spec
