"""A pretend GPU for tests: tensors that say `cuda:0`, whose numbers are computed on the CPU.

What CUDA refuses is refused: a CPU tensor among tensors of the GPU, a CPU generator for a draw on it, `.numpy()`, an
operation that has a kernel for the CPU alone, whole numbers where CUDA's kernel takes none. What makes the host wait
for a GPU is counted, with the line of the project that did it. A copy that the host does not wait for is under way
until it does: numbers read on the host before are garbage, and pinned memory that is written to before is an error.
Which products of matrices CUDA may have done in TF32 is counted too, and with `tf32` their factors are rounded as
there.

    with pretend.gpu() as seen:
        assert run_cell(cell.path) == EXIT_OK  # a cell launched with device "cuda:0"
    assert seen.waits("methods/diffusion/sampler.py") == 0, seen.report()

A tensor here has three faces. Its Python attributes (`device`, `is_cuda`) say `cuda:0`; the device that C++ sees is
`meta:1`, which autograd runs without streams and no kernel can touch; its numbers lie in a CPU tensor, `host`. Every
operation on one arrives in `_dispatch`, which judges the devices, computes on the hosts and wraps what comes out. A
dispatch mode brings the operations that have no such tensor yet: factories and copies from the host.

Not modelled: autocast (C++ asks the tensor, which says meta, so bf16 regions compute in float32, with weights that are
held in bf16 too), streams, peer copies,
several GPUs, CUDA generators, memory (no allocation fails, peaks are 0), the limits and rounding of CUDA's kernels. It
patches torch for its own process: forked cells do not see it.
Give the device with its index, `cuda:0`. `.to` of a tensor that is there already copies, and `module.to` puts new
parameters in place: build an optimiser after it. The mode is its thread's own: another thread makes no tensors here.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
UNDERNEATH = torch.device("meta", 1)
"""What C++ sees. Plain `meta` tensors have no index, so they are told apart."""
PACKAGE = "ddbench."
"""Modules whose lines an event is laid to."""
MERE_CARRIERS = {"ddbench.benchmark.core.transfers"}
"""Those that are asked to copy: the event is laid to who asked."""

aten = torch.ops.aten
READS_BACK = {
    aten.nonzero.default, aten.masked_select.default, aten.equal.default, aten.is_nonzero.default,
    aten._unique2.default, aten.repeat_interleave.Tensor, aten.bincount.default,
}  # fmt: skip
"""The size or kind of their result depends on the numbers: the host waits for it."""
TAKES_CPU_SCALARS = {
    aten.fill_.Tensor, aten.masked_fill_.Tensor, aten.masked_fill.Tensor, aten.index_put_.default,
    aten.index_put.default, aten.where.self, aten.lerp_.Tensor, aten._foreach_mul_.Tensor, aten._foreach_add_.Tensor,
}  # fmt: skip
"""Besides pointwise operations: a CPU tensor of no dimensions may stand for a number."""
INDEXES = {
    aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}  # fmt: skip
"""Their indices may lie on the CPU, and are copied."""


IN_TWO_TYPES = {aten.mm.default, aten.addmm.default}
"""A layer with weights held in bf16: autocast takes it, whatever it is given."""
PRODUCTS = {
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.addbmm.default,
    aten._addmm_activation.default, aten._euclidean_dist.default, aten.affine_grid_generator.default,
}  # fmt: skip
"""What cuBLAS multiplies matrices for; vectors it multiplies in float32 whatever is allowed."""
DIRECT_DISTANCES, MOST_DIRECT = 2, 25
"""`cdist`'s mode without products of matrices, and up to how many rows it takes that unasked."""
CONVOLUTIONS = {
    aten.convolution.default, aten.convolution_overrideable.default, aten.convolution_backward.default,
    aten.convolution_backward_overrideable.default,
}  # fmt: skip
FACTORS = {
    aten.mm.default: (0, 1), aten.bmm.default: (0, 1),
    aten.addmm.default: (1, 2), aten.baddbmm.default: (1, 2), aten.addbmm.default: (1, 2),
    aten._addmm_activation.default: (1, 2),
    aten.convolution.default: (0, 1), aten.convolution_overrideable.default: (0, 1),
    aten.convolution_backward.default: (0, 1, 2), aten.convolution_backward_overrideable.default: (0, 1, 2),
}  # fmt: skip
"""Which arguments are multiplied."""
WITHOUT_INTEGERS = {
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.mv.default, aten.addmv.default,
    aten.dot.default, aten.upsample_bilinear2d.default, aten.upsample_bicubic2d.default,
}  # fmt: skip
"""Operations whose kernels for the CPU take whole numbers, and those for CUDA do not."""
TF32_DROPPED = 13
"""Of a float32's 23 bits of mantissa."""
GARBAGE = 0xFF
"""Of every byte that has not arrived yet: NaN, -1, true."""


