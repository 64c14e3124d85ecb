"""Published ten-class subsets and subsets of one's own: class lists, labels, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddbench.benchmark.core.errors import UsageError
from ddbench.benchmark.core.registry import DATASETS
from ddbench.benchmark.planning.run_spec import RunSpec
from ddbench.datasets.builtin import ALIASES, PUBLISHED, UNAVAILABLE
from ddbench.datasets.imagenet.classes import CLASS_NAMES
from ddbench.datasets.imagenet.published import published
from ddbench.methods.diffusion.priors.catalogue import KNOWN

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "imagenet_subsets.csv"
THOUSAND = KNOWN["dit-xl-2-256"].metadata


def test_the_lists_are_those_of_the_reference() -> None:
    """Names, wnids, order and the prior's labels, of every list that papers use."""
    if not REFERENCE.is_file():
        pytest.skip(f"no reference lists at {REFERENCE}")
    noted: dict[str, list[tuple[str, int, str]]] = {}
    with REFERENCE.open(encoding="utf-8", newline="") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: int(row["index"])):
            noted.setdefault(row["dataset"], []).append((row["wnid"], int(row["imagenet_index"]), row["name"]))
    assert len(noted) == 36
    assert noted.keys() - UNAVAILABLE.keys() == {name for name in noted if name in DATASETS}
    for name, rows in noted.items():
        if name in UNAVAILABLE:
            continue
        dataset = DATASETS.load(name)
        assert list(dataset.class_ids) == [wnid for wnid, _, _ in rows]
        assert [THOUSAND.label_of(wnid) for wnid in dataset.class_ids] == [index for _, index, _ in rows]
        assert list(dataset.class_names) == [called for _, _, called in rows]


def test_names_and_lists_agree() -> None:
    assert PUBLISHED.keys() | {"comp-dd-music-hard"} == published().keys()
    for name, wnids in published().items():
        assert len(wnids) == 10
        assert (len(set(wnids)) == 10) == (name not in UNAVAILABLE)
        assert set(wnids) <= CLASS_NAMES.keys()


def test_a_list_that_names_a_class_twice_is_not_trained() -> None:
    with pytest.raises(UsageError, match="n02787622, banjo, labels 0 and 2") as refused:
        DATASETS.load("comp-dd-music-hard")
    nine = str(refused.value).rpartition(" ")[2]
    assert DATASETS.load(nine).class_ids == tuple(dict.fromkeys(published()["comp-dd-music-hard"]))


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_results_of_an_alias_are_those_of_the_dataset(alias: str, name: str) -> None:
    assert DATASETS.load(alias) is DATASETS.load(name)
    spec = RunSpec(methods=["random"], datasets=[alias, f"{alias}:validation", name])
    assert spec.datasets == [name, f"{name}:validation"]


def test_a_subset_of_ones_own_is_named_by_its_classes(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("# my dogs\nn02111889 Samoyed\n\nn02096294\n", encoding="utf-8")
    (name,) = RunSpec(methods=["random"], datasets=[f"subset:{file}"]).datasets
    file.unlink()
    assert name == "subset:258+193"
    dataset = DATASETS.load(name)
    assert (dataset.name, dataset.class_ids, dataset.class_names) == (
        name, ("n02111889", "n02096294"), ("Samoyed", "Australian terrier"),
    )  # fmt: skip
    assert DATASETS.load(f"{name}:validation").name == f"{name}:validation"
    assert name in DATASETS
    assert DATASETS.canonical(name) == name


def test_a_subset_of_ones_own_is_opened_from_an_imagenet_folder(tmp_path: Path) -> None:
    """Labels follow the list, not the sorted folders; too few images are refused."""
    dataset = DATASETS.load("subset:258+193")()
    for number, wnid in enumerate(("n02096294", "n02111889")):
        for side, count in (("train", 100), ("val", 50)):
            folder = tmp_path / side / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                stem = f"{wnid}_{i}" if side == "train" else f"ILSVRC2012_val_{1 + i + 50 * number:08d}"
                Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{stem}.png")
    data = dataset.load("imagenet-first100", tmp_path, 4)
    assert len(data.train) == 200
    assert len(data.test) == 100
    assert [int(data.train.read([data.train.of_class(c)[0]])[0, 0, 0, 0]) for c in (0, 1)] == [1, 0]
    assert np.bincount(data.test.labels).tolist() == [50, 50]
    with pytest.raises(UsageError, match="expected 732 to 1300"):
        dataset.load("imagenet", tmp_path, 4)


@pytest.mark.parametrize(
    "text",
    [b"n02111889\r\nn02096294\r\n", b"\xef\xbb\xbfn02111889\nn02096294",
     b"\xef\xbb\xbf# dogs\n\nn02111889\nn02096294 terrier",
     b"n02111889\tSamoyed # unlike n02093754\n  n02096294  \n# n02093754\n"],
)  # fmt: skip
def test_a_list_as_editors_leave_it(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(text)
    assert DATASETS.canonical(f"subset:{tmp_path / 'list.txt'}") == "subset:258+193"


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "0 classes"), ("n02111889\n", "1 classes"), ("n02111889\nn02111889\n", "stands twice"),
     ("dog\ncat\n", "line 1: 'dog' is no class"), ("n02111889\nn99999999\n", "line 2: 'n99999999' is no class"),
     ("# dogs\nSamoyed\n", "'Samoyed' is the name of n02111889"), ("English springer\n", "is the name of n02102040"),
     ("crane\n", "is the name of n02012849 and n03126707"), ("182\n193\n", "line 1: '182' is no class"),
     ("n02111889 n02096294\nn02093754\n", "line 1: n02111889 and n02096294 in one line"),
     ("n02111889\tSamoyed, n02096294\nn02093754\n", "n02111889 and n02096294 in one line")],
)  # fmt: skip
def test_what_is_no_subset_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        DATASETS.canonical(f"subset:{tmp_path / 'list.txt'}")


@pytest.mark.parametrize("name", ["subset:", "subset:1000+2", "subset:5+5", "subset:7", "subset:1+", "subset:-1+2"])
def test_no_other_name_is_a_subset(name: str) -> None:
    assert name not in DATASETS
    with pytest.raises(UsageError):
        DATASETS.load(name)


def test_a_name_from_results_reads_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("n02111889\nn02096294\n", encoding="utf-8")
    assert f"subset:{tmp_path / 'secret'}" not in DATASETS
    with pytest.raises(UsageError, match="by their positions"):
        DATASETS.load(f"subset:{tmp_path / 'secret'}")
