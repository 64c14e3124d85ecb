"""Networks from `diffusers`' two files, strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ddbench.benchmark.core.errors import UsageError
from ddbench.methods.diffusion.priors.weight_files import weight_problems


def load_strictly(model_class: Any, folder: Path, **config: Any) -> Any:
    """`from_pretrained` in float32, strictly: every weight of the network from the file, and none left over.

    Raises:
        UsageError: files that are not exactly this network's, or weights that no training left.
    """
    try:
        model, found = model_class.from_pretrained(
            folder,
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
            **config,
        )
    except MemoryError:
        raise
    except Exception as error:  # of a foreign config and foreign weights `diffusers` raises whatever it stumbles over
        said = " ".join(str(error).split())[:500] or type(error).__name__
        raise UsageError(f"{folder} does not load as a {model_class.__name__}: {said}") from None
    wrong = {kind: keys for kind, keys in found.items() if keys}
    if wrong:
        listed = "; ".join(
            f"{kind.replace('_', ' ')}: {', '.join(map(str, sorted(keys)[:5]))}" for kind, keys in wrong.items()
        )
        raise UsageError(f"{folder} does not hold the weights of its {model_class.__name__}: {listed}")
    if problems := weight_problems(model.state_dict()):
        raise UsageError(f"{folder}: {'; '.join(problems)}")
    return model
