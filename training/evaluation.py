"""Judging a network on images, and setting its BatchNorm statistics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlathe.training.compute import Compute
from netlathe.training.images import ImageSplit, to_input
from netlathe.training.ranks import Ranks
from netlathe.training.stream import batches_per_pass, chunks, stream


@torch.no_grad()
def recalibrate_batch_norm(
    network: nn.Module,
    split: ImageSplit,
    *,
    batch_size: int = 256,
    batch_limit: int = 32,
    compute: Compute | None = None,
) -> None:
    """Sets BatchNorm's running statistics to those of clean (not augmented) images, averaged over batches, in float32.
    The network is left in eval mode, on the device it came on. Several processes (`compute.ranks`) take some of the
    batches each."""
    compute = compute or Compute()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    own = compute.ranks.portion(min(batch_limit, batches_per_pass(split, batch_size)))
    batches = stream(split, batch_size, seed=0, start=own.start, workers=compute.workers)
    with compute.visiting(network), closing(batches):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # torch's word for a cumulative average
            network.train()
            for x, labels in itertools.islice(batches, len(own)):
                network(compute.put(x, labels)[0])
            _join_statistics(norms, len(own), compute.ranks)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            network.eval()


def _join_statistics(norms: Sequence[nn.BatchNorm2d], batches: int, ranks: Ranks) -> None:
    """Puts the mean over the batches of all processes, of which this one has seen some, in the place of its own."""
    if ranks.count == 1:
        return
    values = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
    seen = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    count = torch.tensor(float(batches))
    for value in values:
        value *= batches
    ranks.add(*values, *seen, count)
    for value in values:
        value /= float(count)


@torch.no_grad()
def evaluate(
    network: Callable[[Tensor], Tensor], split: ImageSplit, *, batch_size: int = 256, compute: Compute | None = None
) -> float:
    """Share of images classified right, in 0..1; computed in float32. A module is put into eval mode and left on the
    device it came on; another callable gets images on the device of `compute`. Several processes (`compute.ranks`) look
    at some of the images each."""
    compute = compute or Compute()
    right = torch.zeros((), dtype=torch.int64, device=compute.torch_device)
    parts = chunks(_own_part(split, compute), batch_size, workers=compute.workers)
    visit = compute.visiting(network.eval()) if isinstance(network, nn.Module) else nullcontext()
    with visit, closing(parts):
        for images, labels in parts:
            x, wanted = compute.put(to_input(images), labels)
            right += (network(x).argmax(1) == wanted).sum()
    compute.ranks.add(right)
    return int(right) / len(split)


@torch.no_grad()
def mean_loss(
    network: nn.Module,
    split: ImageSplit,
    *,
    teacher: nn.Module | None = None,
    batch_size: int = 256,
    compute: Compute | None = None,
) -> float:
    """Mean cross-entropy over images in nats, in float32: against their labels, or against the class probabilities of a
    `teacher`. Both modules are put into eval mode and left on the device that they came on. Several processes
    (`compute.ranks`) look at some of the images each."""
    compute = compute or Compute()
    total = torch.zeros((), dtype=torch.float64)
    parts = chunks(_own_part(split, compute), batch_size, workers=compute.workers)
    visits = compute.visiting(teacher.eval()) if teacher else nullcontext()
    with compute.visiting(network.eval()), visits, closing(parts):
        for images, labels in parts:
            x, classes = compute.put(to_input(images), labels)
            wanted = teacher(x).flatten(1).softmax(1) if teacher else classes
            total += F.cross_entropy(network(x).flatten(1), wanted, reduction="sum").double().cpu()
    compute.ranks.add(total)
    return float(total) / len(split)


def _own_part(split: ImageSplit, compute: Compute) -> ImageSplit:
    """The images of a split that this process looks at."""
    own = compute.ranks.portion(len(split))
    return split if len(own) == len(split) else split.take(torch.arange(own.start, own.stop))