class DeviceMix(RuntimeError):
    """What CUDA would have refused."""


class NoKernel(NotImplementedError):
    """What CUDA cannot compute, and the CPU can; of the class that PyTorch raises for it."""


class Overwritten(RuntimeError):
    """What CUDA would have got wrong without a word: other numbers than those that were sent."""


@dataclass(eq=False)
class _Copy:
    """One that the host does not wait for."""

    on_host: torch.Tensor
    """Pinned memory that is read, or that is written."""
    numbers: torch.Tensor
    """As they were when it was asked for."""
    to_gpu: bool
    where: str

    def arrive(self) -> None:
        if not self.to_gpu:
            self.on_host.copy_(self.numbers)
        elif not torch.equal(_bytes(self.on_host), _bytes(self.numbers)):
            raise Overwritten(f"pinned memory was written to while it was copied to the GPU, at {self.where}")


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


class Event(NamedTuple):
    """One kind of thing that happened between host and device at one place."""

    kind: str
    """`H2D`, `D2H`: a copy that the host waits for; `H2D async`, `D2H async`: one that it does not, which to the
    device is one from pinned memory; `ITEM`: a number read; `SYNC`: a result whose size must be known, or an explicit
    wait."""
    what: str
    where: str
    """`methods/diffusion/sampler.py:99 sample`: the innermost line of the project, or `elsewhere`."""


@dataclass
class Seen:
    """What the pretend GPU was asked to do."""

    events: Counter[Event] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)
    """Operation -> calls, views left out: at least as many kernels."""
    views: Counter[str] = field(default_factory=Counter)
    float64: Counter[str] = field(default_factory=Counter)
    """Operations whose result is float64, with their place: slow on a GPU."""
    tf32: Counter[str] = field(default_factory=Counter)
    """Places of products of float32 matrices that may be TF32 there."""
    rounds: Callable[[str], bool] = field(default=lambda place: False)
    """Whether what may be TF32 at a place is rounded so."""
    under_way: list[_Copy] = field(default_factory=list)
    is_initialised: bool = False
    """Whether anything has put the process on the GPU yet: before that, PyTorch's allocator is not there."""

    def waits(self, where: str = "") -> int:
        """How often the host would have waited for the device, at places that begin with `where`."""
        return sum(
            count
            for event, count in self.events.items()
            if event.where.startswith(where) and not event.kind.endswith("async")
        )

    def report(self, top: int = 40, per: float = 1.0) -> str:
        """The most frequent events, a line each.

        Args:
            per: counts are divided by it: steps, epochs.
        """
        lines = [f"{count / per:9.2f}  {kind:10s} {what:24s} {at}" for (kind, what, at), count in self._sorted()[:top]]
        lines += [f"{count / per:9.2f}  float64    {what}" for what, count in self.float64.most_common()]
        return "\n".join(lines)

    def _sorted(self) -> list[tuple[Event, int]]:
        return sorted(self.events.items(), key=lambda counted: -counted[1])

    def _note(self, kind: str, what: str) -> None:
        self.events[Event(kind, what, _place())] += 1
        if not kind.endswith("async"):
            self.arrive()

    def arrive(self, awaited: list[_Copy] | None = None) -> None:
        """Whatever the GPU was given has been done; or some of the copies that are under way.

        Raises:
            Overwritten: pinned memory was written to on its way.
        """
        arrived = self.under_way if awaited is None else [copy for copy in self.under_way if copy in awaited]
        self.under_way = [] if awaited is None else [copy for copy in self.under_way if copy not in awaited]
        for copy in arrived:
            copy.arrive()


