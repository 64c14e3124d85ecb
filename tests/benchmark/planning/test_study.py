"""Studies: every bundled one is whole, flags win, what is missing here is named, and cells are counted by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ddbench.benchmark.commands import cli
from ddbench.benchmark.core.errors import Problems, UsageError
from ddbench.benchmark.core.registry import METHODS, PROTOCOLS
from ddbench.benchmark.core.spec import EvaluateSpec
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import parse_selector
from ddbench.benchmark.planning.study import find_study, read_study, run_specs, study_names


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with neither priors nor teachers nor images."""
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("DDBENCH_DATA", "DDBENCH_PRIOR"):
        monkeypatch.delenv(name, raising=False)


def test_the_papers_tables_are_there() -> None:
    tables = [f"dmgd-table{n}" for n in (1, 2, 3, 5, 6, 7, 8)]
    assert {*tables, "dmgd-settle", "referee", "digits-components"} <= set(study_names())


@pytest.mark.parametrize("name", study_names())
def test_a_study_is_whole_and_says_what_is_not_here(name: str) -> None:
    study = find_study(name)
    assert study.title
    assert study.source
    for spec in run_specs(study, {"device": "cpu"}):
        for selector in spec.methods:
            METHODS.entry(parse_selector(selector)[0])
        if spec.protocol is not None:
            PROTOCOLS.entry(parse_selector(spec.protocol)[0])
        unavailable: dict[str, list[str]] = {}
        plan, _, notes = plan_run(spec, unavailable=unavailable)
        assert plan.sets or unavailable
        assert not notes


def count(specs: list[Any], prior: str = "digits") -> tuple[int, int]:
    """(distilled sets, students) of runs put onto digits, where everything is at hand."""
    onto = {"datasets": ["digits"], "prior": prior, "protocol": "quick", "student": "convnet3"}
    plan = Plan.joined([plan_run(spec.model_copy(update=onto))[0] for spec in specs])
    return len(plan.sets), sum(len(planned.students) for planned in plan.sets)


def test_settle_asks_for_twelve_sets_of_three_students() -> None:
    # 2 × 2 terms × 4 scales × 12 seeds
    assert count(run_specs(find_study("dmgd-settle"), {"device": "cpu"})) == (192, 576)


def test_components_are_four_methods_at_two_ipcs() -> None:
    specs = run_specs(find_study("dmgd-table3"), {"device": "cpu"})
    assert count(specs) == (4 * 2 * 3, 4 * 2 * 3 * 3)


def test_table_1_has_every_row_under_both_optimisers() -> None:
    study = find_study("dmgd-table1")
    assert [run["protocol"] for run in study.runs] == ["hard-minimax-sgd", "hard-dmgd-adamw"]
    onto = {"datasets": "digits", "methods": "random", "student": "convnet3", "device": "cpu", "ipc": "1", "seeds": "0"}
    specs = [
        spec.model_copy(update={"protocol": f"{spec.protocol}[epochs=2,image_size=16]"})
        for spec in run_specs(study, onto)
    ]
    (made,) = Plan.joined([plan_run(spec)[0] for spec in specs]).sets
    by_protocol = Counter(student.protocol.name for student in made.students)
    assert by_protocol == {"hard-minimax-sgd": 3, "hard-dmgd-adamw": 5}  # one set, each protocol's own number


def test_table_1_is_six_methods_on_two_datasets_at_three_ipcs() -> None:
    study = find_study("dmgd-table1")
    onto = {"datasets": "digits", "prior": "digits", "student": "convnet3", "device": "cpu"}
    specs = [
        spec.model_copy(update={"protocol": f"{spec.protocol}[epochs=2,image_size=16]"})
        for spec in run_specs(study, onto)
    ]
    plan = Plan.joined([plan_run(spec)[0] for spec in specs])
    # 6 methods × 3 IPC × 3 seeds, each set with 3 students under SGD and 5 under AdamW; the study has two datasets.
    assert len(plan.sets) == 54
    assert sum(len(planned.students) for planned in plan.sets) == 54 * (3 + 5)
    assert {tuple(run["datasets"]) for run in study.runs} == {("woof", "nette")}


def test_the_sweeps_share_the_papers_own_values() -> None:
    # 4 noises at 2 IPCs; at IPC 10, of 3 × 4 others, the paper's transport weight, points and scale are dmgd itself.
    assert count(run_specs(find_study("dmgd-table8"), {"device": "cpu"})) == ((4 * 2 + 3 * 3) * 3, (4 * 2 + 3 * 3) * 9)


def test_the_referee_needs_no_prior_and_random_first_gets_five_students() -> None:
    specs = run_specs(find_study("referee"), {"device": "cpu"})
    plan = Plan.joined([plan_run(spec.model_copy(update={"datasets": ["digits"], "protocol": "quick", "student": "convnet3"}))[0] for spec in specs])  # fmt: skip  # noqa: E501
    assert all(planned.spec is not None and planned.spec.prior_sha256 is None for planned in plan.sets)
    students = Counter[str]()
    for planned in plan.sets:
        students[planned.label] += len(planned.students)
    assert students == {"random-first": 4 * 5, "random": 4 * 5, "full": 3}


