"""Where parameters come from, and what methods say of the real images they use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddbench.benchmark.core.registry import METHODS
from ddbench.benchmark.core.result import PriorRecord
from ddbench.benchmark.core.spec import MethodSpec
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.reports.output import status
from ddbench.reports.results import rows
from ddbench.reports.results.parameters import may_be_published, method_of, origin, real_images_read
from ddbench.reports.site.build import build_site


def planned(selector: str) -> tuple[str, MethodSpec]:
    flags: dict[str, Any] = {"methods": selector, "datasets": "digits", "ipc": "1", "seeds": "0", "repeats": 1}
    plan, _, _ = plan_run(run_spec({}, flags), students=False)
    (made,) = plan.sets
    assert made.spec is not None
    return made.label, made.spec.method


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("random", "paper defaults"),
        ("mgd3", "paper defaults"),
        ("dmgd", "paper defaults"),
        ("dit", "paper defaults"),
        ("dit-cfg1", "ablation"),
        ("dm-small", "small budget"),
        ("dmgd-minimax-small", "small budget"),
        ("dit-tuned", "tuned on validation"),
        ("herding", "dataset defaults"),
        ("dmgd[ot_scale=7]", "set by hand"),
        ("mgd3[stop_step=3]", "set by hand"),
        ("g-vbsm[densification_weight=0]", "set by hand"),
        ("sre2l[steps=4000]", "set by hand"),
        ("g-vbsm", "dataset defaults"),
        ("mgd3-nearest", "ablation"),
    ],
)
def test_a_row_says_on_whose_terms_it_ran(selector: str, expected: str) -> None:
    assert origin(*planned(selector), "digits").label == expected


def test_a_changed_parameter_is_named_with_its_reason() -> None:
    found = {one.name: one for one in origin(*planned("herding"), "digits").changed}
    assert found["network"].source == "dataset"
    assert "8 px" in found["network"].reason
    found = {one.name: one for one in origin(*planned("dmgd-sm"), "digits").changed}
    assert found["distribution_matching"].source == "variant"


def test_what_is_not_registered_is_unknown() -> None:
    foreign = MethodSpec(name="nobody-knows", version=1, params={"a": 1})
    assert origin("nobody-knows", foreign, "digits").label == "unknown here"
    other_parameters = MethodSpec(name="dmgd", version=9, params={"no_such": 1})
    assert origin("dmgd", other_parameters, "digits").label == "unknown here"
    assert method_of(None) is None
    assert real_images_read(method_of(foreign), None) == "unknown"
    assert not may_be_published(method_of(foreign))


def test_a_tuned_prior_has_seen_all_real_images() -> None:
    plain = method_of(planned("dit")[1])
    assert real_images_read(plain, None) == "none"
    tuned = PriorRecord(name="minimax(x)", sha256="0" * 64, trained_on="", tuned_by=[planned("minimax")[1]])
    assert real_images_read(plain, tuned) == "all"


@pytest.mark.parametrize("name", [entry.name for entry in METHODS if entry.origin == "built-in"])
def test_every_method_that_selects_shows_real_images_and_every_built_in_says(name: str) -> None:
    method = METHODS.load(name)
    if name == "external":
        assert method().shows_real_images() is None
    elif method.selects or method.whole_set:
        assert method().shows_real_images() is True
    else:
        assert method().shows_real_images() in (True, False)


LOOKED: list[str] = []
LOOKING = [False]


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if LOOKING[0] and event in ("open", "os.listdir", "os.scandir"):
        LOOKED.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else "")


@pytest.mark.parametrize(
    ("method", "params"),
    [("external", {"program": "PLACE"}), ("external", {"command": "x", "program": "PLACE"})]
    + [(name, {"checkpoint": "PLACE/weights.pt"}) for name in ("herding", "rded")],
)
def test_reports_leave_the_files_alone_that_a_result_names(
    make_folder: Callable[..., Any], tmp_path: Path, method: str, params: dict[str, str]
) -> None:
    """`program=/usr` in anybody's result had the whole disk hashed by whoever read it."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    for name in ("program.py", "weights.pt"):
        (place / name).write_text("x")
    folder = make_folder(tmp_path / "runs")
    named = {key: value.replace("PLACE", str(place)) for key, value in params.items()}
    folder.method(method, [[60.0], [61.0]], params=named)
    sys.addaudithook(_look)
    LOOKED.clear()
    LOOKING[0] = True
    try:
        build_site(folder.out, tmp_path / "site")
        status.build(rows.read(folder.out))
    finally:
        LOOKING[0] = False
    assert any(path.startswith(str(folder.out)) for path in LOOKED), "the hook sees what is read"
    assert [path for path in LOOKED if path.startswith(str(place))] == []
    loaded = method_of(MethodSpec(name=method, version=1, params=named))
    assert loaded is not None
    assert not any(value for key, value in loaded.params.model_dump().items() if key.endswith("_sha256"))
