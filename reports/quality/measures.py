"""What is measured of a distilled set: name, source, unit and direction, carried as data. Imports nothing heavy.

Legend: R the real training images that are looked at, S the distilled set; both as features where a measure says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml

from ddbench.benchmark.core.result import Record

FILE = Path(__file__).parents[1] / "reference" / "measures.yaml"
VERSION = 2
"""Version of the definitions: raised whenever a value for a given set changes; older measurements are made again."""
COVERAGE_NEIGHBOURS = 5
PRECISION_NEIGHBOURS = 3


class Measure(Record):
    """One number of a distilled set."""

    key: str
    """The measure's name in files; the unit is in it where it has one."""
    name: str
    """The measure's name in tables."""
    unit: str
    direction: Literal["up", "down", "none"]
    """Which way is better; `none`: neither end is."""
    of: Literal["features", "labels", "pixels", "files"]
    """What of the images the measure looks at."""
    source: str
    what: str
    """How the measure is computed, in a sentence."""

    @property
    def header(self) -> str:
        """`coverage % ↑`"""
        unit = {"percent": " %", "bytes": " B", "ratio": " ×"}.get(self.unit, "")
        return f"{self.name}{unit}{ARROWS[self.direction]}"


ARROWS = {"up": " ↑", "down": " ↓", "none": ""}

MEASURES = tuple(Measure.model_validate(one) for one in yaml.safe_load(FILE.read_text(encoding="utf-8")))
KEYS = tuple(measure.key for measure in MEASURES)
