"""One measurement of a distilled set as a file, and the reader of a folder of them. Imports no torch.

<out>/quality/<16 of the set's hash>-<8 of the feature space's>.json     `QualityRecord`
<out>/quality/<16 of the set's hash>-nearest.png                         the nearest real image of each distilled one
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ddbench.benchmark.core.files import read_regular, write_json
from ddbench.benchmark.core.result import DatasetRecord, Record
from ddbench.benchmark.core.spec import digest
from ddbench.benchmark.core.store import Store
from ddbench.reports.quality.measures import KEYS
from ddbench.reports.results.paths import LEADS_OUT, leads_out
from ddbench.reports.results.rows import Problem, first_line, printable, schema_problem

SCHEMA_VERSION: Literal[1] = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Space(Record):
    """The feature space that was asked for: all that its features depend on, known before any image is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["classifier", "inception"]
    network: str
    recipe: dict[str, Any]
    """How the classifier is trained, or the SHA-256 of the file with weights."""
    image_size: int
    """Side at which images are looked at, pixels."""
    content_hash: str | None
    """Hash of the images that the classifier was trained on; None for weights from a file."""

    @property
    def sha256(self) -> str:
        return digest(self.model_dump(mode="json"))

    @property
    def title(self) -> str:
        """In a few words, for people."""
        network = printable(self.network)
        if self.kind == "inception":
            return f"{network} ({printable(str(self.recipe.get('weights_sha256')))[:8]})"
        if self.recipe.get("checkpoint_sha256"):
            return f"{network}, weights {printable(str(self.recipe['checkpoint_sha256']))[:8]}"
        return f"{network} trained on the real images ({printable(str(self.recipe.get('epochs')))} epochs)"


class FeatureSpace(Record):
    """The feature space as it was found."""

    space: Space
    dimensions: int
    weights_sha256: Sha256
    """Hash of the weights that gave the features."""
    validation_accuracy_percent: float | None
    """Accuracy of the classifier on training images that it did not see."""


class Sample(Record):
    """How many images were looked at. Subsamples are drawn by named streams, the same for every set."""

    real_per_class: int | None
    """The most real images of a class; None: all."""
    real: int
    """R: training images that were looked at."""
    train: int
    """Training images that there are."""
    distilled: int
    transport_real: int
    """Images of R and S between which the two transport problems were solved."""
    transport_distilled: int
    reference_queries: int
    """Images of R of which the nearest other one was looked for."""


class Sheet(Record):
    """The image with the nearest real image of each distilled one, by Euclidean distance of pixels, of any class.

    One row per class in label order, one column per image in the set's order, tiles without gaps; a class with fewer
    images ends in black tiles. Larger sets have their first classes and images here only.
    """

    file: str
    image_size: int = Field(ge=1, le=64)
    """Side of a tile, pixels."""
    columns: int = Field(ge=1, le=10)
    rows: int = Field(ge=1, le=100)


class QualityRecord(Record):
    """`runs/quality/….json`, key by key."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = SCHEMA_VERSION
    version: int
    """Version of the measures' definitions (`measures.VERSION`)."""
    image_set_sha256: Sha256
    dataset: DatasetRecord
    ipc: int
    image_size: int
    """Largest side of the set's images, pixels."""
    features: FeatureSpace
    sample: Sample
    values: dict[str, float]
    """`Measure.key` -> value."""
    missing: dict[str, str]
    """`Measure.key` -> why it could not be measured."""
    caveats: list[str]
    """What a reader must know before believing a value."""
    sheet: Sheet
    seconds: float
    """Wall-clock of measuring, without what all sets share."""
    device: str
    """Type and model of the device that computed the features."""
    versions: dict[str, str | None]

    @model_validator(mode="after")
    def _whole(self) -> QualityRecord:
        keys = [*self.values, *self.missing]
        if sorted(keys) != sorted(KEYS):
            raise ValueError(f"expected each of {', '.join(KEYS)} once, among values or missing; got {', '.join(keys)}")
        if self.sheet.file != sheet_name(self.image_set_sha256):
            raise ValueError(f"expected the sheet {sheet_name(self.image_set_sha256)}, got {self.sheet.file!r}")
        return self

    def is_of(self, image_set_sha256: str, dataset: DatasetRecord, ipc: int) -> bool:
        """Whether it is a measurement of that set against those images."""
        mine, other = (found.model_dump(exclude={"warning"}) for found in (self.dataset, dataset))
        return (self.image_set_sha256, self.ipc) == (image_set_sha256, ipc) and mine == other


@dataclass(frozen=True)
class Measured:
    """All measurements of a results folder."""

    records: Mapping[str, list[QualityRecord]]
    """Hash of the set -> its measurements, one for each feature space, in the order of their files."""
    problems: list[Problem]
    """Files that could not be used."""


def folder_of(store: Store) -> Path:
    return store.out / "quality"


def record_name(image_set_sha256: str, space: Space) -> str:
    return f"{image_set_sha256[:16]}-{space.sha256[:8]}.json"


def sheet_name(image_set_sha256: str) -> str:
    return f"{image_set_sha256[:16]}-nearest.png"


def write_record(store: Store, record: QualityRecord) -> Path:
    """Keep a measurement; one of the same set in the same space is replaced whole."""
    path = folder_of(store) / record_name(record.image_set_sha256, record.features.space)
    write_json(path, record.model_dump(mode="json"))
    return path


def read_quality(store: Store, *, follow_links: bool = True) -> Measured:
    """Every measurement of a results folder; files that are none are listed, never fatal.

    Args:
        follow_links: also read files that are links out of the folder; else they are listed.
    """
    records: dict[str, list[QualityRecord]] = {}
    problems: list[Problem] = []
    for path in sorted(folder_of(store).glob("*.json")):
        if path.name.startswith("."):
            continue
        if not follow_links and leads_out(path, store.out):
            problems.append(Problem(printable(str(path)), LEADS_OUT))
            continue
        try:
            record = QualityRecord.model_validate_json(read_regular(path))
            expected = record_name(record.image_set_sha256, record.features.space)
        except (OSError, ValueError) as error:
            problems.append(Problem(printable(str(path)), schema_problem(path, SCHEMA_VERSION) or first_line(error)))
            continue
        if path.name != expected:
            problems.append(Problem(printable(str(path)), f"it is the measurement {expected}: a copy, or edited"))
            continue
        records.setdefault(record.image_set_sha256, []).append(record)
    return Measured(records, problems)
