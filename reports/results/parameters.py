"""Where a method's parameters come from: the paper, the dataset's declaration, or whoever ran it. Imports no torch.

A leaderboard whose rows were tuned on different terms compares the tuning. So every row says whether it ran as its
paper says, as its dataset declares (and whether that was chosen on the dataset's validation part), or otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS
from ddbench.benchmark.core.result import PriorRecord
from ddbench.benchmark.core.spec import MethodSpec, Scalar
from ddbench.benchmark.planning.parameters import in_order
from ddbench.datasets.base import Dataset, Default
from ddbench.methods.base import NOTED, Method

Source = Literal["dataset", "variant", "user"]


@dataclass(frozen=True)
class Changed:
    """A parameter that is not at the method's own default, or is put back to it."""

    name: str
    value: Scalar
    default: Scalar
    source: Source
    reason: str
    """Why the dataset sets it so, where it does."""
    on_validation: bool


@dataclass(frozen=True)
class Origin:
    """What is known of a row's parameters."""

    known: bool
    """False: the method is not registered here, or has other parameters now."""
    changed: Sequence[Changed] = ()
    tags: Sequence[str] = ()
    """Tags of the registered variant that the row is."""

    @property
    def label(self) -> str:
        if not self.known:
            return "unknown here"
        if any(one.source == "user" for one in self.changed):
            return "set by hand"
        if "small" in self.tags:
            return "small budget"
        if "ablation" in self.tags:
            return "ablation"
        if any(one.on_validation for one in self.changed):
            return "tuned on validation"
        return "dataset defaults" if any(one.source == "dataset" for one in self.changed) else "paper defaults"


def method_of(spec: MethodSpec | None) -> Method | None:
    """The registered method with these parameters; None where it is not registered, or its parameters do not fit."""
    if spec is None or spec.name not in METHODS:
        return None
    try:
        method = METHODS.load(spec.name)
        loaded: Method = method(method.Params.model_validate(spec.params, context=NOTED))
    except Exception:  # not registered, or other parameters now; a plugin's validators may raise anything
        return None
    return loaded


def origin(label: str, spec: MethodSpec | None, dataset: str) -> Origin:
    """Where the parameters of a row come from.

    Args:
        label: its display name: that of a registered variant explains the variant's own parameters.
    """
    method = method_of(spec)
    if method is None or spec is None:
        return Origin(known=False)
    try:
        own = type(method).Params().model_dump(mode="json")
        declaring: type[Dataset] = DATASETS.load(dataset)
    except (UsageError, ValueError, ImportError):
        return Origin(known=False)
    name = label.partition("[")[0]
    entry = METHODS.entries().get(name)
    variant = entry.overrides if entry is not None else {}
    usual = in_order(spec.name, declaring, variant, name=name)
    changed = []
    for key, value in spec.params.items():
        # The method's own value is a change, too, where the variant or the dataset has another.
        if key not in own or value == own[key] == usual.get(key, own[key]):
            continue
        declared = declaring.method_defaults.get(name, {}).get(key)
        if declared is None and key not in variant:
            declared = declaring.method_defaults.get(spec.name, {}).get(key)
        source: Source = "dataset" if declared is not None else "variant"
        if key not in usual or usual[key] != value:
            declared, source = None, "user"
        declared = declared or Default(value, "")
        changed.append(Changed(key, value, own[key], source, declared.reason, declared.on_validation))
    return Origin(known=True, changed=changed, tags=entry.tags if entry is not None else ())


def real_images_read(method: Method | None, prior: PriorRecord | None) -> str:
    """`none`, `chosen`, `all` of the training images, or `unknown`. A tuned prior has seen them all."""
    if prior is not None and prior.tuned_by:
        return "all"
    found = None if method is None else method.reads_real_images()
    return "unknown" if found is None else str(found)


def may_be_published(method: Method | None) -> bool:
    """Whether a set's pictures are known to show no real image, nor parts of one."""
    return method is not None and method.shows_real_images() is False
