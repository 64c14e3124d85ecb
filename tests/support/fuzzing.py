"""What every fuzz test shares: how many inputs there are, what may become of one, and how a true file is damaged.

In the suite each test has a few inputs, the same every time. `make fuzz` sets `DDBENCH_FUZZ`, by which their number is
multiplied, and each round then draws others.
"""

from __future__ import annotations

import atexit
import copy
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ddbench.benchmark.core.errors import RunError, UsageError

TIMES = int(os.environ.get("DDBENCH_FUZZ", "0"))
TALLY = os.environ.get("DDBENCH_FUZZ_TALLY")
"""A file to which each process appends, as a line of JSON, what became of its inputs."""
MOST_SECONDS = 30.0
"""More than this for one small input is a hang, on a busy machine too."""
MOST_MIB = 1024
LONGEST_LINE = 2000
tally: Counter[str] = Counter()


def fuzzed(inputs: int) -> settings:
    """The settings of a test: so many inputs in the suite."""
    return settings(
        max_examples=inputs * max(1, TIMES),
        derandomize=not TIMES,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


class Hang(BaseException):
    """No `except Exception` of the program keeps it."""


def _late(_signal: int, _frame: FrameType | None) -> None:
    raise Hang(f"no answer within {MOST_SECONDS:g} s")


@contextmanager
def held(target: str) -> Iterator[None]:
    """One input: it is answered, or refused in lines of a length to be read (the command line escapes what cannot be
    printed). Any other exception passes through and fails the test.

    Raises:
        Hang: neither within half a minute.
        AssertionError: a refusal that nobody reads, or a gibibyte of memory.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew
    before = memory_mib("VmRSS")
    usual = signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    outcome = "answered"
    try:
        yield
    except (UsageError, RunError) as error:
        outcome = "refused"
        lines = str(error).splitlines()
        assert lines, "a refusal without a word"
        for line in lines:
            assert len(line) <= LONGEST_LINE, f"{len(line):,} characters: {line[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    took = memory_mib("VmHWM") - before
    assert took < MOST_MIB, f"{took:,.0f} MiB for one input"
    tally[f"{target}: {outcome}"] += 1


def memory_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


@atexit.register
def _write_tally() -> None:
    if TALLY and tally:
        with Path(TALLY).open("a") as file:
            file.write(json.dumps(tally) + "\n")


# What is put in the place of what belongs there

WORDS = ("", "x", "3", "../../x", "/etc/passwd", "\x1b[2J", "\ud800", "nan", "\u202e", "<b>", "=1+1", "a" * 300)
SCALARS = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 10**9, 2**63, -(10**40), 10**400, 0.5, 1e300, 5e-324]),
    st.sampled_from(WORDS),
    st.integers(-3, 12),
    st.floats(),
    st.text(max_size=6),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "seconds", "name"]), inner),
    max_leaves=4,
)


@st.composite
def changed_value(draw: st.DrawFn, value: Any) -> Any:
    """A value of JSON with one to three of its places changed, dropped, doubled or swapped with others."""
    changed = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(changed))
        if not places:
            return draw(VALUES)
        where, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["other", "other", "none", "drop", "swap", "whole"])):
            case "other":
                where[key] = draw(VALUES)
            case "none":
                where[key] = None
            case "drop":
                del where[key]
            case "swap":
                there, other = draw(st.sampled_from(places))
                where[key] = copy.deepcopy(there[other])
            case "whole" if draw(st.integers(0, 9)) == 0:
                return draw(VALUES)
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """A file that lost its end, or some of whose bytes are others, gone, doubled or numbers beyond reason."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, min(len(changed) - 1, 4096)))) if draw(st.booleans()) else None
        at = draw(st.integers(0, max(0, len(changed) - 1))) if at is None else at
        match draw(st.sampled_from(["flip", "number", "cut", "drop", "double", "put"])):
            case "flip" if changed:
                changed[at] ^= draw(st.integers(1, 255))
            case "number":
                size = draw(st.sampled_from([1, 2, 4, 8]))
                order = draw(st.sampled_from(["little", "big"]))
                changed[at : at + size] = (draw(st.sampled_from(NUMBERS)) % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
            case "cut":
                del changed[at:]
            case "drop":
                del changed[at : at + draw(st.integers(1, 64))]
            case "double":
                changed[at:at] = changed[at : at + draw(st.integers(1, 64))]
            case "put":
                changed[at:at] = draw(st.binary(max_size=16))
    return bytes(changed)
