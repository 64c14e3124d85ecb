"""The engine's own commands that are imported only when used, as data."""

from __future__ import annotations

from ddbench.benchmark.registry import Entry

ENTRIES: list[Entry] = [
    Entry("prepare", "ddbench.benchmark.dataset_commands:prepare_app", "Find a dataset's files; decode them once."),
    Entry(
        "verify", "ddbench.benchmark.dataset_commands:verify_app", "Count a dataset's images against the whole split."
    ),
]
