"""One cell in one process: `python -P -m ddbench.benchmark.cells.cell <cell>/spec.json`.

(`-P`: a checkout's folders must not shadow installed packages.) The exit status says only whether there is a result;
the files say the rest. A cell ended by SIGTERM leaves no result and is resumed by the next run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ddbench.benchmark.cells.failures import lost_too_often, write_failure_held
from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.cells.progress import Progress
from ddbench.benchmark.cells.tidy import is_tidy, tidy
from ddbench.benchmark.core import environment
from ddbench.benchmark.core.errors import ChangedMeanwhile, RunError, UsageError
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.gpu_errors import is_busy, memory_ran_out
from ddbench.benchmark.core.provenance import PROVENANCE
from ddbench.benchmark.core.registry import METHODS, load_plugin
from ddbench.benchmark.core.result import DistillResult, EvaluateResult, Status, utc_now
from ddbench.benchmark.core.sharing.attempts import MOST_ATTEMPTS, Cause, stopped
from ddbench.benchmark.core.sharing.lease import Lease, LeaseLost
from ddbench.benchmark.core.sharing.locks import Busy
from ddbench.benchmark.core.spec import DistillSpec, EvaluateSpec
from ddbench.benchmark.core.store import OUTSIDE_CAUSES, RESULT, CellDir, CellPlan, Launch, Store
from ddbench.benchmark.planning.own_code import own_code

DEFAULT_BATCH_SIZE = 32
"""Images in flight when nothing is said: enough to fill the device, small enough for DiT-XL/2 on a 24 GiB card. Where
GPU memory runs out, the cell goes on with half of it."""
SPENT = "spent.json"
"""File in a cell's directory: what its attempts have spent so far."""
EXIT_OK, EXIT_FAILED, EXIT_TERMINATED = 0, 1, 143
EXIT_ELSEWHERE, EXIT_CHANGED = 4, 5
"""Nothing was done: another process is at the cell, or has just given it another result than was to be replaced."""


class _TimedOut(BaseException):
    """The cell's time is up. No Exception, so that no method takes it for a failure of its own."""


def run_cell(path: Path, *, forked: bool = False, launch: Launch | None = None) -> int:
    """Run the cell in the directory `path` and write its result; returns the exit status.

    Args:
        launch: how; None: as its `launch.json` says, whatever result it has.
    """
    signal.signal(signal.SIGTERM, _terminate)
    cell = CellDir(path)
    if launch is not None and launch.stood_still is not None:
        cell.believe_dead(launch.stood_still)
    try:
        with cell.lock(on_lost=lambda: os.kill(os.getpid(), signal.SIGTERM)) as lease:
            # What the cell's result is, now that nobody else can change it; who started this knows an older one.
            if launch is not None and cell.result_seen() is not None and cell.result_sha256() != launch.replaces:
                return EXIT_CHANGED
            return _attempt(cell, lease, launch or cell.launch(), forked=forked)
    except (Busy, LeaseLost) as error:
        print(error, flush=True)
        return EXIT_ELSEWHERE


