"""Weights of a narrowed network, refitted so that its layers give what those of the original give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlathe.archspace.forms.torch import TorchGraph, folded_weights, load_weights
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Add
from netlathe.compress.coupling import FIXED, CoupledChannels, Units
from netlathe.training.compute import Compute
from netlathe.training.images import ImageSplit, spread_over_classes
from netlathe.training.norms import without_batch_norm

ROWS_PER_VALUE, LEAST_ROWS = 8, 4096
"""Places of images that a layer's equations are of: so many for each value of a channel's kernel, and at least so many
where the images have them."""
MOST_NUMBERS = 1 << 25
"""Numbers that a layer's equations have at most: 128 MiB of them."""
MOST_VALUES = 4608
"""Values that a channel's kernel has at most to be refitted, as 3x3 over 512 channels: that takes seconds already."""
RIDGE = 0.1
"""Weight of the distance from the weights that were there, for as many places as unknowns, in parts of the inputs'
variance."""
MOST_BYTES = 1 << 29
"""Bytes of activations alive at once, in either network."""


@torch.no_grad()
def reconstructed(
    coupled: CoupledChannels,
    weights: Weights,
    narrowed: tuple[Graph, Weights],
    keep: Mapping[str, Units],
    split: ImageSplit,
    *,
    images: int = 256,
    seed: int = 0,
    compute: Compute | None = None,
) -> Weights:
    """The narrowed network's weights, so that its layers give what those of the original give for the channels left.

    From the input on, each convolution and fully connected layer is refitted by least squares to what the original one
    gives on some images, from what the layers before it give now (He et al., arXiv:1707.06168, eq. 5). Where its result
    is added to another one that is there already, it makes up for what that one lacks (section 3.3 there). `narrowed`
    is what `pruned` gave for `keep`; `images` of the split at most are seen, every class alike, fewer where their
    activations would not fit in half a gigabyte. Layers of more than MOST_VALUES values per channel stay as they are.
    Raises FormatError for weights that are not the graphs', DataError for an image that cannot be read.
    """
    compute = compute or Compute()
    graph, left = narrowed[0], _left(coupled, keep)
    original, network = _loaded(coupled.graph, weights), _loaded(graph, narrowed[1])
    count = max(1, min(images, MOST_BYTES // coupled.graph.peak_activation_bytes(4)))
    index = torch.from_numpy(spread_over_classes(split.labels.numpy(), count, seed))
    x, _ = compute.put(split.normalization(split.load(index)), split.labels[index])
    there: dict[int, Any] = {0: x}
    here: dict[int, Any] = {0: x}
    places = {node.name: number for number, node in enumerate(graph.nodes)}
    generator, layers = torch.Generator().manual_seed(seed), dict(network.layers.items())
    with compute.visiting(original), compute.visiting(network):
        for number, node in enumerate(coupled.graph.nodes):
            original.compute(number, there)
            if node.name not in places:
                continue
            now = places[node.name]
            layer = layers.get(node.name)
            if type(layer) in (nn.Conv2d, nn.Linear):
                axis, channels = 1 if isinstance(layer, nn.Conv2d) else -1, left[node.name].to(x.device)
                wanted = there[coupled.graph.results[number][0]].index_select(axis, channels)
                beside, other = _beside(graph, now), _beside(coupled.graph, number)
                if beside in here and other in there:
                    wanted = wanted + there[other].index_select(axis, channels) - here[beside]
                _refit(layer, network.layer_input(now, here), wanted, generator)
            network.compute(now, here)
    return folded_weights(network)


def _loaded(graph: Graph, weights: Weights) -> TorchGraph:
    """The network in eval mode, its BatchNorms as they are in its weights: folded."""
    network = TorchGraph(without_batch_norm(graph)).eval()
    load_weights(network, weights)
    return network


def _left(coupled: CoupledChannels, keep: Mapping[str, Units]) -> dict[str, Tensor]:
    """The numbers of the channels that are left of each node's first result, by the node's name."""
    is_kept = coupled.group_of == FIXED
    for group in coupled.groups:
        of_group, kept = coupled.group_of == coupled.group_index(group.name), keep.get(group.name)
        is_kept |= of_group if kept is None else of_group & np.isin(coupled.place_of, kept)
    found = {}
    for node, of_node, results in zip(coupled.graph.nodes, coupled.nodes, coupled.graph.results, strict=True):
        along = of_node.results[0][-1]
        size = coupled.graph.shapes[results[0]][-1]
        found[node.name] = torch.from_numpy(np.arange(size) if along is None else np.flatnonzero(is_kept[along]))
    return found


def _beside(graph: Graph, index: int) -> int | None:
    """The tensor of the same shape that a node's only result is added to, and nothing else happens to it."""
    user = graph.sole_users.get(index)
    if user is None or not isinstance(graph.nodes[user[0]].op, Add):
        return None
    own = graph.results[index][0]
    others = [t for t in graph.nodes[user[0]].inputs if t != own and graph.shapes[t] == graph.shapes[own]]
    return others[0] if len(others) == 1 else None


def _refit(layer: Any, x: Tensor, wanted: Tensor, generator: torch.Generator) -> None:
    """Least squares of what is wanted of a layer from its inputs, near the weights that it has."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    values = layer.weight[0].numel()
    if values > MOST_VALUES:
        return
    rows = min(max(LEAST_ROWS, ROWS_PER_VALUE * values), max(1, MOST_NUMBERS // (groups * values)))
    read, given = _equations(layer, x, wanted, rows, generator)  # (rows, groups, values), (rows, groups, outputs)
    kernel, bias = layer.weight.reshape(groups, -1, values), layer.bias.reshape(groups, -1)
    lacking = given - torch.einsum("rgv,gov->rgo", read, kernel) - bias
    mean, offset = read.mean(0), lacking.mean(0)
    read, lacking = read - mean, lacking - offset
    gram = torch.einsum("rgv,rgw->gvw", read, read).double() / len(read)
    cross = torch.einsum("rgv,rgo->gvo", read, lacking).double() / len(read)
    variance = gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)[:, None, None]
    ridge = RIDGE * values / len(read) * variance * torch.eye(values, dtype=gram.dtype, device=gram.device)
    change = torch.linalg.solve(gram + ridge, cross).transpose(1, 2)
    layer.weight += change.reshape(layer.weight.shape).float()
    layer.bias += (offset - torch.einsum("gov,gv->go", change, mean.double())).reshape(-1).float()


def _equations(layer: Any, x: Tensor, wanted: Tensor, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Values that a layer reads (rows, groups, values) and those wanted of it (rows, groups, outputs), at random places
    of all images, `rows` at most."""
    if isinstance(layer, nn.Linear):
        x, wanted = x.reshape(-1, 1, x.shape[-1]), wanted.reshape(-1, 1, wanted.shape[-1])
        chosen = torch.randperm(len(x), generator=generator)[:rows].to(x.device)
        return x[chosen], wanted[chosen]
    (height, width), (down, right) = layer.kernel_size, layer.padding
    (over, along), (far, wide) = layer.stride, layer.dilation
    x = F.pad(x, (right, right, down, down)).unfold(2, far * (height - 1) + 1, over)
    windows = x.unfold(3, wide * (width - 1) + 1, along)[..., ::far, ::wide]
    images, _, lines, columns = wanted.shape
    chosen = torch.randperm(images * lines * columns, generator=generator)[:rows].to(x.device)
    n, i, j = chosen // (lines * columns), chosen // columns % lines, chosen % columns
    return windows[n, :, i, j].reshape(len(chosen), layer.groups, -1), wanted[n, :, i, j].reshape(
        len(chosen), layer.groups, -1
    )
