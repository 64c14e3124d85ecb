"""What the rows of a table share, and what tells one from others where its name does not."""

from __future__ import annotations

from collections.abc import Sequence

from ddbench.benchmark.core.spec import digest
from ddbench.reports.results.groups import Row
from ddbench.reports.results.paths import without_paths
from ddbench.reports.results.rows import printable


def settings_of(members: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """(what all rows share, what each row is marked with).

    Rows whose images came with soft labels that were not used say so. Prior, its precision and devices are said once
    where one value holds for all rows that have one, else at each row. What else makes a method is said only where two
    rows would otherwise bear the same name.
    """
    # A folder's own name will do: the hash tells it from others.
    priors = [prior for row in members if (prior := row.prior) is not None]
    names = {prior.sha256: without_paths(printable(prior.name)) for prior in priors}
    facts = [_facts(row, names) for row in members]
    shared: list[str] = []
    marks: list[list[str]] = [[] if row.left_labels_for is None else [row.left_labels_for] for row in members]
    for kind in ("prior", "precision", "distill device", "evaluate device"):
        values = {fact[kind] for fact in facts} - {None}
        shared += [value for value in values if value is not None and len(values) == 1]
        for mark, fact in zip(marks, facts, strict=True):
            mark += [value] if len(values) > 1 and (value := fact[kind]) is not None else []
    for kind in ("precision without prior", "images", "labels", "version", "source", "parameters"):
        for mark, fact, row in zip(marks, facts, members, strict=True):
            namesakes = {other[kind] for other, named in zip(facts, members, strict=True) if named.label == row.label}
            mark += [value] if len(namesakes) > 1 and (value := fact[kind]) is not None else []
    return shared, marks


def _facts(row: Row, prior_names: dict[str, str]) -> dict[str, str | None]:
    key, method = row.key, row.method
    prior, precision = key.prior_sha256, key.precision and f"sampled in {key.precision}"
    return {
        "prior": None if prior is None else f"prior {prior_names.get(prior, 'unknown')} ({prior[:8]})",
        "precision": None if prior is None else precision,
        "precision without prior": precision if prior is None else None,
        "distill device": key.distill_device and f"distilled on {key.distill_device}",
        "evaluate device": f"students on {key.evaluate_device}",
        "images": key.images,
        "labels": key.labels_sha256 and f"its soft labels ({key.labels_sha256[:8]})",
        "version": None if method is None else f"version {method.version}",
        "source": None if method is None or not method.source_sha256 else f"source {method.source_sha256[:8]}",
        "parameters": None if method is None else f"parameters {digest(method.params)[:8]}",
    }
