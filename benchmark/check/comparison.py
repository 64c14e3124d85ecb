"""When two runs of a method gave the same images: bit for bit, or up to float error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ddbench.benchmark.check.runs import Images
from ddbench.benchmark.check.subject import Broken
from ddbench.datasets.digits import Digits
from ddbench.methods.base import CostClass, DistilledImage, Method

PIXEL_TOLERANCE_LEVELS = 1
"""Levels of 255 by which a pixel may differ: a value between two levels gets the one that float error decides."""
LATENT_TOLERANCE = 1e-4
"""Most by which a latent's value may differ where batches were composed otherwise: a hundredth of a level of 255. Sums
in another order differ by the last bits, and the steps of a chain add up: 4e-6 was seen, for dmgd-paper."""
LATENT_TOLERANCE_BY_CLASSIFIER = 2e-3
"""The same of methods that train a classifier, whose gradient amplifies float error: a quarter of a level of 255.
1.1e-3 was seen for igd-minimax in batches of one, 1e-6 without its influence term."""


def latent_tolerance(method: type[Method]) -> float:
    """Most by which a latent's value may differ between runs of the method with other batches."""
    by_classifier = method.cost_class is CostClass.NEEDS_CLASSIFIER
    return LATENT_TOLERANCE_BY_CLASSIFIER if by_classifier else LATENT_TOLERANCE


def expect_same(found: Images, expected: Images, what: str) -> None:
    """Equal bit for bit: pixels, latents and path KL.

    Raises:
        Broken: they are not; the message says where.
    """
    if found.keys() != expected.keys():
        raise Broken(f"{what}: {len(found)} images, expected {len(expected)}")
    for key in expected:
        one, other = found[key], expected[key]
        differ = next((name for name, equal in _comparisons(one, other) if not equal), None)
        if differ:
            raise Broken(f"{what}: image {key[1]} of class {Digits.class_ids[key[0]]} has other {differ}")


def _comparisons(one: DistilledImage, other: DistilledImage) -> Iterator[tuple[str, bool]]:
    yield "pixels", np.array_equal(one.pixels, other.pixels)
    if one.latent is not None and other.latent is not None:
        yield "latents", np.array_equal(one.latent, other.latent)
    yield "latents", (one.latent is None) == (other.latent is None)
    yield "path KL", dict(one.guidance_nats) == dict(other.guidance_nats)


def expect_close(found: Images, expected: Images, latent_tolerance: float, what: str) -> float:
    """Equal up to float error. Returns the largest difference of a latent's value.

    Raises:
        Broken: they are not; the message says where.
    """
    if found.keys() != expected.keys():
        raise Broken(f"{what}: {len(found)} images, expected {len(expected)}")
    largest = 0.0
    for key in expected:
        one, other = found[key], expected[key]
        levels = int(np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max())
        if levels > PIXEL_TOLERANCE_LEVELS:
            where = f"image {key[1]} of class {Digits.class_ids[key[0]]}"
            raise Broken(f"{what}: {where} differs by up to {levels} of 255 levels")
        if one.latent is not None and other.latent is not None:
            largest = max(largest, float(np.abs(one.latent - other.latent).max()))
    if largest > latent_tolerance:
        raise Broken(f"{what}: latents differ by up to {largest:.2g}, more than float error ({latent_tolerance:g})")
    return largest
