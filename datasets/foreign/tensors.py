"""A distilled set in one file of tensors, as programs save what they learn: `.pt`, `.pth`, `.npz`, `.npy`,
`.safetensors`. Nothing pickled is ever run.

Layouts (N images, K classes): images with a file of labels beside, `images_best.pt` and `labels_best.pt` (MTT, DATM);
a pair of images and labels (NCFM); DC's and DM's `{"data": [(images, labels), …]}` with a pair for each repetition; a
mapping with images and labels under their names. Labels are class numbers, (N,), or soft, (N, K).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddbench.benchmark.core.errors import UsageError
from ddbench.datasets.foreign import normalisation as normalising
from ddbench.datasets.foreign.class_order import class_order, fitting_orders
from ddbench.datasets.whitening import Zca

SUFFIXES = (".pt", ".pth", ".npz", ".npy", ".safetensors")
BEST = "images_best"
"""Name of the file that published programs leave in a folder of several."""
IMAGES = ("images", "image", "image_syn", "images_syn", "syn_images", "x", "imgs")
LABELS = ("labels", "label", "label_syn", "labels_syn", "syn_labels", "targets", "y")
SOFT = ("soft_labels", "soft_label", "logits", "probabilities")
RATES = ("syn_lr", "lr", "lr_best", "learned_lr", "lr_net")
"""Keys of such mappings; the first that is there counts."""
ONE_HOT_TOLERANCE = 1e-6
WHITENED = re.compile(r"(?<!no)(?<!no[-_])zca", re.IGNORECASE)
"""In the name of a file or its folder."""


@dataclass(frozen=True)
class TensorSet:
    """A set as its file has it, sorted by class in label order."""

    pixels: np.ndarray
    """(N, H, W, C) uint8, or float32 where 0 is black and 1 white, neither clipped nor rounded."""
    labels: np.ndarray
    """Class indices, (N,) int64."""
    soft_labels: np.ndarray | None
    """(N, K) floats as stored, columns in label order; None: there are none."""
    layout: str
    files: tuple[Path, ...]
    learned_learning_rate: float | None
    """A learning rate that was learnt with the set, in its file or beside it: reported, and used by no protocol."""
    notes: tuple[str, ...]


@dataclass
class _Raw:
    images: np.ndarray
    labels: np.ndarray | None
    soft: np.ndarray | None
    layout: str
    rate: float | None = None


def tensor_file(path: Path) -> Path | None:
    """The file of tensors that a path means: itself, or of a folder without sub-folders `images_best.*`, else the only
    one that is not of labels. None: it means none.

    Raises:
        UsageError: a folder with several such files.
    """
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES else None
    if not path.is_dir() or any(entry.is_dir() for entry in path.iterdir()):
        return None
    files = [entry for entry in sorted(path.iterdir()) if entry.suffix.lower() in SUFFIXES]
    images = [file for file in files if not re.match(r"labels?_|labels?\.|soft_|lr_", file.name)]
    best = [file for file in images if file.stem == BEST]
    if len(best or images) > 1:
        names = ", ".join(file.name for file in (best or images)[:8])
        raise UsageError(f"{path} holds several files of tensors ({names}); name one of them")
    return next(iter(best or images), None)


def read_tensors(
    file: Path,
    class_ids: Sequence[str],
    channels: int,
    *,
    normalisation: str | None = None,
    order: str | None = None,
    set_index: int | None = None,
    zca: Callable[[int], Zca] | None = None,
) -> TensorSet:
    """Read a set and bring it into label order.

    Args:
        normalisation: of floats: how pixels in 0…1 became the values (`normalisation.parse`).
        order: which class a label is (`class_order`); None: only where the usual orders agree.
        set_index: which set of a file that holds several, from 0.
        zca: the whitening of the dataset's training images, by their side; None: whitened images are refused.

    Raises:
        UsageError: what is wrong with the file, or what must be said of it, in one message.
    """
    if normalisation is None and WHITENED.search(f"{file.parent.name}/{file.name}"):
        raise UsageError(
            f"{file}: by its name, its images were whitened. If they are, say --normalisation zca; if its program took "
            "that back (as MTT's does for images_zca_*.pt), --normalisation none"
        )
    content = load(file)
    raw = _choose(list(_sets(content, whitened=normalisation == "zca")), file, set_index)
    beside = [file]
    if raw.labels is None and (there := _beside(file, "labels")) is not None:
        raw.labels, raw.layout = _array(load(there), f"{there}"), f"images, and labels in {there.name}"
        beside.append(there)
    if raw.labels is None and raw.soft is None:
        wanted = _named(file, "labels") or "labels.*"
        raise UsageError(f"{file}: images without labels; expected them in the file, or beside it as {wanted}")
    if raw.rate is None and (there := _beside(file, "lr")) is not None:
        raw.rate = _scalar(load(there))
    pixels, notes = _pixels(raw.images, channels, normalisation, str(file), zca)
    numbers, soft = _labels(raw, len(pixels), len(class_ids), str(file))
    classes, said = _classes(numbers, soft, order, class_ids, str(file))
    soft = None if soft is None else soft[:, np.argsort([class_ids.index(classes[k]) for k in range(len(class_ids))])]
    labels = np.array([class_ids.index(classes[number]) for number in numbers.tolist()], np.int64)
    by_class = np.argsort(labels, kind="stable")
    rate = raw.rate
    return TensorSet(
        pixels[by_class],
        labels[by_class],
        None if soft is None else soft[by_class],
        raw.layout,
        tuple(beside),
        rate,
        (
            f"{len(pixels)} images of {'×'.join(map(str, pixels.shape[1:]))} in {file.name} ({raw.layout}); {notes}; "
            f"{said}",
            *([] if rate is None else [f"a learning rate of {rate:.6g} comes with the set; no protocol uses it"]),
        ),
    )


def load(file: Path) -> Any:
    """A file's tensors, as arrays in the lists and mappings that hold them.

    Raises:
        UsageError: not such a file, or one that holds other objects than tensors.
    """
    if file.exists() and not file.is_file():  # opening a named pipe would wait for ever
        raise UsageError(f"{file}: expected a file of tensors, got something else under that name")
    try:
        with file.open("rb") as stream:
            if stream.read(40).startswith(b"version https://git-lfs"):
                raise UsageError(f"{file} is a Git-LFS pointer, not the file itself; get it with `git lfs pull`")
        if file.suffix.lower() in (".npz", ".npy"):
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else {key: found[key] for key in found.files}
        import torch

        if file.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return _arrays(load_file(file))
        return _arrays(torch.load(file, map_location="cpu", weights_only=True))
    except UsageError:
        raise
    except MemoryError as error:
        raise UsageError(f"{file}: its arrays do not fit into this machine's memory") from error
    except OSError as error:
        if error.errno is None:
            raise UsageError(f"{file}: not a whole file of tensors ({_first_line(error)})") from error
        raise UsageError(f"{file}: {error.strerror}") from error
    except Exception as error:  # readers of damaged and hostile files raise whatever they stumble over
        why = _first_line(error)
        if "weights_only" in str(error) or "Unsupported" in str(error) or "pickle" in str(error).lower():
            raise UsageError(
                f"{file} holds pickled objects beside tensors, which are never loaded since that runs their code "
                f"({why}); save images and labels alone: torch.save({{'images': images, 'labels': labels}}, FILE)"
            ) from error
        raise UsageError(f"{file}: not a whole file of tensors ({why})") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def _arrays(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(value, Mapping):
        return {key: _arrays(item) for key, item in value.items()}
    return [_arrays(item) for item in value] if isinstance(value, list | tuple) else value


def _sets(value: Any, *, whitened: bool) -> Iterator[_Raw]:
    """The sets that a file's content is, if it is any.

    Args:
        whitened: they are said to be, so the file may say it too.
    """
    if isinstance(value, np.ndarray):
        if value.ndim == 4:
            yield _Raw(value, None, None, "images")
    elif isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], np.ndarray) and value[0].ndim == 4:
            yield _Raw(value[0], _array(value[1], "labels"), None, "images and labels")
        else:
            yield from (found for item in value if isinstance(item, list) for found in _sets(item, whitened=whitened))
    elif isinstance(value, dict):
        named = {str(key).lower(): item for key, item in value.items()}
        if not whitened and any("zca" in key and named[key] is not False for key in named):
            raise UsageError("the file says that its images are whitened; say --normalisation zca")
        images = _first(named, IMAGES)
        if isinstance(images, np.ndarray):
            labels, soft = (_first(named, keys) for keys in (LABELS, SOFT))
            labels, soft = (None if one is None else _array(one, "labels") for one in (labels, soft))
            yield _Raw(images, labels, soft, "a mapping", _scalar(_first(named, RATES)))
        elif "data" in named:
            for found in _sets(named["data"], whitened=whitened):
                found.layout, found.rate = f"data: {found.layout}", _scalar(_first(named, RATES))
                yield found


def _first(named: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((named[key] for key in keys if key in named), None)


def _array(value: Any, what: str) -> np.ndarray:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = _first({str(key).lower(): item for key, item in value.items()}, (*SOFT, *LABELS))
    if isinstance(value, list) and value and all(isinstance(item, int | float) for item in value):
        value = np.array(value)
    if not isinstance(value, np.ndarray):
        raise UsageError(f"{what}: expected one array of labels, got {type(value).__name__}")
    return numbers(value, what)


def numbers(labels: np.ndarray, what: str) -> np.ndarray:
    """The same array; raises UsageError if its values are no real numbers, as names of classes are none."""
    if labels.dtype.kind not in "biuf":
        first = f", such as {labels.flat[0].item()!r}" if labels.size else ""
        raise UsageError(
            f"{what}: expected numbers, of classes (N,) or soft labels (N, K), got {labels.dtype} of shape "
            f"{labels.shape}{first}"
        )
    return labels


def _scalar(value: Any) -> float | None:
    try:
        rate = float(np.asarray(value, np.float64).reshape(()))
    except (TypeError, ValueError):
        return None
    return rate if np.isfinite(rate) else None


def _choose(sets: Sequence[_Raw], file: Path, set_index: int | None) -> _Raw:
    if not sets:
        raise UsageError(
            f"{file}: no images in it; expected an array (N, C, H, W), a pair (images, labels), a mapping with "
            "'images' and 'labels', or {'data': [(images, labels), …]}"
        )
    if set_index is None and len(sets) > 1:
        raise UsageError(
            f"{file} holds {len(sets)} sets (repetitions), each of which is a set of its own; say which with "
            f"--set-index 0 … {len(sets) - 1}"
        )
    if set_index is not None and not 0 <= set_index < len(sets):
        raise UsageError(f"--set-index {set_index}: {file} holds {len(sets)}, numbered from 0")
    chosen = sets[set_index or 0]
    if len(sets) > 1:
        chosen.layout += f", set {set_index} of {len(sets)}"
    return chosen


def _named(file: Path, what: str) -> str | None:
    """The name of the file beside one of images that holds `what`: `labels_best.pt` for `images_best.pt`."""
    name, changed = re.subn(r"^(images?|data|x)(?=[_.-])", what, file.name)
    return name if changed else None


def _beside(file: Path, what: str) -> Path | None:
    name = _named(file, what)
    return file.with_name(name) if name is not None and file.with_name(name).is_file() else None


def _pixels(
    images: np.ndarray, channels: int, text: str | None, where: str, zca: Callable[[int], Zca] | None
) -> tuple[np.ndarray, str]:
    """((N, H, W, C) uint8 or float32, what was found)."""
    if images.ndim != 4 or 0 in images.shape:
        raise UsageError(f"{where}: expected images (N, C, H, W) or (N, H, W, C), got shape {images.shape}")
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if first == last:
        raise UsageError(
            f"{where}: of shape {images.shape}, {'both axes 1 and 3' if first else 'neither axis 1 nor axis 3'} could "
            "be the channels; expected 1 or 3 of them on one of these axes"
        )
    images = images.transpose(0, 2, 3, 1) if first else images
    if images.shape[3] != channels:
        raise UsageError(f"{where}: its images have {images.shape[3]} channels, the dataset's {channels}")
    if images.dtype == np.uint8:
        if images.max() <= 1:  # a student trains on black without complaint
            raise UsageError(
                f"{where}: its uint8 values go from {images.min()} to {images.max()}, which is black of 0…255; if "
                "floats in 0…1 were cast, save the floats, or 255 times their values"
            )
        if text is not None:
            normalising.parse(text, channels)
        return np.ascontiguousarray(images), "uint8 pixels, which no normalisation was done to"
    if not np.issubdtype(images.dtype, np.floating):
        raise UsageError(f"{where}: expected uint8 or float images, got {images.dtype}; save them as uint8")
    if not np.isfinite(images).all():
        bad = int((~np.isfinite(images)).reshape(len(images), -1).any(1).sum())
        raise UsageError(f"{where}: {bad} of {len(images)} images hold values that are not finite")
    return normalising.undo(images, text, where, zca)


def _labels(raw: _Raw, n: int, n_classes: int, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """((N,) class numbers, (N, K) soft labels or None)."""
    hard, soft = raw.labels, raw.soft
    if hard is not None and hard.ndim == 2 and hard.shape[1] == 1:
        hard = hard[:, 0]
    if hard is not None and hard.ndim == 2:
        hard, soft = None, hard
    for labels in (hard, soft):
        if labels is not None and labels.shape[:1] != (n,):
            raise UsageError(f"{where}: {n} images, but labels of shape {labels.shape}")
    if soft is not None:
        if soft.ndim != 2 or soft.shape[1] != n_classes:
            raise UsageError(
                f"{where}: soft labels of shape {soft.shape}; expected a column for each of the dataset's {n_classes} "
                "classes"
            )
        if not np.isfinite(soft.astype(np.float64)).all():
            raise UsageError(f"{where}: soft labels that are not finite")
        largest = soft.argmax(1)
        if np.abs(soft - np.eye(n_classes)[largest]).max() <= ONE_HOT_TOLERANCE:
            hard, soft = largest if hard is None else hard, None
        else:
            hard = largest if hard is None else hard
    assert hard is not None
    if hard.ndim != 1 or not np.array_equal(hard, np.floor(hard.astype(np.float64))) or hard.min() < 0:
        raise UsageError(f"{where}: expected labels as class numbers (N,) from 0 or soft (N, K), got {_some(hard)}")
    return hard.astype(np.int64), soft


def _some(labels: np.ndarray) -> str:
    return f"{labels.dtype} of shape {labels.shape}, from {labels.min()} to {labels.max()}"


def _classes(
    numbers: np.ndarray, soft: np.ndarray | None, order: str | None, class_ids: Sequence[str], where: str
) -> tuple[dict[int, str], str]:
    """(number -> class id, what was found)."""
    occurring = np.unique(numbers).tolist() if soft is None else list(range(len(class_ids)))
    if soft is not None and numbers.max() >= len(class_ids):
        raise UsageError(f"{where}: label {numbers.max()}, but soft labels of {len(class_ids)} columns")
    if order is not None:
        classes = class_order(order, class_ids, occurring)
        said = f"labels {occurring[0]} … {occurring[-1]} by --class-order {order}"
    else:
        fitting = fitting_orders(class_ids, occurring)
        found = list(fitting.values())
        usual = fitting.get("sorted")
        if usual is None or any(other != usual for other in found) or "dataset" not in fitting:
            begin = {name: list(classes.items())[:3] for name, classes in fitting.items()}
            proposed = "; ".join(f"{name}: {', '.join(f'{n} {c}' for n, c in here)} …" for name, here in begin.items())
            raise UsageError(
                f"{where}: labels {occurring[0]} to {occurring[-1]}; which class each is, the program that wrote them "
                "knows. Say it with --class-order "
                + (f"{' or '.join(begin)} ({proposed}), or a file with a class id a line" if begin else "FILE")
            )
        classes, said = usual, "labels in the dataset's order, in which class ids are sorted"
    if soft is not None:
        said += "; the class of an image is where its soft label is largest"
    missing = set(class_ids) - {classes[n] for n in np.unique(numbers).tolist()}
    if missing:
        raise UsageError(
            f"{where}: no images of {len(missing)} of {len(class_ids)} classes: {', '.join(sorted(missing)[:10])}"
            + (" (the class of an image is where its soft label is largest)" if soft is not None else "")
        )
    return classes, said
