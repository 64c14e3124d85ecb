"""The first stage inside its cell: run a method, commit its rounds, put the distilled set together.

A cell may be a shard of a set's classes: it keeps its rounds, and the set's own cell merges them.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddbench.benchmark.cells.artefacts import DiskArtefacts
from ddbench.benchmark.cells.classifiers import with_classifiers
from ddbench.benchmark.cells.failures import identity
from ddbench.benchmark.cells.meter import SAVE_SECONDS, Meter
from ddbench.benchmark.cells.priors import CompiledDenoiser, check_unseen, load_prior, pays, planned_prior
from ddbench.benchmark.cells.progress import Progress
from ddbench.benchmark.cells.rounds import Rounds
from ddbench.benchmark.cells.shards import (
    artefacts_made,
    finished_shards,
    merged_arithmetic,
    merged_cost,
    merged_records,
    shard_record,
)
from ddbench.benchmark.core import environment
from ddbench.benchmark.core.errors import ChangedMeanwhile, RunError, UsageError
from ddbench.benchmark.core.files import write_json
from ddbench.benchmark.core.gpu_errors import memory_ran_out
from ddbench.benchmark.core.registry import DATASETS, METHODS, plugin_sha256
from ddbench.benchmark.core.result import DatasetRecord, DistillResult, PriorRecord, mean_guidance
from ddbench.benchmark.core.spec import DatasetSpec, DistillSpec, digest
from ddbench.benchmark.core.store import DATASET, CellDir, CellPlan, Launch, Store
from ddbench.datasets.base import Dataset, ImageSource, Resize, SplitData
from ddbench.datasets.image_sets import set_sha256, store_set
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method

if TYPE_CHECKING:
    from ddbench.benchmark.planning.prior_names import NamedPrior
    from ddbench.methods.diffusion.prior import Prior


def open_split(spec: DatasetSpec, launch: Launch, cell: CellDir) -> tuple[Dataset, SplitData, DatasetRecord]:
    """Open a cell's dataset and state what was found, in the cell's directory too.

    Raises:
        RunError: the images are not those that an earlier attempt at this cell saw.
        UsageError: a class without training images.
    """
    dataset: Dataset = DATASETS.load(spec.name)()
    split = dataset.load(spec.split, launch.data_dir, spec.resolution)
    counts = np.bincount(split.train.labels, minlength=len(dataset.class_ids))
    empty = [class_id for class_id, count in zip(dataset.class_ids, counts, strict=True) if not count]
    if empty:
        raise UsageError(
            f"{spec.name}, split {spec.split}, has no training images of {len(empty)} of its {len(counts)} classes "
            f"(the first is {empty[0]!r}); look at its files with `bench verify {spec.name}`"
        )
    record = DatasetRecord(
        **spec.model_dump(),
        split_hash=split.split_hash,
        content_hash=split.content_hash,
        n_train=len(split.train),
        n_test=len(split.test),
        warning=split.warning,
    )
    before = cell.content_hash()
    if before is not None and before != record.content_hash:
        raise RunError(
            f"the images of {spec.name} have changed since this cell was begun: expected content hash {before}, found "
            f"{record.content_hash}. Run the same command again: it puts the old attempt aside and starts anew."
        )
    write_json(cell.path / DATASET, record.model_dump(mode="json"))
    return dataset, split, record


def distill(
    cell: CellDir, spec: DistillSpec, launch: Launch, plan: CellPlan, store: Store, meter: Meter, progress: Progress
) -> DistillResult:
    """Run or resume a distill cell, or merge a set's shards.

    Raises:
        RunError: the method broke its contract, or its sampler failed.
        UsageError: data or prior are not what the specification says.
        torch.OutOfMemoryError: GPU memory ran out with one image in flight.
    """
    with meter.phase("load data"):
        dataset, split, record = open_split(spec.dataset, launch, cell)
        n_classes = len(dataset.class_ids)
        classes = spec.classes(n_classes)
        shards = finished_shards(store, launch.shards, record.content_hash)
        rounds = Rounds(
            cell.path / "rounds",
            n_classes,
            spec.ipc,
            dataset.channels,
            classes=classes,
            adopted=[shard.path / "rounds" for shard, _ in shards],
            threads=plan.threads,
        )
    prior, denoiser = planned_prior(spec, launch), CompiledDenoiser(meter.arithmetic, meter.save)
    if prior is not None:
        check_unseen(prior, spec.dataset, split.test)
    method_class = _method(spec)
    counts = {c: len(split.train.of_class(c)) if spec.ipc is None else spec.ipc for c in classes}
    total = sum(counts.values())

    progress.update(images_done=len(rounds), images_total=total)
    while len(rounds) < total:
        try:
            method = method_class(method_class.Params.model_validate(spec.method.params))
            task = make_task(
                cell, spec, launch, plan, store, meter, progress,
                dataset=dataset, split=split, rounds=rounds, prior=prior, denoiser=denoiser,
            )  # fmt: skip
            _make_images(method, task, rounds, meter, progress)
            break
        except RuntimeError as error:
            if not memory_ran_out(error):
                raise
            said = str(error).partition("\n")[0]
        del method, task
        plan = _with_less_memory(cell, plan, said, progress)
        meter.ran_out_of_memory()
    if len(rounds) < total:
        first = next((c, i) for c, count in counts.items() for i in range(count) if (c, i) not in rounds)
        raise RunError(
            f"the method ended with {total - len(rounds)} of {total} images missing; "
            f"the first is image {first[1]} of class {dataset.class_ids[first[0]]}"
        )

    with meter.phase("write"):
        sha256 = set_sha256((dataset.class_ids[c], i, pixels) for (c, i), pixels in rounds.digests())
        image_bytes = sum(path.stat().st_size for _, path in rounds.files())
        if spec.shard is None:
            target = store_set(
                store.sets,
                rounds.files(),
                dataset.class_ids,
                sha256,
                {"method": launch.label, "dataset": spec.dataset.name, "split": spec.dataset.split, "ipc": spec.ipc,
                 "seed": spec.seed, "cell": cell.id},
                made_in=cell.path,
            )  # fmt: skip
            link = cell.path / "images"
            link.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # for people; some file systems have no links
                link.symlink_to(f"../../sets/{target.name}")
    meter.save()
    arithmetic = denoiser.arithmetic
    cost = meter.cost(
        batch_size=plan.batch_size,
        threads=plan.threads,
        oom_batch_sizes=plan.oom_batch_sizes,
    )
    if shards:
        for shard, result in shards:
            meter.environments.add("shards", shard.id, result.environments)
        arithmetic = merged_arithmetic(arithmetic, [result for _, result in shards])
        made = artefacts_made([cell, *(shard for shard, _ in shards)])
        cost = merged_cost(cost, [result.cost for _, result in shards if result.cost is not None], made)
    if prior is not None and launch.device.startswith("cuda"):
        arithmetic = {"tf32_prior": True} | arithmetic
    return DistillResult(
        **identity(cell, spec, launch),
        status="ok",
        dataset=record,
        environment=arithmetic and {"determinism": (environment.determinism() or {}) | arithmetic},
        prior=None
        if prior is None
        else PriorRecord(
            name=prior.name,
            sha256=prior.sha256,
            trained_on=prior.trained_on,
            base_sha256=prior.files.sha256 if prior.tunings else None,
            tuned_by=list(prior.tunings),
            timing_only=prior.files.timing_only,
        ),
        image_set_sha256=sha256,
        n_images=len(rounds),
        image_bytes=image_bytes,
        shards=[shard_record(shard, result, n_classes) for shard, result in shards],
        guidance=mean_guidance(rounds.guidance_nats()),
        recorded=merged_records([*(result.recorded for _, result in shards), meter.recorded]),
        cost_class=str(CostClass.FINE_TUNES if prior is not None and prior.tunings else method_class.cost_class),
        cost=cost,
    )


def _method(spec: DistillSpec) -> type[Method]:
    """The method's class, which is the one that was planned with.

    Raises:
        ChangedMeanwhile: its plugin file was edited since.
    """
    method: type[Method] = METHODS.load(spec.method.name)
    planned, loaded = spec.method.source_sha256, plugin_sha256(method)
    if planned != loaded:
        raise ChangedMeanwhile(
            f"the file of {spec.method.name} has changed since this run was planned: expected SHA-256 "
            f"{str(planned)[:8]}, found {str(loaded)[:8]}. Its sets would be others than their row says: run the same "
            "command again, which plans with the file as it is now, and edit a copy while a run is at work."
        )
    return method


def make_task(
    cell: CellDir,
    spec: DistillSpec,
    launch: Launch,
    plan: CellPlan,
    store: Store,
    meter: Meter,
    progress: Progress,
    *,
    dataset: Dataset,
    split: SplitData,
    rounds: Rounds,
    prior: NamedPrior | None = None,
    denoiser: CompiledDenoiser | None = None,
) -> DistillTask:
    """What a contestant may see of a cell: its training images and services, no test image and no protocol.

    Args:
        prior: the one that `launch` names, where the caller has found it already.
        denoiser: compiles the prior's network, if `plan` has it so and it pays.
    """
    device = torch.device(launch.device)
    train = split.train  # what the services below hold of the split: methods must not reach its test images

    @cache
    def train_at(image_size: int, resize: Resize = "bilinear") -> ImageSource:
        if image_size == spec.dataset.resolution and resize == "bilinear":
            return train
        with meter.phase("load data"):
            images = dataset.train_at(spec.dataset.split, launch.data_dir, image_size, resize)
        if not np.array_equal(images.labels, train.labels):
            raise RunError(
                f"{spec.dataset.name} has other training images at {image_size} px than at {spec.dataset.resolution} "
                "px: its files have changed since this run began. Start it again."
            )
        return images

    loaded: list[Prior] = []

    def faster(prior: Prior) -> None:
        if denoiser is not None and pays(plan.compile, spec, len(dataset.class_ids), prior):
            prior.compiler = denoiser

    def the_prior() -> Prior:
        named = prior or planned_prior(spec, launch)
        if named is None:
            raise RunError(f"{spec.method.name} asked for a prior, but declares needs_prior = False")
        if not loaded:
            loaded.append(load_prior(named, task, faster))
        return loaded[0]

    def note(text: str) -> None:
        progress.update(note=text)
        meter.save(at_most_every_seconds=SAVE_SECONDS)

    scratch = cell.path / "scratch"
    scratch.mkdir(exist_ok=True)
    task = DistillTask(
        class_ids=dataset.class_ids,
        class_indices=tuple(spec.classes(len(dataset.class_ids))),
        ipc=spec.ipc,
        seed=spec.seed,
        train=train,
        train_hash=train_hash(split.content_hash, spec.dataset.resolution),
        device=device,
        precision=spec.precision,
        batch_size=plan.batch_size,
        scratch=scratch,
        done=rounds,
        load_prior=the_prior,
        cache=DiskArtefacts(store.artefacts, meter),
        phase=meter.phase,
        progress=note,
        record=meter.note,
        train_at=train_at,
    )
    return with_classifiers(task, split.validation)


def train_hash(content_hash: str, resolution: int) -> str:
    """`DistillTask.train_hash`: what artefacts are named by that come from training images at one side."""
    return digest([content_hash, resolution])


def _make_images(method: Method, task: DistillTask, rounds: Rounds, meter: Meter, progress: Progress) -> None:
    with meter.phase("prepare"):
        method.prepare(task)
    with meter.phase("distill"):
        made: Iterable[list[DistilledImage]] | None = method.distill(task)
        if made is None:
            raise RunError(f"distill of {method.name} gave nothing back; expected it to yield rounds of images")
        for images in made:
            with meter.phase("write"):
                rounds.commit(images)
                meter.save(at_most_every_seconds=SAVE_SECONDS)
            progress.update(images_done=len(rounds))


def _with_less_memory(cell: CellDir, plan: CellPlan, said: str, progress: Progress) -> CellPlan:
    """The plan with half the batch, kept so that a resumed cell goes on with it; the GPU's memory is given back.

    Raises:
        torch.OutOfMemoryError: the batch was one image already.
    """
    halved = plan.halved()
    write_json(cell.path / "plan.json", halved.model_dump(mode="json"))
    tried = ", ".join(map(str, halved.oom_batch_sizes))
    if plan.batch_size == 1:
        raise torch.OutOfMemoryError(
            f"not even one image at a time fits (batch sizes tried: {tried}): {said.rstrip('.')}. Free the GPU of "
            "other work, use one with more memory, or try --precision bf16."
        )
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    note = f"out of GPU memory at batch size {plan.batch_size}; going on with {halved.batch_size}"
    print(f"{note} ({said})", flush=True)
    progress.update(note=note)
    return halved