_seen = Seen()


class OnGpu(torch.Tensor):
    """A tensor of the pretend GPU.

    Args:
        host: its numbers, on the CPU.
    """

    host: torch.Tensor

    @staticmethod
    def __new__(cls: type[OnGpu], host: torch.Tensor) -> OnGpu:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return, unused-ignore]
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=UNDERNEATH,
            requires_grad=False,
        )

    def __init__(self, host: torch.Tensor) -> None:
        self.host = host

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    is_cpu = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override, unused-ignore]
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[Any, Any] | None = None
    ) -> Any:
        return _dispatch(func, args, kwargs or {})

    # What reads the C++ face without an operation of the dispatcher: each as a CUDA tensor does it.

    def new_tensor(
        self,
        data: Any,
        dtype: torch.dtype | None = None,
        device: Any = None,
        requires_grad: bool = False,
        pin_memory: bool = False,
    ) -> torch.Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or CUDA, requires_grad=requires_grad)

    def tolist(self) -> Any:
        _seen._note("ITEM", "tolist")
        return self.host.tolist()

    def numpy(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self.numpy()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({self.host!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        _seen._note("D2H", "torch.save")
        return self.host.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        if id(self) not in memo:
            new = self.detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)] = torch.nn.Parameter(new, self.requires_grad) if getattr(self, "_is_param", False) else new
        return memo[id(self)]


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[Any, Any] | None = None
    ) -> Any:
        return _dispatch(func, args, kwargs or {})


def _dispatch(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Judge and count one operation, and compute it on the CPU."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with _Mode():  # in inference mode nothing else takes such an operation apart
            return func.decompose(*args, **kwargs)
    given, spec = tree_flatten((args, kwargs))
    of_gpu = [x for x in given if isinstance(x, OnGpu)]
    if func is torch.ops.prim.device.default:
        return CUDA if of_gpu else CPU
    asked = kwargs.get("device")
    on_gpu = bool(of_gpu) if asked is None else torch.device(asked) == UNDERNEATH or torch.device(asked).type == "cuda"
    if func in (aten._to_copy.default, aten.copy_.default):
        _count_copy(func, args, kwargs, on_gpu)
    elif func is aten._local_scalar_dense.default:
        if of_gpu:
            _seen._note("ITEM", "item")
    elif of_gpu:
        _judge(func, args, given)
    if on_gpu and any(isinstance(x, torch.Generator) and x.device.type == "cpu" for x in given):
        raise DeviceMix(f"Expected a 'cuda' device type for generator but found 'cpu': {func} at {_place()}")

    host_args, host_kwargs = tree_unflatten([x.host if isinstance(x, OnGpu) else x for x in given], spec)
    if asked is not None and on_gpu:
        host_kwargs["device"] = CPU
    if host_kwargs.get("pin_memory"):
        host_kwargs["pin_memory"] = False
    if func in IN_TWO_TYPES and len({x.dtype for x in tree_flatten(host_args)[0] if isinstance(x, torch.Tensor)}) > 1:
        host_args = tree_map_only(torch.Tensor, torch.Tensor.float, host_args)
    if of_gpu and (rounded := _in_tf32(func, host_args)) is not None:
        host_args = rounded
    out = func(*host_args, **host_kwargs)
    if func in (aten._to_copy.default, aten.copy_.default):
        _begin_copy(func, args, kwargs, out)

    if on_gpu and of_gpu:
        _count_launch(func, out)
    if not on_gpu:
        return args[0] if func is aten.copy_.default else out
    _initialise()
    wrapped = tree_map_only(torch.Tensor, lambda t: t if isinstance(t, OnGpu) else OnGpu(t), out)
    return _written_arguments(func, args, kwargs, wrapped)


def _count_copy(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], on_gpu: bool) -> None:
    if (way := _way(func, args, kwargs, on_gpu)) is not None:
        to_gpu, free = way
        _seen._note(("H2D" if to_gpu else "D2H") + (" async" if free else ""), "copy")


