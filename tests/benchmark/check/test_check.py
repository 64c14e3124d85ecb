"""`bench check`: methods that break one promise each fail at that check and no other; honest ones pass all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ddbench.benchmark.check.canary import TRAIN_PER_CLASS, Planted
from ddbench.benchmark.check.check import Report, check_method, named
from ddbench.benchmark.check.checks import CHECKS
from ddbench.benchmark.check.global_state import GlobalState
from ddbench.benchmark.commands.check import check_app
from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import METHODS, load_plugin
from ddbench.datasets.digits import Digits

BROKEN = Path(__file__).with_name("broken_methods.py")
FOUND_BY: dict[str, set[str]] = {
    "honest": set(),
    "no-version": {"contract"},
    "undocumented": {"parameters"},
    "takes-anything": {"parameters"},
    "takes-nan": {"parameters"},
    "takes-infinity": {"parameters"},
    "boasts": {"supports"},
    "no-reason": {"supports"},
    "idle-prior": {"supports"},
    "secret-prior": {"supports"},
    "too-few": {"images", "resumable"},
    "too-small": {"images"},
    "fractions": {"images"},
    "odd-latents": {"images"},
    "next-class": {"labels"},
    "other-class": {"labels"},
    "own-generator": {"deterministic", "independent", "resumable"},
    "global-generator": {"deterministic", "seeds", "independent", "resumable", "global state"},
    "deaf-to-seeds": {"seeds"},
    "secretly-seeded": {"seeds"},
    "one-stream": {"independent", "resumable"},
    "batch-number": {"independent"},
    "one-round": {"resumable"},
    "makes-again": {"resumable"},
    "forgetful": {"resumable"},
    "forgets-late": {"resumable"},
    "regroups": {"resumable"},
    "peeks": {"test images"},
    "learns-from-test": {"test images"},
    "copies-test": {"test images"},
    "looks-around": {"real images"},
    "switches-gradients-off": {"global state"},
    "reseeds": {"global state"},
    "keeps-arrays": {"memory"},
    "keeps-tensors": {"memory"},
    "small": set(),
    "small-all": set(),
}
"""Registered name -> the checks that fail; every other check passes, or is skipped because of those."""


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """The plugin's methods, registered while this module's tests run."""
    before = dict(METHODS.entries())
    load_plugin(BROKEN)
    module = METHODS.entry("honest").target.partition(":")[0]
    yield
    del sys.modules[module]
    METHODS.entries().clear()
    METHODS.entries().update(before)


def outcomes(report: Report) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"pass": set(), "fail": set(), "skip": set()}
    for finding in report.findings:
        found[finding.outcome].add(finding.check)
    return found


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_broken_promise_is_found_by_its_check(name: str, registered: None, planted: Planted) -> None:
    state = GlobalState.now()
    report = check_method(name, {}, planted)
    found = outcomes(report)
    assert found["fail"] == FOUND_BY[name], report.findings
    if not FOUND_BY[name] & {"supports"}:
        assert not found["skip"] - {"labels"}, report.findings
    assert all(finding.reason for finding in report.findings)
    assert [finding.check for finding in report.findings] == list(CHECKS)
    assert GlobalState.now() == state, "the checks leave no trace, whatever the method did"


def test_every_broken_promise_has_a_check_and_every_check_a_broken_promise(registered: None) -> None:
    assert set().union(*FOUND_BY.values()) == set(CHECKS)


def test_digits_are_what_they_were_after_a_check(planted: Planted) -> None:
    load = Digits.load
    with planted.as_digits():
        inside = Digits().load("default", None, 8)
        assert len(inside.train) == 10 * TRAIN_PER_CLASS
        assert inside.test is planted.canary
    assert Digits.load is load
    assert len(Digits().load("default", None, 8).train) == 1078


def test_the_canary_sees_who_reads_it_and_knows_itself(planted: Planted) -> None:
    board = planted.canary.read([0, 1])
    assert planted.canary.reads[-1].startswith("test_check.py, line ")
    planted.canary.reads.clear()
    assert planted.canary.resembled_by(board[0])
    assert planted.canary.resembled_by(255 - board[0])
    real = planted.split.train.read(range(len(planted.split.train)))
    assert not any(planted.canary.resembled_by(pixels) for pixels in real)
    mixed = (0.7 * board[0] + 0.3 * real[0]).astype(np.uint8)
    assert planted.canary.resembled_by(mixed)


def test_selectors_name_methods_files_and_parameters(registered: None) -> None:
    assert named(["dmgd[steps=8]", "random"], {"cfg_scale": 2.0}) == [
        ("dmgd", {"cfg_scale": 2.0, "steps": 8}),
        ("random", {}),
    ]
    assert [name for name, _ in named([str(BROKEN)], {})] == list(FOUND_BY)
    assert {name for name, _ in named(["all"], {})} == set(METHODS.entries())
    with pytest.raises(UsageError, match="unknown method 'rndom'; did you mean 'random'"):
        named(["rndom"], {})
    with pytest.raises(UsageError, match="one value for steps"):
        named(["dmgd[steps=4,8]"], {})
    with pytest.raises(UsageError, match="--set stpes: none of these methods has this parameter; they have: .*steps"):
        named(["dmgd"], {"stpes": 3})


def test_the_command_says_what_failed_and_exits_with_1(registered: None) -> None:
    runner = CliRunner()
    good = runner.invoke(check_app, ["random", "--json"])
    assert good.exit_code == 0, good.output
    (report,) = json.loads(good.stdout)
    assert report["method"] == "random"
    assert {finding["outcome"] for finding in report["findings"]} == {"pass"}
    bad = runner.invoke(check_app, ["random", "one-round"])
    assert bad.exit_code == 1
    assert "one-round, resumable: 6 images in batches of 2 came as one round" in bad.stdout


def test_what_methods_and_their_programs_print_is_not_in_the_report() -> None:
    command = [sys.executable, "-P", "-c", "from ddbench.benchmark.commands.cli import main; main()", "check"]
    ended = subprocess.run([*command, "external", "--json"], capture_output=True, text=True, check=True)
    (report,) = json.loads(ended.stdout)
    assert report["method"] == "external"
    assert "0: 2 images" in ended.stderr, "the example program says what it makes"


def test_small_parameters_make_runs_short_unless_a_variant_excludes_them(registered: None, planted: Planted) -> None:
    short, usual = check_method("small", {}, planted), check_method("small-all", {}, planted)
    assert not short.failed, short.findings
    assert not usual.failed, usual.findings
    assert (short.params, usual.params) == ({"repetitions": 2}, {})
    assert check_method("small", {"repetitions": 3}, planted).params == {"repetitions": 3}
    with pytest.raises(UsageError, match="dmgd: steps: Input should be greater than or equal to 2"):
        check_method("dmgd", {"steps": 1}, planted)
