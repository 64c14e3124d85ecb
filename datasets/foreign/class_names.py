"""Which class a folder means by its name: a class id in any case, or one of ImageNet's words for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from ddbench.datasets.imagenet.classes import CLASS_NAMES, IMAGENET_1K

WNID = re.compile(r"(?<![a-z0-9])n\d{8}(?![0-9])")


def class_by_id(name: str, class_ids: Sequence[str]) -> str | None:
    """The class whose id a name is, in any case."""
    return next((class_id for class_id in class_ids if class_id.lower() == name.lower()), None)


def class_by_name(name: str, class_ids: Sequence[str]) -> str | None:
    """The class that a name means in ImageNet: by a wnid in it, a name or a synonym, however it is spaced and with a
    leading number (`217_English_springer`); None where it means none of these classes, or two of them."""
    wnids = set(WNID.findall(name.lower()))
    if wnids:
        return next((wnid for wnid in wnids if len(wnids) == 1 and wnid in class_ids), None)
    spellings = {_letters(name), _letters(re.sub(r"^\d+", "", name))}
    for names in (_own_names(), _synonyms()):  # the second is slow to come by
        meant = [c for c in class_ids if spellings & names.get(c, frozenset())]
        if meant:
            return meant[0] if len(meant) == 1 else None
    return None


def named_otherwise(files: Sequence[str], class_id: str) -> list[str]:
    """The file names among these that name another wnid than the class that they lie in (`n02086240_12.JPEG`)."""
    if class_id not in IMAGENET_1K:
        return []
    return [file for file in files if (said := set(WNID.findall(file.lower()))) and class_id not in said]


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


@cache
def _own_names() -> Mapping[str, frozenset[str]]:
    return {wnid: frozenset({_letters(name)}) for wnid, name in CLASS_NAMES.items()}


@cache
def _synonyms() -> Mapping[str, frozenset[str]]:
    """wnid -> its spellings, as timm carries WordNet's lemmas."""
    from timm.data.imagenet_info import ImageNetInfo

    lemmas = ImageNetInfo().label_descriptions()
    return {wnid: frozenset(map(_letters, lemma.split(","))) for wnid, lemma in zip(IMAGENET_1K, lemmas, strict=True)}
