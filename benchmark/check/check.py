"""`bench check`: does a method keep its contract? Small runs on planted digits, on the CPU; each check says why.

Whatever a check did to global generators and settings is undone before the next.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from ddbench.benchmark.check.canary import Planted
from ddbench.benchmark.check.checks import CHECKS, Check
from ddbench.benchmark.check.global_state import GlobalState
from ddbench.benchmark.check.runs import IPC, SmallRuns
from ddbench.benchmark.check.subject import Broken, NotApplicable, Subject, in_words
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS, Entry, load_plugin, plugin_module
from ddbench.benchmark.core.spec import Scalar
from ddbench.benchmark.planning.parameters import in_order
from ddbench.benchmark.planning.run_spec import parse_selector
from ddbench.datasets.digits import Digits
from ddbench.methods.base import Method

Outcome = Literal["pass", "fail", "skip"]


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
    """Parameters that differ from the defaults: what made the runs small."""
    findings: list[Finding]

    @property
    def failed(self) -> bool:
        return any(finding.outcome == "fail" for finding in self.findings)

    @property
    def seconds(self) -> float:
        return sum(finding.seconds for finding in self.findings)


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
        having = ", ".join(sorted(known)) or "none"
        raise UsageError(f"--set {strange[0]}: none of these methods has this parameter; they have: {having}")
    return [
        (name, {key: value for key, value in given.items() if key in METHODS.load(name).Params.model_fields} | own)
        for name, own in found
    ]


def _in_file(file: Path) -> list[str]:
    digest = load_plugin(file)
    module = plugin_module(file, digest)
    names = [entry.name for entry in METHODS if entry.target.startswith(f"{module}:")]
    names += [entry.name for entry in METHODS if entry.variant_of in names]
    if not names:
        raise UsageError(f"{file}: there is no method in it; expected a subclass of ddbench.methods.base.Method")
    return names


def check_method(name: str, given: Mapping[str, Scalar], planted: Planted) -> Report:
    """Run every check on one registered method.

    Args:
        given: parameters that the user sets.

    Raises:
        UsageError: unknown method or parameters.
    """
    with subject_of(name, given, planted) as subject:
        return report_on(subject)


@contextlib.contextmanager
def subject_of(name: str, given: Mapping[str, Scalar], planted: Planted) -> Iterator[Subject]:
    """A registered method ready to be checked; while the block runs, `digits` is what was planted.

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
            runs = SmallRuns(method, params, planted, root, entry.prior_tuned_by)
            yield Subject(entry, method, params, runs, planted, unsupported)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def report_on(subject: Subject) -> Report:
    """What comes of every check of it."""
    findings = [_finding(name, check, subject) for name, check in CHECKS.items()]
    usual = _defaults(subject.entry, subject.method)
    params = subject.params.model_dump(mode="json")
    return Report(
        subject.entry.name, {key: value for key, value in params.items() if usual.get(key) != value}, findings
    )


def _finding(name: str, check: Check, subject: Subject) -> Finding:
    begun = time.perf_counter()
    outcome: Outcome = "pass"
    try:
        with GlobalState.kept():
            reason = check.run(subject)
    except NotApplicable as error:
        outcome, reason = "skip", str(error)
    except Broken as error:
        outcome, reason = "fail", str(error)
    except Exception as error:  # a contestant's code may raise anything
        outcome, reason = "fail", in_words(error)
    return Finding(name, outcome, reason, round(time.perf_counter() - begun, 2))


def _params(entry: Entry, method: type[Method], given: Mapping[str, Scalar]) -> Any:
    """Parameters in the order method < digits < small < variant < user; without the small ones where a variant's
    overrides exclude them, and with them where the variant itself is a small budget."""
    small = dict(method.check_params)
    own = dict(entry.overrides) | (small if "small" in entry.tags else {})
    with contextlib.suppress(ValidationError):
        return method.Params.model_validate(in_order(method.name, Digits, small | own, given, name=entry.name))
    try:
        return method.Params.model_validate(in_order(method.name, Digits, own, given, name=entry.name))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{entry.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _defaults(entry: Entry, method: type[Method]) -> dict[str, Any]:
    return method.Params.model_validate(in_order(method.name, Digits, entry.overrides, name=entry.name)).model_dump(
        mode="json"
    )
