"""Checks that run a method again: with the same seed, with another, with other batches, after an interruption."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from ddbench.benchmark.check.comparison import expect_close, expect_same, latent_tolerance
from ddbench.benchmark.check.runs import CLASSES
from ddbench.benchmark.check.subject import Broken, Subject


def deterministic(subject: Subject) -> str:
    expected = subject.reference
    torch.manual_seed(12345)
    np.random.seed(12345)  # noqa: NPY002 - what a contestant must not listen to
    random.seed(12345)
    again = subject.runs.run(artefacts="again")
    expect_same(again, expected, "run again with the same seed, other global generators and nothing cached")
    return "the same bits"


def seeds(subject: Subject) -> str:
    other = subject.runs.run(seed=1, artefacts="reference") if subject.reference else {}
    differs = any(not np.array_equal(other[key].pixels, image.pixels) for key, image in subject.reference.items())
    if differs and not subject.method.uses_seed:
        raise Broken("declares uses_seed = False, but another seed gives other images")
    if not differs and subject.method.uses_seed:
        raise Broken("another seed gives the same images; draw from task.stream, or declare uses_seed = False")
    return "another seed, other images" if differs else "it uses none, as it says"


def independent(subject: Subject) -> str:
    expected = subject.reference
    tolerance = latent_tolerance(subject.method)
    apart = expect_close(subject.class_order, expected, tolerance, "another order of classes and batches of 2")
    alone = subject.runs.run(classes=CLASSES[1:2], batch_size=1, artefacts="reference")
    of_class = {key: expected[key] for key in expected if key[0] == CLASSES[1]}
    apart = max(apart, expect_close(alone, of_class, tolerance, "a class alone, in batches of 1"))
    float_error = f"; latents differ by up to {apart:.1g}" if apart else ""
    return f"of the order of classes, of batches, of the classes beside{float_error}"


def resumable(subject: Subject) -> str:
    _ = subject.reference
    undisturbed = subject.class_order
    rounds = subject.runs.rounds_of("order", "undisturbed")
    if rounds < 2:
        raise Broken(f"{len(undisturbed)} images in batches of 2 came as one round: nothing is left to resume")
    same: dict[str, Any] = {"classes": CLASSES[::-1], "batch_size": 2, "artefacts": "order"}
    for committed in sorted({1, rounds - 1}):
        cell = f"killed-{committed}"
        killed = subject.runs.run(**same, cell=cell, stop_after=committed)
        resumed = subject.runs.run(**same, cell=cell)
        told = f"left off after round {committed} of {rounds} ({len(killed)} images) and gone on"
        expect_same(resumed, undisturbed, told)
        if subject.runs.rounds_of("order", cell) != rounds:
            raise Broken(f"{told}: {subject.runs.rounds_of('order', cell)} rounds; resumed batches are to be the same")
    expect_same(subject.runs.run(**same, cell="killed-1"), undisturbed, "run again when finished")
    if subject.runs.rounds_of("order", "killed-1") != rounds:
        raise Broken("a finished set was added to")
    return f"left off after the first and before the last of {rounds} rounds: the same bits, nothing made twice"
