"""Whether the kernel ended processes because memory ran out: known from its counts, never guessed from a signal."""

from __future__ import annotations

import re
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def memory_kills() -> int | None:
    """Processes that the kernel has ended in this process's control group since memory ran out; None: it counts none.

    A control group (of a container, of a scheduler's job) may have less memory than its machine; the machine's own
    count would tell of other users' processes too.
    """
    try:
        groups = [line.split(":", 2) for line in OWN.read_text().splitlines()]
    except OSError:
        return None
    for _, controllers, path in groups:
        if not controllers:
            file = CGROUPS / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            file = CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
        else:
            continue
        try:
            found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return None
