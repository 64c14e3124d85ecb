"""Two running Ray nodes, and `bench` with fake cells on them, as tests use them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from cluster import FAKE, wait_for

HERE = Path(__file__).parent
STARTING_SECONDS = 240


@dataclass
class RayCluster:
    """Two nodes, `n1` and `n2`, in a network of their own."""

    folder: Path
    process: subprocess.Popen[bytes]
    environment: dict[str, str]

    @classmethod
    def start(cls, folder: Path, blind: Path) -> RayCluster:
        """Raises OSError with the reason where there can be none.

        Args:
            blind: a folder that the second node sees empty.
        """
        python = [str(HERE), str(HERE.parent / "support")]
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(python),
            "RAY_TEST_BLIND": str(blind),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": "127.0.0.1:6379",
            "OMP_NUM_THREADS": "1",
            "DDBENCH_LEASE_SECONDS": "4",
            "COLUMNS": "160",
        }
        log = folder / "script.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [HERE / "ray_two_nodes.sh", folder / "ray"], env=environment, stdout=file, stderr=file
            )
        deadline = time.monotonic() + STARTING_SECONDS
        while not (folder / "ray" / "ready").exists():
            if process.poll() is not None:
                raise OSError(log.read_text())
            if time.monotonic() > deadline:
                process.kill()
                raise OSError(f"the nodes did not start within {STARTING_SECONDS} s: {log.read_text()}")
            time.sleep(0.2)
        return cls(folder / "ray", process, environment)

    @property
    def inside(self) -> list[str]:
        """The words before a command that is to run in the nodes' network."""
        (main,) = (child.pid for child in psutil.Process(self.process.pid).children())
        return ["nsenter", "-t", str(main), "-n", "-p", "-m"]

    def node(self, name: str) -> psutil.Process:
        """The process that a node ends with."""
        number = (self.folder / f"{name}.pid").read_text().strip()
        for process in psutil.Process(self.process.pid).children(recursive=True):
            numbers = Path(f"/proc/{process.pid}/status").read_text().partition("NSpid:")[2].splitlines()[0].split()
            if len(numbers) >= 2 and numbers[1] == number:
                return process
        raise LookupError(name)

    def lose(self, name: str) -> None:
        self.node(name).kill()

    def start_second(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self.inside, HERE / "ray_two_nodes.sh", self.folder, "second"], env=self.environment)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class RayBench:
    """`bench run --engine ray` with fake cells in a folder of its own."""

    cluster: RayCluster
    out: Path
    fake: dict[str, object] = field(default_factory=dict)
    """Variables of the fake cells, `FAKE_…`."""
    device: str = "cuda"
    runs: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, sets: int, students: int, *more: str) -> subprocess.Popen[str]:
        words = [
            *("run", "-m", "random", "-d", "digits", "--ipc", "1", "--seeds", f"0-{sets - 1}"),
            *("--repeats", str(students), "--engine", "ray", "--device", self.device, "--out", str(self.out), *more),
        ]
        environment = self.cluster.environment | {name: str(value) for name, value in self.fake.items()}
        run = subprocess.Popen(
            [*self.cluster.inside, *FAKE, *words], env=environment, text=True, cwd=self.cluster.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.runs.append(run)
        return run

    def run(self, sets: int, students: int, *more: str, status: int = 0) -> str:
        said, _ = (run := self.start(sets, students, *more)).communicate(timeout=240)
        assert run.returncode == status, said
        return said

    def driver(self, run: subprocess.Popen[str]) -> psutil.Process:
        """The run's own process, which nsenter starts."""
        wait_for(lambda: psutil.Process(run.pid).children())
        return psutil.Process(run.pid).children()[0]

    def interrupt(self, run: subprocess.Popen[str]) -> None:
        self.driver(run).send_signal(signal.SIGINT)
