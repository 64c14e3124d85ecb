"""What a bundle holds: a tar file compressed with Zstandard, its first member an index of the others. Imports no torch.

    bundle.json                                     the index: SHA-256 and size of every other member
    cells/<id>/                                     spec.json launch.json result.json environment.json
                                                    provenance.json predictions.npy
    plans/<hash>.json                               what was asked for
    artefacts/test-labels/<content hash>.npy        the classes of the test images
    sets/<hash>/manifest.json <class id>/<00000>.png; images.npy labels.npy of floats

Nothing else may be in one. Names, times, owners and order of the members are fixed, so equal results make equal files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from ddbench.benchmark.core.provenance import PROVENANCE
from ddbench.benchmark.core.spec import Model
from ddbench.benchmark.core.store import CellDir, Launch

INDEX = "bundle.json"
SUFFIX = ".tar.zst"
FORMAT: Literal[1] = 1
MIB = 2**20
MOST_CHARACTERS = 200
"""Of a name that tables show."""


class Member(Model):
    """One file of a bundle."""

    size: int = Field(ge=0)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Index(Model):
    """`bundle.json`."""

    format: Literal[1] = FORMAT
    by: str | None = Field(default=None, max_length=MOST_CHARACTERS)
    """Who made it, in their own words."""
    made_at: str | None = Field(default=None, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    """When the last of its results was finished, UTC."""
    ddbench: str
    """Version of ddbench that made it."""
    members: dict[str, Member]
    """Name -> file, sorted by name."""


@dataclass(frozen=True)
class Kind:
    """One kind of member."""

    pattern: re.Pattern[str]
    most_bytes: int


_CELL = r"cells/(?:distill|evaluate)-[0-9a-f]{16}"
KINDS = tuple(
    Kind(re.compile(pattern), mib * MIB)
    for pattern, mib in (
        (rf"{_CELL}/(?:spec|launch|environment|{PROVENANCE.removesuffix('.json')})\.json", 1),
        (rf"{_CELL}/result\.json", 16),
        (rf"{_CELL}/predictions\.npy", 64),
        (r"plans/[0-9a-f]{16}\.json", 64),
        (r"artefacts/test-labels/[0-9a-f]{16}\.npy", 64),
        (r"sets/[0-9a-f]{16}/manifest\.json", 1),
        (r"sets/[0-9a-f]{16}/(?:images|labels)\.npy", 4096),
        (r"sets/[0-9a-f]{16}/[^./\\][^/\\]{0,127}/\d{5,9}\.png", 64),
    )
)
"""Every name that a member may have. There is no room in it for `..`, for a path from the root, or for a name that is
not printable (`kind_of`)."""


def kind_of(name: str) -> Kind | None:
    """The kind of the member of that name; None where a bundle has none such."""
    if not name.isprintable():
        return None
    return next((kind for kind in KINDS if kind.pattern.fullmatch(name)), None)


def launch_of(cell: CellDir) -> Launch:
    """A cell's launch file; one that says nothing where it is gone or of another version."""
    try:
        return cell.launch()
    except (OSError, ValueError):
        return Launch(label="")


def without_folders(launch: Launch) -> Launch:
    """What of a launch file means something on another machine."""
    return Launch(label=launch.label, subset=launch.subset, test_images=launch.test_images)


def dumped(launch: Launch) -> dict[str, Any]:
    """As JSON, and only what is said: other versions of ddbench have other fields."""
    return without_folders(launch).model_dump(mode="json", exclude_defaults=True)
