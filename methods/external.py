"""Any program as a method: run in its own interpreter, in a process of its own, and its image folder harvested.

The program is told where to write by placeholders in its command; what it writes is read as `bench eval --images` reads
a folder. No image is resized: a set has the size that its program gave it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ddbench.benchmark.core.errors import RunError
from ddbench.methods import base
from ddbench.methods.base import CostClass, DistilledImage, DistillTask, Method

if TYPE_CHECKING:
    from ddbench.datasets.base import Dataset

PLACEHOLDERS = ("out", "ipc", "seed", "classes", "class_file", "train_dir", "device", "image_size")
SOURCE_SUFFIXES = {".py", ".sh", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".txt"}
"""Of a program's folder, these files are hashed: its text, not its weights and results."""
GRACE_SECONDS = 5.0
"""Between asking the program to stop and ending it; the engine gives a cell twice as long."""
POLL_SECONDS = 0.2
LAST_LINES = 15
EXAMPLE = Path(__file__).with_name("external_example.py")


class External(Method):
    """An author's own program, run as a method; its images are harvested from the folder that it writes.

    It records `peak_mib` (of the program and all its children together, proportional set sizes), `seconds`,
    `exit_status`, `command`, `image_sizes` and, with `program`, `program_sha256`.
    """

    name = "external"
    version = 1
    cost_class = CostClass.EXTERNAL
    check_params: ClassVar[Mapping[str, Any]] = {
        "command": f"{shlex.quote(sys.executable)} -P {shlex.quote(str(EXAMPLE))} --train {{train_dir}} --out {{out}} "
        "--ipc {ipc} --seed {seed}"
    }

    class Params(base.Params):
        command: Annotated[
            str,
            Field(
                description="The program and its arguments, split as a shell would but run without one. {out}: the "
                "folder to write to; {ipc}, {seed}, {device}, {image_size}; {classes}: class ids with commas; "
                "{class_file}: a file with one class id a line; {train_dir}: training images as "
                "<class id>/<name>.png, written on demand."
            ),
        ] = ""
        env: Annotated[
            str, Field(description="NAME=value pairs for its environment, separated by spaces; same placeholders.")
        ] = ""
        working_directory: Annotated[str, Field(description="Where it is started; empty: an empty folder.")] = ""
        program: Annotated[
            str,
            Field(
                description="Its file, or folder of source files: their SHA-256 becomes part of the cell's identity, "
                "so that an edited program reuses no old result."
            ),
        ] = ""
        program_sha256: Annotated[
            str, Field(description="Filled in when a run is planned; a program that has changed since is refused.")
        ] = ""
        images: Annotated[str, Field(description="Where the class folders lie when it has finished.")] = "{out}"
        class_order: Annotated[
            str,
            Field(
                description="A file that says which of its folders is which class: lines `folder class-id`, or class "
                "ids alone for folders numbered from 0. Empty: folders are named by class id."
            ),
        ] = ""
        surplus: Annotated[
            Literal["refuse", "first", "lexicographic"],
            Field(description="What to do with more images than the IPC: refuse, or keep the first, as `--subset`."),
        ] = "refuse"
        timeout_seconds: Annotated[float, Field(gt=0, description="Then the program is ended.")] = 7 * 24 * 3600.0

        @field_validator("command", "env", "images")
        @classmethod
        def _placeholders(cls, text: str) -> str:
            unknown = sorted(set(re.findall(r"\{(\w+)\}", text)) - set(PLACEHOLDERS))
            if unknown:
                known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                raise ValueError(f"unknown placeholder {{{unknown[0]}}}; known: {known}")
            try:
                shlex.split(text)
            except ValueError as error:
                raise ValueError(f"{text!r} cannot be split into words: {error}") from error
            return text

        @field_validator("env")
        @classmethod
        def _assignments(cls, text: str) -> str:
            for word in shlex.split(text):
                if not re.match(r"[A-Za-z_]\w*=", word):
                    raise ValueError(f"expected NAME=value pairs, got {word!r}")
            return text

        @model_validator(mode="before")
        @classmethod
        def _hash_program(cls, given: Any) -> Any:
            if isinstance(given, dict) and given.get("program") and not given.get("program_sha256"):
                return {**given, "program_sha256": source_sha256(Path(str(given["program"])).expanduser())}
            return given

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
        from ddbench.datasets.image_sets import read_image

        channels = task.train.read([0]).shape[-1]
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
                _export(task, Path(values["train_dir"]))
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
            program = _Program(words, environment, folder, params.timeout_seconds)
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
        from ddbench.datasets.image_sets import image_files

        if not root.is_dir():
            raise RunError(f"the program left no folder {root}; say where its images are with images='{{out}}/…'")
        folder_of = _class_folders(self.params.class_order, root)
        found: dict[int, list[Path]] = {}
        problems = []
        for c in task.class_indices:
            class_id, ipc = task.class_ids[c], task.ipc or 0
            folder = folder_of(class_id)
            files = image_files(folder) if folder is not None and folder.is_dir() else []
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
        return found


