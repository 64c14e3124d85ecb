"""What people named is printed as they named it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("api", "benchmark", "datasets", "methods", "reports")


def test_no_console_draws_pictures_for_words_between_colons() -> None:
    """rich's default makes one of `hf:x:`; a name is no markup."""
    calls = [
        (path.relative_to(ROOT), node)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Console"
    ]
    assert len(calls) > 10, "else this looks in the wrong place"
    told = {"emoji": False}
    others = [
        f"{path}:{node.lineno}"
        for path, node in calls
        if told != {key.arg: getattr(key.value, "value", None) for key in node.keywords if key.arg == "emoji"}
    ]
    assert others == [], "Console(emoji=False, …)"
