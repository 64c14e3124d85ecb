"""Standard streams that are closed, or that cannot hold every letter: the answer is the same, and no file is hit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = (sys.executable, "-P", "-m", "ddbench")


def bench(*words: str, closed: str = "", encoding: str | None = None) -> subprocess.CompletedProcess[str]:
    command = f'exec "$@" {closed}'
    environment = {**os.environ, **({} if encoding is None else {"PYTHONIOENCODING": encoding})}
    return subprocess.run(["sh", "-c", command, "sh", *BENCH, *words], capture_output=True, text=True, env=environment)


def test_letters_that_an_encoding_lacks_are_escaped_as_json_has_them() -> None:
    plain, escaped = (bench("list", "methods", "--json", encoding=encoding) for encoding in ("utf-8", "ascii"))
    assert not plain.stdout.isascii()
    assert (escaped.returncode, escaped.stderr) == (0, "")
    assert escaped.stdout.isascii()
    assert json.loads(escaped.stdout) == json.loads(plain.stdout)
    table = bench("list", "methods", encoding="ascii")
    assert table.returncode == 0, table.stderr
    refused = bench("leaderboard", "--runs", "no\N{SNOWMAN}\N{PILE OF POO}", encoding="ascii")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: no\\u2603\\ud83d\\udca9 holds no results")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_harm(closed: str, tmp_path: Path) -> None:
    file = tmp_path / "closed.py"
    done = bench("new-method", "closed", "--out", str(file), closed=closed)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "class Closed" in file.read_text()  # and nothing that was printed
    refused = bench("leaderboard", "--runs", str(tmp_path / "nothing"), closed=closed)
    assert refused.returncode == 2
