"""From a request to cells: parameters in the right order, headlines filled in, every problem at once."""

from pathlib import Path

import pytest

from ddbench.benchmark.core.errors import Problems
from ddbench.benchmark.core.seeds import STUDENTS_PER_SET
from ddbench.benchmark.core.spec import DistilledBy, EvaluateSpec, cell_id
from ddbench.benchmark.planning.plan import Plan
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.benchmark.planning.setting import Setting
from ddbench.benchmark.running.live import describe_setting
from ddbench.datasets.base import Default
from ddbench.datasets.digits import Digits


def plan(**options: object) -> Plan:
    return plan_full(**options)[0]


def plan_full(**options: object) -> tuple[Plan, list[Setting], list[str]]:
    return plan_run(run_spec({}, {"datasets": "digits", "device": "cpu", "ipc": "1", "seeds": "0", **options}))


def problems(**options: object) -> str:
    with pytest.raises(Problems) as error:
        plan(**options)
    return str(error.value)


def test_a_plan_names_each_cell_once_and_links_students_to_their_set() -> None:
    made = plan(methods="random,dit", ipc="1,10", seeds="0-1", repeats=3)
    assert len(made.sets) == 2 * 2 * 2
    ids = [cell_id(spec) for _, spec in made.cells()]
    assert len(ids) == len(set(ids)) == 8 * (1 + 3)
    for planned in made.sets:
        assert planned.spec is not None
        for student in planned.students:
            assert student.images == DistilledBy(cell=cell_id(planned.spec))
            assert student.seed // STUDENTS_PER_SET == planned.spec.seed


def test_methods_with_the_same_set_seed_share_students_seeds() -> None:
    made = plan(methods="random,dit", seeds="0-1", repeats=2)
    by_method: dict[str, list[int]] = {}
    for planned in made.sets:
        by_method.setdefault(planned.label, []).extend(s.seed for s in planned.students)
    assert by_method == {"random": [0, 1, 1000, 1001], "dit": [0, 1, 1000, 1001]}


def test_more_repeats_and_seeds_keep_what_is_there() -> None:
    few = {cell_id(s) for _, s in plan(methods="random", seeds="0", repeats=1).cells()}
    many = {cell_id(s) for _, s in plan(methods="random", seeds="0-2", repeats=3).cells()}
    assert few < many


def test_a_method_without_a_seed_makes_one_set_with_all_the_students() -> None:
    made = plan(methods="random-first,full", ipc="1,10", seeds="0-2", repeats=2)
    assert [(p.label, p.spec.ipc if p.spec else 0, len(p.students)) for p in made.sets] == [
        ("random-first", 1, 6),
        ("random-first", 10, 6),
        ("full", None, 6),
    ]


def test_parameters_come_from_method_then_dataset_then_variant_then_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Digits, "method_defaults", {"dmgd": {"cfg_scale": Default(1.75, "measured")}})

    def params(selector: str, **options: object) -> dict:
        spec = plan(methods=selector, **options).sets[0].spec
        assert spec is not None
        return spec.method.params

    assert params("dmgd")["cfg_scale"] == 1.75
    assert params("dit-cfg1")["cfg_scale"] == 1.0, "a variant's own value wins over the dataset's"
    assert params("dit-cfg1", set={"cfg_scale": 3})["cfg_scale"] == 3
    assert params("dmgd[cfg_scale=2.5]", set={"cfg_scale": 3})["cfg_scale"] == 2.5
    assert params("dmgd")["ot_epsilon"] == 0.1


def test_labels_are_registered_names_where_the_parameters_are_theirs() -> None:
    made = plan(methods="dmgd[semantic_matching=false],dmgd[ot_scale=0.07,0.09],dit")
    assert [p.label for p in made.sets] == ["dmgd-dm", "dmgd[ot_scale=0.07]", "dmgd[ot_scale=0.09]", "dit"]
    assert len(plan(methods="dit,dmgd[semantic_matching=false,distribution_matching=false]").sets) == 1


def test_what_is_not_said_comes_from_the_headline_and_is_told() -> None:
    made, settings, _ = plan_run(run_spec({}, {"methods": "random", "datasets": "digits", "device": "cpu"}))
    headline = Digits.headline
    assert len(made.sets) == len(headline.ipc) * headline.sets
    assert all(len(p.students) == headline.students for p in made.sets)
    assert settings[0].student == headline.student
    assert any(headline.protocol in note for note in settings[0].assumed)
    assert "IPC 1, 10" in settings[0].assumed


