"""The pretend GPU refuses what CUDA refuses, and names the line: faults are planted in the sampler."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pretend
import pytest
import torch
from torch import Tensor

from ddbench.benchmark.cells.cell import EXIT_FAILED, run_cell
from ddbench.benchmark.core import seeds
from ddbench.benchmark.core.result import DistillResult
from ddbench.benchmark.core.store import Store
from ddbench.benchmark.core.transfers import Arriving, send
from ddbench.benchmark.planning.planner import plan_run
from ddbench.benchmark.planning.run_spec import run_spec
from ddbench.datasets.digits import Digits
from ddbench.methods.diffusion import sampler
from ddbench.methods.diffusion.noise import ImageKey, StreamNoise
from ddbench.methods.diffusion.prior import Prior
from ddbench.methods.diffusion.priors.files import find_prior

CUDA = torch.device("cuda", 0)


def sample() -> Tensor:
    images = [ImageKey(class_id, 0) for class_id in Digits.class_ids]
    prior = Prior.load(find_prior("digits"), device="cuda:0")
    noise = StreamNoise(partial(seeds.stream, 0), images)
    return sampler.sample(prior, images, [], noise, steps=3, cfg_scale=4.0).latents


def left_on_the_host(numbers: Tensor, device: torch.device) -> Tensor:
    return numbers


def drawn_there(numbers: Tensor, device: torch.device) -> Tensor:
    return torch.randn(numbers.shape, device=device, generator=torch.Generator())


def unpinned(numbers: Tensor, device: torch.device) -> Tensor:
    return numbers.to(device, non_blocking=True)


def reusing_pinned_memory() -> Callable[[Tensor, torch.device], Tensor]:
    pinned: dict[torch.Size, Tensor] = {}

    def one_buffer_for_all(numbers: Tensor, device: torch.device) -> Tensor:
        if numbers.shape not in pinned:
            pinned[numbers.shape] = numbers.pin_memory()
        return pinned[numbers.shape].copy_(numbers).to(device, non_blocking=True)

    return one_buffer_for_all


def read_by_numpy(sums: Tensor, *_: Any, **_more: Any) -> None:
    sums.numpy()


def in_steps(fault: Callable[[Tensor, torch.device], Tensor]) -> Callable[[Tensor, torch.device], Tensor]:
    """`send` for the noise at the start, the fault for that of the steps."""
    sends = iter([send])
    return lambda numbers, device: next(sends, fault)(numbers, device)


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        (left_on_the_host, r"on the same device: .* got cuda:0 and CPU tensors of shape \(10, 1, 8, 8\)"),
        (drawn_there, "Expected a 'cuda' device type for generator but found 'cpu'"),
    ],
)
def test_a_mix_of_devices_is_refused_with_the_line(
    fault: Callable[..., Tensor], refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "send", in_steps(fault))
    with (
        pretend.gpu(),
        pytest.raises(pretend.DeviceMix, match=refusal + r".* at methods/diffusion/sampler\.py:\d+ sample"),
    ):
        sample()


def test_numpy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "check_finite", read_by_numpy)
    with pretend.gpu(), pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        sample()


def test_weights_held_in_bf16_are_computed_with_in_float32() -> None:
    with torch.random.fork_rng(devices=[]):
        layer = torch.nn.Linear(3, 2).requires_grad_(False)
    x = torch.ones(1, 3)
    rounded = torch.nn.functional.linear(x, layer.weight.bfloat16().float(), layer.bias.bfloat16().float())
    with pretend.gpu(), torch.autocast("cuda", torch.bfloat16):
        on_gpu = layer.to("cuda:0").bfloat16()(x.to("cuda:0").requires_grad_())
        on_gpu.sum().backward()
        assert on_gpu.dtype == torch.float32
        assert torch.equal(on_gpu.detach().cpu(), rounded)


def test_only_pinned_memory_is_copied_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend.gpu() as seen:
        sample()
    before = seen.waits("methods/diffusion/sampler.py")
    monkeypatch.setattr(sampler, "send", unpinned)
    with pretend.gpu() as seen:
        sample()
    assert seen.waits("methods/diffusion/sampler.py") == before + 3, "the start and the noise of two steps"


def test_pinned_memory_that_is_reused_on_its_way_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA would send the next step's noise twice, and the images would be wrong without a word."""
    monkeypatch.setattr(sampler, "send", in_steps(reusing_pinned_memory()))
    with (
        pretend.gpu(),
        pytest.raises(pretend.Overwritten, match=r"while it was copied .* at methods/diffusion/sampler\.py:\d+ sample"),
    ):
        sample()


