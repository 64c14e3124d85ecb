"""A benchmark of dataset distillation, from Python: what the command `bench` does, and tables as pandas DataFrames.

    import ddbench

    outcome = ddbench.run(methods=["dmgd", "dit"], datasets=["digits"], ipc=[1, 10], seeds=range(3), out="runs")
    ddbench.results("runs")                          # one row per student
    ddbench.sets("runs")                             # one row per distilled set, with its folder
    ddbench.leaderboard("runs", dataset="digits")    # the table as people see it, with intervals and ranks
    ddbench.compare("runs", "dmgd", "dit")

Options are those of the command line, under the names of a study's keys. What cannot be done as asked raises
`UsageError`, what fails while it runs `RunError`, with the command's messages. Importing this package imports nothing
else; each function imports what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddbench.benchmark.core.errors import Problems, RunError, UsageError
    from ddbench.benchmark.running.run_plan import CellsFailed, RunOutcome
    from ddbench.lists import list_datasets, list_methods, list_networks, list_priors, list_protocols, list_studies
    from ddbench.runs import distill, evaluate, run
    from ddbench.tables import compare, leaderboard, results, sets

__all__ = [
    "CellsFailed",
    "Problems",
    "RunError",
    "RunOutcome",
    "UsageError",
    "compare",
    "distill",
    "evaluate",
    "leaderboard",
    "list_datasets",
    "list_methods",
    "list_networks",
    "list_priors",
    "list_protocols",
    "list_studies",
    "results",
    "run",
    "sets",
]

_HOMES = {
    "ddbench.benchmark.core.errors": ("Problems", "RunError", "UsageError"),
    "ddbench.benchmark.running.run_plan": ("CellsFailed", "RunOutcome"),
    "ddbench.lists": (
        "list_datasets", "list_methods", "list_networks", "list_priors", "list_protocols", "list_studies"
    ),
    "ddbench.runs": ("distill", "evaluate", "run"),
    "ddbench.tables": ("compare", "leaderboard", "results", "sets"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
