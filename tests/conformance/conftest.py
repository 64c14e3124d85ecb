"""Runs every registered method on digits as a cell does, but small; and sees to it that contracts really are tested."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ddbench.benchmark.cells.rounds import Rounds
from ddbench.benchmark.check.global_state import GlobalState
from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.spec import brackets
from ddbench.datasets.digits import Digits
from ddbench.methods.base import DistilledImage, DistillTask, Method

STEPS = 8
"""Sampling steps for methods that have them: few, but some in every window of every guidance."""
CLASSES = (0, 3, 7)


class SmallRuns:
    """One dataset, one prior and one artefact cache for all methods under test.

    Runs are those of `benchmark.distill`: rounds committed to disk, `task.done` the committed images, artefacts mapped
    from disk. What differs: few classes, images and steps.
    """

    def __init__(self, root: Path) -> None:
        import torch

        from ddbench.benchmark.cells.meter import Meter
        from ddbench.methods.diffusion.prior import Prior
        from ddbench.methods.diffusion.priors.files import find_prior

        self.root, self.device = root, torch.device("cpu")
        self.dataset = Digits()
        self.split = self.dataset.load("default", None, Digits.resolution)
        self.prior = Prior.load(find_prior("digits"))
        self.meter = Meter(self.device, root / "spent.json")
        self.shared_cache = self.cache("shared")
        self.prior_loads = 0
        self._runs = 0
        self._references: dict[str, Rounds] = {}

    def cache(self, name: str) -> Any:
        from ddbench.benchmark.cells.artefacts import DiskArtefacts

        return DiskArtefacts(self.root / "artefacts" / name, self.meter)

    def method(self, name: str) -> Method:
        """The method behind a registered name on digits, as small as `check_params` make it, and with few steps where
        its other parameters allow that."""
        entry, method = METHODS.entry(name), METHODS.load(name)
        digits = {key: default.value for key, default in Digits.method_defaults.get(method.name, {}).items()}
        own = dict(entry.overrides) | (dict(method.check_params) if "small" in entry.tags else {})
        small = {"steps": STEPS} if "steps" in method.Params.model_fields else {}
        try:
            return method(method.Params.model_validate(digits | small | dict(method.check_params) | own))
        except ValidationError:  # its overrides name steps of the usual chain
            return method(method.Params.model_validate(digits | own))

    def selector(self, name: str) -> str:
        """The same as a selector of the command line."""
        small = self.method(name).params.model_dump(mode="json")
        keys = {"steps", *METHODS.load(name).check_params} & small.keys()
        return name + brackets({key: small[key] for key in keys})

    def task(self, method: Method, done: Mapping[tuple[int, int], DistilledImage], **changed: Any) -> DistillTask:
        """What a cell gives the method: IPC 2 and three classes, unless changed."""

        from ddbench.benchmark.cells.classifiers import with_classifiers

        def load_prior() -> Any:
            assert method.needs_prior, f"{method.name} asks for a prior, but declares needs_prior = False"
            self.prior_loads += 1
            return self.prior

        scratch = self._folder("scratch")
        scratch.mkdir()
        given: dict[str, Any] = {
            "class_ids": self.dataset.class_ids,
            "class_indices": CLASSES,
            "ipc": None if method.whole_set else 2,
            "seed": 0,
            "train": self.split.train,
            "train_hash": self.split.content_hash,
            "device": self.device,
            "precision": "fp32",
            "batch_size": 64,
            "scratch": scratch,
            "done": done,
            "load_prior": load_prior,
            "cache": self.shared_cache,
            "phase": self.meter.phase,
            "progress": lambda note: None,
        }
        return with_classifiers(DistillTask(**given | changed), self.split.validation)

    def tuner(self, name: str) -> str | None:
        """The selector of what tunes the prior of a registered name, as small as `check_params` make it."""
        tuner = METHODS.entry(name).prior_tuned_by
        if tuner is None:
            return None
        tuning, small = METHODS.load(tuner).tuning, METHODS.load(tuner).check_params
        return tuner + brackets({key: value for key, value in small.items() if key in tuning.model_fields})

    def on_its_prior(self, name: str, task: DistillTask) -> DistillTask:
        """The task with the prior that the registered name runs on."""
        from ddbench.benchmark.planning.prior_names import name_prior

        tuner = self.tuner(name)
        if tuner is None:
            return task
        named = name_prior(f"{tuner}(digits)", Digits)

        def load_prior() -> Any:
            self.prior_loads += 1
            return named.load(task)

        return dataclasses.replace(task, load_prior=load_prior)

    def run(self, name: str, *, stop_after: int | None = None, folder: Path | None = None, **changed: Any) -> Rounds:
        """Distill, or go on from what `folder` holds; end after `stop_after` rounds of this run."""
        method = self.method(name)
        ipc = changed.get("ipc", None if method.whole_set else 2)
        done = Rounds(folder or self._folder("rounds"), len(self.dataset.class_ids), ipc, self.dataset.channels)
        task = self.on_its_prior(name, self.task(method, done, **changed))
        method.prepare(task)
        for count, images in enumerate(method.distill(task), start=1):
            done.commit(images)
            if count == stop_after:
                break
        return done

    def reference(self, name: str) -> Rounds:
        """The usual small run of a method, made once; its own cache owes nothing to other runs."""
        if name not in self._references:
            self._references[name] = self.run(name, cache=self.cache(name))
        return self._references[name]

    def _folder(self, kind: str) -> Path:
        self._runs += 1
        return self.root / f"{kind}-{self._runs}"


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> SmallRuns:
    return SmallRuns(tmp_path_factory.mktemp("small-runs"))


@pytest.fixture
def global_state() -> type[GlobalState]:
    return GlobalState


# Tests over registries could pass by testing nothing: a test of which every case was skipped fails the session.

_outcomes = pytest.StashKey[dict[str, Counter[str]]]()


def untested(outcomes: Mapping[str, Counter[str]]) -> list[str]:
    """The tests of which every case was skipped, as for a registry without entries."""
    return [name for name, counts in outcomes.items() if set(counts) == {"skipped"}]


@pytest.fixture
def find_untested() -> Any:
    return untested


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        outcomes = item.config.stash.setdefault(_outcomes, defaultdict(Counter))
        outcomes[item.nodeid.partition("[")[0]][report.outcome] += 1
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if untested(session.config.stash.get(_outcomes, {})) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in untested(terminalreporter.config.stash.get(_outcomes, {})):
        terminalreporter.write_line(f"FAILED {name} - every case was skipped, so nothing was tested", red=True)
