"""Who holds something: a process, named so that another process can tell whether it is gone. Imports no torch."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from ddbench.benchmark.core.result import utc_now

JOBS = ("PBS_JOBID", "LSB_JOBID", "SLURM_JOB_ID")
"""Variables in which schedulers tell a process its job."""


class Holder(BaseModel):
    """A process that holds something."""

    model_config = ConfigDict(extra="ignore")

    token: str
    """Of this one holding; no other has it."""
    host: str
    boot: str
    """The kernel's id of this start of the machine; empty where it tells none."""
    namespace: str
    """In which its number means something: containers count processes on their own."""
    pid: int
    started: int | None
    """When the process started, in the kernel's ticks since the boot; a number is given again, the two never are."""
    job: str | None
    """The scheduler's number of its job."""
    since: str
    """UTC, ISO 8601, by its own clock: for people."""

    @property
    def is_here(self) -> bool:
        """Whether this process can look for it: it is one of the same kernel's, and counted alike."""
        return bool(self.boot) and (self.boot, self.host, self.namespace) == (_boot(), _host(), _namespace())

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended; False where that cannot be told from here."""
        return self.is_here and _started(self.pid) != self.started

    @property
    def name(self) -> str:
        """`process 123`, and of another machine `process 123 on node1, job 77`."""
        job = "" if self.job is None else f", job {self.job}"
        return f"process {self.pid}" + ("" if self.is_here else f" on {self.host}{job}")


def this_process() -> Holder:
    """This process, with a token of its own."""
    return Holder(
        token=uuid4().hex,
        host=_host(),
        boot=_boot(),
        namespace=_namespace(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        job=job_id(),
        since=utc_now(),
    )


def job_id() -> str | None:
    """The scheduler's number of the job that this process belongs to; of an array's task, the task's."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return next((os.environ[name] for name in JOBS if os.environ.get(name)), None)


def own_name() -> str:
    """A part of file names that no other writer has, on this machine or another: process numbers alone repeat."""
    host = "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in _host())
    return f"{host[:32]}-{uuid4().hex[:12]}"


def _host() -> str:
    return os.uname().nodename


@cache
def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespace() -> str:
    with contextlib.suppress(OSError):
        if Path("/proc/self").readlink().name == str(os.getpid()):  # else /proc counts otherwise than this process does
            return str(Path("/proc/self/ns/pid").readlink())
    return uuid4().hex


def _started(pid: int) -> int | None:
    """When a process of this machine started; None where there is no living one of that number."""
    try:
        # The name, in brackets, may itself hold blanks and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZXx" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
