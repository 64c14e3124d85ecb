"""`bench check`: does a method keep its contract? Small runs on planted digits, on the CPU; each check says why.

A check returns a note when it passes, raises `Broken` with what was found, or `NotApplicable` with why not. Whatever
it did to global generators and settings is undone before the next.
"""

from __future__ import annotations

import gc
import itertools
import random
import shutil
import tempfile
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from ddbench.benchmark.check.canary import TRAIN_PER_CLASS, Planted
from ddbench.benchmark.check.global_state import GlobalState
from ddbench.benchmark.check.runs import CLASSES, IPC, Images, SmallRuns
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.registry import DATASETS, METHODS, Entry, load_plugin, plugin_module
from ddbench.benchmark.core.spec import MethodSpec, Scalar
from ddbench.benchmark.planning.run_spec import parse_selector
from ddbench.datasets.digits import Digits
from ddbench.methods.base import CostClass, DistilledImage, Method, RealImages

LEAK_BYTES = 64 * 1024
"""Growth per run, run after run, that counts as memory kept. A bundled prior has 26 times as much, and nothing that
Python itself caches grows with every run."""
LEAK_RUNS = 3
LATENT_TOLERANCE = 2e-3
"""Of latents whose batches were composed otherwise: float error, a quarter of a level of 8 bits. A classifier's
gradient amplifies it: 1e-6 for igd-minimax without its influence term, 1.1e-3 with it. Pixels may differ by one."""

Outcome = Literal["pass", "fail", "skip"]


class Broken(Exception):
    """The contract is broken; the message says how."""


class NotApplicable(Exception):
    """The check does not apply; the message says why."""


@dataclass(frozen=True)
class Finding:
    """What came of one check."""

    check: str
    outcome: Outcome
    reason: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """What came of all checks of one method."""

    method: str
    params: dict[str, Scalar]
    """Those that differ from the defaults: what made the runs small."""
    findings: list[Finding]

    @property
    def failed(self) -> bool:
        return any(finding.outcome == "fail" for finding in self.findings)

    @property
    def seconds(self) -> float:
        return sum(finding.seconds for finding in self.findings)


@dataclass
class Subject:
    """A registered method under check, with what its checks share."""

    entry: Entry
    method: type[Method]
    params: Any
    runs: SmallRuns
    planted: Planted
    unsupported: str | None
    """Why it does not run on digits, in its own words."""
    changed_state: list[str] = field(default_factory=list)
    """Global state that its first run left other than it was."""
    real_images_seen: int = 0
    """Training images that its first run looked at, what made its artefacts included."""
    _failure: Exception | None = None

    @cached_property
    def _reference(self) -> Images:
        before = GlobalState.now()
        self.planted.train.seen.clear()
        images = self.runs.run(artefacts="reference")
        self.real_images_seen = len(self.planted.train.seen)
        self.changed_state = before.changed(GlobalState.now())
        return images

    @property
    def reference(self) -> Images:
        """The usual small run, made once.

        Raises:
            NotApplicable: the method says that it does not run on digits, or an earlier check has told that it failed.
        """
        if self.unsupported is not None:
            raise NotApplicable(f"it does not run on digits: {self.unsupported}")
        if self._failure is not None:
            raise NotApplicable("its run failed")
        try:
            return self._reference
        except Exception as error:  # a contestant's code may raise anything; told once, the other checks are skipped
            self._failure = error
            raise

    @cached_property
    def class_order(self) -> Images:
        """The same images in another order of classes and in small batches, with artefacts of its own."""
        return self.runs.run(classes=CLASSES[::-1], batch_size=2, artefacts="order", cell="undisturbed")


# Checks, in the order in which they run ------------------------------------------------------------------------------


def contract(subject: Subject) -> str:
    method, entry = subject.method, subject.entry
    expected_name = entry.variant_of or entry.name
    if method.name != expected_name:
        raise Broken(f"registered as {expected_name!r}, but its class says name = {method.name!r}")
    if type(method.version) is not int or method.version < 1:
        raise Broken(f"version: expected a whole number from 1, got {method.version!r}")
    if not isinstance(method.cost_class, CostClass):
        raise Broken(f"cost_class: expected a CostClass, got {method.cost_class!r}")
    for flag in ("needs_prior", "selects", "uses_seed", "whole_set"):
        if type(getattr(method, flag)) is not bool:
            raise Broken(f"{flag}: expected True or False, got {getattr(method, flag)!r}")
    if method.cost_class is CostClass.SELECTION and method.needs_prior:
        raise Broken("cost class selection, but needs_prior = True: a selection needs nothing but the images")
    if method.whole_set and method.selects:
        raise Broken("whole_set and selects exclude each other: the whole set has no IPC")
    if not entry.summary:
        raise Broken("no summary; the first line of the class's docstring is shown in `bench list methods`")
    return f"version {method.version}, {method.cost_class}"