def _attempt(cell: CellDir, lease: Lease, launch: Launch, *, forked: bool) -> int:
    """Run a cell under its lease."""
    spec, store, lost = cell.spec(), Store(cell.path.parent.parent), cell.attempts.lost()
    # What a finished cell has spent stands in its result. Its work was freed, and is all done again where its set has
    # gone, or is another one: counted on, its cost would be told twice.
    earlier = cell.result()
    begins_anew = earlier is not None and earlier.status == "ok" and is_tidy(cell)
    spent = (SPENT,) if begins_anew else ()
    for of_an_earlier_one in (*spent, RESULT, PROVENANCE):
        (cell.path / of_an_earlier_one).unlink(missing_ok=True)
    cell.sweep()
    if lost >= MOST_ATTEMPTS:
        write_failure_held(cell, "killed", lost_too_often(cell))
        return EXIT_FAILED
    try:
        cell.attempts.begin(lease.holder)
        with _time_limit(launch.timeout_seconds):
            result = _run(cell, spec, launch, store, forked=forked)
        if not cell.commit(result):
            return EXIT_CHANGED
    except _TimedOut:
        write_failure_held(cell, "timeout", f"took longer than the --timeout of {launch.timeout_seconds:g} s")
        return EXIT_FAILED
    except (SystemExit, KeyboardInterrupt) as error:
        cell.require_lease()
        cell.attempts.end(stopped())
        if isinstance(error, KeyboardInterrupt):
            return EXIT_TERMINATED
        raise
    except LeaseLost:
        raise
    except Exception as error:  # a method's own code may raise anything: that is the cell's result
        with contextlib.suppress(OSError):  # the log lies on the disk that may be full
            traceback.print_exc()
        status, reason, retriable = _diagnose(error, spec)
        write_failure_held(cell, status, reason, retriable=retriable)
        return EXIT_FAILED
    cell.attempts.end(Cause.DONE)
    tidy(cell, spec, map(store.cell, launch.shards))
    return EXIT_OK


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise _TimedOut in the block once it has taken that long."""
    if seconds is None:
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise _TimedOut

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _run(
    cell: CellDir, spec: DistillSpec | EvaluateSpec, launch: Launch, store: Store, *, forked: bool
) -> DistillResult | EvaluateResult:
    import torch

    loaded_before = frozenset(sys.modules)
    plugins = {Path(file).name: load_plugin(Path(file)) for file in launch.plugins}
    plan = _cell_plan(cell, launch)
    torch.set_num_threads(plan.threads)
    device = torch.device(launch.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device {launch.device} was asked for, but torch {torch.__version__} sees no CUDA device")
        if isinstance(spec, DistillSpec):
            # PyTorch's own, whatever a container's variables say: a prior's networks ask for TF32 (`Prior.products`),
            # as the papers' samplers do, and methods' own formulas have all digits. A protocol sets its own flags.
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    meter = Meter(device, cell.path / SPENT, forked=forked, cells_at_once=launch.cells_at_once)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # after the meter has seen who else is there
    progress = Progress(cell.path / "progress.json")
    progress.update(pid=os.getpid())
    seen = environment.capture(launch.device)
    if changed := meter.environments.begin(meter.attempts, seen):
        print(f"goes on in another environment than the last attempt's: {'; '.join(changed)}", flush=True)
    write_json(cell.path / "environment.json", seen)
    meter.save()
    result: DistillResult | EvaluateResult
    if isinstance(spec, DistillSpec):
        from ddbench.benchmark.cells.distill import distill

        result = distill(cell, spec, launch, plan, store, meter, progress)
    else:
        from ddbench.benchmark.cells.evaluate import evaluate

        result = evaluate(cell, spec, launch, plan, store, meter, progress)
    progress.flush()
    seen = seen | (result.environment or {})  # a student's flags are its protocol's, which held while it trained
    write_json(cell.path / "environment.json", seen)
    told = {
        "environment": seen,
        "other_environments": meter.environments.others(),
        "plugins": plugins,
        "own_code": own_code(METHODS.load(spec.method.name) if isinstance(spec, DistillSpec) else None, loaded_before),
        "finished_at": utc_now(),
    }
    return result.model_copy(update=told)


def _cell_plan(cell: CellDir, launch: Launch) -> CellPlan:
    """What the first attempt chose, or a choice now.

    A cell for which not even one image at a time left memory chooses its batch anew: what took the memory may be gone.
    """
    path, compile = cell.path / "plan.json", launch.compile
    if path.exists():
        plan = CellPlan.model_validate_json(path.read_bytes())
        if 1 not in plan.oom_batch_sizes:
            return plan
        compile = plan.compile  # images may be there that were made so
    plan = CellPlan(batch_size=launch.batch_size or DEFAULT_BATCH_SIZE, threads=launch.threads, compile=compile)
    write_json(path, plan.model_dump(mode="json"))
    return plan


def _diagnose(error: BaseException, spec: DistillSpec | EvaluateSpec) -> tuple[Status, str, bool]:
    """(status, reason, whether the cause lies outside the cell)."""
    if isinstance(error, RunError | UsageError):
        return "failed", str(error), isinstance(error, ChangedMeanwhile)
    first_line = str(error).partition("\n")[0]
    if memory_ran_out(error) or isinstance(error, MemoryError):
        said = f"out of memory: {first_line or 'host memory'}"
        if isinstance(spec, EvaluateSpec) and memory_ran_out(error):
            said += (
                " The training batch is part of the protocol, so it is not made smaller, and networks with BatchNorm "
                "or dropout need it in one piece (others take it in parts, of one image at last): free the GPU of "
                "other work, use one with more memory, or choose a smaller --student."
            )
        return "oom", said, True
    if is_busy(error):
        free = "`nvidia-smi` shows who has it; once it is free, run the same command again"
        return "failed", f"the GPU is not to be had ({first_line}): {free}", True
    if isinstance(error, OSError) and error.errno in OUTSIDE_CAUSES:
        where = f" ({error.filename})" if error.filename else ""
        return "failed", f"{error.strerror}{where}; mend that and run the same command again", True
    return "failed", f"{type(error).__name__}: {error} (log.txt has the traceback)", False


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(EXIT_TERMINATED)


def child_main(path: str, launch: str, forked: bool) -> None:
    """Entry point of a cell that another Python process started: its own log, then the cell.

    Args:
        launch: `Launch` as JSON. Another run may have written the cell's file for its own machine.
    """
    # Its own process group: Ctrl-C in the terminal reaches the run, and the run ends its cells.
    os.setpgid(0, 0)
    try:
        log = os.open(Path(path) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except FileNotFoundError:
        sys.exit(EXIT_FAILED)  # the results folder was moved or deleted; the run says so
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.exit(run_cell(Path(path), forked=forked, launch=Launch.model_validate_json(launch)))


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -P -m ddbench.benchmark.cells.cell CELL_DIRECTORY/spec.json")
    path = Path(sys.argv[1])
    try:
        sys.exit(run_cell((path if path.is_dir() else path.parent).resolve()))
    except (UsageError, RunError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
