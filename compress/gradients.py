"""Importance of channels by gradients: how much the loss changes, to first order, where a unit is cut."""

from __future__ import annotations

import itertools
from contextlib import closing
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netlathe.archspace.forms.torch import CroppedConvTranspose, TorchGraph, load_weights
from netlathe.archspace.forms.weights import Weights, untransposed
from netlathe.compress.coupling import CoupledChannels
from netlathe.compress.errors import CompressError
from netlathe.compress.importance import by_group
from netlathe.training.compute import Compute
from netlathe.training.images import ImageSplit, spread_over_classes
from netlathe.training.losses import class_weights, cross_entropy
from netlathe.training.sgd import check_finite
from netlathe.training.stream import batches_per_pass, stream

Teacher = Literal["labels", "own"]
"""Classes that the loss is of: those of the images, or such as the network itself holds likely."""


def taylor(
    coupled: CoupledChannels,
    weights: Weights,
    split: ImageSplit,
    *,
    teacher: Teacher = "labels",
    images: int = 1000,
    batch_size: int = 16,
    is_balanced: bool = False,
    seed: int = 0,
    compute: Compute | None = None,
) -> dict[str, NDArray[np.float64]]:
    """The mean square, over batches of images, of the change of the cross-entropy where a unit is cut, to first order.

    That is (sum of gradient * weight)² over all kernel values that read the unit (Molchanov et al., arXiv:1906.10771,
    eq. 8, for one gate per group): with zeros in these, the network is the one without the unit. Where nothing that
    has a kernel reads it, those that give it count. `images` of the split at most are seen, every class alike, in
    batches of `batch_size`; where a class has too few, `is_balanced` lets all count alike in the loss even so, by
    `class_weights`. With `teacher` "own", classes are drawn from the network's own output, for images whose labels are
    not its classes; the result then is the unit's Fisher information (Theis et al., arXiv:1801.05787).

    Returns (units,) for each group's name, comparable over groups. Raises CompressError where the network gives no
    class scores, TrainingError where the loss is no number.
    """
    compute = compute or Compute()
    graph = coupled.graph
    outputs = [graph.shapes[t] for t in graph.outputs]
    if len(outputs) != 1 or len(outputs[0]) not in (2, 4) or np.prod(outputs[0][1:-1], dtype=int) != 1:
        raise CompressError(f"the network gives {outputs!s:.100}, not a score for each class of each image")
    network = TorchGraph(graph).eval()
    load_weights(network, weights)
    part = split.take(torch.from_numpy(spread_over_classes(split.labels.numpy(), images, seed)))
    batches, count = stream(part, batch_size, seed=seed, workers=compute.workers), batches_per_pass(part, batch_size)
    of_classes = class_weights(part.labels, outputs[0][-1]) if is_balanced and teacher == "labels" else None
    generator, squares = torch.Generator().manual_seed(seed), np.zeros(len(coupled.group_of))
    with compute.visiting(network), closing(batches):
        for number, (x, labels) in enumerate(itertools.islice(batches, count), 1):
            x, labels = compute.put(x, labels)
            network.zero_grad(set_to_none=True)
            logits = network(x).flatten(1)
            wanted = labels if teacher == "labels" else _drawn(logits, generator)
            loss = cross_entropy(logits, wanted, weights=of_classes)
            check_finite(loss, f"batch {number} of {count} for the importance of channels")
            loss.backward()  # type: ignore[no-untyped-call]
            squares += _changes(coupled, network) ** 2
    return by_group(coupled, squares / count)


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A class of each image, drawn from what the network holds likely."""
    probabilities = logits.detach().float().softmax(1).cpu()
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device)


def _changes(coupled: CoupledChannels, network: TorchGraph) -> NDArray[np.float64]:
    """Sum of gradient * weight for each unit, over what reads it; over what gives it where nothing does."""
    read, given = np.zeros(len(coupled.group_of)), np.zeros(len(coupled.group_of))
    is_read = np.zeros(len(coupled.group_of), bool)
    for node, units in zip(coupled.graph.nodes, coupled.nodes, strict=True):
        axes = units.stored.get("kernel")
        if not axes:
            continue
        products = _products(network.layers[node.name])
        for axis, sums in ((0, given), (1, read)):
            along = axes[axis]
            if along is not None:
                others = tuple(other for other in range(products.ndim) if other != axis)
                np.add.at(sums, along, products.sum(axis=others))
        if axes[1] is not None:
            is_read[axes[1]] = True
    return np.where(is_read, read, given)


def _products(layer: nn.Module) -> NDArray[np.float64]:
    """Gradient * weight of each of a layer's kernel values, laid out as the graph's kernel."""
    inner: Any = layer[0] if isinstance(layer, nn.Sequential) else layer
    products: NDArray[np.float64] = (inner.weight.detach() * inner.weight.grad).double().cpu().numpy()
    return untransposed(products, inner.groups) if isinstance(inner, CroppedConvTranspose) else products
