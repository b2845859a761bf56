"""Computation of networks: the device, the precision, the workers that prepare images."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from netlathe.training.errors import TrainingError
from netlathe.training.ranks import ALONE, Ranks

Precision = Literal["auto", "float32", "bfloat16"]
BUSY = 0.5
"""Load beyond the processors at which a machine counts as busy."""
AnyModule = TypeVar("AnyModule", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """A device and a precision, by name.

    `device` "auto" takes the GPU when there is one. `precision` "auto" is bfloat16 on a GPU that has it and float32
    elsewhere; bfloat16 is torch's autocast, weights and optimizers stay float32. `compile` compiles what is trained.
    `workers` processes decode and augment images (0: this process does; None: one a core for images that are too many
    for memory, this one for others). `threads` are those that a network's ops share on the CPU (0: as many as torch
    takes; of several processes on a machine, each its part of the processors, whatever OMP_NUM_THREADS torchrun has
    set). `ranks` are the processes that compute together, alone by default. `channels_last` is how images and
    convolutions lie in memory, which most processors and GPUs compute faster.
    Raises TrainingError for a device that is not there, an unknown precision, or fewer than 0 workers or threads.
    """

    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False
    workers: int | None = None
    threads: int = 0
    ranks: Ranks = field(default=ALONE, repr=False, compare=False)
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise TrainingError(f"precision {self.precision!r} is unknown; use one of {', '.join(get_args(Precision))}")
        if self.workers is not None and self.workers < 0:
            raise TrainingError(f"{self.workers} workers: use 0 or more")
        if self.threads < 0:
            raise TrainingError(f"{self.threads} threads: use 0 or more")
        if self.device != "auto":
            _device(self.device)  # refuses a missing device at once, rather than after the images are loaded

    @property
    def torch_device(self) -> torch.device:
        """The device. Raises TrainingError when it is not there."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return _device(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Type that convolutions compute in: torch.bfloat16 or torch.float32."""
        if self.precision == "auto":
            device = self.torch_device
            return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
        return getattr(torch, self.precision)  # type: ignore[no-any-return]

    def alone(self) -> Compute:
        """The same for work that this process does by itself."""
        return replace(self, ranks=ALONE)

    @contextmanager
    def threaded(self) -> Iterator[None]:
        """Context in which torch takes `threads` threads for an op, if they are given."""
        before = torch.get_num_threads()
        threads = self.threads or self.ranks.threads
        if threads:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def doubts(self) -> list[str]:
        """A warning where others keep this machine's processors so busy that threads would wait for one another; to be
        asked inside `threaded`."""
        threads, load, processors = torch.get_num_threads(), load_average(), os.cpu_count() or 1
        if threads == 1 or load is None or load + threads <= processors + BUSY or self.torch_device.type != "cpu":
            return []
        return [
            f"this machine is busy (load {load:.1f} on {processors} processors), and {threads} threads that wait for "
            "one another can be slower than one; end other programs, or compute with fewer (--threads 1)"
        ]

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Context in which forward passes compute in `dtype`."""
        low = self.dtype is torch.bfloat16
        with torch.autocast(self.torch_device.type, torch.bfloat16) if low else nullcontext():
            yield

    def place(self, module: AnyModule) -> AnyModule:
        """The module on the device, its convolutions channels-last or not."""
        return module.to(self.torch_device, memory_format=self._format)  # type: ignore[call-overload,no-any-return]

    @property
    def _format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @contextmanager
    def visiting(self, module: AnyModule) -> Iterator[AnyModule]:
        """Context in which the module is on the device; afterwards it is back where it was."""
        home = next((p.device for p in module.parameters()), torch.device("cpu"))
        try:
            yield self.place(module)
        finally:
            module.to(home)

    def put(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch on the device, images (n, C, H, W) channels-last or not; a GPU's copies run beside its work."""
        device = self.torch_device
        if device.type == "cpu":
            return x.contiguous(memory_format=self._format), labels
        x = x.pin_memory().to(device, memory_format=self._format, non_blocking=True)
        return x, labels.pin_memory().to(device, non_blocking=True)

    def maybe_compile(self, module: AnyModule) -> AnyModule:
        """Compiles the module in place (the names of its weights stay) when `compile` is set."""
        if self.compile:
            # Modules share their forward's code, and torch stops compiling one code after 8 variants of it.
            own = "isolate_recompiles" in inspect.signature(torch.compile).parameters
            module.compile(**({"isolate_recompiles": True} if own else {}))
        return module


def wide(x: Tensor) -> Tensor:
    """The values in float32, or in what is wider: for sums and logarithms."""
    return x.to(wider(x.dtype))


def wider(dtype: torch.dtype) -> torch.dtype:
    """Type float32, or what is wider."""
    return torch.promote_types(dtype, torch.float32)


def load_average() -> float | None:
    """Processes that ran or waited for a processor over the last minute, on average; None where systems do not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise TrainingError(f"device {name!r} is not here ({reason:.120}); use cpu, or auto") from error
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(f"device {name!r} cannot train; use cpu, cuda, cuda:0 ..., or auto")
    return device
