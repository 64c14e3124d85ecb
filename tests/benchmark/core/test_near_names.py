"""What is said of a name that nothing has."""

import pytest

from ddbench.benchmark.core.near_names import did_you_mean


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dmdg", "did you mean 'dmgd'?"),
        ("resnet1", "did you mean 'resnet18' or 'resnet10'?"),
        ("ResNet-18", "did you mean 'resnet18' or 'resnet10'?"),
        ("DMGD", "did you mean 'dmgd'?"),
        ("zzz", "known: dmgd, resnet18, resnet10."),
    ],
)
def test_the_nearest_names_or_all_of_them(name: str, said: str) -> None:
    assert did_you_mean(name, (known for known in ("dmgd", "resnet18", "resnet10"))) == said


def test_where_nothing_is_near_or_known() -> None:
    assert did_you_mean("zzz", ["dmgd"], "see `bench list methods`.") == "see `bench list methods`."
    assert did_you_mean("dmdg", ["dmgd"], "see `bench list methods`.") == "did you mean 'dmgd'?"
    assert did_you_mean("zzz", []) == "known: none."
