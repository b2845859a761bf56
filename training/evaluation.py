"""Judging a network on images, and setting its BatchNorm statistics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlathe.training.compute import Compute
from netlathe.training.images import ImageSplit
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


def evaluate(
    network: Callable[[Tensor], Tensor], split: ImageSplit, *, batch_size: int = 256, compute: Compute | None = None
) -> float:
    """Share of images classified right, in 0..1; computed in float32. A module is put into eval mode and left on the
    device it came on; another callable gets images on the device of `compute`. Several processes (`compute.ranks`) look
    at some of the images each."""
    return int(right_answers(network, split, batch_size=batch_size, compute=compute).sum()) / len(split)


@torch.no_grad()
def right_answers(
    network: Callable[[Tensor], Tensor], split: ImageSplit, *, batch_size: int = 256, compute: Compute | None = None
) -> Tensor:
    """Whether each image is classified right, bool (N,) on the CPU. Takes what `evaluate` does."""
    compute = compute or Compute()
    own = compute.ranks.portion(len(split))
    right = torch.zeros(len(split), dtype=torch.uint8, device=compute.torch_device)
    parts = chunks(taken(split, own), batch_size, workers=compute.workers)
    visit = compute.visiting(network.eval()) if isinstance(network, nn.Module) else nullcontext()
    start = own.start
    with visit, closing(parts):
        for images, labels in parts:
            x, wanted = compute.put(split.normalization(images), labels)
            right[start : start + len(labels)] = network(x).flatten(1).argmax(1) == wanted
            start += len(labels)
    compute.ranks.add(right)
    return right.bool().cpu()


@torch.no_grad()
def loss_and_accuracy(
    network: nn.Module,
    split: ImageSplit,
    *,
    teacher: nn.Module | None = None,
    weights: Tensor | None = None,
    batch_size: int = 256,
    compute: Compute | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy over images in nats, in float32, against their labels or the class probabilities of a
    `teacher`; and the share of images, 0..1, whose label is classified right. `weights` (classes,) is what an image
    with a label of each class counts in the loss, 1 on average over the split; by default, 1. Both modules are put into
    eval mode and left on the device that they came on. Several processes (`compute.ranks`) look at some of the images
    each."""
    compute = compute or Compute()
    total, right = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    parts = chunks(taken(split, compute.ranks.portion(len(split))), batch_size, workers=compute.workers)
    visits = compute.visiting(teacher.eval()) if teacher else nullcontext()
    with compute.visiting(network.eval()), visits, closing(parts):
        for images, labels in parts:
            x, classes = compute.put(split.normalization(images), labels)
            wanted = teacher(x).flatten(1).softmax(1) if teacher else classes
            told = network(x).flatten(1)
            losses = F.cross_entropy(told, wanted, reduction="none")
            if weights is not None:
                losses = losses * weights.to(losses)[classes]
            total += losses.sum().double().cpu()
            right += (told.argmax(1) == classes).sum().cpu()
    compute.ranks.add(total, right)
    return float(total) / len(split), float(right) / len(split)


def taken(split: ImageSplit, own: range) -> ImageSplit:
    """Those images of a split that this process looks at."""
    return split if len(own) == len(split) else split.take(torch.arange(own.start, own.stop))
