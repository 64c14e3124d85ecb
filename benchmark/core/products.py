"""TF32: the products of float32 matrices for which a GPU rounds factors to ten bits of mantissa.

Networks bear it. Distances, covariances and the like do not always: where large terms cancel, no digit of the result
is left. So nothing is multiplied so that does not ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tf32_products(allowed: bool) -> Iterator[None]:
    """Whether products of matrices may be TF32, on GPUs that have it; as before on leaving. Convolutions are not meant:
    they are the library's, and of networks alone."""
    import torch

    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32 = before
