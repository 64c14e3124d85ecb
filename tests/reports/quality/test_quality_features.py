"""Feature spaces: Inception's two kinds of weights, told apart and refused where they are neither."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.digits import Digits
from ddbench.reports.quality.features import InceptionFeatures
from ddbench.reports.quality.spaces import wanted

CPU = torch.device("cpu")


def test_torchvisions_inception_gives_what_its_last_layer_takes(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = inception_v3(weights=None, init_weights=False, aux_logits=True).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    found = InceptionFeatures(tmp_path / "weights.pth", "00" * 32, CPU)
    greys = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 1), dtype=np.uint8)
    features = found.features(greys)
    assert features.shape == (2, 2048)
    assert found.classes(greys) is None
    with torch.no_grad():
        # At 299 px nothing is resized; the weights take pixels in −1 … 1.
        x = torch.from_numpy(greys).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float() / 127.5 - 1
        expected = network(x)
        logits = torch.from_numpy(features).float() @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("harm",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"fc.weight": torch.zeros(10, 2048)}, "no Inception v3.*1000 rows.*1008.*got 10"),
        ({"weight": torch.zeros(3)}, "got no fc.weight"),
        ({"fc.weight": torch.zeros(1000, 2048)}, "not torchvision's inception_v3"),
        ([1, 2], "expected a state dict"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, content: object, reason: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UsageError, match=reason):
        InceptionFeatures(tmp_path / "weights.pt", "00" * 32, CPU)


def test_a_file_that_could_run_code_is_not_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UsageError, match="could run code|cannot be read"):
        InceptionFeatures(tmp_path / "weights.pt", "00" * 32, CPU)
    assert "harm" not in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is installed")
def test_fids_own_inception_names_the_package_that_it_needs(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="torch-fidelity"):
        InceptionFeatures(tmp_path / "weights.pth", "00" * 32, CPU)


def test_the_default_classifier_is_the_one_of_herding() -> None:
    params = wanted(None).params(Digits)
    assert params.network == "convnet3"
    assert params.model_dump()["augmentation"] == "affine"
    changed = wanted("resnet_ap10[epochs=3]").params(Digits)
    assert (changed.network, changed.epochs, changed.augmentation) == ("resnet_ap10", 3, "affine")