def parameters(subject: Subject) -> str:
    params: type[BaseModel] = subject.method.Params
    for key, about in params.model_fields.items():
        if not (about.description or "").strip().endswith("."):
            raise Broken(f"{key}: expected a description that is a sentence, got {about.description!r}")
        if about.is_required():
            raise Broken(f"{key} has no default")
    defaults = params()
    try:
        as_json = defaults.model_dump(mode="json")
        MethodSpec(name="check", version=1, params=as_json)
        again = params.model_validate(as_json)
    except ValidationError as error:
        raise Broken(f"its own defaults are refused: {error.errors()[0]['msg']}") from error
    if again != defaults:
        raise Broken("defaults do not come back from JSON as they were; use numbers, true, false, null or words")
    try:
        params.model_validate({"no_such_parameter": 1})
    except ValidationError:
        pass
    else:
        raise Broken("unknown parameters are accepted; derive Params from ddbench.methods.base.Params")
    for key, about in params.model_fields.items():
        try:
            setattr(defaults, key, getattr(defaults, key))
        except ValidationError:
            pass
        else:
            raise Broken(f"{key} can be changed after planning; derive Params from ddbench.methods.base.Params")
        if about.annotation is float and _accepts(params, key, float("nan")):
            raise Broken(f"{key} accepts NaN; derive Params from ddbench.methods.base.Params")
    return f"{len(params.model_fields)} documented" if params.model_fields else "it has none"


def supports(subject: Subject) -> str:
    method = subject.method(subject.params)
    refused = 0
    for entry in DATASETS:
        for ipc in (None,) if subject.method.whole_set else (1, 10):
            reason = method.supports(DATASETS.load(entry.name), ipc)
            if reason is not None and not (isinstance(reason, str) and reason.strip()):
                raise Broken(f"supports({entry.name}, {ipc}): expected None or a reason in words, got {reason!r}")
            refused += reason is not None
    if subject.unsupported is not None:
        return f"says that it does not run on digits: {subject.unsupported}"
    try:
        _ = subject.reference
    except Exception as error:  # a contestant's code may raise anything
        raise Broken(f"says that it runs on digits at IPC {IPC}, but the run failed: {_words(error)}") from error
    used = subject.runs.prior_loads > 0
    if subject.method.needs_prior and not used:
        raise Broken("declares needs_prior = True, but its run loaded none")
    return "what it says was true" + (f"; it refuses {refused} of the other cases" if refused else "")


def images(subject: Subject) -> str:
    made = subject.reference
    per_class = TRAIN_PER_CLASS if subject.method.whole_set else IPC
    expected = {(c, i) for c in CLASSES for i in range(per_class)}
    if made.keys() != expected:
        missing, extra = sorted(expected - made.keys()), sorted(made.keys() - expected)
        raise Broken(
            f"expected {per_class} images of each of {len(CLASSES)} classes (class index, image index); "
            f"missing {missing[:3]}, not asked for {extra[:3]}"
        )
    shapes = {image.pixels.shape for image in made.values()}
    if shapes != {(Digits.resolution, Digits.resolution, Digits.channels)}:
        raise Broken(f"expected images of {Digits.resolution}×{Digits.resolution} pixels, got shapes {sorted(shapes)}")
    flat = sorted(key for key, image in made.items() if np.ptp(image.pixels) == 0)
    if flat:
        raise Broken(f"image {flat[0]} has one value everywhere")
    values = np.concatenate([image.pixels.ravel() for image in made.values()])
    if values.max() <= 1:
        raise Broken("all values are 0 or 1: these look like fractions; expected 0 … 255")
    latents = [image.latent for image in made.values() if image.latent is not None]
    if len(latents) not in (0, len(made)):
        raise Broken(f"{len(latents)} of {len(made)} images have latents; expected all or none")
    if any(latent.dtype != np.float32 or not np.isfinite(latent).all() for latent in latents):
        raise Broken("expected finite float32 latents")
    if len({tuple(image.guidance_nats) for image in made.values()}) > 1:
        raise Broken("images report different guidance terms")
    if any(not np.isfinite(n) or n < 0 for image in made.values() for n in image.guidance_nats.values()):
        raise Broken("a path KL is negative or not finite")
    return f"{len(made)} images, values {values.min()} … {values.max()}"