def test_joining_keeps_one_of_each_cell() -> None:
    spec = run_specs(None, {"methods": "random", "datasets": "digits", "ipc": "1", "device": "cpu"})[0]
    plan = plan_run(spec)[0]
    assert Plan.joined([plan, plan]) == plan


def test_flags_win_in_every_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"methods": ["dit"], "ipc": [1], "runs": [{"datasets": ["digits"]}, {"datasets": ["woof"], "ipc": [50]}]}))  # fmt: skip  # noqa: E501
    specs = run_specs(read_study(file), {"ipc": "10"})
    assert [(spec.datasets, spec.ipc) for spec in specs] == [(["digits"], [10]), (["woof"], [10])]
    assert [spec.ipc for spec in run_specs(read_study(file), {})] == [[1], [50]]


def test_all_problems_of_all_runs_are_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("datasets: [digits]\nruns: [{methods: dit, ipc: 0, out: a}, {methdos: dit, out: b}]")
    with pytest.raises(Problems) as error:
        run_specs(read_study(file), {})
    text = str(error.value)
    for part in ("run 1: ipc", "run 2: methods: missing", "run 2: methdos: unknown"):
        assert part in text
    file.write_text("datasets: [digits]\nmethods: dit\nruns: [{out: a}, {out: b}]")
    with pytest.raises(Problems, match="out: the runs of one study cannot differ in it"):
        run_specs(read_study(file), {})
    file.write_text("runs: 3")
    with pytest.raises(UsageError, match="expected under runs a list"):
        read_study(file)


def test_an_unknown_study_suggests_a_known_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'dmgd-table"):
        find_study("dmgd-table")


def test_a_users_own_study_does_not_pass_over_anything(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("methods: [random, nonesuch]\ndatasets: [digits]")
    ran = CliRunner().invoke(cli.app, ["run", "--config", str(file), "--dry-run", "--out", str(tmp_path / "runs")])
    assert isinstance(ran.exception, Problems)
    assert "nonesuch" in str(ran.exception)


def test_a_dry_run_of_a_study_shows_counts_and_what_is_unavailable(tmp_path: Path) -> None:
    out = ["--dry-run", "--out", str(tmp_path / "runs"), "--device", "cpu"]
    ran = CliRunner().invoke(cli.app, ["run", "--study", "dmgd-table3", *out], env={"COLUMNS": "200"})
    assert ran.exit_code == 0, ran.output
    assert "unavailable: dit on woof" in ran.output
    assert "bench prepare prior dit-xl-2-256" in ran.output
    ran = CliRunner().invoke(cli.app, ["run", "--study", "digits-components", *out], env={"COLUMNS": "200"})
    assert "61 distilled sets and 195 students" in ran.output
    assert "no rate measured on" in ran.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "nonesuch,random"], "unknown method 'nonesuch'"),
        (["--method", "dmgd[ot_scale=-1]"], "ot_scale"),
        (["--dataset", "nonesuch"], "unknown dataset 'nonesuch'"),
        (["--protocol", "quikc"], "did you mean 'quick'"),
        (["--student", "convnet4"], "convnet4"),
        (["--prior", "nonesuch"], "there is no prior 'nonesuch'"),
        (["--ipc", "900"], "IPC 900 is more than the"),
        (["--split", "fastai"], "digits has default"),
    ],
)
def test_what_was_typed_over_a_study_is_an_error(tmp_path: Path, flags: list[str], message: str) -> None:
    place = ["--dry-run", "--out", str(tmp_path / "runs"), "--device", "cpu"]
    ran = CliRunner().invoke(cli.app, ["run", "--study", "digits-components", *flags, *place])
    assert isinstance(ran.exception, UsageError)
    assert message in str(ran.exception)


def test_a_study_goes_on_without_a_dataset_whose_images_are_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mixed.yaml").write_text(
        "title: a test\nmethods: [random, dm-small, nonesuch]\ndatasets: [woof, digits]\nprotocol: quick[epochs=1]\n"
        "student: convnet3\nipc: 1\nseeds: 0\nrepeats: 1"
    )
    monkeypatch.setattr("ddbench.benchmark.planning.study.BUNDLED", tmp_path)
    asked = ["run", "--study", "mixed", "--out", str(tmp_path / "runs"), "--device", "cpu", "--set", "iterations=1"]
    ran = CliRunner().invoke(cli.app, asked, env={"COLUMNS": "200"})
    assert ran.exit_code == 0, ran.output
    assert "unavailable: random on woof, dm-small[iterations=1] on woof\n  woof: found no images" in ran.output
    assert "unavailable: nonesuch" in ran.output
    assert "2 distilled sets and 2 students: 4 done" in ran.output
    assert "digits (default split) · IPC 1" in ran.output, "the leaderboard of what ran"


def test_students_of_one_study_meet_at_the_same_set() -> None:
    plans = [plan_run(spec)[0] for spec in run_specs(None, {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": "0", "device": "cpu"})]  # fmt: skip  # noqa: E501
    more = [plan_run(spec)[0] for spec in run_specs(None, {"methods": "random", "datasets": "digits", "ipc": "1", "seeds": "0", "repeats": 5, "device": "cpu"})]  # fmt: skip  # noqa: E501
    (made,) = Plan.joined([*plans, *more]).sets
    assert len(made.students) == 5
    assert all(isinstance(student, EvaluateSpec) for student in made.students)
