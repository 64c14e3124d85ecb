"""The commands that reports add to `bench`, as data: nothing is imported until one is used."""

from __future__ import annotations

from ddbench.benchmark.registry import Entry

ENTRIES: list[Entry] = [
    Entry("leaderboard", "ddbench.reports.commands:leaderboard_app", "Rank the methods of a results folder."),
    Entry("compare", "ddbench.reports.commands:compare_app", "Compare methods of a results folder, pair by pair."),
    Entry("report", "ddbench.reports.site.command:app", "Build a static site from a results folder."),
    Entry("figures", "ddbench.reports.figure_command:figures_app", "Draw figures for a paper, as SVG and PDF."),
    Entry("quality", "ddbench.reports.quality.command:quality_app", "Measure the distilled sets themselves."),
    Entry("status", "ddbench.reports.commands:status_app", "What was asked for and where each cell stands."),
]
