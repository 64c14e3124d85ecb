"""Bad input as a user meets it, through the real command line: one clear message, exit code 2 (usage) or 1 (failure),
no traceback, and nothing that was finished is lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from forked_bench import forked_bench
from PIL import Image

from ddbench.benchmark.cells.cell import EXIT_FAILED, EXIT_OK
from ddbench.benchmark.core.result import DistillResult
from ddbench.benchmark.core.store import CellDir, Store
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.running import runner
from ddbench.datasets.digits import Digits
from ddbench.methods.diffusion.priors.files import BUNDLED

BENCH = Path(sys.executable).with_name("bench")
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""
}  # fmt: skip
ONE_SET = ["--ipc", "1", "--seeds", "0", "--device", "cpu"]
ONE_STUDENT = [*ONE_SET, "--repeats", "1", "--protocol", "quick[epochs=1]"]
TWO_METHODS = ["run", "-m", "random,random-first", "-d", "digits", *ONE_STUDENT, "--jobs", "2"]


def bench(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BENCH, *arguments], env=ENVIRONMENT, text=True, capture_output=True, **options)


def check(done: subprocess.CompletedProcess[str], code: int, *told: str) -> str:
    """Checks the exit code, that there is no traceback, and that the message says all of `told`."""
    everything = done.stdout + done.stderr
    assert "Traceback" not in everything, everything
    assert done.returncode == code, everything
    for part in told:
        assert part in everything, f"{part!r} is not in:\n{everything}"
    return everything


def in_folder(command: str, folder: Path) -> list[str | Path]:
    """How a command is told its results folder; nothing for one that has none."""
    if command == "list":
        return []
    return [
        "--runs" if command in ("leaderboard", "status", "compare", "report", "figures", "quality") else "--out",
        folder,
    ]


def check_refused(done: subprocess.CompletedProcess[str], code: int, *told: str) -> None:
    """One message on standard error, starting with `error:`."""
    check(done, code)
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    for part in told:
        assert part in done.stderr, f"{part!r} is not in:\n{done.stderr}"


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.parent.name.endswith("lease")
    }


def finished_files(folder: Path) -> dict[str, str]:
    """Checksums of the directories of finished cells and of all distilled sets."""
    done = [cell.path.name for cell in Store(folder).cell_dirs() if (result := cell.result()) and result.status == "ok"]
    kept = tuple([f"cells/{name}/" for name in done] + ["sets/"])
    return {name: sha for name, sha in checksums(folder).items() if name.startswith(kept)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two distilled sets and a student of each."""
    out = tmp_path_factory.mktemp("finished") / "runs"
    check(bench(*TWO_METHODS, "--out", out), 0, "4 done")
    return out


# Usage: found while planning, exit code 2 -----------------------------------------------------------------------------

Case = tuple[Callable[[Path], list[str | Path]], list[str]]
"""What to run (given an empty folder to prepare), and what the message must say."""


def run(*arguments: str | Path) -> Callable[[Path], list[str | Path]]:
    return lambda folder: ["run", *arguments]