def test_what_is_on_its_way_to_the_host_is_garbage_until_it_is_there() -> None:
    with pretend.gpu() as seen:
        x = torch.arange(3.0, device=CUDA)
        first, then = x.to("cpu", non_blocking=True), torch.cuda.Event()
        then.record()
        second = (x + 1).to("cpu", non_blocking=True)
        assert first.isnan().all()
        then.synchronize()
        assert first.tolist() == [0, 1, 2]
        assert second.isnan().all(), "it was begun after the event"
        assert x.sum().item() == 3, "which waits for all that was begun before"
        assert second.tolist() == [1, 2, 3]
        assert seen.waits() == 2
        assert send(x, torch.device("cpu")).tolist() == [0, 1, 2]
        later = Arriving(x.long())
        assert later.tolist() == [0, 1, 2]
        pinned = torch.zeros(3).pin_memory()
        pinned.copy_(x, non_blocking=True)
        assert pinned.isnan().all()
    assert pinned.tolist() == [0, 1, 2]


def test_only_products_of_matrices_are_rounded_to_tf32_and_only_where_they_may_be() -> None:
    """Against numbers that ten bits of mantissa do not hold."""
    third = torch.tensor([[1 / 3]])
    short = round(2**11 / 3 * 2) / 2**12  # 1/3 = 0.0101…: ten bits behind the first
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    try:
        for allowed, factor in ((False, 1 / 3), (True, short)):
            matmul.allow_tf32 = allowed
            with pretend.gpu(tf32=lambda place: True) as seen:
                x, one = third.to(CUDA), torch.ones(1, 1, device=CUDA)
                assert (x @ one).item() == pytest.approx(factor, rel=1e-7)
                assert torch.addmm(x, one, x).item() == pytest.approx(1 / 3 + factor, rel=1e-7)
                assert (x @ one[0]).item() == pytest.approx(1 / 3, rel=1e-7), "by a vector"
                assert (x.double() @ one.double()).item() == pytest.approx(1 / 3, rel=1e-7)
                torch.cdist(one, x, compute_mode="donot_use_mm_for_euclid_dist")
                assert seen.tf32.total() == 2 * allowed
                torch.cdist(one, one.repeat(26, 1))
                assert seen.tf32.total() == 3 * allowed
    finally:
        matmul.allow_tf32 = before


@pytest.mark.parametrize(
    ("asks", "refusal"),
    [
        pytest.param(
            lambda x: torch.histogram(x.flatten(), bins=2).hist,
            "Could not run 'aten::histogram.bin_ct'",
            marks=pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="PyTorch without CUDA has no kernels"),
        ),
        (lambda x: x[0, 0].long() @ x[0, 0].long(), "aten.mm.default not implemented on CUDA for torch.int64"),
        (
            lambda x: torch.nn.functional.interpolate(x.to(torch.uint8), 8, mode="bilinear"),
            r"aten.upsample_bilinear2d.* not implemented on CUDA for torch.uint8",
        ),
    ],
)
def test_what_the_cpu_alone_computes_is_refused(asks: Callable[[Tensor], Tensor], refusal: str) -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert len(asks(x)), "the CPU has it"
    with pretend.gpu(), pytest.raises(pretend.NoKernel, match=refusal):
        asks(x.to(CUDA))


def test_numbers_are_the_cpus_and_seen_on_the_gpu() -> None:
    with pretend.gpu() as seen:
        x = torch.arange(6.0, device=CUDA).reshape(2, 3).requires_grad_()
        assert (x.device, x.is_cuda) == (CUDA, True)
        (gradient,) = torch.autograd.grad((x @ x.T).sum(), x)
        assert gradient.tolist() == [[6.0, 10.0, 14.0], [6.0, 10.0, 14.0]]
        assert seen.waits() == 1, "the list"
        with pytest.raises(RuntimeError, match="cannot pin"):
            x.pin_memory()


def test_nothing_is_there_before_the_process_is_on_the_gpu() -> None:
    """As in PyTorch, whose allocator refuses then; a process that has begun a tensor there is past it."""
    with pretend.gpu():
        with pytest.raises(RuntimeError, match="Invalid device argument"):
            torch.cuda.reset_peak_memory_stats(CUDA)
        with pytest.raises(ValueError, match="with a specified index"):
            torch.cuda.set_device(torch.device("cuda"))
        torch.zeros(1, device=CUDA)
        torch.cuda.reset_peak_memory_stats(CUDA)


def test_a_cell_that_mixes_devices_fails_and_says_where(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddbench.benchmark.cells.cell.signal.signal", lambda *_: None)
    options = {"methods": "dit[steps=3]", "datasets": "digits", "ipc": 1, "seeds": 0, "device": "cpu"}
    (planned,) = plan_run(run_spec({}, options), students=False)[0].sets
    assert planned.spec is not None
    store = Store(tmp_path / "runs")
    store.create()
    cell = store.add(planned.spec, planned.launch.model_copy(update={"device": "cuda:0"}))
    monkeypatch.setattr(sampler, "send", in_steps(left_on_the_host))
    with pretend.gpu():
        assert run_cell(cell.path) == EXIT_FAILED
    result = cell.result()
    assert isinstance(result, DistillResult)
    assert re.search(r"got cuda:0 and CPU tensors .* at methods/diffusion/sampler\.py:\d+ sample", str(result.reason))
