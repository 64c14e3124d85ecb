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
from ddbench.benchmark.core.files import whole_folder, write_atomically, write_json
from ddbench.benchmark.core.registry import source_sha256
from ddbench.benchmark.core.result import WAITING
from ddbench.benchmark.core.sharing.locks import lock
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
        # One process makes it; the others that need it wait for the lock and then find it.
        with lock(folder.with_suffix(".lease"), waiting=lambda: self.meter.phase(WAITING)):
            found = self._read(folder)
            if found is not None:
                arrays, seconds, measured = found
                self.meter.cached(kind, name, seconds)
                self.meter.measure(measured)
                return arrays
            begun = time.perf_counter() - self.meter.begin(kind, name)
            with self.meter.phase(kind):
                returned = make()
                more = returned if isinstance(returned, Made) else Made({})
                made = {k: np.ascontiguousarray(v) for k, v in returned.items()}
                took = time.perf_counter() - begun if more.seconds is None else more.seconds
                self._write(folder, key, made, took, more.measured)
            self.meter.made(name)
            self.meter.measure(more.measured)
            # Mapped from disk, as later cells have them: memory does not grow with the number of artefacts.
            found = self._read(folder)
        return made if found is None else found[0]

    def _read(self, folder: Path) -> tuple[dict[str, np.ndarray], float, dict[str, float]] | None:
        try:
            noted = json.loads((folder / "artefact.json").read_bytes())
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in noted["arrays"]}
        except (OSError, ValueError, KeyError):
            return None
        return arrays, float(noted["seconds"]), noted.get("measured", {})

    def _write(
        self,
        folder: Path,
        key: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        seconds: float,
        measured: Mapping[str, float],
    ) -> None:
        with whole_folder(folder, existing="replace", locked=True) as partial:
            for name, array in arrays.items():
                save_array(partial / f"{name}.npy", array)
            noted = {"key": dict(key), "arrays": sorted(arrays), "seconds": round(seconds, 6), "measured": measured}
            write_json(partial / "artefact.json", noted)


def _module_of(make: Callable[..., Any]) -> str:
    """The module in which the function is written that makes the arrays."""
    while isinstance(make, partial):
        make = make.func
    return str(make.__module__)
