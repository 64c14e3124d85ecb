"""`bench check` on paper: one method in full, or many as a table of checks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddbench.benchmark.check.check import Report
from ddbench.benchmark.check.checks import CHECKS
from ddbench.benchmark.core.spec import brackets

MARKS = {"pass": "[green]pass[/]", "fail": "[bold red]FAIL[/]", "skip": "[yellow]skip[/]"}


def show(reports: list[Report], unavailable: dict[str, str], console: Console) -> None:
    """One method: every check with its reason. Several: one row each, then what failed or was skipped, and why."""
    if len(reports) == 1 and not unavailable:
        _show_one(reports[0], console)
    else:
        _show_many(reports, unavailable, console)


def as_json(reports: list[Report], unavailable: dict[str, str]) -> list[dict[str, Any]]:
    found = [
        {"method": r.method, "params": r.params, "failed": r.failed, "findings": [asdict(f) for f in r.findings]}
        for r in reports
    ]
    return found + [{"method": name, "failed": True, "unavailable": reason} for name, reason in unavailable.items()]


def _show_one(report: Report, console: Console) -> None:
    table = Table(
        "check", "", "seconds", "what it is", "what was found", box=None, padding=(0, 2, 0, 0), header_style="bold"
    )
    table.columns[2].justify = "right"
    for finding in report.findings:
        row = MARKS[finding.outcome], f"{finding.seconds:.2f}", CHECKS[finding.check].title, escape(finding.reason)
        table.add_row(finding.check, *row)
    console.print(table)
    console.print(escape(last_line(report)), highlight=False, soft_wrap=True)


def last_line(report: Report) -> str:
    """How many checks passed, failed and were skipped."""
    count = {outcome: sum(f.outcome == outcome for f in report.findings) for outcome in MARKS}
    said = f" with {brackets(report.params)[1:-1]}" if report.params else ""
    return (
        f"{report.method}{said}: {count['pass']} passed, {count['fail']} failed, {count['skip']} skipped "
        f"in {report.seconds:.1f} s"
    )


def _show_many(reports: list[Report], unavailable: dict[str, str], console: Console) -> None:
    table = Table("method", *CHECKS, "seconds", box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.columns[-1].justify = "right"
    for report in reports:
        marks = [MARKS[finding.outcome] for finding in report.findings]
        table.add_row(escape(report.method), *marks, f"{report.seconds:.1f}")
    console.print(table)
    for report in reports:
        for finding in report.findings:
            if finding.outcome != "pass":
                line = f"{MARKS[finding.outcome]} {escape(f'{report.method}, {finding.check}: {finding.reason}')}"
                console.print(line, highlight=False, soft_wrap=True)
        if report.params:
            note = f"{report.method} was run with {brackets(report.params)[1:-1]}"
            console.print(escape(note), style="dim", highlight=False, soft_wrap=True)
    for name, reason in unavailable.items():
        console.print(f"{MARKS['fail']} {escape(f'{name} is unavailable: {reason}')}", highlight=False, soft_wrap=True)
