"""The table of checks, in the order in which they run.

A check returns a note when it passes, raises `Broken` with what was found, or `NotApplicable` with why not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ddbench.benchmark.check.contents import images, labels, real_images, unseen
from ddbench.benchmark.check.declarations import contract, parameters, supports
from ddbench.benchmark.check.repetition import deterministic, independent, resumable, seeds
from ddbench.benchmark.check.side_effects import global_state, memory
from ddbench.benchmark.check.subject import Subject


class Check(NamedTuple):
    """One thing that the contract asks."""

    title: str
    run: Callable[[Subject], str]


CHECKS = {
    "contract": Check("declarations are complete and agree with each other", contract),
    "parameters": Check("documented, with valid defaults, refuse what they should", parameters),
    "supports": Check("what it says of where it runs is true", supports),
    "images": Check("right counts, shapes and values", images),
    "labels": Check("each image is of its class", labels),
    "deterministic": Check("one seed, one result", deterministic),
    "seeds": Check("another seed counts, if it says so", seeds),
    "independent": Check("of class order, batches and the classes beside", independent),
    "resumable": Check("left off after a round, ends with the same bits", resumable),
    "global state": Check("random generators and settings are left alone", global_state),
    "memory": Check("given back after a run", memory),
    "test images": Check("none seen (planted canaries)", unseen),
    "real images": Check("no more looked at than it says", real_images),
}