def _way(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], on_gpu: bool) -> tuple[bool, bool] | None:
    """Whether a copy is to the GPU, and whether the host does not wait for it; None: it is not between the two."""
    into = func is aten.copy_.default
    source, to_gpu = (args[1], isinstance(args[0], OnGpu)) if into else (args[0], on_gpu)
    if isinstance(source, OnGpu) == to_gpu:
        return None
    free = bool(kwargs.get("non_blocking") or (into and len(args) > 2 and args[2]))
    if into and not to_gpu:
        free = free and _is_pinned(args[0])
    return to_gpu, free and (not to_gpu or _is_pinned(source))


def _is_pinned(tensor: torch.Tensor) -> bool:
    """Views of pinned memory are."""
    return any(getattr(of, "is_pretend_pinned", False) for of in (tensor, tensor._base) if of is not None)


def _begin_copy(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: torch.Tensor) -> None:
    """Put a copy under way that the host does not wait for; what it brings the host is garbage until it has arrived."""
    into = func is aten.copy_.default
    on_gpu = not into and kwargs.get("device") is not None and torch.device(kwargs["device"]).type in ("cuda", "meta")
    way = _way(func, args, kwargs, on_gpu)
    if way is None or not way[1]:
        return
    on_host = (args[1] if into else args[0]) if way[0] else (args[0] if into else out)
    _seen.under_way.append(_Copy(on_host.detach(), on_host.detach().clone(), way[0], _place()))
    if not way[0]:
        on_host.is_pretend_pinned = True  # PyTorch makes it so
        on_host.detach().copy_(
            torch.full((on_host.nbytes,), GARBAGE, dtype=torch.uint8).view(on_host.dtype).view_as(on_host)
        )


def _in_tf32(func: Any, host_args: Sequence[Any]) -> Sequence[Any] | None:
    """Count a product of float32 matrices that may be TF32; its arguments, rounded, if it is to be computed so."""
    products = func in PRODUCTS or (func is aten._cdist_forward.default and _expands(*host_args))
    allowed = torch.backends.cuda.matmul if products else torch.backends.cudnn if func in CONVOLUTIONS else None
    if allowed is None or not allowed.allow_tf32:
        return None
    if any(x.dtype != torch.float32 for x in tree_flatten(host_args)[0] if isinstance(x, torch.Tensor)):
        return None
    place = _place()
    if products:
        _seen.tf32[place] += 1
    if func not in FACTORS or not _seen.rounds(place):
        return None
    factors = FACTORS[func]
    return [as_tf32(x) if isinstance(x, torch.Tensor) and at in factors else x for at, x in enumerate(host_args)]


def _expands(x: torch.Tensor, y: torch.Tensor, p: float, mode: int | None = None) -> bool:
    """Whether `cdist` works out ‖x‖² + ‖y‖² - 2xy."""
    if p != 2 or mode == DIRECT_DISTANCES:
        return False
    return mode == 1 or max(x.shape[-2], y.shape[-2]) > MOST_DIRECT


