"""Cell ids: equal for equal work, different for anything that can change a result."""

import pytest
from pydantic import ValidationError

from ddbench.benchmark.core.spec import (
    CELL_SPEC,
    DatasetSpec,
    DistilledBy,
    DistillSpec,
    EvaluateSpec,
    MethodSpec,
    ProtocolSpec,
    brackets,
    canonical_json,
    cell_id,
)

DISTILL = DistillSpec(
    method=MethodSpec(name="dmgd", version=1, params={"ot_scale": 0.5, "greedy": True}),
    dataset=DatasetSpec(name="digits", split="default", resolution=8),
    prior_sha256="ab" * 32,
    ipc=10,
    seed=0,
    precision="fp32",
    device_type="cpu",
)
EVALUATE = EvaluateSpec(
    images=DistilledBy(cell=cell_id(DISTILL)),
    dataset=DISTILL.dataset,
    ipc=10,
    protocol=ProtocolSpec(name="quick", version=1, overrides={}, hash="cd" * 32),
    student="convnet3",
    seed=0,
    device_type="cpu",
)


def test_ids_are_pinned() -> None:
    # A change here orphans every result that anybody has: raise SPEC_VERSION if it is meant.
    assert cell_id(DISTILL) == "distill-666c5b174f1cb822"
    assert cell_id(EVALUATE) == "evaluate-f7df3ab41182d1e5"


def test_an_id_does_not_depend_on_the_order_of_parameters() -> None:
    turned = DISTILL.model_copy(
        update={"method": DISTILL.method.model_copy(update={"params": {"greedy": True, "ot_scale": 0.5}})}
    )
    assert cell_id(turned) == cell_id(DISTILL)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"ipc": 1},
        {"ipc": None},
        {"precision": "bf16"},
        {"device_type": "cuda"},
        {"prior_sha256": "ac" * 32},
        {"dataset": DatasetSpec(name="digits", split="other", resolution=8)},
        {"method": MethodSpec(name="dmgd", version=2, params=DISTILL.method.params)},
        {"method": MethodSpec(name="dmgd", version=1, params={**DISTILL.method.params, "ot_scale": 0.05})},
    ],
)
def test_what_can_change_a_result_is_in_the_id(change: dict) -> None:
    assert cell_id(DISTILL.model_copy(update=change)) != cell_id(DISTILL)


@pytest.mark.parametrize("spec", [DISTILL, EVALUATE])
def test_specifications_survive_json(spec: DistillSpec | EvaluateSpec) -> None:
    assert CELL_SPEC.validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValidationError, match="extra"):
        CELL_SPEC.validate_python({**spec.model_dump(), "gpu": 3})


def test_canonical_json() -> None:
    assert canonical_json({"b": 1, "a": [1.5, True, None, "σ"]}) == '{"a":[1.5,true,null,"σ"],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_brackets() -> None:
    assert brackets({}) == ""
    assert brackets({"b": 0.5, "a": True, "c": "mean"}) == "[a=true,b=0.5,c=mean]"