class _Program:
    """A program in a session of its own: its output goes to the cell's log, its memory is watched."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float) -> None:
        self.words, self.environment, self.folder, self.timeout = words, environment, folder, timeout
        self.peak_mib = self.seconds = 0.0
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> int:
        """Run it and return its exit status. However this call ends, no process of the program is left.

        Raises:
            RunError: it could not be started, or took too long.
        """
        begun = time.monotonic()
        try:
            with _signals_later():  # an interruption while it starts would leave it behind
                process = self._process = self._start()
            reader = threading.Thread(target=self._read, args=[process.stdout], daemon=True)
            reader.start()
            while (status := process.poll()) is None:
                self.peak_mib = max(self.peak_mib, _session_mib(process.pid))
                self.seconds = time.monotonic() - begun
                if self.seconds > self.timeout:
                    raise RunError(
                        f"the program took longer than timeout_seconds={self.timeout:g}\n  {shlex.join(self.words)}\n"
                        f"Its last lines:\n{self.last_words()}"
                    )
                time.sleep(min(POLL_SECONDS, 0.005 + self.seconds / 50))
            self.seconds = time.monotonic() - begun
        finally:
            if self._process is not None:
                _end_session(self._process)
        reader.join(timeout=GRACE_SECONDS)
        return status

    def _start(self) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                self.words,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            said = f"cannot start {self.words[0]}: {error.strerror} (command: {shlex.join(self.words)})"
            raise RunError(said) from error

    def last_words(self) -> str:
        return "\n".join(self._lines) or "(it said nothing)"

    def _read(self, output: IO[str]) -> None:
        for line in output:
            print(line, end="", flush=True)
            self._lines.append(line.rstrip("\n"))


def _end_session(process: subprocess.Popen[str]) -> None:
    """End a program and its children: ask, then insist."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and _session(process.pid):
            process.poll()
            time.sleep(0.02)
    process.wait()


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """SIGTERM and SIGINT that come during the block are handled after it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread handles signals
        return
    came: list[int] = []
    both = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda came_in, _: came.append(came_in)) for number in both}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for missed in came:
        signal.raise_signal(missed)


def source_sha256(program: Path) -> str:
    """SHA-256 of a file; of a folder, over its source files' names and contents.

    Raises:
        ValueError: there is no such file or folder, or no source file in it.
    """
    if program.is_file():
        return hashlib.sha256(program.read_bytes()).hexdigest()
    files = [
        path
        for path in sorted(program.rglob("*"))
        if path.suffix in SOURCE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(program).parts)
    ]
    if not files:
        raise ValueError(f"program {program}: there is no such file, nor a folder with source files")
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(program).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return whole.hexdigest()


def _fill(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], text)


def _export(task: DistillTask, folder: Path) -> None:
    """Training images of the task's classes as <class id>/<name>.png."""
    from ddbench.datasets.image_sets import write_png

    shutil.rmtree(folder, ignore_errors=True)
    for c in task.class_indices:
        target = folder / task.class_ids[c]
        target.mkdir(parents=True)
        indices = task.train.of_class(c)
        for start in range(0, len(indices), 256):
            block = indices[start : start + 256]
            for index, pixels in zip(block, task.train.read(block), strict=True):
                write_png(target / f"{Path(task.train.names[index]).stem}.png", pixels)


def _class_folders(class_order: str, root: Path) -> Any:
    """Class id -> the folder of its images, or None where the class list has no such class."""
    if not class_order:
        return lambda class_id: root / class_id
    try:
        lines = Path(class_order).expanduser().read_text().split("\n")
    except OSError as error:
        raise RunError(f"class_order {class_order}: {error.strerror}") from error
    rows = [line.split() for line in lines if line.strip()]
    named = {row[1]: row[0] for row in rows if len(row) == 2}
    numbered = {row[0]: position for position, row in enumerate(rows) if len(row) == 1}
    if len(named) + len(numbered) != len(rows) or (named and numbered):
        raise RunError(f"class_order {class_order}: expected distinct lines `folder class-id`, or one class id a line")
    if named:
        return lambda class_id: root / named[class_id] if class_id in named else None
    folders = {int(path.name): path for path in root.iterdir() if path.is_dir() and path.name.isdigit()}
    return lambda class_id: folders.get(numbered.get(class_id, -1))


def _session(session: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[3]) == session:
            found.append(int(path.parent.name))
    return found


def _session_mib(session: int) -> float:
    """Memory of all processes of a session; what several share counts once (proportional set size)."""
    kib = 0
    for pid in _session(session):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kib / 1024
