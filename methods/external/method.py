"""Any program as a method: run in its own interpreter, in a process of its own, and its image folder harvested.

The program is told where to write by placeholders in its command; what it writes is read as `bench eval --images` reads
a folder. No image is resized: a set has the size that its program gave it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method
from ddbench.methods.external.folders import export_training_images
from ddbench.methods.external.params import ExternalParams, source_sha256
from ddbench.methods.external.program import Program

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset

EXAMPLE = Path(__file__).with_name("example.py")


class External(Method):
    """An author's own program, run as a method; its images are harvested from the folder that it writes.

    It records `peak_mib` (of the program and all its children together, proportional set sizes, as found at looks five
    times a second and more often at first: what is gone between two looks is not in it), `seconds`, `exit_status`,
    `command`, `image_sizes`; with `program`, `program_sha256`; `skipped`, what else than images lay in its class
    folders, if anything did.
    """

    name = "external"
    version = 1
    cost_class = CostClass.EXTERNAL
    check_params: ClassVar[Mapping[str, Any]] = {
        "command": f"{shlex.quote(sys.executable)} -P {shlex.quote(str(EXAMPLE))} --train {{train_dir}} --out {{out}} "
        "--ipc {ipc} --seed {seed}"
    }
    Params = ExternalParams

    def reads_real_images(self) -> None:
        return None

    def supports(self, dataset: type[Dataset], ipc: int | None) -> str | None:
        if not self.params.command:
            return "it has no command; give one with --set command='python /path/to/program.py --out {out} --ipc {ipc}'"
        return None

    def distill(self, task: DistillTask) -> Iterator[list[DistilledImage]]:
        """Run the program, unless an earlier attempt saw it finish, and yield what it wrote.

        Raises:
            RunError: it failed, took too long, or wrote something else than was asked for.
        """
        wanted = [(c, i) for c in task.class_indices for i in range(task.ipc or 0) if (c, i) not in task.done]
        if not wanted:
            return
        self._check_program()
        values = self._values(task)
        finished = task.scratch / "finished.json"
        if not finished.exists():
            facts = self._run(task, values)
            finished.write_text(json.dumps(facts))
        for name, value in json.loads(finished.read_text()).items():
            task.record(name, value)
        files = self._harvest(task, Path(_fill(self.params.images, values)))
        from ddbench.datasets.image_sets import BLACK, all_black, read_image

        channels = task.train.read([0]).shape[-1]
        if not any(read_image(file, channels).max() > BLACK for here in files.values() for file in here):
            raise RunError(str(all_black(_fill(self.params.images, values))))
        sizes: set[tuple[int, int]] = set()
        for start in range(0, len(wanted), task.batch_size):
            images = []
            for c, i in wanted[start : start + task.batch_size]:
                pixels = read_image(files[c][i], channels)
                sizes.add((pixels.shape[0], pixels.shape[1]))
                images.append(DistilledImage(c, i, pixels))
            task.record("image_sizes", sorted(f"{width}x{height}" for height, width in sizes))
            yield images

    def _values(self, task: DistillTask) -> dict[str, str]:
        out, class_file = task.scratch / "out", task.scratch / "classes.txt"
        class_ids = [task.class_ids[c] for c in task.class_indices]
        class_file.write_text("".join(f"{class_id}\n" for class_id in class_ids))
        return {
            "out": str(out.resolve()),
            "ipc": str(task.ipc),
            "seed": str(task.seed),
            "classes": ",".join(class_ids),
            "class_file": str(class_file.resolve()),
            "train_dir": str((task.scratch / "train").resolve()),
            "device": str(task.device),
            "image_size": str(task.train.read([0]).shape[1]),
        }

    def _run(self, task: DistillTask, values: Mapping[str, str]) -> dict[str, Any]:
        out = Path(values["out"])
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        params = self.params
        if "{train_dir}" in params.command + params.env:
            with task.phase("export training images"):
                export_training_images(task, Path(values["train_dir"]))
        words = [_fill(word, values) for word in shlex.split(params.command)]
        environment = dict(os.environ)
        for word in shlex.split(params.env):
            name, _, value = _fill(word, values).partition("=")
            environment[name] = value
        folder = Path(params.working_directory).expanduser() if params.working_directory else task.scratch / "work"
        if params.working_directory and not folder.is_dir():
            raise RunError(f"working_directory {folder}: there is no such folder")
        folder.mkdir(exist_ok=True)
        task.progress(f"running {Path(words[0]).name}")
        with task.phase("external program"):
            program = Program(words, environment, folder, params.timeout_seconds)
            status = program.run()
        if status:
            how = f"exit status {status}" if status > 0 else f"it was ended by {signal.Signals(-status).name}"
            raise RunError(f"the program failed: {how}\n  {shlex.join(words)}\nIts last lines:\n{program.last_words()}")
        facts: dict[str, Any] = {
            "command": shlex.join(words),
            "exit_status": status,
            "seconds": round(program.seconds, 3),
            "peak_mib": round(program.peak_mib, 1),
        }
        return facts | ({"program_sha256": params.program_sha256} if params.program else {})

    def _check_program(self) -> None:
        if not self.params.program:
            return
        found = source_sha256(Path(self.params.program).expanduser())
        if found != self.params.program_sha256:
            raise RunError(
                f"program {self.params.program} has changed since this run was planned: expected SHA-256 "
                f"{self.params.program_sha256}, found {found}. Run the same command again to plan it anew."
            )

    def _harvest(self, task: DistillTask, root: Path) -> dict[int, list[Path]]:
        """Class index -> its IPC image files."""
        from ddbench.benchmark.core.subsets import SubsetOf
        from ddbench.datasets.foreign.class_folders import class_folders
        from ddbench.datasets.image_files import Listing, list_images

        if not root.is_dir():
            raise RunError(f"the program left no folder {root}; say where its images are with images='{{out}}/…'")
        try:
            folders = class_folders(root, task.class_ids, self.params.class_order or None)
        except UsageError as error:
            raise RunError(f"{error}\n(of `external`, the order is its parameter: --set class_order=…)") from error
        found: dict[int, list[Path]] = {}
        problems, skipped = [], Counter[str]()
        for c in task.class_indices:
            class_id, ipc = task.class_ids[c], task.ipc or 0
            folder = root / folders.get(class_id, class_id)
            listing = list_images(folder) if folder.is_dir() else Listing()
            files, skipped = listing.files, skipped + listing.skipped
            problems += listing.problems
            if len(files) > ipc and self.params.surplus != "refuse":
                files = SubsetOf(how=self.params.surplus, ipc=ipc).pick(files, class_id)
            if len(files) != ipc:
                problems.append(f"class {class_id}: {len(files)} images in {folder}, expected {ipc}")
            found[c] = files
        if problems:
            there = sorted(path.name for path in root.iterdir())
            hint = "; surplus=first keeps the first of too many" if any(map(len, found.values())) else ""
            more = f" … ({len(problems)} classes in all)" if len(problems) > 3 else ""
            raise RunError(f"{'; '.join(problems[:3])}{more}. {root} holds {', '.join(there[:5]) or 'nothing'}{hint}")
        if skipped:
            task.record("skipped", dict(skipped))
        return found


def _fill(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], text)
