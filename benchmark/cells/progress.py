"""What a running cell says of itself, for whoever watches: a small file, replaced at most a few times a second."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ddbench.benchmark.core.sharing.holder import own_name


class Progress:
    """Writes `progress.json`. Watching must not change the cell, so a note that cannot be written is let go."""

    def __init__(self, path: Path, at_most_every_seconds: float = 0.2) -> None:
        self.path, self.every = path, at_most_every_seconds
        self._fields: dict[str, Any] = {}
        self._written = 0.0
        self._temporary = path.with_name(f".{path.name}.{own_name()}.tmp")

    def update(self, **fields: Any) -> None:
        self._fields |= fields
        now = time.monotonic()
        if now - self._written >= self.every:
            self._written = now
            self.flush()

    def flush(self) -> None:
        try:
            self._temporary.write_text(json.dumps(self._fields))
            self._temporary.replace(self.path)
        except OSError:
            return
