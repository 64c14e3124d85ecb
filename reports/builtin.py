"""The commands that reports add to `bench`, as data: nothing is imported until one is used."""

from __future__ import annotations

from ddbench.benchmark.registry import Entry

ENTRIES: list[Entry] = [
    Entry("leaderboard", "ddbench.reports.commands:leaderboard_app", "Rank the methods of a results folder."),
    Entry("compare", "ddbench.reports.commands:compare_app", "Compare methods of a results folder, pair by pair."),
    Entry("status", "ddbench.reports.commands:status_app", "What was asked for and where each cell stands."),
]
