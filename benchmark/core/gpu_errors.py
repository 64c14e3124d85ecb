"""What CUDA and its libraries say when a GPU has no memory left, or is not to be had."""

from __future__ import annotations

MEMORY_RAN_OUT = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",
)
"""In the words of the driver (a context or pinned memory on a full card), of cuBLAS, cuSOLVER and cuDNN, which allocate
for themselves, and of PyTorch's convolutions: they try one way after another, pass over those whose workspace finds no
memory, and when none is left say only that."""
BUSY = "busy or unavailable"
"""Of "all CUDA-capable devices are" and of "CUDA-capable device(s) is/are": both are CUDA's."""


def memory_ran_out(error: BaseException) -> bool:
    """Whether GPU memory ran out, under any of its names."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_RAN_OUT)


def is_busy(error: BaseException) -> bool:
    """Whether no GPU was to be had: another process holds it for itself, or it is being reset."""
    return isinstance(error, RuntimeError) and BUSY in str(error)
