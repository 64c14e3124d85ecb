"""Would the tests notice? Changes one operator or constant at a time and runs the tests of that file.

    .venv/bin/python tests/mutation/mutants.py [WORD …]

Not part of the test suite: it takes an hour on one core. The checkout stays as it is; a copy in a temporary folder is
changed, and every mutant is undone before the next. With words, only the files whose path has one of them. A mutant
lives if all tests pass: then a test is missing, or the change makes no difference, which is a mutant to replace.

A mutant names the text that it changes, and that text must stand exactly once in its file: when the code has moved on,
this script says so instead of testing nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 600
"""For the tests of one file; a mutant that makes them hang is noticed, too."""

TESTS = {
    "methods/diffusion/sampler.py": ["tests/methods/test_sampler.py"],
    "methods/dmgd/distribution.py": ["tests/methods/test_distribution.py", "tests/parity/test_dmgd_golden.py"],
    "methods/dmgd/semantic.py": ["tests/methods/test_semantic.py", "tests/parity/test_dmgd_golden.py"],
    "benchmark/protocols/trainer.py": [
        "tests/benchmark/protocols/test_trainer.py",
        "tests/benchmark/protocols/test_soft_rded.py",
    ],
    "benchmark/protocols/epoch.py": [
        "tests/benchmark/protocols/test_epoch.py",
        "tests/benchmark/protocols/test_trainer.py",
        "tests/benchmark/protocols/test_soft_rded.py",
    ],
    "benchmark/protocols/augmentation.py": [
        "tests/benchmark/protocols/test_augmentation.py",
        "tests/benchmark/protocols/test_soft_rded.py",
    ],
    "reports/statistics/crossed.py": [
        "tests/reports/tables/test_statistics.py",
        "tests/reports/tables/test_contrasts.py",
    ],
    "reports/statistics/equivalence.py": ["tests/reports/tables/test_equivalence.py"],
    "benchmark/core/store.py": [
        "tests/benchmark/core/test_store.py",
        "tests/benchmark/running/test_runner.py",
        "tests/benchmark/cells/test_out_of_memory.py",
    ],
    "benchmark/core/files.py": ["tests/benchmark/core/test_files.py", "tests/benchmark/core/test_store.py"],
    "benchmark/cells/rounds.py": ["tests/benchmark/cells/test_rounds.py"],
}


class Mutant(NamedTuple):
    """`before`, which stands once in `file`, becomes `after`."""

    file: str
    before: str
    after: str


def _of(file: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(file, before, after) for before, after in changes]


MUTANTS = [
    *_of(
        "methods/diffusion/sampler.py",
        ("low + (v + 1) / 2 * (high - low)", "low + v / 2 * (high - low)"),
        ("torch.tensor(0.5 * low).exp()", "torch.tensor(0.5 * high).exp()"),
        ("+= 0.5 * (delta / sigma).square()", "+= (delta / sigma).square()"),
        ("guided = slice(0, channels)", "guided = slice(None)"),
        ("None if v is None else v[0::2]", "None if v is None else v[1::2]"),
        ("x0.clamp(-1, 1) if", "x0.clamp(-2, 2) if"),
        ("if cfg_scale == 1:", "if cfg_scale <= 1:"),
    ),
    *_of(
        "methods/dmgd/distribution.py",
        ("max_iter=iterations, tol", "max_iter=iterations + 1, tol"),
        ("plan[:, memory_cost.shape[1] :]", "plan[:, : cost.shape[1]]"),
        ("state.alpha_bar**0.5", "state.alpha_bar"),
        ("pull -= (pull * unit)", "pull += (pull * unit)"),
        ("first <= state.step.k <= last", "first <= state.step.k < last"),
        ("masked_fill(cost == 0, 0)", "masked_fill(cost < 0, 0)"),
    ),
    *_of(
        "methods/dmgd/semantic.py",
        ("        if t > self.upper:", "        if t >= self.upper:"),
        ("if step.t > self.upper else", "if step.t >= self.upper else"),
        ("2 if perturb_null else 1", "2 if perturb_null else 2"),
        ("torch.std_mean(p, dim=(1, 2), keepdim=True)", "torch.std_mean(p, dim=2, keepdim=True)"),
        ("torch.std_mean(q, dim=(1, 2), keepdim=True)", "torch.std_mean(q, dim=(1, 2), correction=0, keepdim=True)"),
        ("mix_weight * other", "noise_weight * other"),
    ),
    *_of(
        "benchmark/protocols/trainer.py",
        ("= rates[epoch - 1]", "= rates[epoch - 2]"),
        ("if num_classes > 5 else", "if num_classes >= 5 else"),
        ("full=ipc is None)", "full=ipc is not None)"),
        ("labels.max() >= num_classes", "labels.max() > num_classes"),
        ("time.perf_counter() - trained", "time.perf_counter() - began"),
        ("max(look.accuracy", "min(look.accuracy"),
    ),
    *_of(
        "benchmark/protocols/epoch.py",
        ("+ (1 - own) * F.cross_entropy", "+ own * F.cross_entropy"),
        ("n % batch_size == 1", "n % batch_size <= 1"),
        ("return n > 1 and", "return n > 0 and"),
        ("strict=True)) / sum(self.sizes)", "strict=True)) / len(values)"),
        ("self.teacher(images) / self.temperature", "self.teacher(images)"),
        ("min(DRAWN_TOGETHER, n - start)", "min(DRAWN_TOGETHER, n)"),
        ("torch.manual_seed(generator.initial_seed())", "torch.manual_seed(0)"),
    ),
    *_of(
        "benchmark/protocols/augmentation.py",
        ("minimum(width - 1)", "minimum(width)"),
        ("(side - size + 1)).floor()", "(side - size)).floor()"),
        ("(widths <= side)", "(widths < side)"),
        ("to_mean * (grey + r) + to_grey * r", "to_mean * (grey + r)"),
        ("to_mean * (grey + r)", "to_mean * grey"),
        ("min(column + half, side)", "min(column + half, side - 1)"),
        ("images.roll(-half, 3)", "images.roll(half, 3)"),
        ("@ eigenvectors.T", "@ eigenvectors"),
        ("r * mean_grey + 255 * light", "r * mean_grey + light"),
    ),
    *_of(
        "reports/statistics/crossed.py",
        ("/ len(sums), len(sums) - 1)", "/ len(sums), len(sums))"),
        ("for weight in single) / replicated", "for weight in single)"),
        ("* n_test / (n_test - 1)", "* n_test / n_test"),
        ("2 - right[0] - right[1]", "1 - right[0] - right[1]"),
        ("len(scores) == 1 and len(scores[0].students) == 1", "len(scores) == 1 or len(scores[0].students) == 1"),
        ("if len(common) >= 2:", "if len(common) > 2:"),
        ("float(np.var(students, ddof=1)) / len(students)", "float(np.var(students, ddof=1))"),
    ),
    *_of(
        "reports/statistics/equivalence.py",
        (" - (within or 0.0) / harmonic", ""),
        ("margin - abs(found.difference)", "margin - found.difference"),
        ("(len(p_values) - place) * p_values", "len(p_values) * p_values"),
        ("float(np.std(shares, ddof=1)) / math.sqrt(len(shares))", "float(np.std(shares, ddof=1)) / len(shares)"),
        ("rows_a if paired else", "rows_a if not paired else"),
    ),
    *_of(
        "benchmark/core/store.py",
        ("max(1, self.batch_size // 2)", "max(0, self.batch_size // 2)"),
        ("(*self.oom_batch_sizes, self.batch_size)", "(self.batch_size, *self.oom_batch_sizes)"),
        ("result.retriable or result.status in RETRIED", "result.retriable and result.status in RETRIED"),
    ),
    *_of(
        "benchmark/core/files.py",
        ("free < needed_bytes + SPARE_BYTES", "free < needed_bytes - SPARE_BYTES"),
        ('or existing == "refuse"', 'or existing == "replace"'),
    ),
    *_of(
        "benchmark/cells/rounds.py",
        ("key[1] < self.ipc", "key[1] <= self.ipc"),
        ("if any(hashlib", "if all(hashlib"),
    ),
]


def mutated(mutant: Mutant, source: str) -> str:
    """The source with the change in it.

    Raises:
        SystemExit: the text does not stand in it exactly once.
    """
    found = source.count(mutant.before)
    if found != 1:
        sys.exit(f"{mutant.file}: expected {mutant.before!r} once, found it {found} times; name the text as it is now")
    return source.replace(mutant.before, mutant.after)


def copied(folder: Path) -> dict[str, str]:
    """Copies the checkout there; gives the environment in which `ddbench` is the copy.

    Raises:
        SystemExit: it would be another one.
    """
    apart = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", ".benchmarks", "__pycache__", "runs")
    shutil.copytree(ROOT, folder, symlinks=True, ignore=apart)
    # Without compiled files: a mutant made within the second, of the same length, would be taken for what is compiled.
    environment = {**os.environ, "PYTHONPATH": str(folder / ".typing"), "PYTHONDONTWRITEBYTECODE": "1"}
    show = "import ddbench.benchmark as b; print(b.__path__[0])"
    command = [sys.executable, "-P", "-c", show]
    place = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True).stdout
    if not Path(place.strip()).resolve().is_relative_to(folder.resolve()):
        sys.exit(f"expected ddbench to be imported from {folder}, but it is {place.strip()}")
    return environment


def noticed(tests: list[str], folder: Path, environment: dict[str, str]) -> str | None:
    """The test that failed first, or how the tests ended; None if they passed."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-x",
        "-q",
        "--benchmark-disable",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    try:
        ended = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no end after {LIMIT_SECONDS} s"
    if ended.returncode == 0:
        return None
    if ended.returncode != 1:
        return f"pytest ended with {ended.returncode}"
    failed = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].partition("::")[2].partition(" - ")[0] if failed else "a test"


