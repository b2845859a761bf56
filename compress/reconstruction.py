"""Weights of a narrowed network, so that its layers give what those of the original give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from netlathe.archspace.forms.torch import TorchGraph, folded_weights, load_weights
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Add
from netlathe.compress.coupling import CoupledChannels, Units

ROWS_PER_VALUE = 8
"""Places of images that a layer's equations are of, for each value that a channel's kernel has; at least LEAST_ROWS."""
LEAST_ROWS, MOST_ROWS = 4096, 32768
RIDGE = 1e-2
"""Weight of the distance from the weights that were there, in parts of the inputs' mean square."""
TINY = 1e-12


@torch.no_grad()
def reconstructed(
    coupled: CoupledChannels,
    weights: Weights,
    graph: Graph,
    narrowed: Weights,
    keep: Mapping[str, Units],
    images: Tensor,
    *,
    ridge: float = RIDGE,
    seed: int = 0,
) -> Weights:
    """The narrowed network's weights, each layer's refitted so that it gives what the original's gives on some images.

    Layer by layer, from the input on: least squares of the original layer's results in the channels that are left, from
    what the layers before it give now (He et al., arXiv:1707.06168, section 3.1.2). Where a result is added to another
    one, it makes up for what that one lacks (section 3.2). `graph` and `narrowed` are what `pruned` gave for `keep`;
    images (N, C, H, W) as the network takes them. Convolutions and fully connected layers alone are refitted.
    """
    original, network = TorchGraph(coupled.graph).eval(), TorchGraph(graph).eval()
    load_weights(original, weights)
    load_weights(network, narrowed)
    generator = torch.Generator().manual_seed(seed)
    left = _left(coupled, keep)
    there, here = _Walk(original, images), _Walk(network, images)
    places = {node.name: index for index, node in enumerate(graph.nodes)}
    for index, node in enumerate(coupled.graph.nodes):
        wanted = there.inputs(index)
        there.advance(index, wanted)
        if node.name not in places:
            continue
        now = places[node.name]
        given = here.inputs(now)
        layer = network.layers[node.name] if node.name in network.layers else None
        if type(layer) in (nn.Conv2d, nn.Linear):
            target = there.result(index)[:, left[node.name]]
            beside = _added(graph, now)
            if beside is not None and beside in here.tensors:
                other = _original_tensor(coupled.graph, index)
                if other in there.tensors:
                    target = target + there.tensors[other][:, left[node.name]] - here.tensors[beside]
            _refit(layer, here.prepared(now, given), target, ridge, generator)
        here.advance(now, given)
    return folded_weights(network)


class _Walk:
    """A network's tensors, computed a node at a time."""

    def __init__(self, network: TorchGraph, images: Tensor) -> None:
        self.network = network
        self.tensors: dict[int, Tensor] = {0: images}

    def inputs(self, index: int) -> list[Tensor]:
        step = self.network._steps[index]
        return [self.tensors[t] for t in step.inputs]

    def prepared(self, index: int, taken: list[Tensor]) -> Tensor:
        step = self.network._steps[index]
        return step.function(*taken) if step.function else taken[0]

    def advance(self, index: int, taken: list[Tensor]) -> None:
        step = self.network._steps[index]
        value: Any = step.function(*taken) if step.function else taken[0] if taken else None
        if step.layer:
            value = self.network.layers[step.layer](value)
        self.tensors.update(zip(step.results, value if len(step.results) > 1 else (value,), strict=True))
        for tensor in step.frees:
            del self.tensors[tensor]

    def result(self, index: int) -> Tensor:
        return self.tensors[self.network._steps[index].results[0]]


def _left(coupled: CoupledChannels, keep: Mapping[str, Units]) -> dict[str, NDArray[np.int64]]:
    """The channels of each node's result that are kept, by its name."""
    is_kept = np.ones(len(coupled.group_of), bool)
    for name, units in keep.items():
        index = coupled.group_index(name)
        of_group = coupled.group_of == index
        is_kept[of_group] = np.isin(coupled.place_of[of_group], units)
    found = {}
    for node, units, shapes in zip(coupled.graph.nodes, coupled.nodes, coupled.graph.results, strict=True):
        along = units.results[0][-1]
        size = coupled.graph.shapes[shapes[0]][-1]
        found[node.name] = np.arange(size) if along is None else np.flatnonzero(is_kept[along])
    return found


def _added(graph: Graph, index: int) -> int | None:
    """The tensor that a node's result is added to, where that is all that happens to it."""
    user = graph.sole_users.get(index)
    if user is None or not isinstance(graph.nodes[user[0]].op, Add):
        return None
    own = graph.results[index][0]
    others = [t for t in graph.nodes[user[0]].inputs if t != own]
    if len(others) != 1 or graph.shapes[others[0]] != graph.shapes[own]:
        return None
    return others[0]


_original_tensor = _added


def _refit(layer: Any, x: Tensor, target: Tensor, ridge: float, generator: torch.Generator) -> None:
    """Least squares of the target from a layer's inputs, near the weights that it has."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    values = layer.weight[0].numel()
    rows = min(MOST_ROWS, max(LEAST_ROWS, ROWS_PER_VALUE * values))
    patches, wanted = _rows(layer, x, target, rows, generator)  # (rows, groups, values), (rows, groups, outputs)
    kernel = layer.weight.reshape(groups, -1, values)
    lacking = wanted - torch.einsum("rgv,gov->rgo", patches, kernel) - layer.bias.reshape(groups, -1)
    mean, offset = patches.mean(0), lacking.mean(0)
    patches, lacking = patches - mean, lacking - offset
    gram = torch.einsum("rgv,rgw->gvw", patches, patches).double() / len(patches)
    cross = torch.einsum("rgv,rgo->gvo", patches, lacking).double() / len(patches)
    weight = ridge * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + TINY
    change = torch.linalg.solve(gram + weight * torch.eye(values, dtype=torch.float64), cross).transpose(1, 2)
    offset = offset.double() - torch.einsum("gov,gv->go", change, mean.double())
    layer.weight += change.reshape(layer.weight.shape).float()
    layer.bias += offset.reshape(-1).float()


def _rows(
    layer: Any, x: Tensor, target: Tensor, rows: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs (rows, groups, values) and results (rows, groups, outputs) at random places of all images."""
    if isinstance(layer, nn.Linear):
        flat, wanted = x.reshape(-1, x.shape[-1]), target.reshape(-1, target.shape[-1])
        return flat[:, None], wanted[:, None]
    (height, width), (down, right) = layer.kernel_size, layer.padding
    (sy, sx), (dy, dx) = layer.stride, layer.dilation
    padded = F.pad(x, (right, right, down, down))
    windows = padded.unfold(2, dy * (height - 1) + 1, sy).unfold(3, dx * (width - 1) + 1, sx)[..., ::dy, ::dx]
    places = target.shape[0] * target.shape[2] * target.shape[3]
    chosen = torch.randperm(places, generator=generator)[:rows]
    n, i, j = np.unravel_index(chosen.numpy(), (target.shape[0], target.shape[2], target.shape[3]))
    n, i, j = (torch.from_numpy(one) for one in (n, i, j))
    patches = windows[n, :, i, j].reshape(len(chosen), layer.groups, -1)
    return patches, target[n, :, i, j].reshape(len(chosen), layer.groups, -1)