def labels(subject: Subject) -> str:
    made, train = subject.reference, subject.planted.split.train
    if subject.method.cost_class is CostClass.SELECTION:
        for c in CLASSES:
            offered = [pixels.tobytes() for pixels in train.read(train.of_class(c))]
            chosen = [image.pixels.tobytes() for (k, _), image in sorted(made.items()) if k == c]
            if any(chosen.count(one) > offered.count(one) for one in chosen):
                raise Broken(f"class {Digits.class_ids[c]}: not training images of the class, each at most once")
        return "training images of their classes, none twice"
    if any(image.pixels.size != Digits.resolution**2 for image in made.values()):
        raise NotApplicable("the images are not of the size that a judge knows")
    from sklearn.svm import SVC

    real = subject.planted.real
    judge = SVC(random_state=0).fit(real.read(range(len(real))).reshape(len(real), -1) / 255, real.labels)
    keys = sorted(made)
    judged = judge.predict(np.stack([made[key].pixels.ravel() for key in keys]) / 255)
    taken = {c: [int(j) for j, key in zip(judged, keys, strict=True) if key[0] == c] for c in CLASSES}
    right = sum(j == c for c, some in taken.items() for j in some)
    # Each class always taken for another one of its own is a mix-up of labels; poor images scatter or look alike.
    if not right and sum(len(set(some)) for some in taken.values()) == len(
        {j for some in taken.values() for j in some}
    ):
        told = ", ".join(f"{Digits.class_ids[c]} for {Digits.class_ids[some[0]]}" for c, some in taken.items())
        raise Broken(f"labels are mixed up: a judge takes images of class {told}")
    if right * 2 < len(keys):
        raise NotApplicable(f"a judge recognises {right} of {len(keys)} images, too few to tell")
    return f"a judge recognises {right} of {len(keys)}"


def deterministic(subject: Subject) -> str:
    expected = subject.reference
    torch.manual_seed(12345)
    np.random.seed(12345)  # noqa: NPY002 - what a contestant must not listen to
    random.seed(12345)
    again = subject.runs.run(artefacts="again")
    _same(again, expected, "run again with the same seed, other global generators and nothing cached")
    return "the same bits"


def seeds(subject: Subject) -> str:
    other = subject.runs.run(seed=1, artefacts="reference") if subject.reference else {}
    differs = any(not np.array_equal(other[key].pixels, image.pixels) for key, image in subject.reference.items())
    if differs and not subject.method.uses_seed:
        raise Broken("declares uses_seed = False, but another seed gives other images")
    if not differs and subject.method.uses_seed:
        raise Broken("another seed gives the same images; draw from task.stream, or declare uses_seed = False")
    return "another seed, other images" if differs else "it uses none, as it says"


def independent(subject: Subject) -> str:
    expected = subject.reference
    _close(subject.class_order, expected, "another order of classes and batches of 2")
    alone = subject.runs.run(classes=CLASSES[1:2], batch_size=1, artefacts="reference")
    _close(alone, {key: expected[key] for key in expected if key[0] == CLASSES[1]}, "a class alone, in batches of 1")
    return "of the order of classes, of batches, of the classes beside"


def resumable(subject: Subject) -> str:
    _ = subject.reference
    undisturbed = subject.class_order
    rounds = subject.runs.rounds_of("order", "undisturbed")
    if rounds < 2:
        raise Broken(f"{len(undisturbed)} images in batches of 2 came as one round: nothing is left to resume")
    same: dict[str, Any] = {"classes": CLASSES[::-1], "batch_size": 2, "artefacts": "order"}
    killed = subject.runs.run(**same, cell="killed", stop_after=1)
    resumed = subject.runs.run(**same, cell="killed")
    _same(resumed, undisturbed, f"left off after round 1 of {rounds} ({len(killed)} images) and gone on")
    before = subject.runs.rounds_of("order", "killed")
    _same(subject.runs.run(**same, cell="killed"), undisturbed, "run again when finished")
    if subject.runs.rounds_of("order", "killed") != before:
        raise Broken("a finished set was added to")
    return f"left off after round 1 of {rounds}: the same bits, nothing made twice"


def global_state(subject: Subject) -> str:
    _ = subject.reference
    if subject.changed_state:
        raise Broken(f"its run changed: {', '.join(subject.changed_state)}; draw from task.stream, restore settings")
    return "generators and settings as before"