def as_tf32(x: torch.Tensor) -> torch.Tensor:
    """float32 numbers rounded to TF32's ten bits of mantissa."""
    bits = x.contiguous().view(torch.int32)
    half = (1 << TF32_DROPPED - 1) - 1
    return ((bits + half + (bits >> TF32_DROPPED & 1)) & -(1 << TF32_DROPPED)).view(torch.float32)


def _judge(func: Any, args: Sequence[Any], given: Sequence[Any]) -> None:
    """Refuse CPU tensors in an operation that has tensors of the GPU; count what waits."""
    of_cpu = [x for x in given if isinstance(x, torch.Tensor) and not isinstance(x, OnGpu)]
    if func in INDEXES:
        indices = [index for index in args[1] if index is not None]
        for index in indices:
            if not isinstance(index, OnGpu):
                _seen._note("H2D", "index by a CPU tensor")
            elif index.dtype in (torch.bool, torch.uint8):
                _seen._note("SYNC", "index by a mask")
        of_cpu = [x for x in of_cpu if all(x is not index for index in indices)]
    scalars = torch.Tag.pointwise in func.tags or func in TAKES_CPU_SCALARS
    if bad := [tuple(x.shape) for x in of_cpu if x.dim() > 0 or not scalars]:
        raise DeviceMix(
            f"Expected all tensors to be on the same device: {func} got cuda:0 and CPU tensors of shape "
            f"{', '.join(map(str, bad))} at {_place()}"
        )
    if func in READS_BACK:
        _seen._note("SYNC", str(func))
    if not _has_kernel(func.name()):
        raise NoKernel(f"Could not run '{func.name()}' with arguments from the 'CUDA' backend: at {_place()}")
    kinds = {x.dtype for x in given if isinstance(x, OnGpu) and not (x.is_floating_point() or x.is_complex())}
    if kinds and func in WITHOUT_INTEGERS:
        raise NoKernel(f"{func} not implemented on CUDA for {', '.join(sorted(map(str, kinds)))}: at {_place()}")


@functools.cache
def _has_kernel(operation: str) -> bool:
    """Whether PyTorch's own table has one for CUDA; a PyTorch that was built without has none, and tells nothing."""
    if not torch.backends.cuda.is_built():
        return True
    return bool(torch._C._dispatch_has_computed_kernel_for_dispatch_key(operation, "CUDA"))


def _count_launch(func: Any, out: Any) -> None:
    returns = func._schema.returns
    if any(r.alias_info is not None and not r.alias_info.is_write for r in returns):
        _seen.views[str(func)] += 1
        return
    _seen.launches[str(func)] += 1
    for tensor in tree_flatten(out)[0]:
        if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
            _seen.float64[f"{func} at {_place()}"] += 1


