"""What a cell is: the pydantic models whose canonical JSON is hashed into a cell's id.

Only what can change a result is in the id. Paths, jobs, device index and display names are not; they travel in a
cell's launch file (`store.Launch`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationInfo, field_validator, model_validator

SPEC_VERSION: Literal[1] = 1
"""Raised when the meaning of a field changes; old cells keep their ids and are no longer reused."""

Scalar = bool | int | float | str | None
DeviceType = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16"]
Compile = Literal["auto", "always", "never"]
"""Whether networks of students and priors go through `torch.compile`; never `yes` or `no`: YAML takes them for true and
false."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    return _CANONICAL.encode(value)


def digest(value: Any) -> str:
    """SHA-256, in hexadecimal, of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def brackets(values: Mapping[str, Scalar]) -> str:
    """`[key=value,…]`, sorted; empty for no values. How variants and modified protocols are written everywhere."""
    return f"[{','.join(f'{key}={_text(value)}' for key, value in sorted(values.items()))}]" if values else ""


def _text(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class NoTruthValues(BaseModel):
    """Base of what people fill in: a truth value is an error in every field that has no place for one. Without it
    `ot_scale: yes` in a study would be a run of its own, and `gpus: yes` one GPU."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and bool not in types_in(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"expected no truth value, got {str(value).lower()}")
        return value


def types_in(annotation: Any) -> set[Any]:
    """The types of a union or of a literal's values, or the one."""
    if get_origin(annotation) is Literal:
        return set(map(type, get_args(annotation)))
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType, Annotated) else ()
    return set().union(*map(types_in, parts)) if parts else {annotation}


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MethodSpec(Model):
    name: str
    """The base method's name; a variant is its parameters."""
    version: int
    params: dict[str, Scalar]
    """All parameters, resolved (`planning.parameters.in_order`)."""
    source_sha256: str | None = None
    """SHA-256 of the plugin file, for a method that comes from one: its author's edits must not reuse old cells."""


class DatasetSpec(Model):
    name: str
    split: str
    resolution: int


class ProtocolSpec(Model):
    name: str
    version: int
    overrides: dict[str, Scalar]
    hash: str

    @property
    def label(self) -> str:
        """`name@version`; a modified protocol says so: `name[epochs=60]@version`."""
        return f"{self.name}{brackets(self.overrides)}@{self.version}"


class Shard(Model):
    """One of `count` contiguous parts of a dataset's classes, whose sizes differ by one class at most."""

    index: int = Field(ge=0)
    count: int = Field(ge=2)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Shard:
        if self.index >= self.count:
            raise ValueError(f"expected index < count, got {self.index} and {self.count}")
        return self

    def classes(self, n_classes: int) -> range:
        """The indices of its classes among `n_classes`."""
        return range(n_classes * self.index // self.count, n_classes * (self.index + 1) // self.count)

    def __str__(self) -> str:
        return f"shard {self.index + 1} of {self.count}"


class DistillSpec(Model):
    """One distilled set, or the part of one that a shard of the classes is: a method on a dataset with one seed."""

    kind: Literal["distill"] = "distill"
    spec_version: Literal[1] = SPEC_VERSION
    method: MethodSpec
    dataset: DatasetSpec
    prior_sha256: str | None
    ipc: int | None
    """Images per class; None: the whole training set."""
    seed: int
    precision: Precision
    device_type: DeviceType
    shard: Shard | None = Field(default=None, exclude_if=lambda value: value is None)
    """The part of the classes that is distilled; None: all classes. It is then left out of the JSON, so a set has one
    id however it was made."""

    def classes(self, n_classes: int) -> range:
        """The indices of the classes that this cell distills."""
        return range(n_classes) if self.shard is None else self.shard.classes(n_classes)

    def shards(self, count: int) -> tuple[DistillSpec, ...]:
        """This set's parts; none where `count` is 1."""
        if count == 1:
            return ()
        return tuple(self.model_copy(update={"shard": Shard(index=index, count=count)}) for index in range(count))

    @property
    def whole(self) -> DistillSpec:
        """The set that a shard is part of; for a set, itself."""
        return self.model_copy(update={"shard": None})


class DistilledBy(Model):
    """The images come from a distill cell."""

    cell: str = Field(pattern=r"^distill-[0-9a-f]{16}$")
    """The distill cell's id, which names folders and pages: a specification with anything else in its place is none."""


class ForeignImages(Model):
    """The images were made elsewhere; their hash is their name."""

    image_set_sha256: str
    soft_labels_sha256: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Hash of the soft labels that came with the set, whether students are trained with them or not: numbers of hard
    labels, where soft ones were at hand, are told from others. None: there are none, and it is left out of the JSON."""
    with_test_images: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the set was taken although test images may be among its own; it then takes no rank."""
    same_method_as: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Image hash of the first set of the same method, in whose row this one counts; None: a row of its own."""


class ShiftedSpec(Model):
    """A shifted test set that a student is looked at on, once it is trained."""

    name: str
    corruptions: tuple[str, ...] = ()
    """In the order of ImageNet-C's paper; none of a set of photographs."""
    severities: tuple[int, ...] = ()
    sha256: str
    """Of the names and sizes of its files; of one that is made here, of what makes it."""

    def __str__(self) -> str:
        conditions = len(self.corruptions) * len(self.severities)
        return self.name + (f" ({conditions} conditions)" if conditions else "")


class EvaluateSpec(Model):
    """One student: trained on one distilled set under one protocol with one seed."""

    kind: Literal["evaluate"] = "evaluate"
    spec_version: Literal[1] = SPEC_VERSION
    images: DistilledBy | ForeignImages
    dataset: DatasetSpec
    ipc: int | None
    protocol: ProtocolSpec
    student: str
    teacher_sha256: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """SHA-256 of the teacher's weights; None under a protocol with hard labels, and then left out of the JSON."""
    seed: int
    device_type: DeviceType
    test_on: tuple[ShiftedSpec, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Shifted test sets that it is looked at on as well. They change nothing of its training; where there are none, it
    is left out of the JSON."""

    @property
    def student_id(self) -> str:
        """The id of this student's cell without shifted test sets: of cells that train the same one it is the same."""
        return cell_id(self.model_copy(update={"test_on": ()}))


CellSpec = Annotated[DistillSpec | EvaluateSpec, Field(discriminator="kind")]
CELL_SPEC: TypeAdapter[DistillSpec | EvaluateSpec] = TypeAdapter(CellSpec)


def cell_id(spec: DistillSpec | EvaluateSpec) -> str:
    """`<kind>-<first 16 hex digits of the SHA-256 of the canonical JSON>`."""
    return f"{spec.kind}-{digest(spec.model_dump(mode='json'))[:16]}"
