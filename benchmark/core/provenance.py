"""Where a cell came from that was not run in this results folder: the bundles it travelled in. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ddbench.benchmark.core.files import read_regular
from ddbench.benchmark.core.spec import Model

PROVENANCE = "provenance.json"
"""File beside `result.json` of a cell that was merged; a cell that was run here has none."""


class Origin(Model):
    """A bundle that brought a cell, and what its reader could make of it."""

    bundle: str
    """Name of the file."""
    sha256: str
    """SHA-256 of the file."""
    by: str | None = None
    """Who made the bundle, in their own words."""
    made_at: str | None = None
    """When the last of the bundle's results was finished: UTC, ISO 8601."""
    unverified: tuple[str, ...] = ()
    """What of the cell could not be recomputed when it was merged, and why; empty: everything that can be was, and it
    agreed."""

    def __str__(self) -> str:
        return f"from bundle {self.bundle} ({self.sha256[:8]})"


class Provenance(Model):
    """The bundles of a cell, in the order in which it travelled: whoever made the first has run it."""

    origins: tuple[Origin, ...]

    @property
    def first(self) -> Origin:
        return self.origins[0]

    @property
    def last(self) -> Origin:
        """The one whose check was made here."""
        return self.origins[-1]


def provenance_of(cell: Path) -> Provenance | None:
    """What lies in a cell's directory; None for a cell that was run here, or a file that says nothing."""
    try:
        found = Provenance.model_validate_json(read_regular(f"{cell}/{PROVENANCE}"))
    except (OSError, ValidationError):
        return None
    return found if found.origins else None
