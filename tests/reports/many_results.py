"""A results folder of a given size, to see how reports grow. Run by hand with a folder and a number, or by a test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

LOOKS = 20
METHODS, IPCS, STUDENTS = 20, (1, 10, 20, 50, 100), ("convnet3", "convnet6", "resnet18", "resnet_ap10", "resnet50_bn")


def fill(folder: Any, results: int) -> int:
    """Write about so many results, half of them sets and half students; returns how many there are.

    Args:
        folder: the builder of `conftest.py`.
    """
    from ddbench.benchmark.core.spec import MethodSpec

    generator = np.random.default_rng(0)
    params = {f"parameter_{i}": 0.5 for i in range(25)}
    written, seed = 0, 0
    while written < results:
        for ipc in IPCS:
            for index in range(METHODS):
                name = f"method{index:02d}"
                spec = folder.distill_spec(name, seed=seed, ipc=ipc, prior="ab" * 32)
                spec = spec.model_copy(update={"method": MethodSpec(name=name, version=1, params=params)})
                images = folder.distill(spec, name, guidance={"transport": list(generator.random(min(ipc, 50)))})
                student = STUDENTS[seed % len(STUDENTS)]
                right = generator.random(len(folder.labels)) < 0.3 + 0.02 * index
                evaluate = folder.evaluate_spec(spec, seed=1000 * seed, student=student)
                folder.student(evaluate, name, right, images=images, made_by=spec)
                written += 2
                if written >= results:
                    return written
        seed += 1
    return written


if __name__ == "__main__":
    import importlib.util

    here = Path(__file__).parent / "conftest.py"
    module = importlib.util.module_from_spec(found := importlib.util.spec_from_file_location("builder", here))  # type: ignore[arg-type, assignment]
    sys.modules["builder"] = module
    found.loader.exec_module(module)  # type: ignore[union-attr]
    print(fill(module.Folder(Path(sys.argv[1])), int(sys.argv[2])), "results")
