"""Named random streams: every draw comes from a generator whose seed says what the draw is for.

A stream is named by the run's seed, a purpose and any further keys (wnid, image index, epoch …). Two draws with
different names never share a generator, so neither batch size nor the order of the work can change a result.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Key = str | int

STUDENTS_PER_SET = 1000
"""A student's seed is set seed × this + repeat: students of different sets never share a seed, and a later run with
more repeats keeps the students it has. Methods compared on the same set seed share the students' seeds."""


def stream_seed(seed: int, purpose: str, *key: Key) -> int:
    """The 63-bit seed of the stream `(seed, purpose, *key)`: the head of the SHA-256 of the name as JSON."""
    name = json.dumps([seed, purpose, *key], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def stream(seed: int, purpose: str, *key: Key) -> torch.Generator:
    """A CPU `torch.Generator` at the start of the named stream; the CPU makes draws equal on every device."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, purpose, *key))


def sklearn_seed(seed: int, purpose: str, *key: Key) -> int:
    """The named stream's seed cut to the 32 bits that NumPy's and scikit-learn's `random_state` take."""
    return stream_seed(seed, purpose, *key) & 0xFFFF_FFFF


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """The global generators of `random` and NumPy, put back after the block: for libraries that draw from no others,
    which are seeded from a named stream inside it."""
    import numpy as np

    python: Any = random.getstate()
    legacy: Any = np.random.get_state()  # noqa: NPY002 - the global generator is what is kept
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002 - … and put back
