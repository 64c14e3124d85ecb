"""One form of "did you mean", for every name that people mistype."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """`did you mean 'a' or 'b'?`, the nearest of the known names whatever their case; none is near: `otherwise`, or
    all of them."""
    names = list(known)
    cased = {one.casefold(): one for one in reversed(names)}
    near = [cased[one] for one in difflib.get_close_matches(name.casefold(), cased, n=3)]
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return otherwise if otherwise is not None else f"known: {', '.join(names) or 'none'}."
