"""The forward pass of a training: sizes of images by a schedule, and what is left out of a network at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from netlathe.archspace.errors import GraphError
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.ops import FullyConnected
from netlathe.archspace.residuals import residual_blocks
from netlathe.training.augmentation import seeds_of
from netlathe.training.compute import Compute
from netlathe.training.errors import TrainingError
from netlathe.training.ranks import Share

Pixels = tuple[int, int]
"""(height, width)."""
_DROPS = 4
"""Use of a seed, beside those in `augmentation.py`."""


class TrainingForward:
    """The forward pass of each step of a training.

    Images are resized to the step's share of the network's own size; residual branches, and values before the last
    fully connected layer, are left out at random. Random numbers are drawn for the whole batch, so that an image's do
    not depend on the processes that share it. Raises TrainingError for a network that has nothing to leave out, or
    cannot take images of other sizes.
    """

    def __init__(
        self,
        network: nn.Module,
        pixels: Pixels,
        share: Share,
        compute: Compute,
        *,
        seed: int,
        resolutions: tuple[float, ...] = (1.0,),
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        self.share, self.seed = share, seed
        self.drops = Drops(network, drop_path, dropout) if drop_path or dropout else None
        self.sizes = [fitting_size(network, pixels, one) for one in resolutions]
        self._runs: dict[Pixels, Callable[..., Tensor]] = {}
        for size in self.sizes:
            sized = network if size == pixels else at_size(network, size)
            module = DroppingGraph(sized, self.drops) if self.drops and isinstance(sized, TorchGraph) else sized
            # Beside the network, not in place: judging and exporting it afterwards need no compiled form.
            self._runs[size] = torch.compile(module) if compute.compile else module
        self._pixels = pixels

    def size_at(self, step: int, steps: int) -> Pixels:
        """Size of the images of step 0, 1, ..., `steps` - 1: each of the schedule's for an equal part of the steps."""
        return self.sizes[min(step * len(self.sizes) // max(1, steps), len(self.sizes) - 1)]

    def at(self, step: int, steps: int) -> Callable[[Tensor], Tensor]:
        """The forward pass of a step, to be called with each part of its batch in turn, (n, C, H, W)."""
        size = self.size_at(step, steps)
        run = self._runs[size]
        drawn = self._drawn(step) if self.drops else None

        def forward(x: Tensor) -> Tensor:
            if size != self._pixels:
                x = nn.functional.interpolate(x, size, mode="bilinear", antialias=True)
            if drawn is None:
                return run(x)
            paths, units = next(drawn)
            return run(x, paths.to(x), units.to(x))

        return forward

    def _drawn(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Factors of residual branches and of values, for each part of this process's share of a step's batch."""
        assert self.drops is not None
        generator = torch.Generator().manual_seed(*seeds_of(self.seed, _DROPS, step, 1))
        paths, units = self.drops.draw(self.share.size, generator)
        return ((paths[part], units[part]) for part in self.share.slices)


class Drops:
    """Branches and values of a network that are left out, each with its probability.

    The last of its residual branches is left out with `drop_path`, those before with linearly less (stochastic depth,
    arXiv:1603.09382); values before its last fully connected layer with `dropout` (Srivastava et al., JMLR 15, 2014).
    What remains is divided by its probability, so that the expectation is that of the whole network. Raises
    TrainingError for a network that is no graph, or has no such branch or layer.
    """

    def __init__(self, network: nn.Module, drop_path: float, dropout: float) -> None:
        if not isinstance(network, TorchGraph):
            raise TrainingError(
                f"drop_path and dropout need a network that is a graph (TorchGraph), not {type(network).__name__}"
            )
        graph = network.graph
        blocks = residual_blocks(graph) if drop_path else ()
        if drop_path and not blocks:
            raise TrainingError("drop_path: the network has no residual block whose branch could be left out; use 0")
        sums = {node.name: index for index, node in enumerate(graph.nodes)}
        self.branches: dict[int, tuple[int, int]] = {}
        """Node of a sum -> the tensor of its branch, and its column among the factors."""
        for column, block in enumerate(blocks):
            index = sums[block.name]
            first, second = graph.nodes[index].inputs
            self.branches[index] = (second if first == block.entry else first, column)
        depth = torch.arange(1, len(blocks) + 1, dtype=torch.float64)
        self.path_rates = drop_path * depth / max(1, len(blocks))
        heads = [index for index, node in enumerate(graph.nodes) if isinstance(node.op, FullyConnected)]
        if dropout and not heads:
            raise TrainingError("dropout: the network has no fully connected layer to leave values out before; use 0")
        self.head = heads[-1] if dropout else -1
        self.features = graph.shapes[graph.nodes[self.head].inputs[0]][-1] if dropout else 0
        self.dropout = dropout

    def draw(self, images: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Factors of each image's branches, float32 (images, branches), and of its values, (images, features): 0, or
        the inverse of the probability to remain."""
        paths = torch.rand((images, len(self.path_rates)), generator=generator, dtype=torch.float64)
        units = torch.rand((images, self.features), generator=generator)
        kept = (paths >= self.path_rates) / (1 - self.path_rates)
        return kept.float(), (units >= self.dropout).float() / (1 - self.dropout)


class DroppingGraph(nn.Module):
    """A graph's module, of which branches and values are multiplied by factors."""

    def __init__(self, network: TorchGraph, drops: Drops) -> None:
        super().__init__()
        self.network, self.drops = network, drops

    def forward(self, x: Tensor, paths: Tensor, units: Tensor) -> Tensor:
        """The result on images (n, C, H, W), by factors as `Drops.draw` gives them."""
        graph, drops = self.network.graph, self.drops
        tensors: dict[int, Tensor] = {0: x}
        for index, node in enumerate(graph.nodes):
            if index in drops.branches:
                tensor, column = drops.branches[index]
                branch = tensors[tensor]
                tensors[tensor] = branch * paths[:, column].view(-1, *[1] * (branch.dim() - 1))
            if index == drops.head:
                values = tensors[node.inputs[0]]
                tensors[node.inputs[0]] = values * units.view(*units.shape, *[1] * (values.dim() - 2))
            self.network.compute(index, tensors)
        return tensors[graph.outputs[0]]


def fitting_size(network: nn.Module, pixels: Pixels, share: float) -> Pixels:
    """The size that is nearest to that share of `pixels` (the larger of two), in steps of a 28th, at which a graph's
    module has the layers that it has: where an image's side is divided by strides without a rest, padding is the same.
    Raises TrainingError where there is none."""
    if share == 1 or not isinstance(network, TorchGraph):
        height, width = (max(1, round(share * side)) for side in pixels)
        return height, width
    wanted, step = share * pixels[0], max(1, pixels[0] // 28)
    for height in sorted(range(step, pixels[0], step), key=lambda side: (abs(side - wanted), -side)):
        width = round(height * pixels[1] / pixels[0])
        if height * pixels[1] == width * pixels[0] and _has_same_layers(network, (height, width)):
            return height, width
    raise TrainingError(
        f"resolutions: at no size below {pixels[0]}x{pixels[1]} pixels the network has the layers that it has; use 1"
    )


def _has_same_layers(network: TorchGraph, size: Pixels) -> bool:
    try:
        at_size(network, size)
    except TrainingError:
        return False
    return True


def _shapes(network: nn.Module) -> list[torch.Size]:
    return [value.shape for value in network.state_dict().values()]


def at_size(network: nn.Module, size: Pixels) -> nn.Module:
    """The network for images of another (height, width), of the very same layers. Raises TrainingError where it needs
    others there."""
    if not isinstance(network, TorchGraph):
        return network
    graph = network.graph
    if len(graph.inputs) != 1 or len(graph.inputs[0]) != 4:
        raise TrainingError("resolutions: the network takes no single image")
    batch, _, _, channels = graph.inputs[0]
    try:
        with torch.device("meta"):  # its own weights are never used
            sized = TorchGraph(replace(graph, inputs=((batch, *size, channels),)))
    except GraphError as error:
        raise TrainingError(f"resolutions: the network cannot take {size[0]}x{size[1]} pixels ({error})") from error
    if str(sized.layers) != str(network.layers) or _shapes(sized) != _shapes(network):
        raise TrainingError(f"resolutions: at {size[0]}x{size[1]} pixels the network's layers are others")
    sized.layers = network.layers
    return sized
