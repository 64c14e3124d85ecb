"""Registered sub-commands: listed without being imported, imported when used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ddbench.benchmark.commands.lazy_commands import LazyCommands
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import COMMANDS, Entry


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer(name="bench", cls=LazyCommands, no_args_is_help=True)

    @made.command()
    def run() -> None:
        """Run it."""
        print("own run")

    @made.command()
    def env() -> None:
        """Say where."""

    return made


@pytest.fixture
def registered() -> Iterator[dict[str, Entry]]:
    """The registry's entries, to add to; as they were afterwards."""
    entries = COMMANDS.entries()
    before, broken = dict(entries), dict(COMMANDS.broken)
    yield entries
    entries.clear()
    entries.update(before)
    COMMANDS.broken.clear()
    COMMANDS.broken.update(broken)


def test_help_lists_own_and_registered_commands(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for text in ("run", "Run it.", "leaderboard", "Rank the methods", "status", "env"):
        assert text in shown.output


def test_listing_imports_nothing(tmp_path: Path) -> None:
    program = """
import sys, typer
from typer.testing import CliRunner
from ddbench.benchmark.commands.lazy_commands import LazyCommands
app = typer.Typer(cls=LazyCommands)
app.command("a")(lambda: None)
app.command("b")(lambda: None)
assert "leaderboard" in CliRunner().invoke(app, ["--help"]).output
loaded = {"ddbench.benchmark.commands.leaderboard", "numpy", "scipy", "torch"} & set(sys.modules)
assert not loaded, loaded
assert "--format" in CliRunner().invoke(app, ["leaderboard", "--help"]).output
assert "ddbench.benchmark.commands.leaderboard" in sys.modules
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_registered_command_runs_with_its_own_options(app: typer.Typer, tmp_path: Path) -> None:
    help_text = CliRunner().invoke(app, ["leaderboard", "--help"]).output
    assert "bench leaderboard" in help_text
    assert "--best" in help_text
    with pytest.raises(UsageError, match="holds no results"):
        CliRunner().invoke(app, ["leaderboard", "--runs", str(tmp_path)], catch_exceptions=False)
    assert CliRunner().invoke(app, ["leaderboard", "--nonsense"]).exit_code == 2


def test_own_commands_run(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["run"]).output == "own run\n"


def test_home_is_meant_where_the_shell_left_its_sign(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `--to=~/site`: a folder called ~ was made. Words that only begin alike are other names."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for asked in (["--runs=~/runs"], ["--runs", "~/runs"]):
        with pytest.raises(UsageError, match=f"{tmp_path}/runs holds no results"):
            CliRunner().invoke(app, ["leaderboard", *asked], catch_exceptions=False)
    with pytest.raises(UsageError, match="^runs~/x holds no results"):
        CliRunner().invoke(app, ["leaderboard", "--runs=runs~/x"], catch_exceptions=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    with pytest.raises(UsageError, match=f"^{tmp_path}/~ holds no results"):
        CliRunner().invoke(app, ["leaderboard", "--runs", str(tmp_path / "~")], catch_exceptions=False)


def test_a_typing_error_gets_a_suggestion(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["leaderbord"])
    assert shown.exit_code == 2
    assert "leaderboard" in shown.output


def test_completion_knows_registered_commands_and_their_options(app: typer.Typer) -> None:
    def complete(words: str, index: int) -> list[str]:
        environment = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(index)}
        return CliRunner().invoke(app, [], prog_name="bench", env=environment).output.split()

    assert complete("bench lea", 1) == ["leaderboard"]
    assert "--format" in complete("bench leaderboard --fo", 2)


def test_a_registered_name_cannot_displace_an_own_command(app: typer.Typer, registered: dict[str, Entry]) -> None:
    registered["run"] = Entry("run", "nowhere:app", "Another run.", origin="package other 1.0")
    assert CliRunner().invoke(app, ["run"]).output == "own run\n"
    assert COMMANDS.broken["run"] == "package other 1.0: the command line has a command of that name"


def test_a_broken_command_breaks_only_itself(app: typer.Typer, registered: dict[str, Entry]) -> None:
    registered["broken"] = Entry("broken", "ddbench.nowhere:app", "Does nothing.", origin="package other 1.0")
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0
    with pytest.raises(UsageError, match="command 'broken'.*unavailable"):
        CliRunner().invoke(app, ["broken"], catch_exceptions=False)
