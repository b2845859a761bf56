"""Groups of coupled channels, and pruned networks, against those of Torch-Pruning: an implementation of its own, on
torch's modules."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.torch_program import read_module
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Conv2d, FullyConnected, LayerNorm, PReLU, TransposeConv2d
from netlathe.compress import CoupledChannels, couple_channels, pruned

pytestmark = pytest.mark.slow  # exporting a module takes seconds

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
Member = tuple[int, str, int]
"""A channel that a layer (by its place in execution order) gives ("out") or reads ("in")."""


def conv(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with BatchNorm."""
    layer = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out))


class Residuals(nn.Module):
    """A small ResNet: a block whose shortcut is the identity, and one with a convolution in it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, 8, 3), conv(8, 12, 3), conv(12, 8, 3)
        self.c, self.d, self.shortcut = conv(8, 16, 3, 2), conv(16, 20, 3), conv(8, 20, 1, 2)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.b(F.relu(self.a(x))))
        x = F.relu(self.shortcut(x) + self.d(F.relu(self.c(x))))
        return self.head(x.mean((2, 3)))


class InvertedResiduals(nn.Module):
    """Depthwise convolutions with squeeze-excite; the head reads every pixel of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3, 2)
        self.expand, self.depthwise, self.project = conv(8, 24), conv(24, 24, 5, 1, 24), conv(24, 8)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        y = F.relu6(self.depthwise(F.relu6(self.expand(x))))
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.head(torch.flatten(x + self.project(y), 1))


