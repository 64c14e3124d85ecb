"""Names and counts as people read them: what tells namesakes apart, and `1 cell`, `2–3 sets`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def told_apart(names: Sequence[str], *longer: Sequence[str]) -> list[str]:
    """The names; in place of those that several bear, the first of the longer ones that tells them apart."""
    for others in longer:
        counts = Counter(names)
        names = [name if counts[name] == 1 else other for name, other in zip(names, others, strict=True)]
    return list(names)


def numbered(names: Sequence[str], form: str = "{}-{}") -> list[str]:
    """The second of one name is `<name>-2`, or what `form` makes of the name and 2, and so on."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(form.format(name, seen[name]) if seen[name] > 1 else name)
    return found


def counted(number: int | str, what: str) -> str:
    """`1 cell`, `2 cells`, `2–3 cells`."""
    return f"{number} {what}{'' if str(number) == '1' else 's'}"


def extent(sorted_values: Sequence[int]) -> str:
    """`2–3`, from the first to the last; one number where they are the same, `0` where there is none."""
    return "–".join(map(str, dict.fromkeys((sorted_values[0], sorted_values[-1])))) if sorted_values else "0"