def main(words: list[str]) -> None:
    mutants = [mutant for mutant in MUTANTS if not words or any(word in mutant.file for word in words)]
    for mutant in mutants:
        mutated(mutant, (ROOT / mutant.file).read_text(encoding="utf-8"))
    killed = 0
    with tempfile.TemporaryDirectory(prefix="ddbench-mutants-") as temporary:
        folder = Path(temporary) / "copy"
        environment = copied(folder)
        for file in dict.fromkeys(mutant.file for mutant in mutants):
            if failed := noticed(TESTS[file], folder, environment):
                sys.exit(f"the tests of {file} fail on the code as it is ({failed}), so they can notice nothing")
            path = folder / file
            source = path.read_text(encoding="utf-8")
            for mutant in (mutant for mutant in mutants if mutant.file == file):
                path.write_text(mutated(mutant, source), encoding="utf-8")
                began = time.monotonic()
                found = noticed(TESTS[file], folder, environment)
                killed += found is not None
                what = f"{mutant.before.strip()} → {mutant.after.strip() or '(nothing)'}"
                fate = f"killed by {found}" if found else "LIVES"
                print(f"| {file} | `{what}` | {fate} | {time.monotonic() - began:.0f} s |", flush=True)
            path.write_text(source, encoding="utf-8")
    print(f"\n{killed} of {len(mutants)} killed")
    sys.exit(killed < len(mutants))


if __name__ == "__main__":
    main(sys.argv[1:])
