"""What tells that a GPU's memory ran out, or that it is another's: by the words of those who say it."""

from __future__ import annotations

import pytest
import torch

from ddbench.benchmark.core.gpu_errors import is_busy, memory_ran_out


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "FIND was unable to find an engine to execute this computation",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_memory_runs_out_under_many_names(said: str) -> None:
    assert memory_ran_out(RuntimeError(said))
    assert not memory_ran_out(ValueError(said)), "none of PyTorch's"
    assert not is_busy(RuntimeError(said))


def test_pytorchs_own_error_needs_no_words() -> None:
    assert memory_ran_out(torch.OutOfMemoryError("Tried to allocate 20.00 MiB"))


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm( handle, opa, opb)`",
        "CUDA error: an illegal memory access was encountered",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
def test_other_failures_are_no_lack_of_memory(said: str) -> None:
    assert not memory_ran_out(RuntimeError(said))


@pytest.mark.parametrize("subject", ["all CUDA-capable devices are", "CUDA-capable device(s) is/are"])
def test_a_gpu_that_another_process_holds(subject: str) -> None:
    said = f"CUDA error: {subject} busy or unavailable\nCUDA kernel errors"
    assert is_busy(RuntimeError(said))
    assert not is_busy(ValueError(said))
    assert not memory_ran_out(RuntimeError(said))
