"""The first stage inside its cell: run a method, commit its rounds, put the distilled set together."""

from __future__ import annotations

import shutil
from pathlib import Path

from ddbench.benchmark.artefacts import DiskArtefacts
from ddbench.benchmark.errors import RunError
from ddbench.benchmark.image_sets import set_sha256, store_set
from ddbench.benchmark.meter import Meter
from ddbench.benchmark.progress import Progress
from ddbench.benchmark.registry import DATASETS, METHODS
from ddbench.benchmark.result import DatasetRecord, DistillResult, PriorRecord, mean_guidance
from ddbench.benchmark.rounds import Rounds
from ddbench.benchmark.spec import DatasetSpec, DistillSpec, digest
from ddbench.benchmark.store import CellDir, CellPlan, Launch, Store
from ddbench.datasets.base import Dataset, SplitData
from ddbench.methods.base import DistillTask, Method


def open_split(spec: DatasetSpec, launch: Launch) -> tuple[Dataset, SplitData, DatasetRecord]:
    """Open a cell's dataset and state what was found."""
    dataset: Dataset = DATASETS.load(spec.name)()
    data_dir = None if launch.data_dir is None else Path(launch.data_dir)
    split = dataset.load(spec.split, data_dir, spec.resolution)
    record = DatasetRecord(
        **spec.model_dump(),
        split_hash=split.split_hash,
        content_hash=split.content_hash,
        n_train=len(split.train),
        n_test=len(split.test),
        warning=split.warning,
    )
    return dataset, split, record


def distil(
    cell: CellDir, spec: DistillSpec, launch: Launch, plan: CellPlan, store: Store, meter: Meter, progress: Progress
) -> DistillResult:
    """Run or resume a distil cell.

    Raises:
        RunError: the method broke its contract, or its sampler failed.
        UsageError: data or prior are not what the specification says.
    """
    import torch

    from ddbench.methods.diffusion.prior import Prior
    from ddbench.methods.diffusion.prior_files import find_prior

    device = torch.device(launch.device)
    with meter.phase("load data"):
        dataset, split, record = open_split(spec.dataset, launch)
        rounds = Rounds(cell.path / "rounds", len(dataset.class_ids), spec.ipc, dataset.channels)
    method_class: type[Method] = METHODS.load(spec.method.name)
    method = method_class(method_class.Params.model_validate(spec.method.params))
    expected = _expected_images(spec, split, dataset)

    prior_files = None if launch.prior is None else find_prior(launch.prior)
    if prior_files is not None and prior_files.sha256 != spec.prior_sha256:
        raise RunError(
            f"the prior {launch.prior} has changed since this cell was planned: "
            f"expected SHA-256 {spec.prior_sha256}, found {prior_files.sha256}. Plan the run again."
        )
    loaded: list[Prior] = []

    def load_prior() -> Prior:
        if prior_files is None:
            raise RunError(f"{spec.method.name} asked for a prior, but declares needs_prior = False")
        if not loaded:
            with meter.phase("load prior"):
                loaded.append(Prior.load(prior_files, device=device, precision=spec.precision))
        return loaded[0]

    scratch = cell.path / "scratch"
    scratch.mkdir(exist_ok=True)
    task = DistillTask(
        class_ids=dataset.class_ids,
        class_indices=tuple(range(len(dataset.class_ids))),
        ipc=spec.ipc,
        seed=spec.seed,
        train=split.train,
        train_hash=digest([split.content_hash, spec.dataset.resolution]),
        device=device,
        precision=spec.precision,
        batch_size=plan.batch_size,
        scratch=scratch,
        done=rounds,
        load_prior=load_prior,
        cache=DiskArtefacts(store.artefacts, meter),
        phase=meter.phase,
        progress=lambda note: progress.update(note=note),
    )

    progress.update(images_done=len(rounds), images_total=len(expected))
    if rounds.keys() != expected:
        with meter.phase("prepare"):
            method.prepare(task)
        with meter.phase("distil"):
            for images in method.distill(task):
                with meter.phase("write"):
                    rounds.commit(images)
                    meter.save()
                progress.update(images_done=len(rounds))
    missing = sorted(expected - rounds.keys())
    if missing:
        raise RunError(
            f"the method ended with {len(missing)} of {len(expected)} images missing; "
            f"the first is image {missing[0][1]} of class {dataset.class_ids[missing[0][0]]}"
        )

    with meter.phase("write"):
        sha256 = set_sha256((dataset.class_ids[c], i, rounds.digests[c, i]) for c, i in sorted(rounds))
        target = store_set(
            store.sets,
            rounds.files,
            dataset.class_ids,
            sha256,
            {"method": launch.label, "dataset": spec.dataset.name, "split": spec.dataset.split, "ipc": spec.ipc,
             "seed": spec.seed, "cell": cell.id},
        )  # fmt: skip
        link = cell.path / "images"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../sets/{target.name}")
    return DistillResult(
        cell=cell.id,
        status="ok",
        label=launch.label,
        method=spec.method,
        dataset=record,
        prior=None
        if prior_files is None
        else PriorRecord(name=prior_files.name, sha256=prior_files.sha256, trained_on=prior_files.trained_on),
        ipc=spec.ipc,
        distill_seed=spec.seed,
        image_set_sha256=sha256,
        n_images=len(rounds),
        guidance=mean_guidance(rounds.guidance_nats),
        precision=spec.precision,
        device_type=spec.device_type,
        cost_class=str(method.cost_class),
        cost=meter.cost(batch_size=plan.batch_size, threads=plan.threads),
    )


def forget_rounds(cell: CellDir) -> None:
    """Free what a finished cell no longer needs; the set's files are links to the same data."""
    for name in ("rounds", "scratch"):
        shutil.rmtree(cell.path / name, ignore_errors=True)


def _expected_images(spec: DistillSpec, split: SplitData, dataset: Dataset) -> set[tuple[int, int]]:
    counts = [len(split.train.of_class(c)) if spec.ipc is None else spec.ipc for c in range(len(dataset.class_ids))]
    return {(c, i) for c, count in enumerate(counts) for i in range(count)}
