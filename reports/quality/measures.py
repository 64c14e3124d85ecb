"""What is measured of a distilled set, as data: name, source, unit and direction. Imports nothing heavy.

Legend: R the real training images that are looked at, S the distilled set; both as features where a measure says so.
"""

from __future__ import annotations

from typing import Literal

from ddbench.benchmark.core.result import Record

VERSION = 1
"""Of the definitions below: raised whenever a value for a given set changes; older measurements are made again."""
COVERAGE_NEIGHBOURS = 5
PRECISION_NEIGHBOURS = 3


class Measure(Record):
    """One number of a distilled set."""

    key: str
    """Its name in files; the unit is in it where it has one."""
    name: str
    """Its name in tables."""
    unit: str
    direction: Literal["up", "down", "none"]
    """Which way is better; `none`: neither end is."""
    of: Literal["features", "labels", "pixels", "files"]
    """What it looks at."""
    source: str
    what: str
    """How it is computed, in a sentence."""

    @property
    def header(self) -> str:
        """`coverage % ↑`"""
        unit = {"percent": " %", "bytes": " B", "ratio": " ×"}.get(self.unit, "")
        return f"{self.name}{unit}{ARROWS[self.direction]}"


ARROWS = {"up": " ↑", "down": " ↓", "none": ""}

NAEEM = "Naeem et al., ICML 2020"
KYNKAANNIEMI = "Kynkäänniemi et al., NeurIPS 2019"

MEASURES: tuple[Measure, ...] = (
    Measure(
        key="coverage_percent",
        name="coverage",
        unit="percent",
        direction="up",
        of="features",
        source=f"{NAEEM}, k = {COVERAGE_NEIGHBOURS}",
        what=f"share of R that has an image of S no farther away than its {COVERAGE_NEIGHBOURS}th nearest other image "
        "of R",
    ),
    Measure(
        key="otdd",
        name="OTDD",
        unit="squared feature distance",
        direction="down",
        of="features",
        source="Alvarez-Melis & Fusi, NeurIPS 2020, p = 2",
        what="exact optimal transport between the labelled sets at the cost ‖x − x'‖² + W₂²(class of x, class of x'), "
        "classes as Gaussians; not rooted",
    ),
    Measure(
        key="diversity_percent",
        name="diversity",
        unit="percent",
        direction="up",
        of="features",
        source="mean pairwise distance, as Zhu et al., NeurIPS 2017, take it of LPIPS",
        what="mean Euclidean distance between two images of a class of S, as a percentage of that between two of R, "
        "averaged over classes",
    ),
    Measure(
        key="frechet_distance",
        name="Fréchet",
        unit="squared feature distance",
        direction="down",
        of="features",
        source="Dowson & Landau, 1982; as FID, Heusel et al., NeurIPS 2017",
        what="squared Wasserstein-2 distance between two Gaussians with the means and covariances of R and S",
    ),
    Measure(
        key="precision_percent",
        name="precision",
        unit="percent",
        direction="up",
        of="features",
        source=f"{KYNKAANNIEMI}, k = {PRECISION_NEIGHBOURS}",
        what="share of S that lies within the distance of some image of R to its "
        f"{PRECISION_NEIGHBOURS}rd nearest other of R",
    ),
    Measure(
        key="recall_percent",
        name="recall",
        unit="percent",
        direction="up",
        of="features",
        source=f"{KYNKAANNIEMI}, k = {PRECISION_NEIGHBOURS}",
        what="share of R that lies within the distance of some image of S to its "
        f"{PRECISION_NEIGHBOURS}rd nearest other of S",
    ),
    Measure(
        key="transport_distance",
        name="W₂",
        unit="feature distance",
        direction="down",
        of="features",
        source="Peyré & Cuturi, 2019; solved exactly with POT",
        what="Wasserstein-2 distance between R and S without labels: the root of the least mean squared distance",
    ),
    Measure(
        key="label_agreement_percent",
        name="agreement",
        unit="percent",
        direction="up",
        of="labels",
        source="classification accuracy of generated images under a network trained on real ones",
        what="share of S that the classifier gives the label that it has in the set",
    ),
    Measure(
        key="nearest_median_ratio",
        name="nearest",
        unit="ratio",
        direction="none",
        of="pixels",
        source="nearest-neighbour check of memorisation, as in Heusel et al. 2017 and Carlini et al. 2023",
        what="median over S of the Euclidean distance to the nearest image of R, of any class, divided by the same "
        "median of R among itself",
    ),
    Measure(
        key="nearest_minimum_ratio",
        name="least",
        unit="ratio",
        direction="none",
        of="pixels",
        source="as above",
        what="the smallest of those distances, divided by the same median",
    ),
    Measure(
        key="copies_percent",
        name="copies",
        unit="percent",
        direction="none",
        of="pixels",
        source="as above",
        what="share of S that equals an image of R in every pixel; 100 for methods that select",
    ),
    Measure(
        key="stored_bytes_per_class",
        name="stored/class",
        unit="bytes",
        direction="down",
        of="files",
        source="sizes of the files",
        what="bytes of the set's image files as they lie on disk, by class; PNG where ddbench wrote them",
    ),
    Measure(
        key="raw_bytes_per_class",
        name="raw/class",
        unit="bytes",
        direction="down",
        of="files",
        source="height × width × channels of the images",
        what="bytes of the decoded images, 8 bits a value, by class",
    ),
)
KEYS = tuple(measure.key for measure in MEASURES)
