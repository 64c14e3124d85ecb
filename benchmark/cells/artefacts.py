"""What cells share: arrays that are made once, named by what determines them, and mapped from disk afterwards."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddbench.benchmark.cells.meter import Meter
from ddbench.benchmark.core.files import Existing, whole_folder, write_atomically, write_json
from ddbench.benchmark.core.registry import source_sha256
from ddbench.benchmark.core.result import WAITING
from ddbench.benchmark.core.sharing.locks import made_once
from ddbench.benchmark.core.spec import digest
from ddbench.methods.base import Made


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one array whole or not at all.

    Raises:
        OSError: with the system's error number, which NumPy's own writing to a file does not tell.
    """
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


class DiskArtefacts:
    """`ArtefactCache` (methods/base.py) in a results folder: `<root>/<kind>/<hash of the key>/<array>.npy`."""

    def __init__(self, root: Path, meter: Meter) -> None:
        self.root, self.meter = root, meter

    def arrays(
        self, kind: str, key: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        maker = source_sha256(_module_of(make))
        if maker is not None:  # an author who edits how it is made must not get what the file made before
            key = {**key, "made by": maker}
        name = f"{kind.replace(' ', '-')}/{digest(dict(key))[:16]}"
        folder = self.root / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        lease, made = folder.with_suffix(".lease"), list[tuple[Mapping[str, np.ndarray], dict[str, Any]]]()

        def find() -> Mapping[str, np.ndarray] | None:
            found = self._read(folder)
            if found is None:
                return None
            arrays, noted = found
            environments = noted.get("environments", ())
            if made:  # by this cell, which was taken for dead and spent its seconds all the same; what is used is this
                self.meter.environments.add("artefacts", name, environments)
            else:
                self.meter.cached(kind, name, float(noted["seconds"]), environments)
            self.meter.measure(noted.get("measured", {}))
            return arrays

        def make_it() -> Mapping[str, np.ndarray]:
            if not made:
                made.append(self._make(kind, name, key, make))
            arrays, noted = made[0]
            try:
                with self.meter.phase(kind):
                    self._write(folder, arrays, noted, lease)
            finally:
                self.meter.made(name)
            self.meter.measure(noted["measured"])
            # Mapped from disk, as later cells have them: memory does not grow with the number of artefacts.
            found = self._read(folder)
            return arrays if found is None else found[0]

        # One process makes it; the others that need it wait for the lock and then find it.
        return made_once(lease, find, make_it, waiting=lambda: self.meter.phase(WAITING))

    def _make(
        self, kind: str, name: str, key: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
        """An artefact's arrays, and what is noted of it."""
        spent_before = self.meter.begin(kind, name)
        begun = time.perf_counter() - spent_before
        with self.meter.phase(kind):
            returned = make()
            arrays = {k: np.ascontiguousarray(v) for k, v in returned.items()}
        more = returned if isinstance(returned, Made) else Made({})
        took = time.perf_counter() - begun if more.seconds is None else more.seconds
        noted = {
            "key": dict(key),
            "arrays": sorted(arrays),
            "seconds": round(took, 6),
            "measured": more.measured,
            "environments": self.meter.environments.of_artefact(resumed=spent_before > 0),
        }
        return arrays, noted

    def _read(self, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The same, mapped from disk; None where it is not there, or damaged."""
        try:
            noted = json.loads((folder / "artefact.json").read_bytes())
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in noted["arrays"]}
        except (OSError, ValueError, KeyError):
            return None
        return arrays, noted

    def _write(self, folder: Path, arrays: Mapping[str, np.ndarray], noted: Mapping[str, Any], lease: Path) -> None:
        # A damaged one is replaced; where there was none, whoever is first stays, since others may have it by then.
        existing: Existing = "replace" if folder.exists() else "keep"
        with whole_folder(folder, existing=existing, lease=lease) as partial:
            for name, array in arrays.items():
                save_array(partial / f"{name}.npy", array)
            write_json(partial / "artefact.json", noted)


def _module_of(make: Callable[..., Any]) -> str:
    """The module in which the function is written that makes the arrays."""
    while isinstance(make, partial):
        make = make.func
    return str(make.__module__)
