"""`bench push`."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ddbench.benchmark.commands import reading
from ddbench.benchmark.commands.options import Plugins
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.files import whole_folder, write_json
from ddbench.benchmark.core.registry import DATASETS, load_plugin
from ddbench.benchmark.core.result import SoftLabelsRecord
from ddbench.benchmark.core.store import Launch, Store
from ddbench.datasets.base import Dataset
from ddbench.datasets.float_images import IMAGES, LABELS, MANIFEST
from ddbench.datasets.foreign.hub import PREFIX, parse
from ddbench.reports.results.parameters import may_be_published, method_of
from ddbench.reports.results.rows import DistillCell, EvaluateCell, Results, one_each

push_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

SOFT = "soft_labels.npy"
SHORTEST = 6
"""Digits of a hash that may stand for it."""


@dataclass(frozen=True)
class Found:
    """A set of a results folder, with what is known of it."""

    sha256: str
    folder: Path
    launch: Launch
    distill: DistillCell | None
    students: list[EvaluateCell]
    dataset: type[Dataset]

    @property
    def soft_labels(self) -> SoftLabelsRecord | None:
        """Those that students were trained with."""
        given = (cell.result.soft_labels for cell in self.students if cell.result is not None)
        return next((soft for soft in given if soft is not None and soft.used), None)


@push_app.command()
def push(
    set: Annotated[str, typer.Argument(metavar="SET", help="Its folder, the first digits of its hash, or its name.")],
    to: Annotated[str, typer.Option("--to", metavar="hf:OWNER/NAME|FOLDER", help="Where it goes.")],
    runs: reading.Runs = Path("runs"),
    private: Annotated[bool, typer.Option("--private", help="A repository that only its owners see.")] = False,
    real_images: Annotated[
        bool, typer.Option("--real-images", help="Publish pictures that show real images, which you may pass on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the card; write and upload nothing.")] = False,
    plugin: Plugins = None,
) -> None:
    """Put a distilled set on the Hugging Face hub, or into a folder: images, manifest, and a card with its results."""
    from ddbench.reports.output.set_card import set_card
    from ddbench.reports.results import rows

    for file in plugin or []:
        load_plugin(file)
    address = parse(to) if to.startswith(PREFIX) else None
    if address is not None and (address.revision or address.path):
        raise UsageError(f"--to {to}: expected hf:OWNER/NAME; what is pushed becomes its newest commit")
    found = _find(rows.read(runs), set)
    method = method_of(found.distill.spec.method) if found.distill is not None else None
    if address is not None and not dry_run and not real_images and not may_be_published(method):
        raise UsageError(
            f"the pictures of {found.sha256[:16]} may show real images, or parts of them, which distilling does "
            "not make yours; if you may pass them on, say --real-images"
        )
    screen = reading.console()
    into: AbstractContextManager[str] | AbstractContextManager[Path] = (
        whole_folder(Path(to), existing="refuse") if address is None and not dry_run else tempfile.TemporaryDirectory()
    )
    if address is None and Path(to).exists():
        raise UsageError(f"--to {to} is there already; name a folder that is not")
    with into as made:
        folder = Path(made)
        n_images = _copy(found, folder, Store(runs))
        how = None if address is None else f"--images {to} --dataset {found.dataset.name}"
        if how is not None and (soft := found.soft_labels) is not None:
            how += f" --protocol soft-stored --class-order dataset --labels {soft.kind}"
        card = set_card(found.sha256, found.distill, found.students, n_images=n_images, how=how)
        (folder / "README.md").write_text(card, encoding="utf-8")
        if dry_run:
            screen.print(card, markup=False, highlight=False, soft_wrap=True)
            screen.print(f"{n_images:,} images would go to {to}; nothing was written", soft_wrap=True, markup=False)
            return
        if address is not None:
            commit = _upload(address.repo, folder, found.sha256, private=private)
            pinned = f"{to}@{commit}"
            screen.print(f"{n_images:,} images are at {to}, commit {commit}", soft_wrap=True, markup=False)
            screen.print(f"bench eval --images {pinned} -d {found.dataset.name}", soft_wrap=True, markup=False)
    if address is None:
        screen.print(f"{n_images:,} images with their card: {to}", soft_wrap=True, markup=False)


def _find(results: Results, wanted: str) -> Found:
    """The set that a word means, with its cells.

    Raises:
        UsageError: it means none, or several.
    """
    cells: dict[str, tuple[DistillCell | None, list[EvaluateCell]]] = {}
    for distill in results.distills.values():
        images = None if distill.result is None else distill.result.image_set_sha256
        if images is not None and distill.spec.shard is None and distill.spec.ipc is not None:
            cells.setdefault(images, (distill, []))
    for cell in one_each(results.evaluates.values()):
        if cell.ok and cell.result is not None and cell.result.image_set_sha256 is not None and cell.spec.ipc:
            cells.setdefault(cell.result.image_set_sha256, (None, []))[1].append(cell)
    name = Path(wanted).resolve().name if Path(wanted).is_dir() else wanted
    labels = {sha: (made or students[0]).label for sha, (made, students) in cells.items()}
    fitting = [
        sha for sha in cells if (len(name) >= SHORTEST and sha.startswith(name)) or wanted in (labels[sha], sha[:16])
    ]
    if len(fitting) != 1:
        listed = ", ".join(f"{sha[:16]} ({labels[sha]})" for sha in (fitting or list(cells))[:10]) or "none"
        what = "means several sets" if fitting else "is no set of these results"
        raise UsageError(f"{wanted} {what}; give the first digits of a hash. Sets of {results.store.out}: {listed}")
    sha256 = fitting[0]
    made, students = cells[sha256]
    first = made or students[0]
    launch = results.store.cell(first.id).launch()
    folder = results.store.set_dir(sha256) if made is not None else Path(launch.images or "")
    if not folder.is_dir():
        raise UsageError(f"the images of {sha256[:16]} are not there: {folder}")
    return Found(sha256, folder, launch, made, students, DATASETS.load(first.spec.dataset.name))


def _copy(found: Found, to: Path, store: Store) -> int:
    """Copy a set's files, and its soft labels; returns how many images there are.

    Raises:
        UsageError: what lies there is not the set that the results name.
    """
    from ddbench.datasets.image_sets import describe_set
    from ddbench.datasets.set_layout import layout_of

    class_ids, channels = found.dataset.class_ids, found.dataset.channels
    if (found.folder / IMAGES).is_file() and found.launch.subset is None:
        for name in (IMAGES, LABELS):
            shutil.copyfile(found.folder / name, to / name)
    else:
        files = layout_of(found.folder, class_ids, found.launch.subset, found.launch.reading).files
        for class_id, here in zip(class_ids, files, strict=True):
            (to / class_id).mkdir()
            for file in here:
                shutil.copyfile(file, to / class_id / file.name)
    known = json.loads((found.folder / MANIFEST).read_bytes()) if (found.folder / MANIFEST).is_file() else {}
    write_json(to / MANIFEST, {**known, "image_set_sha256": found.sha256, "class_ids": list(class_ids)})
    record = describe_set(to, class_ids, channels)
    if record.sha256 != found.sha256:
        raise UsageError(
            f"{found.folder} does not hold the set that the results name: expected {found.sha256[:16]}, found "
            f"{record.sha256[:16]}"
        )
    if (soft := found.soft_labels) is not None:
        shutil.copyfile(store.soft_labels(soft.sha256), to / SOFT)
    return len(record.labels)


def _upload(repo: str, folder: Path, sha256: str, *, private: bool) -> str:
    """Returns the commit's hash."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, repo_type="dataset", commit_message=f"Distilled set {sha256[:16]}"
        )
    except Exception as error:  # the client raises errors of several libraries: HTTP, the system, its own
        why = str(error).strip().partition("\n")[0].rstrip(".")
        raise UsageError(
            f"nothing was uploaded to {repo}: {why}. Log in with `hf auth login`, or write to a folder (--to FOLDER) "
            "and upload that"
        ) from error
    return str(commit.oid)