def memory(subject: Subject) -> str:
    _ = subject.reference
    kept: list[int] = []
    gc.collect()
    gc.freeze()  # what is alive now is not looked through again and again
    tracemalloc.start()
    try:
        for _ in range(LEAK_RUNS + 2):
            subject.runs.run(classes=CLASSES[:1], ipc=1, artefacts="reference")
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0] + _tensor_bytes())
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    growth = [after - before for before, after in itertools.pairwise(kept[1:])]  # the first one warms caches
    if min(growth) > LEAK_BYTES:
        raise Broken(f"every run keeps {min(growth) / 1024:.0f} KiB or more (arrays, objects and tensors still alive)")
    return f"{max(0, min(growth)) / 1024:.0f} KiB kept per run"


def unseen(subject: Subject) -> str:
    made, planted = subject.reference, subject.planted
    if planted.canary.reads:
        raise Broken(f"test images were read {len(planted.canary.reads)} times, first by {planted.canary.reads[0]}")
    marked = sorted(key for key, image in made.items() if planted.canary.resembled_by(image.pixels))
    if marked:
        raise Broken(f"image {marked[0]} carries the pattern planted in the test images")
    copied = sorted(key for key, image in made.items() if image.pixels.tobytes() in planted.held_out)
    if copied:
        raise Broken(f"image {copied[0]} is a real digit that was not among its training images")
    return "none read, none in the images"


def real_images(subject: Subject) -> str:
    made, declared = subject.reference, subject.method(subject.params).reads_real_images()
    found = f"{subject.real_images_seen} of {len(subject.planted.train)} training images looked at"
    if declared is None:
        raise NotApplicable(f"reads_real_images does not say; {found}")
    if subject.entry.prior_tuned_by is not None:
        raise NotApplicable(f"its prior is tuned on all of them; {found}")
    most = {RealImages.NONE: 0, RealImages.CHOSEN: len(made)}.get(declared, len(subject.planted.train))
    if subject.real_images_seen > most:
        raise Broken(f"reads_real_images says {declared}, and it made {len(made)} images: {found}")
    return f"{declared}: {found}"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "contract": contract,
    "parameters": parameters,
    "supports": supports,
    "images": images,
    "labels": labels,
    "deterministic": deterministic,
    "seeds": seeds,
    "independent": independent,
    "resumable": resumable,
    "global state": global_state,
    "memory": memory,
    "test images": unseen,
    "real images": real_images,
}
TITLES = {
    "contract": "declarations are complete and agree with each other",
    "parameters": "documented, with valid defaults, refuse what they should",
    "supports": "what it says of where it runs is true",
    "images": "right counts, shapes and values",
    "labels": "each image is of its class",
    "deterministic": "one seed, one result",
    "seeds": "another seed counts, if it says so",
    "independent": "of class order, batches and the classes beside",
    "resumable": "left off after a round, ends with the same bits",
    "global state": "random generators and settings are left alone",
    "memory": "given back after a run",
    "test images": "none seen (planted canaries)",
    "real images": "no more looked at than it says",
}


def named(selectors: Sequence[str], given: Mapping[str, Scalar]) -> list[tuple[str, dict[str, Scalar]]]:
    """The methods that names, `name[parameter=value]`, plugin files and `all` stand for, each with its parameters.

    Raises:
        UsageError: unknown method; a file that is no plugin or has no method in it; a parameter that none of them has.
    """
    found: list[tuple[str, dict[str, Scalar]]] = []
    for selector in selectors:
        if selector == "all":
            found += [(entry.name, {}) for entry in METHODS]
        elif selector.endswith(".py"):
            found += [(name, {}) for name in _in_file(Path(selector))]
        else:
            name, swept = parse_selector(selector)
            several = [key for key, values in swept.items() if len(values) > 1]
            if several:
                raise UsageError(f"{selector}: one value for {', '.join(several)}, please")
            METHODS.entry(name)
            found.append((name, {key: values[0] for key, values in swept.items()}))
    known = {key for name, _ in found for key in METHODS.load(name).Params.model_fields}
    strange = sorted(given.keys() - known)
    if strange:
        raise UsageError(f"--set {strange[0]}: none of these methods has this parameter; they have: {_listed(known)}")
    with_shared = []
    for name, own in found:
        fields = METHODS.load(name).Params.model_fields
        with_shared.append((name, {key: value for key, value in given.items() if key in fields} | own))
    return with_shared


