"""How the values of a set of floats were made from pixels in 0…1: said by who brings the set, held against its values.

A guess would be a silently wrong number: a student that is normalised twice, or not at all, trains without complaint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.whitening import Zca

KNOWN: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {
    "none": ((0.0,), (1.0,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""Name -> mean and standard deviation by channel (one: of every channel); CIFAR's are those of DC, DM and MTT."""
EXPECTED = "expected none, imagenet, cifar10, cifar100, zca or mean=…,std=…, such as mean=0.5,0.5,0.5,std=0.5,0.5,0.5"
FAR, MOST_FAR = 0.25, 1 / 3
"""How far outside 0…1 a set's values may lie when its normalisation is taken back, and what share of them farther.
Learnt values leave that range, whole backgrounds by a little; values that were normalised otherwise lie far off."""
ROUNDING = 1e-3
"""What a value may lie beyond 0…1 and count as in it: arithmetic in half precision."""


@dataclass(frozen=True)
class Normalisation:
    """(pixels − mean) / std by channel, of pixels in 0…1."""

    text: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def undo(self, values: np.ndarray) -> np.ndarray:
        """(N, H, W, C) of any float type -> float32 where 0 is black and 1 white, the same on every machine."""
        return (values.astype(np.float64) * np.array(self.std) + np.array(self.mean)).astype(np.float32)


def parse(text: str, channels: int) -> Normalisation:
    """What `--normalisation` says.

    Raises:
        UsageError: something else, a standard deviation that is not positive, or numbers for other channels.
    """
    if text == "zca":
        raise UsageError(f"--normalisation zca: {ZCA}")
    if text in KNOWN:
        mean, std = KNOWN[text]
    else:
        said = re.fullmatch(r"mean=([^a-z]+?),?std=([^a-z]+)", text.replace(" ", ""))
        try:
            mean, std = ([float(number) for number in part.split(",")] for part in (said.groups() if said else ()))
        except ValueError:
            raise UsageError(f"--normalisation {text}: {EXPECTED}") from None
    if not {len(mean), len(std)} <= {1, channels}:
        raise UsageError(
            f"--normalisation {text}: it has {max(len(mean), len(std))} values for {channels} channels; give one, or "
            "one for each"
        )
    if min(std) <= 0 or not all(np.isfinite([*mean, *std])):
        raise UsageError(f"--normalisation {text}: expected finite means and positive standard deviations")
    return Normalisation(text, tuple(mean), tuple(std))


ZCA = (
    "ZCA whitening mixes all pixels of a square float image, and is taken back by the matrix of the dataset's training "
    "images; bring such a set to a protocol that whitens, --protocol dc-convnet3-zca"
)


def undo(
    values: np.ndarray, text: str | None, where: str, zca: Callable[[int], Zca] | None = None
) -> tuple[np.ndarray, str]:
    """A set's values as pixels, and what was found of them.

    Args:
        values: (N, H, W, C), finite.
        text: what the user said of them; None: nothing.
        zca: the whitening that `zca` says they went through, by the side of the images; None: there is none.

    Raises:
        UsageError: nothing was said, or something that the values contradict.
    """
    low, high, channels = float(values.min()), float(values.max()), values.shape[-1]
    found = f"{where}: its values go from {low:.4g} to {high:.4g}"
    if low >= -ROUNDING and high > 2 and high <= 255 + ROUNDING and (text is None or text == "none"):
        raise UsageError(f"{found}, as pixels in 0…255 do; save them as uint8, or divide them by 255")
    if text is None:
        raise UsageError(f"{found}; say how they were normalised with --normalisation: {_proposal(values)}")
    if text == "zca" and zca is not None and values.shape[1] == values.shape[2]:
        pixels, what = zca(values.shape[1]).undo(values).astype(np.float32), "ZCA whitening by the training images"
        advice = "was it done with another data set, another ε, or to images of another side?"
        return pixels, _plausible(pixels, what, found, advice)
    chosen = parse(text, channels)
    if low >= 0 and high <= 1 and {*chosen.mean, 1 - chosen.std[0]} != {0.0}:
        raise UsageError(
            f"{found}, as pixels do that are not normalised, so {text} would be taken back from what it was never done "
            "to; say --normalisation none"
        )
    pixels = chosen.undo(values)
    return pixels, _plausible(pixels, f"normalisation {text}", found, _proposal(values))


def _plausible(pixels: np.ndarray, what: str, found: str, advice: str) -> str:
    """What is said of pixels once `what` is taken back from the values; raises UsageError if they are none."""
    outside, far = _outside(pixels, ROUNDING), _outside(pixels, FAR)
    if far > MOST_FAR:
        raise UsageError(
            f"{found}. Without the {what}, {100 * far:.0f} % of them lie far outside 0…1, so this is not how they were "
            f"made: {advice}"
        )
    kept = f", {100 * outside:.2f} % of them outside 0…1, which are kept" if outside else ""
    first, last = (round(float(value), 4) + 0.0 for value in (pixels.min(), pixels.max()))  # no -0.0
    return f"pixels from {first} to {last}, {what} taken back{kept}"


def _outside(pixels: np.ndarray, by: float) -> float:
    return float(np.mean((pixels < -by) | (pixels > 1 + by)))


def _proposal(values: np.ndarray) -> str:
    """Names with which the values become pixels, none of which is certain."""
    low, high, channels = values.min(), values.max(), values.shape[-1]
    if low >= 0 and high <= 1:
        return "none, if these are pixels in 0…1"
    usual = [name for name in KNOWN if name != "none" and channels == 3] + ["mean=0.5,std=0.5"]
    fitting = [name for name in usual if _outside(parse(name, channels).undo(values), FAR) <= MOST_FAR]
    if not fitting:
        return f"none of the usual ones fits ({', '.join(usual)}); {EXPECTED}"
    return f"{' or '.join(fitting)} would fit, or zca; which is right stands in the program's data loading"
