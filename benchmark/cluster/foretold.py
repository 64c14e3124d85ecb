"""What a submission will ask for and how long it will take, for people to read before anything is queued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ddbench.benchmark.cluster.jobs import JOBS
from ddbench.benchmark.cluster.site import STAGES, Stage
from ddbench.benchmark.cluster.submit import Wanted
from ddbench.benchmark.core.environment import passed_variables
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.running import rates
from ddbench.benchmark.running.estimate import estimate
from ddbench.benchmark.running.rates import Rates
from ddbench.benchmark.running.runner import Item

MOST_LISTED = 6


def lines(wanted: Wanted) -> Iterator[str]:
    """Pilots, time, limits and variables, in sentences."""
    store = Store(wanted.spec.out)
    model = measured_model(store, wanted.spec.device) or (
        "these nodes' GPUs" if wanted.spec.device == "cuda" else rates.device_model("cpu")
    )
    for stage in STAGES:
        yield _pilots(wanted, stage)
        if not (items := wanted.items[stage]):
            continue
        for line in estimate(items, store, probe=False, model=model).lines(1):
            yield f"  {line}"
        yield from _too_long(wanted, stage, items, Rates(store), model)
    yield from _limits(wanted)
    if names := passed_variables():
        yield f"variables of this shell that pilots get: {', '.join(names)}"
    if own := wanted.site.environment:
        yield f"variables that the site's settings give them: {', '.join(sorted(own))}"


def measured_model(store: Store, device: str) -> str | None:
    """The model of device on which most cells of a results folder ran; None where none did."""
    found: Counter[str] = Counter()
    for cell in store.cell_dirs():
        result = cell.result()
        environment = (result.environment if result is not None else None) or {}
        if (on := str(environment.get("device", ""))).startswith(device):
            found[rates.device_model(on, environment.get("hardware"))] += 1
    return found.most_common(1)[0][0] if found else None


def _pilots(wanted: Wanted, stage: Stage) -> str:
    resources, cells, active = wanted.site.of(stage), len(wanted.items[stage]), wanted.active.get(stage, 0)
    if not cells:
        return f"{stage}: nothing left to do"
    each = f"{resources.gpus} GPU{'s' if resources.gpus != 1 else ''}, " if resources.gpus else ""
    arrays = wanted.split(stage)
    new = f"{wanted.missing(stage)} pilots to queue" + (f" in {len(arrays)} arrays" if len(arrays) > 1 else "")
    there = f", {active} queued or running already" if active else ""
    waiting = ", held until the first sets are made" if stage == "evaluate" and wanted.students_wait and arrays else ""
    what = f"{each}{resources.cpus} core{'s' if resources.cpus != 1 else ''}, {resources.memory}, {resources.time}"
    return f"{stage}: {cells} cells; {new}{there}{waiting}; each with {what}"


def _too_long(wanted: Wanted, stage: Stage, items: list[Item], known: Rates, model: str) -> Iterator[str]:
    most = wanted.site.of(stage).seconds - wanted.site.warning_seconds
    longer = []
    for item in items:
        rate = known.of(item.spec, model, item.planned.launch.threads)
        amount = rates.work(item.spec) if item.spec.ipc is not None else 0.0
        if rate is not None and amount and (seconds := rate.seconds(amount)[1]) > most:
            longer.append(f"{item.title} ({seconds / 3600:.1f} h)")
    if longer:
        more = f"; and {len(longer) - MOST_LISTED} more" if len(longer) > MOST_LISTED else ""
        yield (
            f"  longer than one allocation of {most / 3600:.1f} h, so resumed in several: "
            f"{'; '.join(longer[:MOST_LISTED])}{more}"
        )


def _limits(wanted: Wanted) -> Iterator[str]:
    size, submitted = wanted.limits.array_size, wanted.limits.submitted
    told = ", ".join(
        f"{name} {'not known' if limit is None else format(limit, ',')}"
        for name, limit in (("MaxArraySize", size), ("MaxSubmitJobs", submitted))
    )
    yield f"limits of the cluster: {told}"
    asked = sum(wanted.pilots(stage) for stage in STAGES)
    if submitted is not None and asked > submitted:
        yield f"  {asked} pilots are more than that: the scheduler may refuse some; give fewer with --pilots"


def scripts(wanted: Wanted) -> Iterator[tuple[str, str]]:
    """(name, text) of each batch script."""
    number = (
        max((int(path.name) for path in (wanted.spec.out / JOBS).glob("*") if path.name.isdecimal()), default=0) + 1
    )
    job = wanted.spec.out.resolve() / JOBS / str(number)
    for stage in STAGES:
        if wanted.missing(stage):
            yield f"{job / stage}.sbatch", wanted.text(stage, job)
