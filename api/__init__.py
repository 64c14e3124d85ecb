"""A benchmark of dataset distillation, from Python: what the command `bench` does, and tables as pandas DataFrames.

    import ddbench

    outcome = ddbench.run(methods=["dmgd", "dit"], datasets=["digits"], ipc=[1, 10], seeds=range(3), out="runs")
    ddbench.results("runs")                          # one row per student
    ddbench.sets("runs")                             # one row per distilled set, with its folder
    ddbench.leaderboard("runs", dataset="digits")    # the table as people see it, with intervals and ranks
    ddbench.costs("runs", by="bytes")                # accuracy against seconds or bytes, with the Pareto front
    ddbench.compare("runs", "dmgd", "dit")
    ddbench.robustness("runs")                       # how far accuracy falls on shifted test sets
    ddbench.methods()                                # what there is; also datasets(), protocols()

Options are those of the command line, under the names of a study's keys. What cannot be done as asked raises
`UsageError`, what fails while it runs `RunError`, with the command's messages. Importing this package imports nothing
else; each function imports what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddbench.benchmark.core.errors import Problems, RunError, UsageError
    from ddbench.benchmark.running.run_plan import CellsFailed, RunOutcome
    from ddbench.lists import (
        list_datasets,
        list_methods,
        list_networks,
        list_priors,
        list_protocols,
        list_sets,
        list_studies,
    )
    from ddbench.lists import list_protocols as protocols
    from ddbench.runs import distill, evaluate, run
    from ddbench.tables import compare, costs, leaderboard, results, robustness, sets

__all__ = [
    "CellsFailed",
    "Problems",
    "RunError",
    "RunOutcome",
    "UsageError",
    "compare",
    "costs",
    "distill",
    "evaluate",
    "leaderboard",
    "list_datasets",
    "list_methods",
    "list_networks",
    "list_priors",
    "list_protocols",
    "list_sets",
    "list_studies",
    "protocols",
    "results",
    "robustness",
    "run",
    "sets",
]

_HOMES = {
    "ddbench.benchmark.core.errors": ("Problems", "RunError", "UsageError"),
    "ddbench.benchmark.running.run_plan": ("CellsFailed", "RunOutcome"),
    "ddbench.lists": (
        "list_datasets", "list_methods", "list_networks", "list_priors", "list_protocols", "list_sets", "list_studies"
    ),
    "ddbench.runs": ("distill", "evaluate", "run"),
    "ddbench.tables": ("compare", "costs", "leaderboard", "results", "robustness", "sets"),
}  # fmt: skip


class _Listing(ModuleType):
    """A sub-package that can be called for what it holds: `ddbench.methods()` is `ddbench.list_methods()`, by the name
    that the package has taken. Type checkers know the function alone."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return __getattr__(f"list_{self.__name__.rpartition('.')[2]}")(*arguments, **named)


for _name in ("datasets", "methods"):
    importlib.import_module(f"{__name__}.{_name}").__class__ = _Listing


def __getattr__(name: str) -> Any:
    name = "list_protocols" if name == "protocols" else name
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