class Dense(nn.Module):
    """Layers that read all that the ones before gave."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3)
        self.layers = nn.ModuleList(conv(8 + 6 * i, 6, 3) for i in range(3))
        self.head = nn.Conv2d(26, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], 1)
        return self.head(x)


class Split(nn.Module):
    """Halves of what a layer gives on ways of their own, joined again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = conv(3, 16, 3), conv(8, 10, 3), conv(10, 8), nn.Conv2d(18, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.chunk(F.relu(self.stem(x)), 2, 1)
        y = F.relu(self.a(first))
        return self.head(torch.cat([self.b(y) + second, y], 1))


class Grouped(nn.Module):
    """Convolutions of few groups, which lose the same channels of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped, self.head = conv(3, 24, 3), conv(24, 48, 3, 1, 4), nn.Conv2d(48, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.grouped(F.relu(self.stem(x)))))


class Decoder(nn.Module):
    """A transposed convolution, slopes, a normalisation over channels, and linear layers over an image's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.slopes, self.up = nn.Conv2d(3, 12, 3, 2, 1), nn.PReLU(12), nn.ConvTranspose2d(12, 10, 2, 2)
        self.norm, self.a, self.b = nn.LayerNorm(10), nn.Linear(10, 14), nn.Linear(14, 10)
        self.head = nn.Conv2d(10, 5, 1)
        nn.init.uniform_(self.slopes.weight)
        nn.init.uniform_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.slopes(self.stem(x)))
        y = self.b(F.gelu(self.a(self.norm(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        return self.head(x + y)


@pytest.fixture(scope="module", params=[Residuals, InvertedResiduals, Dense, Split, Grouped, Decoder])
def module(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return drawn(request.param().eval())


def drawn(made: nn.Module) -> nn.Module:
    """The module with other statistics than BatchNorm starts with."""
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight, part.bias, part.running_mean, part.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    return made


@pytest.fixture(scope="module")
def graph(module: nn.Module) -> Graph:
    return read_module(module, X)


X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def executed(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """The parts of these types in the order in which they run."""
    order: list[nn.Module] = []
    hooks = [
        part.register_forward_hook(lambda part, *_: order.append(part))
        for part in module.modules()
        if isinstance(part, kinds)
    ]
    module(X)
    for hook in hooks:
        hook.remove()
    return order


def weights_of(module: nn.Module, graph: Graph) -> dict[str, dict[str, Any]]:
    """The module's weights for its graph, BatchNorm folded in: both have layers in the order in which they run."""
    layers = iter(_folded(executed(module, (*LAYERS, nn.BatchNorm2d, nn.PReLU, nn.LayerNorm))))
    weights = {}
    for node, shapes, _ in graph.steps():
        if isinstance(node.op, Conv2d | FullyConnected | TransposeConv2d | PReLU | LayerNorm):
            arrays = _arrays(next(layers))
            if (
                isinstance(node.op, FullyConnected)
                and graph.nodes[graph.producers[node.inputs[0]]].op.kind == "reshape"
            ):
                channels, pixels = 8, (4, 4)  # flattened as NCHW in torch, as NHWC in the graph
                kernel = arrays["kernel"].reshape(-1, channels, *pixels).transpose(0, 2, 3, 1)
                arrays["kernel"] = kernel.reshape(len(kernel), -1)
            stored = node.op.stored_shapes(*shapes)
            weights[node.name] = {key: arrays[key].reshape(shape).copy() for key, shape in stored.items()}
    return weights


def _folded(layers: list[nn.Module]) -> Iterator[nn.Module]:
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(following, nn.BatchNorm2d):
            yield fuse_conv_bn_eval(layer, following)  # type: ignore[type-var]
        elif not isinstance(layer, nn.BatchNorm2d):
            yield layer


def _arrays(layer: nn.Module) -> dict[str, Any]:
    if isinstance(layer, nn.PReLU):
        return {"slopes": layer.weight.detach().numpy()}
    assert isinstance(layer, Layer | nn.LayerNorm)
    weight, bias = layer.weight.detach(), layer.bias.detach().numpy()
    if isinstance(layer, nn.LayerNorm):
        return {"scale": weight.numpy(), "bias": bias}
    return {
        "kernel": (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).numpy(),
        "bias": bias,
    }


def layer_nodes(graph: Graph) -> list[int]:
    return [i for i, n in enumerate(graph.nodes) if isinstance(n.op, Conv2d | FullyConnected | TransposeConv2d)]


def unit_members(coupled: CoupledChannels, unit: int, layers: list[nn.Module]) -> set[Member]:
    """What goes with a unit, as channels of layers."""
    members: set[Member] = set()
    for layer, (index, part) in enumerate(zip(layer_nodes(coupled.graph), layers, strict=True)):
        given, read, *_ = coupled.nodes[index].stored["kernel"]
        if given is not None:
            members |= {(layer, "out", int(i)) for i in np.flatnonzero(given == unit)}
        if read is not None:
            groups, columns = getattr(part, "groups", 1), len(read)
            places = np.concatenate([np.flatnonzero(read == unit) + group * columns for group in range(groups)])
            members |= {(layer, "in", _in_torch(part, int(i))) for i in places}
    return members


def _in_torch(part: nn.Module, column: int) -> int:
    """The place that a column has in torch, where flattened images are NCHW."""
    if isinstance(part, nn.Linear) and part.in_features == 8 * 4 * 4:
        pixel, channel = divmod(column, 8)
        return channel * 16 + pixel
    return column


def theirs(graph: Any, layers: list[nn.Module], layer: int, channels: list[int]) -> set[Member]:
    """What Torch-Pruning cuts with channels of a layer."""
    group = graph.get_pruning_group(layers[layer], out_function(layers[layer]), idxs=channels)
    members: set[Member] = set()
    for dependency, indices in group:
        part = dependency.target.module
        if part in layers:
            depthwise = isinstance(part, nn.Conv2d) and part.groups == part.out_channels
            way = "out" if depthwise or graph.is_out_channel_pruning_fn(dependency.handler) else "in"
            members |= {(layers.index(part), way, int(i)) for i in indices}
    return members


def out_function(layer: nn.Module) -> Callable[..., Any]:
    found: Callable[..., Any] = (
        tp.prune_linear_out_channels if isinstance(layer, nn.Linear) else tp.prune_conv_out_channels
    )
    return found


def dependencies(module: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tp.DependencyGraph().build_dependency(module, example_inputs=X)


def test_units_are_what_torch_pruning_couples(module: nn.Module, graph: Graph) -> None:
    coupled = couple_channels(graph)
    layers, dependency_graph = executed(module, LAYERS), dependencies(module)
    assert coupled.groups
    for layer, index in enumerate(layer_nodes(coupled.graph)):
        given = coupled.nodes[index].stored["kernel"][0]
        assert given is not None
        for unit in np.unique(given).tolist():
            channels = np.flatnonzero(given == unit).tolist()
            expected = theirs(dependency_graph, layers, layer, channels)
            if coupled.group_of[unit] >= 0:
                # of each of several groups Torch-Pruning is to be told one channel, as its pruners do
                assert len(channels) == (4 if isinstance(module, Grouped) else 1)
                assert unit_members(coupled, unit, layers) == expected
            else:  # what the output has stays
                assert any(member[0] == len(layers) - 1 and member[1] == "out" for member in expected)


def test_pruned_networks_give_what_torch_pruning_leaves(module: nn.Module, graph: Graph) -> None:
    coupled = couple_channels(graph)
    rng = np.random.default_rng(1)
    keep = {g.name: np.sort(rng.choice(g.units, math.ceil(g.units / 2), replace=False)) for g in coupled.groups}
    ours, weights = pruned(coupled, weights_of(module, graph), keep)

    cut = copy.deepcopy(module)
    layers, dependency_graph = executed(cut, LAYERS), dependencies(cut)
    nodes = {graph.nodes[index].name: (layer, index) for layer, index in enumerate(layer_nodes(graph))}
    for name in dict.fromkeys(group.producers[0] for group in coupled.groups):
        layer, index = nodes[name]
        gone = cut_channels(coupled, index, keep)
        dependency_graph.get_pruning_group(layers[layer], out_function(layers[layer]), idxs=gone).prune()
    with torch.no_grad():
        expected = cut(X).numpy()
    assert 0 < ours.macs < graph.macs
    np.testing.assert_allclose(run(ours, weights), expected, rtol=1e-4, atol=1e-5)


def cut_channels(coupled: CoupledChannels, index: int, keep: dict[str, Any]) -> list[int]:
    """The channels that are cut of what a layer gives."""
    units = coupled.nodes[index].stored["kernel"][0]
    assert units is not None
    found = zip(coupled.group_of[units].tolist(), coupled.place_of[units].tolist(), strict=True)
    return [i for i, (group, place) in enumerate(found) if place not in keep[coupled.groups[group].name]]


def run(graph: Graph, weights: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(write_onnx(graph, weights), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: X.numpy()})[0]
