"""Where data that can be made again is kept between runs, and where the user's own data was found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.sharing.locks import lock


def cache_dir() -> Path:
    """`$DDBENCH_CACHE`, else `ddbench` in the XDG cache folder (`$XDG_CACHE_HOME`, else `~/.cache`)."""
    own = os.environ.get("DDBENCH_CACHE")
    if own:
        return Path(own).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "ddbench"


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sources_file() -> Path:
    return cache_dir() / "datasets" / "sources.json"


def remember_source(dataset: str, split: str, path: Path) -> None:
    """Note where a dataset's split was found, for runs that do not say."""
    file = _sources_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with lock(file.with_suffix(".lease")) as lease:
        known = read_json(file)
        known[dataset] = {**known.get(dataset, {}), split: str(path)}
        write_json(file, known, lease=lease.folder)


def remembered_sources(dataset: str, split: str) -> list[Path]:
    """Where `bench prepare` found this dataset: the source named for this split first."""
    known = read_json(_sources_file()).get(dataset, {})
    ordered = [known[split]] if split in known else []
    return [Path(path) for path in dict.fromkeys([*ordered, *known.values()])]