def test_another_protocol_than_the_headlines_brings_its_own_number_of_students() -> None:
    made, (setting,), _ = plan_full(methods="random", protocol="hard-dmgd-adamw", device="cpu")
    assert {len(p.students) for p in made.sets} == {setting.repeats} == {5}
    assert "students per set 5 (hard-dmgd-adamw's)" in setting.assumed
    (said,) = plan_full(methods="random", protocol="hard-dmgd-adamw", repeats=2)[1]
    assert said.repeats == 2


def test_the_first_stage_alone_speaks_of_no_student() -> None:
    _, (setting,), _ = plan_full(methods="random", ipc=None, seeds=None)
    with_students, without = describe_setting(setting), describe_setting(setting, students=False)
    assert "convnet3" in with_students
    assert "quick" in with_students
    assert "students" not in without
    assert "convnet3" not in without
    assert "quick" not in without
    assert "3 sets" in without
    _, settings, _ = plan_full(methods="random", split="default", protocol="quick", student="convnet3", repeats=1)
    assert settings[0].assumed == ()


def test_all_takes_contestants_and_references_and_all_ablations_the_rest() -> None:
    main = {p.label for p in plan(methods="all").sets}
    everything = {p.label for p in plan(methods="all+ablations").sets}
    assert {"random", "dit", "dmgd", "full"} <= main
    assert "dmgd-sm" not in main
    assert {"dmgd-sm", "dmgd-dm", "dit-cfg1", "dmgd-joint"} <= everything - main


def test_every_problem_is_told_at_once() -> None:
    text = problems(
        methods="dmgdd,dmgd[ot_scale=-1,ot_scael=2]", protocol="quick[epochs=0,epoch=3]", student="convnet4"
    )
    for part in ("'dmgdd'", "dmgd", "ot_scale", "ot_scael", "epochs", "epoch"):
        assert part in text, part


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "random", "ipc": "500"}, r"IPC 500 is more than the \d+ training images of class"),
        ({"methods": "dmgd", "prior": "no-such-prior"}, "no-such-prior"),
        ({"methods": "random", "student": "convnet4"}, "convnet4"),
        ({"methods": "random", "split": "fastai"}, "digits has default"),
        ({"methods": "random", "protocol": "quick@7"}, "this version of ddbench has quick@1"),
        ({"methods": "random", "protocol": "quick@7[epochs=5]"}, "this version of ddbench has quick@1"),
        ({"methods": "random", "protocol": "quick[looks=1]@1[epochs=5]"}, "expected a name or name"),
        ({"methods": "random", "set": {"ot_scale": 1}}, "none of the chosen methods has this parameter"),
        ({"methods": "dmgd", "set": {"otscale": 1}}, "did you mean .*ot_scale"),
        ({"methods": "dmgd[label_noise=loud]"}, "label_noise"),
        ({"methods": "cv-dd[network=resnet18_bn]"}, r"^cv-dd: committee=pairs needs two"),
    ],
)
def test_problems(options: dict, message: str) -> None:
    import re

    assert re.search(message, problems(**options))


def test_paths_and_jobs_change_no_id(tmp_path: Path) -> None:
    one = plan(methods="dit")
    other = plan(methods="dit", out=str(tmp_path), jobs=2, batch_size=3, timeout=5)
    assert [cell_id(s) for _, s in one.cells()] == [cell_id(s) for _, s in other.cells()]


def test_a_modified_protocol_is_another_cell_and_says_so() -> None:
    made = plan(methods="random", protocol="quick[epochs=5]")
    student = next(s for _, s in made.cells() if isinstance(s, EvaluateSpec))
    assert student.protocol.label == "quick[epochs=5]@1"
    for spelled in ("quick@1[epochs=5]", "quick[epochs=5]@1"):
        assert list(plan(methods="random", protocol=spelled).cells()) == list(made.cells())
    assert cell_id(student) not in {cell_id(s) for _, s in plan(methods="random").cells()}


def test_threads_are_a_share_of_the_cores_and_no_more_than_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddbench.benchmark.planning.planned_sets.available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [p.launch.threads for p in plan(methods="random").sets] == [1]
    monkeypatch.setattr(Digits, "useful_threads", None)
    assert [p.launch.threads for p in plan(methods="random").sets] == [8]
    assert [p.launch.threads for p in plan(methods="random", jobs=3).sets] == [2]
    for exported, threads in (("4", 4), ("3,2", 3), ("16", 8), ("0", 8), ("many", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", exported)
        assert [p.launch.threads for p in plan(methods="random").sets] == [threads], exported
