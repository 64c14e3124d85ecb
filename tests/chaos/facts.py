"""What a results folder holds that no kill may change."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

OF_THE_RUN = (
    "attempts.jsonl", "environment.json", "launch.json", "log.txt", "plan.json", "progress.json", "spent.json",
)  # fmt: skip
"""Files of a cell that say when, where and how often it ran."""
MEASURED = ("cost", "environment", "finished_at")
"""What a result says of the same."""
LEASE = re.compile(r"lease/\d+(\.free)?$")
"""Given back, or left by a holder that was killed, which is as good."""
TRIED_OUT = ".doctor."
"""A folder of one or two files in which a run tries out the file system before it starts. One of a killed run stays: of
a living one of another machine it cannot be told."""


def facts(out: Path) -> dict[str, Any]:
    """Path -> what must lie there: contents, results without what was measured, links; and how many inodes there are.

    Leases are numbered by those that were ever taken: the last one counts, under one name.
    """
    found: dict[str, Any] = {}
    inodes: Counter[str] = Counter()
    for path in sorted(out.rglob("*")):
        if path.relative_to(out).parts[0].startswith(TRIED_OUT):
            continue
        name = LEASE.sub("lease/last", str(path.relative_to(out)))
        assert name not in found, f"an earlier lease was left: {path}"
        inodes[name.split("/")[0]] += 1
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = "folder"
        elif path.name == "result.json":
            result = json.loads(path.read_bytes())
            found[name] = {key: value for key, value in result.items() if key not in MEASURED}
        elif path.name in OF_THE_RUN or LEASE.search(str(path)):
            found[name] = "there"
        else:
            found[name] = (path.stat().st_nlink, hashlib.sha256(path.read_bytes()).hexdigest())
    return {**found, "inodes": dict(inodes)}


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """One line for each path that is not as it should be."""
    names = sorted(found.keys() | expected.keys())
    return [
        f"{name}: expected {expected.get(name, 'nothing')!r:.200}, found {found.get(name, 'nothing')!r:.200}"
        for name in names
        if found.get(name) != expected.get(name)
    ]