def edit(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def truncate(path: Path, bytes_left: int) -> None:
    path.write_bytes(path.read_bytes()[:bytes_left])


RANDOM = ["-m", "random", "-d", "digits"]
REQUESTS: dict[str, Case] = {
    "unknown method": (run("-m", "dmdg", "-d", "digits"), ["unknown method 'dmdg'; did you mean 'dmgd'"]),
    "unknown dataset": (run("-m", "random", "-d", "digit"), ["unknown dataset 'digit'; did you mean 'digits'"]),
    "unknown protocol and student": (
        run(*RANDOM, "--protocol", "quik", "--student", "convnt3"),
        ["unknown protocol 'quik'; did you mean 'quick'", "unknown network 'convnt3'; did you mean 'convnet3'"],
    ),
    "unknown split, other resolution, impossible student": (
        run(*RANDOM, "--split", "fastai", "--resolution", "16", "--student", "convnet6"),
        ["--split fastai: digits has default", "--resolution 16: digits can be opened at 8 px",
         "network convnet6 needs images of at least 64×64"],
    ),
    "unknown engine": (run(*RANDOM, "--engine", "loca"), ["unknown engine 'loca'; did you mean 'local'"]),
    "parameters, all at once": (
        run("-m", "dmgd[ot_scale=-1,ot_scael=2],dit[steps=1,label_noise=loud],random", "-d", "digits",
            "--set", "cfg_scale=inf", "--set", "epochs=3", "--protocol", "quick[epochs=0,epoch=3]"),
        ["dmgd: parameter ot_scale: Input should be greater than or equal to 0, got -1",
         "dmgd: parameter ot_scael: unknown", "ot_scael: did you mean 'ot_scale'",
         "dit: parameter steps: Input should be greater than or equal to 2, got 1", "dit: parameter label_noise",
         "parameter cfg_scale: Input should be a finite number", "--set epochs: none of the chosen methods has this",
         "override epochs=0: expected epochs at every IPC, 1 to 100000", "nothing called 'epoch' to override"],
    ),
    "parameters that contradict each other": (
        run("-m", "dmgd[ot_window_first=40,ot_window_last=30]", "-d", "digits"),
        ["expected ot_window_first ≤ ot_window_last", "got 40 and 30"],
    ),
    "malformed selector": (run("-m", "dmgd[=3]", "-d", "digits"), ["expected key=value"]),
    "malformed assignment": (run(*RANDOM, "--set", "ot_scale"), ["--set ot_scale: expected key=value"]),
    "options, all at once": (
        run(*RANDOM, "--ipc", "0", "--seeds", "3-1", "--repeats", "0", "--jobs", "0", "--batch-size", "0",
            "--timeout", "-3", "--precision", "fp8", "--reuse", "perhaps", "--device", "tpu"),
        ["ipc: IPC counts images per class and starts at 1, got 0", "seeds: the range '3-1' ends before it begins",
         "repeats:", "jobs:", "batch_size:", "timeout:", "precision: Input should be 'fp32' or 'bf16', got 'fp8'",
         "reuse: Input should be 'missing', 'never' or 'only-cache', got 'perhaps'", "device:"],
    ),
    "IPC beyond the class size, for each method that selects": (
        run("-m", "random,random-first,full", "-d", "digits", "--ipc", "1,104,105"),
        ["random on digits: IPC 105 is more than the 104 training images of class '8'",
         "random-first on digits: IPC 105 is more than the 104"],
    ),
    "endless range": (run(*RANDOM, "--seeds", "0-9999999999"), ["seeds: the range '0-9999999999' has more than"]),
    "nothing asked for": (run(), ["methods: missing; give --method", "datasets: missing; give --dataset"]),
    "a GPU that is not there": (
        run(*RANDOM, "--device", "cuda"), ["--device cuda: torch", "sees no CUDA device; use --device cpu"],
    ),
    "unknown name in a list": (lambda _: ["list", "methods", "dmdg"], ["unknown method 'dmdg'; did you mean 'dmgd'"]),
    "no results": (lambda folder: ["leaderboard", "--runs", folder], ["holds no results", "run `bench run` first"]),
    "malformed filter": (lambda _: ["status", "--ipc", "x"], ["--ipc: expected whole numbers like 1,10"]),
}  # fmt: skip


def study(text: bytes) -> Callable[[Path], list[str | Path]]:
    def prepare(folder: Path) -> list[str | Path]:
        (folder / "study.yaml").write_bytes(text)
        return ["run", "--config", "study.yaml"]

    return prepare


STUDIES: dict[str, Case] = {
    "study: no such file": (run("--config", "nowhere.yaml"), ["--config nowhere.yaml: No such file or directory"]),
    "study: unknown keys and wrong values": (
        study(b"methods: [random, 1]\ndatasets: digits\nipcs: 1\nrepeats: 0\nseeds: [a]\nset: {ot_scale: [1, 2]}\n"),
        ["ipcs: unknown", "repeats: ", "seeds.0: ", "methods.1: ", "set: expected one value for ot_scale"],
    ),
    "study: no mapping": (study(b"- random\n"), ["expected a mapping of run options, got list"]),
    "study: no YAML": (study(b"methods: [random\n"), ["not YAML", "line 1"]),
    "study: code": (study(b"methods: !!python/object/apply:os.system ['touch ran']\n"), ["not YAML", "python/object"]),
    "study: binary": (study(b"\xff\xfe\x00"), ["not YAML"]),
}


def prior(spoil: Callable[[Path], Any]) -> Callable[[Path], list[str | Path]]:
    """Two methods need the spoilt prior, one does not."""

    def prepare(folder: Path) -> list[str | Path]:
        spoil(shutil.copytree(BUNDLED / "digits", folder / "prior"))
        return ["run", "-m", "random,dit,dmgd", "-d", "digits", "--prior", "./prior"]

    return prepare


WEIGHTS, METADATA = "diffusion_pytorch_model.safetensors", "prior.json"
SPLIT_HASH = Digits().split_hash("default", None)
PRIORS: dict[str, Case] = {
    "prior: unknown": (
        run("-m", "dit,dmgd", "-d", "digits", "--prior", "digit"),
        ["there is no prior 'digit'", "did you mean 'digits'?"],
    ),
    "prior: truncated": (prior(lambda p: truncate(p / WEIGHTS, 100_000)), [WEIGHTS, "is damaged: expected", "100000"]),
    "prior: truncated header": (prior(lambda p: truncate(p / WEIGHTS, 5)), [WEIGHTS, "is truncated"]),
    "prior: no weights": (prior(lambda p: (p / WEIGHTS).unlink()), [f"{WEIGHTS} is missing from prior"]),
    "prior: half-written metadata": (prior(lambda p: truncate(p / METADATA, 50)), [METADATA, "is not JSON"]),
    "prior: foreign classes": (
        prior(lambda p: edit(p / METADATA, class_ids=[f"n{i:08d}" for i in range(10)])),
        ["prior ./prior does not know 10 of digits's 10 classes"],
    ),
    "prior: saw the test images": (
        prior(lambda p: edit(p / METADATA, seen_test_split_hashes=[SPLIT_HASH])),
        ["prior ./prior was trained on test images of digits, split default"],
    ),
}


def images(spoil: Callable[[Path], Any], *options: str) -> Callable[[Path], list[str | Path]]:
    """A distilled set made elsewhere, two images per class."""

    def prepare(folder: Path) -> list[str | Path]:
        made = folder / "images"
        pixels = np.random.default_rng(0).integers(0, 256, (10, 2, 8, 8), np.uint8)
        for class_id, of_class in zip(Digits.class_ids, pixels, strict=True):
            (made / class_id).mkdir(parents=True)
            for index, image in enumerate(of_class):
                Image.fromarray(image).save(made / class_id / f"{index:05d}.png")
        spoil(made)
        return ["eval", "--images", "images", *(options or ["-d", "digits"])]

    return prepare


def without_classes(folder: Path) -> None:
    shutil.rmtree(folder / "3")
    for path in (folder / "7").iterdir():
        path.unlink()


def unreadable_files(folder: Path) -> None:
    truncate(folder / "4" / "00001.png", (folder / "4" / "00001.png").stat().st_size // 2)
    (folder / "5" / "00000.png").write_text("no image")


def as_they_are(_: Path) -> None:
    pass


IMAGES: dict[str, Case] = {
    "images: missing classes": (
        images(without_classes),
        ["no images for 2 of 10 classes: 3, 7", "expected one folder per class id: 0, 1"],
    ),
    "images: unreadable files": (
        images(unreadable_files),
        ["images/4/00001.png: cannot be read", "images/5/00000.png: cannot be read", "replace or remove these files"],
    ),
    "images: wrong label folder": (
        images(lambda p: (p / "2").rename(p / "two")),
        ["images/two: no class has this id", "no images for 1 of 10 classes: 2"],
    ),
    "images: no folder": (images(shutil.rmtree), ["images: no such folder; expected one sub-folder per class"]),
    "images: unknown dataset": (images(as_they_are, "-d", "digitz"), ["unknown dataset 'digitz'; did you mean"]),
    "images: wrong options": (
        images(as_they_are, "-d", "digits", "--repeats", "0", "--jobs", "0"),
        ["repeats: Input should be greater than or equal to 1, got 0", "jobs: "],
    ),
}  # fmt: skip

METHOD = """
from ddbench.methods.base import CostClass, DistilledImage, Method
import numpy as np
BLACK = np.zeros((8, 8, 1), np.uint8)

class Mine(Method):
    name, version, cost_class = "mine", 1, CostClass.TRAINING_FREE

    def distill(self, task):
        yield [DistilledImage(c, 0, BLACK) for c in task.class_indices]
"""


def plugin(text: str) -> Callable[[Path], list[str | Path]]:
    def prepare(folder: Path) -> list[str | Path]:
        (folder / "mine.py").write_text(text)
        return ["run", "-m", "mine", "-d", "digits", "--plugin", "mine.py"]

    return prepare


PLUGINS: dict[str, Case] = {
    "plugin: no such file": (run(*RANDOM, "--plugin", "nowhere.py"), ["--plugin nowhere.py: no such file"]),
    "plugin: syntax": (plugin("x = "), ["importing it failed: SyntaxError"]),
    "plugin: import": (plugin("import no_such_module"), ["importing it failed: ModuleNotFoundError"]),
    "plugin: exit": (plugin("import sys; sys.exit(0)"), ["importing it failed: SystemExit"]),
    "plugin: empty": (plugin("x = 1"), ["expected a subclass of ddbench.methods.base.Method", "found none"]),
    "plugin: name taken": (
        plugin(METHOD.replace('"mine"', '"random"')),
        ["two methods are called 'random'", "built-in", "plugin mine.py"],
    ),
    "plugin: undeclared": (
        plugin(METHOD.replace("name, version, cost_class = ", "name, _, _ = ")),
        ["class Mine does not declare version, cost_class"],
    ),
    "plugin: abstract": (
        plugin(METHOD.replace("def distill(", "def make(")),
        ["class Mine does not define distill"],
    ),
    "plugin: supports() fails": (
        plugin(METHOD + "    def supports(self, dataset, ipc):\n        raise KeyError('oops')\n"),
        ["mine on digits: asking the method whether it runs there failed: KeyError: 'oops'"],
    ),
    "plugin: its parameters' own check fails": (
        plugin(
            METHOD
            + "    class Params(Method.Params):\n        x: float = 1\n"
            + "        def model_post_init(self, _): raise RuntimeError('oops')\n"
        ),
        ["mine: checking its parameters failed: RuntimeError: oops"],
    ),
}
CASES = {**REQUESTS, **STUDIES, **PRIORS, **IMAGES, **PLUGINS}


@pytest.fixture(scope="module")
def answers(
    finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[subprocess.CompletedProcess[str], Path]]:
    """Every case's outcome and folder. They share a results folder, since not one of them may write anything."""
    before, found = checksums(finished), {}
    with forked_bench(ENVIRONMENT) as forked:
        for name, (command, _) in CASES.items():
            folder = tmp_path_factory.mktemp("case")
            arguments = command(folder)
            where = in_folder(str(arguments[0]), finished) if not {"--out", "--runs"} & set(arguments) else []
            found[name] = forked(*arguments, *where, cwd=folder), folder
    assert checksums(finished) == before, "a refused command has written to the results"
    return found


@pytest.mark.parametrize("name", CASES)
def test_refused_with_one_message(name: str, answers: Any) -> None:
    check_refused(answers[name][0], 2, *CASES[name][1])


@pytest.mark.parametrize("name", PRIORS)
def test_the_problem_of_a_prior_is_told_once_for_all_its_methods(name: str, answers: Any) -> None:
    assert answers[name][0].stderr.count("\n") == 1


def test_a_study_is_data(answers: Any) -> None:
    _, folder = answers["study: code"]
    assert [path.name for path in folder.iterdir()] == ["study.yaml"], "nothing in it was run"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean"),
        (["run", "--methods", "random"], "No such option: --methods"),
        (["list", "method"], "'method' is not one of 'methods'"),
        (["eval", "--dataset", "digits"], "Missing option '--images'"),
    ],
)
def test_unknown_commands_and_options(arguments: list[str], told: str) -> None:
    assert told in " ".join(check(bench(*arguments), 2).replace("│", " ").split())