def _written_arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], wrapped: Any) -> Any:
    """An operation that writes into its arguments returns those very objects, any other its result."""
    schema = func._schema
    if not any(r.alias_info is not None and r.alias_info.is_write for r in schema.returns):
        return wrapped
    written = [
        args[i] if i < len(args) else kwargs.get(argument.name)
        for i, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return written[0] if len(schema.returns) == 1 else tuple(written)


def _place() -> str:
    """The innermost line of the project that is being run."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(PACKAGE) and module not in MERE_CARRIERS:
            file = module.removeprefix(PACKAGE).replace(".", "/")
            return f"{file}.py:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def _pin_memory(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, OnGpu):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    if any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        raise RuntimeError(  # PyTorch writes the pinned copy with the strides of what it copies
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location"
        )
    if _is_pinned(tensor):
        return tensor
    pinned = tensor.clone()
    pinned.is_pretend_pinned = True  # type: ignore[attr-defined]
    return pinned


class _Event:
    """Recorded in a stream; to wait for it is to wait for the device, if not for all that it has to do."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.at, self.before = 0.0, list[_Copy]()

    def record(self, stream: Any = None) -> None:
        self.at, self.before = time.perf_counter(), list(_seen.under_way)

    def elapsed_time(self, end: _Event) -> float:
        return 1000 * (end.at - self.at)

    def synchronize(self) -> None:
        _seen.events[Event("SYNC", "event", _place())] += 1
        _seen.arrive(self.before)


def _initialise() -> None:
    _seen.is_initialised = True


def _set_device(device: Any) -> None:
    _check_index(device)
    _initialise()


def _check_index(device: Any) -> None:
    if not isinstance(device, int) and torch.device(device).index is None:
        raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")


def _synchronize(device: Any = None) -> None:
    _initialise()
    _seen._note("SYNC", "cuda.synchronize")


def _reset_peak_memory_stats(device: Any = None) -> None:
    if not _seen.is_initialised:
        raise RuntimeError("Invalid device argument ")


class _Properties:
    """Of the device, as far as anything asks."""

    name, uuid, major, minor, multi_processor_count = "Pretend", "0", 9, 0, 132

    def __init__(self, total_memory: int) -> None:
        self.total_memory = total_memory


def _cuda(memory: int) -> dict[str, Callable[..., Any]]:
    """What stands in for functions of `torch.cuda`."""
    random_state = torch.zeros(16, dtype=torch.uint8)
    properties = _Properties(memory)

    def get_device_properties(device: Any = None) -> _Properties:
        _initialise()
        return properties

    return {
        "_lazy_init": _initialise,
        "init": _initialise,
        "is_available": lambda: True,
        "is_initialized": lambda: _seen.is_initialised,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": _set_device,
        "set_per_process_memory_fraction": lambda fraction, device=0: _check_index(device),
        "current_stream": lambda device=None: None,
        "Event": _Event,
        "synchronize": _synchronize,
        "is_current_stream_capturing": lambda: False,
        "mem_get_info": lambda device=None: (memory, memory),
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": _reset_peak_memory_stats,
        "max_memory_allocated": lambda device=None: 0,
        "max_memory_reserved": lambda device=None: 0,
        "get_device_properties": get_device_properties,
        "get_device_name": lambda device=None: properties.name,
        "get_device_capability": lambda device=None: (properties.major, properties.minor),
        "is_bf16_supported": lambda *_, **__: True,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: random_state.clone(),
        "set_rng_state": lambda state, device=None: None,
    }


@contextlib.contextmanager
def gpu(memory: int = 24 << 30, tf32: Callable[[str], bool] = lambda place: False) -> Iterator[Seen]:
    """Inside the block there is one GPU, `cuda:0`; gives what it is asked to do. Not to be nested.

    Args:
        memory: bytes that are free on it, for those who ask; nothing takes any.
        tf32: whether products and convolutions at a place, as an `Event` names it, are rounded to TF32 where they may
            be.
    """
    global _seen
    real_load = torch.load

    def load(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        loaded = real_load(file, map_location="cpu", **kwargs)
        if map_location is None or "cuda" not in str(map_location):
            return loaded
        return tree_map_only(torch.Tensor, lambda tensor: tensor.to(CUDA), loaded)

    with contextlib.ExitStack() as stack:

        def replace(owner: Any, name: str, by: Any) -> None:
            stack.enter_context(mock.patch.object(owner, name, by))

        for name, stand_in in _cuda(memory).items():
            replace(torch.cuda, name, stand_in)
        replace(torch, "load", load)
        replace(torch.Tensor, "pin_memory", _pin_memory)
        replace(torch.__future__, "_overwrite_module_params_on_conversion", True)
        for check in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
            if hasattr(torch.optim.Optimizer, check):
                replace(torch.optim.Optimizer, check, lambda optimiser: None)
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        # `torch.tensor(…, device=…)` by way of the CPU, as fake tensors have it.
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        stack.enter_context(_Mode())
        _seen = Seen(rounds=tf32)
        yield _seen
        _seen.arrive()
