"""BatchNorm for networks that were read without it: files have it folded into the layer before, and deep networks
without it are hard to train further."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from netlathe.archspace.forms.torch import channel_axis
from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.ops import ELU, Activation, Clip, Conv2d, Gelu, LeakyReLU, PReLU
from netlathe.training.compute import Compute
from netlathe.training.errors import TrainingError
from netlathe.training.images import ImageSplit
from netlathe.training.stream import batches_per_pass, stream

_ACTIVATIONS = (Activation, Clip, ELU, Gelu, LeakyReLU, PReLU)


def with_batch_norm(graph: Graph, *, linear: bool = False) -> Graph:
    """The graph with a BatchNorm in each convolution of more than one pixel that an activation alone follows; with
    `linear`, in all convolutions of more than one pixel.

    Nodes keep their names and stored arrays their shapes, so weights of the one are those of the other.
    """
    users = graph.sole_users

    def changed(index: int, node: Node, pixels: int) -> Node:
        op, user = node.op, users.get(index)
        activated = user is not None and isinstance(graph.nodes[user[0]].op, _ACTIVATIONS)
        if not isinstance(op, Conv2d) or pixels == 1 or not (linear or activated):
            return node
        return dataclasses.replace(node, op=dataclasses.replace(op, batch_norm=True))

    steps = enumerate(graph.steps())
    nodes = [changed(i, node, out[0][1] * out[0][2] if len(out[0]) == 4 else 1) for i, (node, _, out) in steps]
    return dataclasses.replace(graph, nodes=tuple(nodes))


def without_batch_norm(graph: Graph) -> Graph:
    """The graph whose convolutions have none of their own: that of weights which it is folded into."""
    nodes = (
        dataclasses.replace(node, op=dataclasses.replace(node.op, batch_norm=False))
        if isinstance(node.op, Conv2d)
        else node
        for node in graph.nodes
    )
    return dataclasses.replace(graph, nodes=tuple(nodes))


@torch.no_grad()
def restore_batch_norm(
    network: nn.Module,
    split: ImageSplit,
    *,
    batch_size: int = 256,
    batch_limit: int = 32,
    compute: Compute | None = None,
) -> None:
    """Sets every BatchNorm's statistics to those of clean images, and its scale and offset so that the network
    computes in eval mode what it did: training then normalises, and starts from the same function.

    For weights with BatchNorm folded in (forms.torch.load_weights), whose statistics say nothing. All layers are
    measured in one pass, in float32, since none of their inputs change. A convolution's running mean and variance
    become those of its results m and v, and with the scale s and the offset t that it had in effect, gamma becomes
    s sqrt(v + eps) and beta t + s m. The network is left in eval mode, on the device it came on. Raises TrainingError
    where results are not finite.
    """
    compute = compute or Compute()
    moments = {name: _Moments() for name, module in network.named_modules() if _is_affine(module)}
    count = min(batch_limit, batches_per_pass(split, batch_size))
    batches = stream(split, batch_size, seed=0, workers=compute.workers)
    with compute.visiting(network.eval()), closing(batches), ExitStack() as hooks:
        for name, found in moments.items():
            hook = network.get_submodule(name).register_forward_pre_hook(partial(_watch, found))
            hooks.callback(hook.remove)
        for x, labels in itertools.islice(batches, count):
            network(compute.put(x, labels)[0])
    for name, found in moments.items():
        _restore(name, network.get_submodule(name), found)


def _is_affine(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.affine and module.track_running_stats


class _Moments:
    """Mean and variance per channel of all that was seen, in float64 (Chan et al., 1979, of parts of a sample)."""

    def __init__(self) -> None:
        self._count = 0
        self.mean = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Values (count, channels)."""
        values = values.double()
        count, mean = len(values), values.mean(0).cpu()
        squares = values.var(0, correction=0).cpu() * count
        total, distance = self._count + count, mean - self.mean
        self._squares = self._squares + squares + distance**2 * (self._count * count / total)
        self.mean = self.mean + distance * (count / total)
        self._count = total

    @property
    def variance(self) -> Tensor:
        return self._squares / max(self._count, 1)

    @property
    def is_empty(self) -> bool:
        return not self._count


def _watch(moments: _Moments, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    (x,) = inputs
    moments.add(x.movedim(channel_axis(norm, x), -1).flatten(0, -2))


def _restore(name: str, norm: Any, moments: _Moments) -> None:
    if moments.is_empty:  # no image reaches it
        return
    mean, variance = moments.mean, moments.variance
    if not (mean.isfinite().all() and variance.isfinite().all()):
        raise TrainingError(
            f"layer {name.removeprefix('layers.').removesuffix('.bn')!r} gives values that are not finite; check that "
            "images are as the model takes them"
        )
    old_mean, old_variance, gamma, beta = (
        t.double().cpu() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    scale = gamma / torch.sqrt(old_variance + norm.eps)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
    norm.bias.copy_(beta + (mean - old_mean) * scale)
