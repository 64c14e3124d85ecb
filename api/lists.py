"""What there is to run, run on, and be judged by, as pandas DataFrames: what `bench list` shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddbench.benchmark.core.registry import load_plugin
from ddbench.benchmark.planning.listing import rows

if TYPE_CHECKING:
    import pandas as pd


def list_methods(plugins: Sequence[Path | str] = ()) -> pd.DataFrame:
    """One row per registered method or variant: name, summary, tags, base method and what the variant overrides."""
    return _frame("methods", plugins)


def list_datasets(plugins: Sequence[Path | str] = ()) -> pd.DataFrame:
    """One row per dataset: name and summary."""
    return _frame("datasets", plugins)


def list_protocols(plugins: Sequence[Path | str] = ()) -> pd.DataFrame:
    """One row per evaluation protocol: name and summary."""
    return _frame("protocols", plugins)


def list_networks() -> pd.DataFrame:
    """One row per student network: name and summary."""
    return _frame("networks")


def list_priors() -> pd.DataFrame:
    """One row per diffusion prior, bundled, installed or known: name, training data, resolution in pixels."""
    return _frame("priors")


def list_studies() -> pd.DataFrame:
    """One row per study that comes with the benchmark: name, title, source."""
    return _frame("studies")


def list_sets() -> pd.DataFrame:
    """One row per published distilled set on the hub, or family of them: name, address, IPC, dataset, layout."""
    return _frame("sets")


def _frame(kind: str, plugins: Sequence[Path | str] = ()) -> pd.DataFrame:
    import pandas as pd

    for file in plugins:
        load_plugin(Path(file))
    return pd.DataFrame(rows(kind))
