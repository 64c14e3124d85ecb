"""The command on a run's page asks for exactly that run's cells."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ddbench.benchmark.core.reading import Reading
from ddbench.benchmark.core.result import DistillResult, PriorRecord, SetSource, SoftLabelsRecord
from ddbench.benchmark.core.spec import ForeignImages, MethodSpec, cell_id
from ddbench.benchmark.planning.plan import PlannedSet
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.reports.results.command_line import command
from ddbench.reports.results.rows import DistillCell, EvaluateCell

OPTIONS = {"method": "methods", "dataset": "datasets"}


def planned(words: list[str]) -> list[PlannedSet]:
    """The sets that `bench run --option value …` asks for."""
    values = dict(zip(words[::2], words[1::2], strict=True))
    flags = {OPTIONS.get(key[2:], key[2:]): value for key, value in values.items()}
    plan, _, _ = plan_run(run_spec({}, flags), students=True)
    return list(plan.sets)


def as_read(made: PlannedSet, prior: PriorRecord | None) -> tuple[DistillCell, list[EvaluateCell]]:
    assert made.spec is not None
    result = DistillResult(
        cell=str(made.id), status="ok", label=made.label, method=made.spec.method, dataset=None, prior=prior,
        ipc=made.spec.ipc, distill_seed=made.spec.seed,
    )  # fmt: skip
    students = [EvaluateCell(cell_id(one), one, made.label) for one in made.students]
    return DistillCell(str(made.id), made.spec, made.label, result=result), students


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "dmgd", "--ipc", "1", "--seeds", "3", "--repeats", "2"],
        ["--method", "dmgd[ot_scale=0.05,semantic_matching=false]", "--ipc", "10", "--seeds", "0", "--repeats", "1"],
        ["--method", "dit-cfg1", "--ipc", "2", "--seeds", "1", "--repeats", "1", "--precision", "bf16"],
        ["--method", "random", "--ipc", "5", "--seeds", "2", "--repeats", "3", "--protocol", "quick[epochs=7]"],
        ["--method", "full", "--seeds", "0", "--repeats", "1"],
        ["--method", "dmgd-minimax-small", "--ipc", "1", "--seeds", "0", "--repeats", "1"],
    ],
)
def test_the_command_gives_back_the_same_cells(words: list[str]) -> None:
    (made,) = planned([*words, "--dataset", "digits"])
    assert made.spec is not None
    tuner = MethodSpec(name="minimax-small", version=1, params={})
    tuned = "minimax" in words[1]
    prior = PriorRecord(
        name="minimax-small(digits)" if tuned else "digits", sha256="0" * 64, trained_on="", tuned_by=[tuner] * tuned
    )
    distill, students = as_read(made, prior if made.spec.prior_sha256 else None)
    program, verb, *again = shlex.split(command(distill, students))
    assert (program, verb) == ("bench", "run")
    (same,) = planned(again)
    assert same.id == made.id
    assert [cell_id(one) for one in same.students] == [cell_id(one) for one in made.students]


def test_shifted_test_sets_are_named_in_one_word() -> None:
    (made,) = planned(["--method", "random", "--dataset", "digits", "--ipc", "1", "--seeds", "0", "--repeats", "2"])
    distill, students = as_read(made, None)
    sets = ["imagenet-c[severity=3]", "imagenet-v2"]
    for line in (command(distill, students, sets), command(None, students, sets)):
        words = shlex.split(line)
        assert words[words.index("--test-on") + 1] == "imagenet-c[severity=3],imagenet-v2"
    assert "--test-on" not in command(distill, students) + command(distill, [], sets)


def test_names_with_spaces_and_quotes_stay_one_word() -> None:
    (made,) = planned(["--method", "dmgd", "--dataset", "digits", "--ipc", "1", "--seeds", "0", "--repeats", "1"])
    distill, _ = as_read(made, PriorRecord(name="my prior'; rm -rf ~", sha256="0" * 64, trained_on=""))
    words = shlex.split(command(replace(distill, label="a b"), []))
    assert words[:4] == ["bench", "distill", "--method", "a b"]
    assert words[words.index("--prior") + 1] == "my prior'; rm -rf ~"


def test_images_made_elsewhere_are_evaluated(tmp_path: Path) -> None:
    (made,) = planned(["--method", "random", "--dataset", "digits", "--ipc", "1", "--seeds", "0", "--repeats", "2"])
    _, students = as_read(made, None)
    words = shlex.split(command(None, students))
    assert words[:4] == ["bench", "eval", "--images", "FOLDER"]
    assert words[words.index("--repeats") + 1] == "2"
    result = SimpleNamespace(
        source=SetSource(address="hf:a/b@main:x.pt", revision="c0ffee", normalisation="imagenet", class_order="sorted"),
        soft_labels=SoftLabelsRecord(source="", used=True, sha256="", kind="logits"),
        reading=None,
    )
    words = shlex.split(command(None, [replace(students[0], result=result)]))  # type: ignore[arg-type]
    assert words[2:10] == [
        *("--images", "hf:a/b@c0ffee:x.pt", "--normalisation", "imagenet", "--class-order", "sorted"),
        *("--labels", "logits"),
    ]
    read = SimpleNamespace(source=None, soft_labels=None, reading=Reading(class_folders={"0": "a"}, flatten="black"))
    images = ForeignImages(image_set_sha256="ab" * 32, with_test_images=True)
    leaked = replace(students[0], result=read, spec=students[0].spec.model_copy(update={"images": images}))  # type: ignore[arg-type]
    words = shlex.split(command(None, [leaked]))
    assert words[2:8] == ["--images", "FOLDER", "--class-order", "FILE", "--flatten", "black"]
    assert "--allow-test-images" in words
    result.source = SetSource(address="/home/me/x.pt")
    words = shlex.split(command(None, [replace(students[0], result=result)]))  # type: ignore[arg-type]
    assert words[2:4] == ["--images", "FILE"]
    with pytest.raises(ValueError, match="expected a distilled set or a student"):
        command(None, [])