def test_a_set_made_elsewhere_is_one_set(finished: Path, tmp_path: Path) -> None:
    """Whatever the headline says; and a dry run writes nothing."""
    before = checksums(finished)
    done = bench(*images(as_they_are)(tmp_path), "--dry-run", "--out", finished, cwd=tmp_path)
    assert "distilled sets" not in check(done, 0, "IPC 2 · 1 sets × 3 students", "3 waiting")
    assert checksums(finished) == before


# Cells ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_here() -> Iterator[Callable[[CellDir], int]]:
    """Runs a cell in this process, which keeps its signal handlers and threads."""
    import torch

    from ddbench.benchmark.cells.cell import run_cell

    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield lambda cell: run_cell(cell.path)
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


def add_cell(out: Path, **options: Any) -> CellDir:
    """The distill cell that a request plans, ready to run."""
    given = {"datasets": "digits", "seeds": 0, "device": "cpu", **options}
    (planned,) = plan_run(run_spec({}, given), students=False)[0].sets
    assert planned.spec is not None
    store = Store(out)
    store.create()
    return store.add(planned.spec, planned.launch)


def test_a_prior_that_changes_after_planning_fails_its_cell(tmp_path: Path, run_here: Callable[[CellDir], int]) -> None:
    """Its weights fit the header but not the plan: the cell compares hashes before it samples."""
    changed = shutil.copytree(BUNDLED / "digits", tmp_path / "prior")
    cell = add_cell(tmp_path / "runs", methods="dit", ipc=1, prior=str(changed))
    weights = bytearray((changed / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (changed / WEIGHTS).write_bytes(weights)
    assert run_here(cell) == EXIT_FAILED
    result = cell.result()
    assert result is not None
    assert result.reason is not None
    assert "has changed since this cell was planned" in result.reason


FAILING = """
import os, signal, time
from pathlib import Path
import numpy as np
from ddbench.methods.base import CostClass, DistilledImage, Method

class Failing(Method):
    version, cost_class = 1, CostClass.TRAINING_FREE

    def distill(self, task):
        yield [self.image(c) for c in task.class_indices]

    def image(self, c):
        return DistilledImage(c, 0, np.zeros((8, 8, 1), np.uint8))

class Raises(Failing):
    name = "raises"
    def image(self, c): raise ZeroDivisionError("no [red]markup[/red] in messages")

class Floats(Failing):
    name = "floats"
    def image(self, c): return DistilledImage(c, 0, np.zeros((8, 8, 1)))

class TooFew(Failing):
    name = "too-few"
    def distill(self, task): yield [self.image(0)]

class NoRounds(Failing):
    name = "no-rounds"
    def distill(self, task): yield self.image(0)

class AsksForAPrior(Failing):
    name = "asks"
    def prepare(self, task): task.load_prior()

class OutOfMemory(Failing):
    name = "hungry"
    def image(self, c): raise MemoryError

class Killed(Failing):
    name = "killed"
    def image(self, c): os.kill(os.getpid(), signal.SIGKILL)

class Waits(Failing):
    name = "waits"
    def distill(self, task):
        gate = Path(__file__).with_name("gate")
        while not gate.exists():
            time.sleep(0.02)
        yield from super().distill(task)
"""
FAILURES = {
    "raises": ("failed", "ZeroDivisionError: no [red]markup[/red] in messages (log.txt has the traceback)"),
    "floats": ("failed", "expected (H, W, 1) uint8"),
    "too-few": ("failed", "the method ended with 9 of 10 images missing; the first is image 0 of class 1"),
    "no-rounds": ("failed", "the method yielded a DistilledImage; expected rounds"),
    "asks": ("failed", "asked for a prior, but declares needs_prior = False"),
    "hungry": ("oom", "out of memory"),
    "killed": ("killed", "its process was ended by SIGKILL, the last of 3 attempts that ended so"),
}


def test_failing_methods_and_a_second_run_beside_them(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    out = shutil.copytree(finished, tmp_path / "runs", symlinks=True)
    before, plans = finished_files(out), len(list(Store(out).plans.iterdir()))
    methods = ",".join([*FAILURES, "waits", "random"])
    command = ["distill", "-m", methods, "-d", "digits", *ONE_SET, "--out", out, "--jobs", "2",
               "--plugin", tmp_path / "failing.py"]  # fmt: skip
    first = subprocess.Popen(
        [BENCH, *command], env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        while not Store(out).runs_at_work() or len(list(Store(out).plans.iterdir())) == plans:
            assert first.poll() is None, first.communicate()
            time.sleep(0.02)
        second = bench(*TWO_METHODS, "--repeats", "2", "--out", out, "--reuse", "never")
        told = f"another run (process {first.pid}) is at work in {out}, and --reuse never would delete what it makes"
        check_refused(second, 1, told, "use another --out")
        assert len(list(Store(out).plans.iterdir())) == plans + 1, "the second one has left nothing"
        check(bench("status", "--runs", out), 0)
    finally:
        (tmp_path / "gate").touch()
        output, errors = first.communicate(timeout=300)
    done = subprocess.CompletedProcess(command, first.returncode, output, errors)
    check(done, 1, "1 done", "1 reused", "7 failed", *(told for _, told in FAILURES.values()))
    assert before.items() <= finished_files(out).items()

    results = {cell.launch().label: cell.result() for cell in Store(out).cell_dirs() if cell.id.startswith("distill")}
    for method, (status, told) in FAILURES.items():
        result = results[method]
        assert result is not None
        assert result.status == status
        assert told in (result.reason or "")
    check(bench("status", "--runs", out), 0, "failed", "oom", "killed", "[red]markup[/red]")
    check(bench(*command, "--reuse", "only-cache"), 1, "2 reused", "5 failed", "2 missing")


# The results folder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["a-file", "a-file/below", "/proc/runs"])
def test_a_place_that_cannot_be_written(where: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("mine")
    done = bench("run", *RANDOM, *ONE_STUDENT, "--out", where, cwd=tmp_path)
    check_refused(done, 1, f"cannot write results to {where}: ", "Choose another folder with --out.")
    assert (tmp_path / "a-file").read_text() == "mine"


def test_a_prior_that_cannot_be_written_is_not_trained_first(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("mine")
    done = bench("train-prior", "-d", "digits", "--out", "a-file/prior", cwd=tmp_path)
    check_refused(done, 1, "cannot write a prior to a-file/prior: ", "Choose another folder with --out.")
    assert done.stdout == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", [["leaderboard"], ["status", "--json"], ["list", "methods"]])
def test_output_that_cannot_be_written(command: Sequence[str], finished: Path) -> None:
    where = in_folder(command[0], finished)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [BENCH, *command, *where], env=ENVIRONMENT, text=True, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {os.strerror(errno.ENOSPC)}")
    assert "Traceback" not in done.stderr


FORGETFUL = """
from ddbench.datasets.digits import Digits

class Forgetful(Digits):
    name = "forgetful"

    def train_counts(self, split, data_dir):
        return {class_id: {}[class_id] for class_id in self.class_ids}
"""


@pytest.mark.parametrize("command", [["run", "-m", "random", *ONE_STUDENT], ["run", "-m", "random", "--dry-run"]])
def test_a_plugin_that_fails_while_it_is_planned_with(command: Sequence[str], tmp_path: Path) -> None:
    plugin = tmp_path / "forgetful.py"
    plugin.write_text(FORGETFUL)
    done = bench(*command, "-d", "forgetful", "--plugin", plugin, cwd=tmp_path)
    check(done, 1, f"error: the code of {plugin} failed: KeyError: '0'", "line 8, in train_counts", "{}[class_id]")
    assert "benchmark/planning" not in done.stderr, "the calls begin where the author's code does"


def test_half_written_files_are_listed_and_made_again(finished: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "runs", symlinks=True)
    cells = {(cell.id.partition("-")[0], cell.launch().label): cell.path for cell in Store(out).cell_dirs()}
    results = {key: path / "result.json" for key, path in cells.items()}
    whole = {key: json.loads(path.read_text()) for key, path in results.items()}
    specification = (cells["evaluate", "random"] / "spec.json").read_bytes()
    kept = results["evaluate", "random-first"].read_bytes()

    results["distill", "random"].write_text("")
    truncate(results["distill", "random-first"], results["distill", "random-first"].stat().st_size // 2)
    results["evaluate", "random"].write_text(json.dumps({**whole["evaluate", "random"], "schema_version": 99}))
    truncate(cells["evaluate", "random"] / "spec.json", 40)
    for plan in Store(out).plans.iterdir():
        truncate(plan, 40)

    listed = check(bench("status", "--runs", out), 0, cells["evaluate", "random"].name)
    assert listed.count("unreadable") >= 2
    check(bench("leaderboard", "--runs", out), 0)
    check(bench(*TWO_METHODS, "--out", out), 0, "3 done, 1 reused")

    assert results["evaluate", "random-first"].read_bytes() == kept, "its set is made again and is the same"
    assert (cells["evaluate", "random"] / "spec.json").read_bytes() == specification
    for key, path in results.items():
        again = json.loads(path.read_text())
        for part in ("status", "image_set_sha256", "metrics"):
            assert again.get(part) == whole[key].get(part), (key, part)


# A full disk ----------------------------------------------------------------------------------------------------------

SIX_ROUNDS = {"methods": "dmgd[steps=5]", "ipc": 6}


def image_set(out: Path, method: str) -> str | None:
    results = [cell.result() for cell in Store(out).cell_dirs()]
    (found,) = (r for r in results if isinstance(r, DistillResult) and r.label == method)
    return found.image_set_sha256


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, run_here: Callable[[CellDir], int]) -> Path:
    """The folder of a run on a large enough disk."""
    out = tmp_path_factory.mktemp("undisturbed") / "runs"
    assert run_here(add_cell(out, **SIX_ROUNDS)) == EXIT_OK
    return out


def test_a_file_that_cannot_grow(tmp_path: Path, undisturbed: Path, run_here: Callable[[CellDir], int]) -> None:
    """The system's limit on the size of a file fails a write as a full disk does; here that of a class's latents."""
    cell = add_cell(tmp_path / "runs", **SIX_ROUNDS)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, usual[1]))
    try:
        assert run_here(cell) == EXIT_FAILED
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    result = cell.result()
    assert result is not None
    assert result.retriable, "it is no fault of the cell"
    assert result.reason is not None
    for told in (os.strerror(errno.EFBIG), "latents.npy", "mend that and run the same command again"):
        assert told in result.reason
    assert run_here(cell) == EXIT_OK
    assert image_set(tmp_path / "runs", "dmgd[steps=5]") == image_set(undisturbed, "dmgd[steps=5]")


ON_A_SMALL_DISK = r"""
set -u
mount -t tmpfs -o size=4m tmpfs "$DISK" || exit 77
cp -a "$FINISHED" "$DISK/runs" && cd "$DISK/runs" || exit 78
kept=$(find cells sets -type f | sort | xargs sha256sum)
attempt() {
    "$@" >"$LOGS/$name" 2>&1
    echo $? >"$LOGS/$name.code"
    echo "$kept" | sha256sum --check --quiet || exit 79
}
for name in $KIB_LEFT; do
    rm -f ../filler
    dd if=/dev/zero of=../filler bs=1k count=$(($(df --output=avail . | tail -1) - name)) 2>"$LOGS/dd" || exit 80
    attempt "$@"
done
tries=0  # a process that is just ending may still hold a file
until mount -o remount,ro "$DISK" 2>"$LOGS/remount"; do
    tries=$((tries + 1)); [ $tries -lt 100 ] || { cat "$LOGS/remount" >&2; exit 81; }
    sleep 0.1
done
name=read-only; attempt "$@"
mount -o remount,rw "$DISK"; rm ../filler; name=freed; attempt "$@"
cp -a "$DISK/runs" "$LOGS/runs"
"""


def test_a_cell_that_could_not_even_say_why_on_a_full_disk(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Store(finished).cell_dirs()[0]
    assert (cell.path / "log.txt").read_text() == ""
    assert runner.last_words(cell) == "ended without a result or a log"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    assert runner.last_words(cell) == (
        "ended without a result or a log; its disk is full: make room, and the same command goes on"
    )


def test_a_full_disk(tmp_path: Path, finished: Path, undisturbed: Path) -> None:
    """On a small file system of its own: full at first, then while images are written, read-only, and free again."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces, to mount a small file system")
    disk, logs = tmp_path / "disk", tmp_path / "logs"
    disk.mkdir()
    logs.mkdir()
    kib_left = ["0", "550"]
    places = {"DISK": str(disk), "LOGS": str(logs), "FINISHED": str(finished), "KIB_LEFT": " ".join(kib_left)}
    methods, ipc = f"random,{SIX_ROUNDS['methods']}", str(SIX_ROUNDS["ipc"])
    distill = ["distill", "-m", methods, "-d", "digits", *ONE_SET[2:], "--ipc", ipc, "--out", disk / "runs"]
    command = [*namespace, "sh", "-c", ON_A_SMALL_DISK, "sh", BENCH, *distill]
    done = subprocess.run(command, env=ENVIRONMENT | places, text=True, capture_output=True)
    if done.returncode == 77:
        pytest.skip(f"cannot mount a file system in a user namespace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr

    full = os.strerror(errno.ENOSPC)
    for name, told in [*((kib, full) for kib in kib_left), ("read-only", os.strerror(errno.EROFS)), ("freed", "done")]:
        said = (logs / name).read_text()
        assert told in said or ("its disk is full" in said and told == full), said
        assert "Traceback" not in said, said
        assert (logs / f"{name}.code").read_text() == ("0\n" if name == "freed" else "1\n"), said
    assert image_set(logs / "runs", "dmgd[steps=5]") == image_set(undisturbed, "dmgd[steps=5]")
    half_made = [path for path in (logs / "runs").rglob("*.tmp") if path.is_dir()]
    assert not half_made
