"""BatchNorm where several processes share a batch: by the statistics of the whole batch, or of each one's share.

torch's own SyncBatchNorm takes tensors on a GPU alone; this one computes on any device, so that what a GPU trains can
be tested without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from netlathe.archspace.forms.torch import channel_axis
from netlathe.training.compute import wider
from netlathe.training.ranks import Ranks

Statistics = Literal["synchronised", "per-rank"]
"""synchronised: a batch is normalised by the statistics of all its images, so that the outcome does not depend on the
number of processes. per-rank: each process normalises its share by itself, which spares a message per layer, and has
the noise of smaller batches; it is what one process computes of as many parts."""

Settle = Callable[[], None]
"""To be called after each step: brings running statistics together, where the processes' have gone apart."""


@contextmanager
def normalising(module: nn.Module, ranks: Ranks, statistics: Statistics) -> Iterator[Settle]:
    """Context in which the module's BatchNorms, in training mode, take their statistics as told. Its weights, and the
    modules themselves, stay what they are."""
    norms = [one for one in module.modules() if isinstance(one, _BatchNorm)]
    if ranks.count == 1:
        yield lambda: None
    elif statistics == "synchronised":
        with _synchronised(norms, ranks):
            yield lambda: None
    else:
        with ExitStack() as hooks:
            ran: dict[_BatchNorm, None] = {}
            for norm in norms:
                hooks.callback(norm.register_forward_hook(partial(_note, ran)).remove)
            yield partial(_settle, ran, ranks)


@contextmanager
def _synchronised(norms: list[_BatchNorm], ranks: Ranks) -> Iterator[None]:
    for norm in norms:
        norm.forward = partial(_forward, norm, ranks)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # the class's own is seen again


def _note(ran: dict[_BatchNorm, None], norm: _BatchNorm, x: Any, y: Any) -> None:
    if norm.training and norm.track_running_stats:
        ran[norm] = None


@torch.no_grad()
def _settle(ran: dict[_BatchNorm, None], ranks: Ranks) -> None:
    """Puts the mean of all processes' running statistics in the place of each one's."""
    values = [value for norm in ran for value in (norm.running_mean, norm.running_var) if value is not None]
    ranks.add(*values)
    for value in values:
        value /= ranks.count
    ran.clear()


def _forward(norm: _BatchNorm, ranks: Ranks, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    axis = channel_axis(norm, x)
    y, mean, variance, count = _Normalise.apply(x.movedim(axis, 1), norm.weight, norm.bias, norm.eps, ranks)  # type: ignore[no-untyped-call]
    if norm.track_running_stats:
        _follow(norm, mean, variance * count / (count - 1))
    return y.movedim(1, axis)  # type: ignore[no-any-return]


@torch.no_grad()
def _follow(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Moves running statistics towards a batch's, as torch's BatchNorm does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    factor = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    for running, value in ((norm.running_mean, mean), (norm.running_var, variance)):
        running.mul_(1 - factor).add_(value, alpha=factor)


class _Normalise(torch.autograd.Function):
    """x (N, C, ...) normalised by the statistics of all processes' x (Ioffe & Szegedy, arXiv:1502.03167), with these:
    means and variances (C,), and the number of values behind each.

    Each process's are joined by the rule for parts of a sample (Chan et al., 1979), not by sums of squares, which lose
    digits where means are large.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        scales = x.new_ones(channels, dtype=wider(x.dtype)) if weight is None else weight
        # torch's own kernels, as sums over channels-last values by others take tens of times as long on a CPU.
        _, own_mean, own_scale = torch.native_batch_norm(x, scales, None, None, None, True, 0.0, 0.0)
        own_variance = torch.where(own_scale == 0, 0.0, own_scale**-2)  # of equal values, torch tells the scale 0
        count = own_mean.new_tensor([x.numel() // channels])
        rows = ranks.rows(torch.cat([own_mean, own_variance, count]))
        means, variances, counts = torch.split(rows, [channels, channels, 1], 1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        ctx.save_for_backward(x, scales, mean, variance, total)
        ctx.ranks, ctx.eps, ctx.is_plain = ranks, eps, weight is None
        ctx.mark_non_differentiable(mean, variance, total)
        return F.batch_norm(x, mean, variance, scales, bias, eps=eps), mean, variance, total

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, scales, mean, variance, total = ctx.saved_tensors
        # As if the statistics were constants; then what x does to them, which is linear in x, channel by channel.
        by_x, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            slope, x, scales, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([by_bias, by_weight])
        ctx.ranks.add(sums)
        inverse = torch.rsqrt(variance + ctx.eps)
        offset, factor = scales * inverse * sums / total
        factor = factor * inverse
        by_statistics = F.batch_norm(
            x, torch.zeros_like(mean), torch.ones_like(mean), factor, offset - factor * mean, eps=0.0
        )
        grads = (None, None) if ctx.is_plain else (by_weight, by_bias)
        return by_x - by_statistics, *grads, None, None
