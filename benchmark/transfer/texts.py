"""JSON that somebody else has written: numbers that are numbers, and texts that are only texts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from ddbench.benchmark.core.errors import UsageError

DEEPEST = 40
"""Levels of nesting; results have about eight."""
MARKUP = re.compile(
    r"<\s*/?\s*(?:a|audio|base|body|button|embed|form|frame|html|i?frame|img|input|link|meta|object|script|style|svg|"
    r"template|textarea|video)\b|<!|javascript:",
    re.IGNORECASE,
)
"""What is markup in a text that may well say `n < 3`, or `<class 'int'>`."""


def parse(data: bytes, name: str) -> Any:
    """The value of a JSON file.

    Raises:
        UsageError: not JSON, a key that stands twice, a number that is none, nesting without end, or a text with
            control characters or HTML in it.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            raise ValueError("a key stands twice in one object")
        return dict(pairs)

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text[:20]} is no finite number")
        return value

    try:
        value = json.loads(data, object_pairs_hook=once, parse_constant=finite, parse_float=finite)
    except RecursionError as error:
        raise UsageError(f"{name}: nested too deeply") from error
    except ValueError as error:  # also of bytes that are no UTF-8, and of numbers with too many digits
        raise UsageError(f"{name}: not JSON: {shown(str(error))}") from error
    for text in strings(value, name):
        check(text, name)
    return value


def check(text: str, name: str) -> None:
    """Raises UsageError for a text with control characters or HTML in it."""
    if not all(c.isprintable() or c in "\n\t" for c in text):
        raise UsageError(f"{name}: a text with control characters in it: {shown(text)}")
    if MARKUP.search(text):
        raise UsageError(f"{name}: a text with HTML in it: {shown(text)}")


def shown(text: str, most: int = 80) -> str:
    """A hostile text in one short line that does nothing to a terminal."""
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= most else f"{plain[:most]}…"


def strings(value: Any, name: str, depth: int = 0) -> Iterator[str]:
    """Every text of a JSON value, keys too.

    Raises:
        UsageError: nesting without end.
    """
    if depth > DEEPEST:
        raise UsageError(f"{name}: nested more than {DEEPEST} levels deep")
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for one in value.values():
            yield from strings(one, name, depth + 1)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one, name, depth + 1)
