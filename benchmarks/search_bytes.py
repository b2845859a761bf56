"""How many bytes a training step holds: what the forward pass saves, and the most that is alive at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Bytes:
    """Memory of one training step."""

    saved: int
    peak: int
    allocator_peak: int | None
    """Beyond what was allocated before the step; CUDA only."""


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that are made inside it, other than those of `known`."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.storages: dict[int, Any] = {t.untyped_storage()._cdata: None for t in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.storages:
            return

        def gone(_: object) -> None:
            self.live -= size
            self.storages.pop(key, None)

        self.storages[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


def step_bytes(
    module: nn.Module,
    forward: Callable[[Tensor], Tensor],
    wanted: Sequence[Tensor],
    batch: int,
    size: int,
    device: str,
) -> Bytes:
    """Memory of a forward and backward pass in training mode. `wanted` are the gates whose gradients an architecture
    step asks for; without any, it is a weight step."""
    x = torch.zeros(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    known = [x, labels, *module.parameters(), *module.buffers()]
    weights = {t.untyped_storage()._cdata for t in known}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    for parameter in module.parameters():
        parameter.grad = None
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    module.train()
    with Alive(known) as alive:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = F.cross_entropy(forward(x), labels)
        if wanted:
            torch.autograd.grad(loss, wanted)
        else:
            loss.backward()  # type: ignore[no-untyped-call]
    peak = torch.cuda.max_memory_allocated() - before if device == "cuda" else None
    return Bytes(sum(saved.values()), alive.peak, peak)
