"""A running Slurm, and `bench` with fake cells on it, as tests use them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
FAKE = [sys.executable, "-P", str(HERE / "fake_bench.py")]
PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel")
WRAPPER = """#!/bin/sh
name=${0##*/}
echo "$name $*" >>"$FAKE_CALLS"
if [ -e "$FAKE_CALLS.fail-$name" ]; then echo "Unable to contact slurm controller" >&2; exit 1; fi
exec "$FAKE_REAL/$name" "$@"
"""


@dataclass
class Cluster:
    """A Slurm that runs in a folder."""

    folder: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "DDBENCH_LEASE_SECONDS": "4"}

    def call(self, *command: str | Path) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def node(self, action: str, node: str) -> None:
        self.call(HERE / "slurm_node.sh", self.folder, action, node)

    def states(self) -> dict[str, str]:
        """Task -> its state and reason, of all that are queued or run."""
        lines = self.call("squeue", "--noheader", "-r", "-o", "%i %T %r").splitlines()
        return {line.split()[0]: line.partition(" ")[2] for line in lines if "COMPLET" not in line.split()[1]}

    def settle(self) -> None:
        """Cancel all there is, and wait until the nodes are idle."""
        self.call("scancel", "--user", "root")
        wait_for(lambda: not self.call("squeue", "--noheader").strip())
        wait_for(lambda: len(self.call("sinfo", "-h", "-N", "-p", "main", "-t", "idle,down", "-o", "%N").split()) == 2)


@dataclass
class Bench:
    """`bench` with fake cells in a folder of its own, which counts the calls of the scheduler's programs."""

    cluster: Cluster
    folder: Path
    out: Path
    settings: dict[str, object] = field(default_factory=dict)
    """Of its fake cells: variables."""

    def __post_init__(self) -> None:
        wrappers = self.folder / "bin"
        wrappers.mkdir(parents=True)
        for program in PROGRAMS:
            (wrappers / program).write_text(WRAPPER)
            (wrappers / program).chmod(0o755)
        real = Path(self.cluster.call("which", "sbatch").strip()).parent
        self.environment = self.cluster.environment | {
            "FAKE_CALLS": str(self.folder / "calls"),
            "FAKE_REAL": str(real),
            "PATH": f"{wrappers}:{os.environ['PATH']}",
            "DDBENCH_CACHE": str(self.folder / "cache"),
        }

    def site(self, *, gpus: int = 1, cpus: int = 1, pilots: int = 2, idle_seconds: float = 60, **fake: object) -> Path:
        """A settings file."""
        import json

        resources = {"pilots": pilots, "gpus": gpus, "cpus": cpus, "memory": "900M", "time": "10"}
        path = self.folder / "site.yaml"
        path.write_text(
            json.dumps(
                {
                    "command": " ".join(FAKE),
                    "environment": {key: str(value) for key, value in fake.items()},
                    "stages": {"distill": resources, "evaluate": resources},
                    "idle_minutes": idle_seconds / 60,
                }
            )
        )
        return path

    def run(self, *arguments: str | Path, status: int = 0) -> str:
        done = subprocess.run(
            [*FAKE, *arguments], env=self.environment, capture_output=True, text=True, timeout=120, cwd=self.folder
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(self, sets: int, students: int, *more: str | Path, status: int = 0) -> str:
        return self.run(
            *("submit", "-m", "random", "-d", "digits", "--ipc", "1", "--seeds", f"0-{sets - 1}"),
            *("--repeats", str(students), "--site", self.folder / "site.yaml", "--out", self.out, *more),
            status=status,
        )

    def fail(self, program: str, *, fails: bool) -> None:
        """Whether the scheduler's program fails from now on."""
        marker = self.folder / f"calls.fail-{program}"
        marker.touch() if fails else marker.unlink()

    def calls(self, program: str) -> list[str]:
        """Command lines of a program of the scheduler's, by commands and pilots together."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.split()[0] == program]

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.out.glob("jobs/*/logs/*")))


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
