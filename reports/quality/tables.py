"""Measurements as tables: `bench quality --json`, key by key. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ddbench.benchmark.core.result import Record
from ddbench.reports.quality.measures import KEYS, MEASURES, Measure
from ddbench.reports.quality.ranking_scores import ScoreTable, score_tables
from ddbench.reports.quality.records import FeatureSpace, Measured, QualityRecord
from ddbench.reports.quality.sets import FinishedSet, Maker
from ddbench.reports.results import groups
from ddbench.reports.results.rows import Problem, Results, printable


class Mean(Record):
    """A measure of a method: over its distilled sets."""

    mean: float
    std: float | None
    """Sample standard deviation over sets; None for one set."""
    n: int
    """Distilled sets that have the measure."""


class QualityRow(Record):
    """A method."""

    method: str
    """The method as leaderboards call it."""
    qualifiers: list[str]
    """What tells the method from others of that name."""
    sets: int
    """Finished distilled sets."""
    measured: int
    image_sets: list[str]
    """Hashes of the measured ones."""
    values: dict[str, Mean]
    """`Measure.key` -> mean."""


class QualityTable(Record):
    """Methods whose sets have one size and were measured in one space against one sample of real images."""

    title: str
    dataset: str
    """Name of the dataset."""
    split: str
    """How the dataset is divided into training and test images."""
    resolution: int
    """Side of the images, pixels."""
    content_hash: str
    """Hash of the split's images."""
    ipc: int
    """Images per class."""
    features: FeatureSpace
    real: int
    """Training images that were looked at."""
    train: int
    devices: list[str]
    rows: list[QualityRow]
    notes: list[str]


class QualityReport(Record):
    schema_version: int = 1
    measures: list[Measure]
    tables: list[QualityTable]
    scores: list[ScoreTable]
    problems: list[Problem]


def build(
    results: Results,
    sets: Sequence[FinishedSet],
    measured: Measured,
    problems: Sequence[Problem],
    *,
    spaces: Sequence[str] | None = None,
    methods: Sequence[str] = (),
) -> QualityReport:
    """The report on what has been measured.

    Args:
        sets: the finished sets.
        spaces: hashes of the feature spaces to show; None: all.
        methods: labels to show scores of; empty: all.
    """
    members: dict[tuple[object, ...], list[tuple[FinishedSet, QualityRecord]]] = {}
    for made in sets:
        for record in measured.records.get(made.image_set_sha256, ()):
            if not record.is_of(made.image_set_sha256, made.dataset, made.ipc):
                continue
            if spaces is None or record.features.space.sha256 in spaces:
                members.setdefault(_key(record), []).append((made, record))
    tables = [_table(found, sets) for found in members.values()]
    scores = score_tables(results.store, groups.group(results))
    for table in scores:
        table.rows = [row for row in table.rows if not methods or row.method in methods]
    return QualityReport(
        measures=list(MEASURES),
        tables=sorted(tables, key=lambda t: (t.dataset, t.split, t.resolution, t.features.space.title, t.ipc)),
        scores=[table for table in scores if table.rows],
        problems=list(dict.fromkeys([*results.problems, *measured.problems, *problems])),
    )


def _key(record: QualityRecord) -> tuple[object, ...]:
    data, space = record.dataset, record.features
    what = (data.name, data.split, data.resolution, data.content_hash, record.ipc)
    return (*what, space.space.sha256, space.weights_sha256, record.sample.real_per_class, record.version)


def _table(found: Sequence[tuple[FinishedSet, QualityRecord]], sets: Sequence[FinishedSet]) -> QualityTable:
    first, records = found[0][1], [record for _, record in found]
    by_maker: dict[Maker, dict[str, QualityRecord]] = {}
    for made, record in found:
        by_maker.setdefault(made.maker, {})[made.image_set_sha256] = record
    finished: dict[Maker, set[str]] = {}
    for made in sets:
        if first.is_of(first.image_set_sha256, made.dataset, made.ipc):
            finished.setdefault(made.maker, set()).add(made.image_set_sha256)
    missing = dict.fromkeys(f"{names[key]}: {printable(why)}" for r in records for key, why in r.missing.items())
    caveats = dict.fromkeys(printable(caveat) for record in records for caveat in record.caveats)
    data = first.dataset
    return QualityTable(
        title=printable(groups.title_of(data.name, data.split, first.ipc, f"{data.resolution} px")),
        dataset=data.name,
        split=data.split,
        resolution=data.resolution,
        content_hash=data.content_hash,
        ipc=first.ipc,
        features=first.features,
        real=first.sample.real,
        train=first.sample.train,
        devices=sorted({printable(record.device) for record in records}),
        rows=[_row(maker, by_sha, len(finished[maker]), list(by_maker)) for maker, by_sha in by_maker.items()],
        notes=[*missing, *caveats],
    )


names: Mapping[str, str] = {measure.key: measure.name for measure in MEASURES}


def _row(maker: Maker, records: Mapping[str, QualityRecord], finished: int, others: Sequence[Maker]) -> QualityRow:
    values = {}
    for key in KEYS:
        numbers = [record.values[key] for record in records.values() if key in record.values]
        if numbers:
            std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
            values[key] = Mean(mean=math.fsum(numbers) / len(numbers), std=std, n=len(numbers))
    return QualityRow(
        method=maker.label,
        qualifiers=_qualifiers(maker, [other for other in others if other.label == maker.label]),
        sets=finished,
        measured=len(records),
        image_sets=sorted(records),
        values=values,
    )


def _qualifiers(maker: Maker, namesakes: Sequence[Maker]) -> list[str]:
    facts = {
        "prior": maker.prior,
        "precision": maker.precision and f"sampled in {maker.precision}",
        "device": maker.device and f"distilled on {maker.device}",
        "version": maker.version and f"version {maker.version}",
        "method": f"{'images' if maker.version is None else 'parameters'} {maker.method[:8]}",
    }
    return [
        printable(text)
        for field, text in facts.items()
        if text and len({getattr(other, field) for other in namesakes}) > 1
    ]
