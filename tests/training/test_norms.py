"""BatchNorm given back to networks that were read without it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.forms.onnx import read_onnx_weights, write_onnx
from netlathe.archspace.forms.torch import TorchGraph, folded_weights, load_weights
from netlathe.archspace.forms.weights import Weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.ops import Activation, ActivationKind, BatchNorm, Conv2d
from netlathe.training.errors import TrainingError
from netlathe.training.images import ImageData, ImageSplit
from netlathe.training.normalization import SYMMETRIC
from netlathe.training.norms import restore_batch_norm, with_batch_norm
from netlathe.training.sources import load_images
from netlathe.training.stream import chunks

NETWORK = chain(
    [
        ("b00", ConvBlock(3, 8, 8, 8).graph()),
        ("b01", MBConv(8, 16, 8, 8, 2, 3, 6, se=0.25).graph()),
        ("head", LinearHead(16, 10, 4, 4).graph()),
    ]
)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", (8, 8), limit=200)


def images_of(split: ImageSplit) -> torch.Tensor:
    ((images, _),) = chunks(split, len(split))
    found: torch.Tensor = SYMMETRIC(images)
    return found


def norm_of(module: TorchGraph, name: str) -> nn.modules.batchnorm._BatchNorm:
    found = module.get_submodule(f"layers.{name}")
    assert isinstance(found, nn.modules.batchnorm._BatchNorm)
    return found


def loaded(graph: Graph, weights: Weights) -> TorchGraph:
    module = TorchGraph(graph)
    load_weights(module, weights)
    return module.eval()


def results(module: TorchGraph, digits: ImageData) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(images_of(digits.test))


def test_restored_statistics_are_those_of_the_images_and_change_no_result(digits: ImageData) -> None:
    module = loaded(NETWORK, random_weights(NETWORK))
    before = results(module, digits)
    inputs: list[torch.Tensor] = []
    restore_batch_norm(module, digits.train, batch_size=len(digits.train))
    torch.testing.assert_close(results(module, digits), before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))
    norm = norm_of(module, "b01/depthwise.bn")
    hook = norm.register_forward_pre_hook(lambda _, taken: inputs.append(taken[0]))
    with torch.no_grad():
        module(images_of(digits.train))
    hook.remove()
    torch.testing.assert_close(norm.running_mean, inputs[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, inputs[0].var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-6)
    assert not module.training


def test_statistics_over_batches_are_those_of_all_images(digits: ImageData) -> None:
    weights = random_weights(NETWORK)
    whole, parts = loaded(NETWORK, weights), loaded(NETWORK, weights)
    count = len(digits.train) // 4 * 4
    assert count == len(digits.train)  # so that both see the same images
    restore_batch_norm(whole, digits.train, batch_size=count)
    restore_batch_norm(parts, digits.train, batch_size=count // 4)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_training_mode_of_the_restored_images_gives_the_same_function(digits: ImageData) -> None:
    module = loaded(NETWORK, random_weights(NETWORK))
    before = results(module, digits)
    restore_batch_norm(module, digits.test, batch_size=len(digits.test))
    with torch.no_grad():
        trained = module.train()(images_of(digits.test))  # one batch, whose statistics are the restored ones
    torch.testing.assert_close(trained, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))


def test_a_norm_in_the_middle_of_training_keeps_its_function_too(digits: ImageData) -> None:
    module = loaded(NETWORK, random_weights(NETWORK))
    module.train()(images_of(digits.train))  # statistics that are no longer 0 and 1
    before = results(module, digits)
    restore_batch_norm(module, digits.train)
    torch.testing.assert_close(results(module, digits), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def test_a_norm_of_its_own_is_restored_too(digits: ImageData) -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    builder.add("norm", BatchNorm(), 0)
    module = loaded(builder.build(), random_weights(builder.build()))
    before = results(module, digits)
    restore_batch_norm(module, digits.train, batch_size=len(digits.train))
    torch.testing.assert_close(results(module, digits), before, rtol=1e-4, atol=1e-5)
    mean = images_of(digits.train).mean((0, 2, 3))
    torch.testing.assert_close(norm_of(module, "norm").running_mean, mean, rtol=1e-4, atol=1e-5)


def test_values_that_are_not_finite_are_refused_by_their_layer(digits: ImageData) -> None:
    weights = random_weights(NETWORK)
    weights["b00/conv"]["kernel"][0] = np.inf
    with pytest.raises(TrainingError, match=r"'b00/conv.*not finite"):
        restore_batch_norm(loaded(NETWORK, weights), digits.train)


def foreign_without_norm() -> tuple[Graph, Weights]:
    """Its own network as a file without its graph: convolutions have a bias, and no BatchNorm."""
    model = onnx.load_model_from_string(write_onnx(NETWORK, random_weights(NETWORK)))
    model.ClearField("metadata_props")
    return read_onnx_weights(bytes(model.SerializeToString()))[:2]


def test_a_foreign_network_with_norms_added_keeps_its_function(digits: ImageData) -> None:
    graph, weights = foreign_without_norm()
    assert not any(node.op.batch_norm for node in graph.nodes if isinstance(node.op, Conv2d))
    before = results(loaded(graph, weights), digits)
    module = loaded(with_batch_norm(graph, linear=True), weights)
    restore_batch_norm(module, digits.train)
    torch.testing.assert_close(results(module, digits), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    again = loaded(graph, folded_weights(module))  # and folds back into the graph that was read
    torch.testing.assert_close(results(again, digits), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def test_norms_are_added_where_an_activation_follows_and_images_have_more_than_a_pixel() -> None:
    builder = GraphBuilder((1, 4, 4, 3))
    x = builder.add("activated", Conv2d(4, batch_norm=False), 0)
    x = builder.add("relu", Activation(ActivationKind.RELU), x)
    x = builder.add("linear", Conv2d(4, batch_norm=False), x)
    x = builder.add("pixel", Conv2d(4, (4, 4), (4, 4), batch_norm=False), x)
    builder.add("last", Activation(ActivationKind.RELU), x)
    graph = builder.build()

    def normed(changed: Graph) -> list[str]:
        return [node.name for node in changed.nodes if isinstance(node.op, Conv2d) and node.op.batch_norm]

    assert normed(with_batch_norm(graph)) == ["activated"]
    assert normed(with_batch_norm(graph, linear=True)) == ["activated", "linear"]
