"""What there is to run, run on, and be judged by. A whole list reads entries only; one item in full imports its
declaration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS, ENGINES, METHODS, PROTOCOLS, Registry
from ddbench.benchmark.planning.study import find_study, study_names
from ddbench.benchmark.protocols.network_names import NETWORKS, TIMM
from ddbench.datasets.foreign.hub import published_sets

REGISTRIES: dict[str, Registry[Any]] = {
    "methods": METHODS,
    "datasets": DATASETS,
    "protocols": PROTOCOLS,
    "engines": ENGINES,
}


KINDS = (*REGISTRIES, "networks", "priors", "studies", "sets")


def rows(kind: str) -> list[dict[str, Any]]:
    """One mapping per registered thing of a kind (one of `KINDS`): name, summary, tags; or why it is unavailable."""
    if kind == "networks":
        known = [{"name": network.name, "summary": network.summary} for network in NETWORKS]
        return [*known, {"name": f"{TIMM}NAME", "summary": "any network of timm, random weights"}]
    if kind == "priors":
        return list(_priors())
    if kind == "studies":
        studies = [find_study(name) for name in study_names()]
        return [{"name": one.name, "summary": one.title, "tags": [], "source": one.source} for one in studies]
    if kind == "sets":
        return [
            vars(one) | {"ipc": list(one.ipc), "tags": [one.address, *(f"IPC {ipc}" for ipc in one.ipc)]}
            for one in published_sets()
        ]
    registry = REGISTRIES[kind]
    listed = [vars(entry) | {"tags": list(entry.tags), "overrides": dict(entry.overrides)} for entry in registry]
    for row in listed:
        del row["target"]
    broken = [{"name": name, "unavailable": reason} for name, reason in registry.broken.items()]
    return listed + broken


def unavailable(kind: str) -> dict[str, str]:
    """Names that people know and that are not here -> why, of a kind that has a registry."""
    return dict(REGISTRIES[kind].unavailable) if kind in REGISTRIES else {}


def _priors() -> Iterator[dict[str, Any]]:
    """Bundled, installed and known priors. The weights of installed ones, gigabytes, are not hashed for a list."""
    from ddbench.methods.diffusion.priors.catalogue import KNOWN
    from ddbench.methods.diffusion.priors.files import (
        METADATA,
        bundled_priors,
        find_prior,
        installed_folder,
        installed_priors,
        read_metadata,
    )

    bundled, installed = bundled_priors(), installed_priors()
    for name in bundled:
        found = find_prior(name)
        yield _prior(name, found.trained_on, found.metadata.resolution, "bundled") | {"sha256": found.sha256}
    for name in installed:
        try:
            metadata = read_metadata(installed_folder() / name / METADATA)
        except UsageError as error:
            yield {"name": name, "unavailable": str(error)}
        else:
            yield _prior(name, metadata.trained_on, metadata.resolution, "installed")
    for name, known in KNOWN.items():
        if name not in installed:
            install = f"not installed: bench prepare prior {name}"
            yield _prior(name, known.metadata.trained_on, known.metadata.resolution, install)


def _prior(name: str, trained_on: str, resolution: int, state: str) -> dict[str, Any]:
    return {"name": name, "summary": trained_on, "tags": [f"{resolution} px", state], "resolution": resolution}


def in_full(kind: str, name: str) -> dict[str, Any]:
    """One thing in full: its parameters, defaults, classes.

    Raises:
        UsageError: unknown name.
    """
    if kind not in REGISTRIES:
        known = {row["name"]: row for row in rows(kind)}
        if name not in known:
            raise UsageError(f"unknown {kind[:-1]} {name!r}; known: {', '.join(known)}")
        return known[name]
    entry = REGISTRIES[kind].entry(name)
    full = {"methods": _method, "datasets": _dataset, "protocols": _protocol, "engines": _engine}[kind](name)
    return {"name": name, "summary": entry.summary, "origin": entry.origin, **full}


def _method(name: str) -> dict[str, Any]:
    entry, method = METHODS.entry(name), METHODS.load(name)
    parameters = [
        {
            "name": key,
            "default": entry.overrides.get(key, field.get_default(call_default_factory=True)),
            "description": field.description or "",
        }
        for key, field in method.Params.model_fields.items()
    ]
    return {
        "variant of": entry.variant_of,
        "prior tuned by": entry.prior_tuned_by,
        "version": method.version,
        "cost class": "fine-tunes" if entry.prior_tuned_by else str(method.cost_class),
        "needs a prior": method.needs_prior,
        "parameters": parameters,
    }


def _dataset(name: str) -> dict[str, Any]:
    dataset = DATASETS.load(name)
    defaults = {
        method: {key: {"value": d.value, "reason": d.reason} for key, d in given.items()}
        for method, given in dataset.method_defaults.items()
    }
    return {
        "class ids": list(dataset.class_ids),
        "class names": list(dataset.class_names),
        "resolution": dataset.resolution,
        "channels": dataset.channels,
        "splits": list(dataset.splits),
        "headline": vars(dataset.headline),
        "prior": dataset.prior,
        "own defaults": defaults,
    }


def _protocol(name: str) -> dict[str, Any]:
    protocol = PROTOCOLS.load(name)
    return {"id": protocol.id, "hash": protocol.hash, **protocol.model_dump(mode="json", exclude={"name", "summary"})}


def _engine(name: str) -> dict[str, Any]:
    return {"what": (ENGINES.load(name).__doc__ or "").strip()}