def _in_file(file: Path) -> list[str]:
    digest = load_plugin(file)
    module = plugin_module(file, digest)
    names = [entry.name for entry in METHODS if entry.target.startswith(f"{module}:")]
    names += [entry.name for entry in METHODS if entry.variant_of in names]
    if not names:
        raise UsageError(f"{file}: there is no method in it; expected a subclass of ddbench.methods.base.Method")
    return names


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def check_method(name: str, given: Mapping[str, Scalar], planted: Planted) -> Report:
    """Run every check on one registered method.

    Args:
        given: parameters that the user sets.

    Raises:
        UsageError: unknown method or parameters.
    """
    entry, method = METHODS.entry(name), METHODS.load(name)
    params = _params(entry, method, given)
    unsupported = method(params).supports(Digits, None if method.whole_set else IPC)
    root = Path(tempfile.mkdtemp(prefix="ddbench-check-"))
    planted.canary.reads.clear()
    try:
        with planted.as_digits(), GlobalState.kept():
            torch.set_num_threads(Digits.useful_threads or 1)
            subject = Subject(
                entry=entry,
                method=method,
                params=params,
                runs=SmallRuns(method, params, planted, root, entry.prior_tuned_by),
                planted=planted,
                unsupported=unsupported,
            )
            findings = [_finding(check, run, subject) for check, run in CHECKS.items()]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    usual = _defaults(entry, method)
    changed = {key: value for key, value in params.model_dump(mode="json").items() if usual.get(key) != value}
    return Report(name, changed, findings)


def _finding(check: str, run: Callable[[Subject], str], subject: Subject) -> Finding:
    begun = time.perf_counter()
    outcome: Outcome = "pass"
    try:
        with GlobalState.kept():
            reason = run(subject)
    except NotApplicable as error:
        outcome, reason = "skip", str(error)
    except Broken as error:
        outcome, reason = "fail", str(error)
    except Exception as error:  # a contestant's code may raise anything
        outcome, reason = "fail", _words(error)
    return Finding(check, outcome, reason, round(time.perf_counter() - begun, 2))


def _params(entry: Entry, method: type[Method], given: Mapping[str, Scalar]) -> Any:
    """Parameters in the order method < digits < small < variant < user; without the small ones where a variant's
    overrides exclude them, and with them where the variant itself is a small budget."""
    digits = {key: default.value for key, default in Digits.method_defaults.get(method.name, {}).items()}
    own = dict(entry.overrides) | (dict(method.check_params) if "small" in entry.tags else {}) | dict(given)
    try:
        return method.Params.model_validate(digits | dict(method.check_params) | own)
    except ValidationError:
        pass
    try:
        return method.Params.model_validate(digits | own)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{entry.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _defaults(entry: Entry, method: type[Method]) -> dict[str, Any]:
    digits = {key: default.value for key, default in Digits.method_defaults.get(method.name, {}).items()}
    return method.Params.model_validate(digits | dict(entry.overrides)).model_dump(mode="json")


def _accepts(params: type[BaseModel], key: str, value: float) -> bool:
    try:
        params.model_validate({key: value})
    except ValidationError:
        return False
    return True


def _words(error: BaseException) -> str:
    """The message of an error that the engine or a method phrased for people; else its type, text and place."""
    text = str(error).splitlines()[0] if str(error) else "no message"
    if isinstance(error, RunError | UsageError | Broken):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}, line {place.lineno})"


def _same(found: Images, expected: Images, what: str) -> None:
    if found.keys() != expected.keys():
        raise Broken(f"{what}: {len(found)} images, expected {len(expected)}")
    for key in expected:
        one, other = found[key], expected[key]
        differ = next((name for name, equal in _comparisons(one, other) if not equal), None)
        if differ:
            raise Broken(f"{what}: image {key[1]} of class {Digits.class_ids[key[0]]} has other {differ}")


def _comparisons(one: DistilledImage, other: DistilledImage) -> Iterator[tuple[str, bool]]:
    yield "pixels", np.array_equal(one.pixels, other.pixels)
    if one.latent is not None and other.latent is not None:
        yield "latents", np.array_equal(one.latent, other.latent)
    yield "latents", (one.latent is None) == (other.latent is None)
    yield "path KL", dict(one.guidance_nats) == dict(other.guidance_nats)


def _close(found: Images, expected: Images, what: str) -> None:
    """Equal up to float error."""
    if found.keys() != expected.keys():
        raise Broken(f"{what}: {len(found)} images, expected {len(expected)}")
    for key in expected:
        one, other = found[key], expected[key]
        levels = int(np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max())
        if levels > 1:
            where = f"image {key[1]} of class {Digits.class_ids[key[0]]}"
            raise Broken(f"{what}: {where} differs by up to {levels} of 255 levels")
        if one.latent is not None and other.latent is not None:
            error = float(np.abs(one.latent - other.latent).max())
            if error > LATENT_TOLERANCE:
                raise Broken(f"{what}: latents differ by up to {error:.2g}, more than float error")


def _tensor_bytes() -> int:
    """Bytes of all live CPU tensors, which tracemalloc does not see; storage that several share counts once."""
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.device.type == "cpu" and thing.layout is torch.strided:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
