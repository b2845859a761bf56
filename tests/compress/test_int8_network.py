"""A network that rounds as its int8 file does: LiteRT's values, scales that the file takes over, gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from netlathe.archspace.blocks import Block, ConvBlock, MBConv, SeparableConv
from netlathe.archspace.forms.tflite import tflite_ranges, write_tflite
from netlathe.archspace.forms.tflite_file import unpack
from netlathe.archspace.forms.torch import TorchGraph, folded_weights, load_weights
from netlathe.archspace.forms.weights import Weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Clip,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    LeakyReLU,
    Op,
    Pad,
    Pool2d,
    PReLU,
    Softmax,
    Split,
    TransposeConv2d,
)
from netlathe.archspace.precisions import mixed
from netlathe.compress.calibration import corrected_biases, gradient_scales, least_error_ranges
from netlathe.compress.int8_network import Int8Network
from netlathe.exporting import calibration
from netlathe.runs.compression.file_network import FileNetwork
from netlathe.training import Compute, ImageData, TrainConfig, evaluate, load_images, train
from netlathe.training.distillation import Teacher
from netlathe.training.norms import without_batch_norm

RELU = Activation(ActivationKind.RELU)
HEAD = (GlobalAvgPool(), FullyConnected(10))


def in_a_row(*ops: Op) -> Graph:
    builder = GraphBuilder((1, 8, 8, 1))
    x = 0
    for index, op in enumerate(ops):
        x = builder.add(f"n{index}", op, x)
    return builder.build(x)


def residual() -> Graph:
    """A stem, a residual block with a linear end, two branches joined, a head."""
    builder = GraphBuilder((1, 8, 8, 1))
    x = builder.add("stem_relu", RELU, builder.add("stem", Conv2d(12, (3, 3)), 0))
    inner = builder.add("inner", Conv2d(12, (3, 3)), x)
    both = builder.add("sum_relu", RELU, builder.add("sum", Add(), x, builder.add("outer", Conv2d(12, (3, 3)), inner)))
    left = builder.add("left", Pool2d("max", (2, 2), (2, 2)), both)
    deep = builder.add("deep", Conv2d(12, (3, 3), (2, 2), groups=12), both)
    joined = builder.add("join", Concat(), left, deep)
    return builder.build(builder.add("head", FullyConnected(10), builder.add("mean", GlobalAvgPool(), joined)))


def halves() -> Graph:
    """Channels in two parts, which change places."""
    builder = GraphBuilder((1, 8, 8, 1))
    x = builder.add("pool", Pool2d("avg", (3, 3), (2, 2)), builder.add("stem", Conv2d(6, (3, 3)), 0))
    first = builder.add("halves", Split((2, 4)), x)
    joined = builder.add("join", Concat(), first + 1, builder.add("relu", RELU, first))
    return builder.build(builder.add("head", FullyConnected(10), builder.add("mean", GlobalAvgPool(), joined)))


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_images("digits", (8, 8), channels=1, limit=256)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return residual()


@pytest.fixture(scope="module")
def weights(graph: Graph, data: ImageData) -> Weights:
    network = TorchGraph(graph, generator=torch.Generator().manual_seed(0))
    train(network, data, TrainConfig(epochs=20, batch_size=32, learning_rate=0.05))
    assert evaluate(network, data.test) > 0.8
    return folded_weights(network)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another take longer than such small networks do."""
    with Compute(threads=1).threaded():
        yield


def ranges_of(graph: Graph, weights: Weights, data: ImageData) -> dict[str, tuple[float, float]]:
    return tflite_ranges(graph, weights, calibration(data.train, 64))


def scores(network: torch.nn.Module, data: ImageData, count: int = 60) -> Tensor:
    with torch.no_grad():
        split = data.test
        return network(split.normalization(split.load(torch.arange(count)))).flatten(1)


def step_of(content: bytes) -> float:
    """The step from one result of an int8 file to the next."""
    model = unpack(content)
    quantization = model.tensors[model.outputs[0]].quantization
    assert quantization is not None
    return quantization.scales[0]


def test_a_trained_network_scores_as_its_file_does_in_litert(graph: Graph, weights: Weights, data: ImageData) -> None:
    ranges = ranges_of(graph, weights, data)
    content = write_tflite(graph, weights, dtype="int8", ranges=ranges)
    network, file = Int8Network(graph, weights, ranges), FileNetwork(content)
    assert float((scores(network, data) - scores(file, data)).abs().max()) < 1.01 * step_of(content)
    assert evaluate(network, data.test) == evaluate(file, data.test)
    exact = TorchGraph(graph).eval()
    load_weights(exact, weights)
    assert float((scores(network, data) - scores(exact, data)).abs().max()) > 0.5 * step_of(content)


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "float16"])
def test_parts_in_a_precision_round_as_the_mixed_file_does(
    precision: str, graph: Graph, weights: Weights, data: ImageData
) -> None:
    ranges = ranges_of(graph, weights, data)
    inside = mixed(graph, dict.fromkeys(("inner", "outer", "sum", "sum_relu", "left"), precision))
    network, file = Int8Network(inside, weights, ranges), FileNetwork(write_tflite(inside, weights, ranges=ranges))
    exact = TorchGraph(graph).eval()
    load_weights(exact, weights)
    off = (scores(network, data) - scores(file, data)).abs()
    largest = float((scores(exact, data)).abs().max())
    assert float(off.mean()) < 2e-3 * largest
    assert float(off.max()) < 2e-2 * largest
    if precision == "int8":
        assert float(off.mean()) < 0.3 * float((scores(exact, data) - scores(file, data)).abs().mean())


OTHERS = {
    "slopes": in_a_row(Conv2d(6, (3, 3)), PReLU((1, 1, 6)), LeakyReLU(0.1), *HEAD),
    "clipped": in_a_row(Conv2d(6, (3, 3)), Clip(-1.0, 1.0), Pad((1, 1), (0, 2)), Conv2d(6, (3, 3)), *HEAD),
    "deconvolution": in_a_row(Conv2d(6), TransposeConv2d(4, (3, 3), (2, 2), height=(0, 1), width=(0, 1)), RELU, *HEAD),
    "softmax": in_a_row(Conv2d(6, (3, 3)), RELU, *HEAD, Softmax()),
    "halves": halves(),
}
BLOCKS: dict[str, Block] = {
    "excited": MBConv(1, 8, 8, 8, se=0.5, activation=ActivationKind.HARD_SWISH),
    "swish": ConvBlock(1, 8, 8, 8, activation=ActivationKind.SWISH),
    "gated": ConvBlock(1, 8, 8, 8, activation=ActivationKind.HARD_SIGMOID),
    "separable": SeparableConv(1, 8, 8, 8),
}


@pytest.mark.parametrize("name", [*OTHERS, *BLOCKS])
def test_other_ops_round_nearly_as_the_file_does(name: str, data: ImageData) -> None:
    """What an op does inside is rounded at its end alone: results are within a few steps, by far nearer than float32's
    are to the file's in sum."""
    graph = OTHERS[name] if name in OTHERS else without_batch_norm(BLOCKS[name].graph(1))
    weights = random_weights(graph, 3)
    ranges = ranges_of(graph, weights, data)
    content = write_tflite(graph, weights, dtype="int8", ranges=ranges)
    network, file = Int8Network(graph, weights, ranges), FileNetwork(content)
    off = (scores(network, data, 20) - scores(file, data, 20).flatten(1)[:, _order(graph)]).abs()
    assert float(off.max()) < 3.01 * step_of(content)
    assert float(off.mean()) < 0.5 * step_of(content)


def _order(graph: Graph) -> list[int]:
    """Places of a file's values, (H, W, C), in the order of torch's, (C, H, W)."""
    shape = graph.output_shape[1:]
    places = np.arange(math.prod(shape)).reshape(shape)
    return [int(n) for n in (places.transpose(2, 0, 1) if len(shape) == 3 else places).ravel()]


def test_the_file_takes_over_scales_that_were_trained(graph: Graph, weights: Weights, data: ImageData) -> None:
    ranges = ranges_of(graph, weights, data)
    network = Int8Network(graph, weights, ranges)
    with torch.no_grad():
        network.log_gains += torch.linspace(-0.4, 0.3, len(network.log_gains))
    given = {**ranges, **network.ranges()}
    file = FileNetwork(write_tflite(graph, weights, dtype="int8", ranges=given))
    assert evaluate(network, data.test) == evaluate(file, data.test)
    again = Int8Network(graph, weights, given)
    assert torch.allclose(again.scales, torch.cat([network._scale(n) for n in range(len(again.scales))]), rtol=1e-5)
    assert torch.equal(again.zero_points, network.zero_points)


def test_inputs_and_fixed_scales_are_not_trained() -> None:
    graph = OTHERS["softmax"]
    weights = random_weights(graph, 0)
    images = [[np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)]]
    network = Int8Network(graph, weights, tflite_ranges(graph, weights, images))
    network(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))[:, 0].sum().backward()
    gradient = network.log_gains.grad
    assert gradient is not None
    trained = {number for number, one in enumerate(gradient.tolist()) if one}
    fixed = {number for number, one in enumerate(network._shared) if one.is_fixed}
    assert fixed
    assert trained
    assert not trained & (fixed | network._inputs)


def test_gradients_pass_rounding_and_end_where_values_are_cut_off() -> None:
    graph = in_a_row(Conv2d(1))
    weights = {"n0": {"kernel": np.ones((1, 1, 1, 1), np.float32), "bias": np.zeros(1, np.float32)}}
    ranges = {"input": (-8.0, 7.9375), "n0": (-4.0, 3.96875), "n0.weight": (0.0, 1.0), "n0.bias": (0.0, 0.0)}
    network = Int8Network(graph, weights, ranges)
    x = torch.linspace(-7.0, 7.0, 64).reshape(1, 1, 8, 8)
    network(x).sum().backward()
    bias = network.layers["n0"].bias.grad
    inside = int(((x > -4) & (x < 3.97)).sum())
    assert float(bias) == pytest.approx(inside, abs=1)


def rescaled(weights: Weights, factor: float) -> Weights:
    """The same function, `inner`'s channels larger by a factor each."""
    factors = np.geomspace(1, factor, 12).astype(np.float32)
    inner, outer = weights["inner"], weights["outer"]
    wide = {"kernel": inner["kernel"] * factors.reshape(-1, 1, 1, 1), "bias": inner["bias"] * factors}
    return {**weights, "inner": wide, "outer": {**outer, "kernel": outer["kernel"] / factors.reshape(1, -1, 1, 1)}}


def test_steps_of_a_training_do_not_depend_on_the_sizes_of_channels(
    graph: Graph, weights: Weights, data: ImageData
) -> None:
    """By the square of the factors, a weight's gradient is larger than its own change of unit."""
    few = data.train.take(torch.arange(64))
    plain = gradient_scales(graph, weights, few)
    wide = gradient_scales(graph, rescaled(weights, 30.0), few)
    factors = np.geomspace(1, 30, 12)
    assert np.allclose(wide["inner"].bias, plain["inner"].bias * factors**2, rtol=1e-3)
    by_results = plain["inner"].kernel * factors.reshape(-1, 1, 1, 1) ** 2
    assert np.allclose(wide["inner"].kernel, by_results, rtol=1e-3)
    assert np.allclose(wide["outer"].kernel, plain["outer"].kernel / factors.reshape(1, -1, 1, 1) ** 2, rtol=1e-3)
    assert np.allclose(wide["outer"].bias, plain["outer"].bias, rtol=1e-3)


def test_a_training_with_rounding_wins_back_what_int8_lost(graph: Graph, weights: Weights, data: ImageData) -> None:
    """Of a network whose channels are of unlike sizes, and whose weights and scales are trained from there."""
    wide = rescaled(weights, 3000.0)
    ranges = ranges_of(graph, wide, data)
    before = Int8Network(graph, wide, ranges)
    teacher = TorchGraph(graph).eval()
    load_weights(teacher, wide)
    reference, lost = evaluate(teacher, data.validation), evaluate(before, data.validation)
    network = Int8Network(graph, wide, ranges)
    network.train_layers(gradient_scales(graph, wide, data.train.take(torch.arange(64))))
    config = TrainConfig(epochs=6, batch_size=32, learning_rate=0.03, weight_decay=0.0)
    train(network, data, config, split=data.train, teacher=Teacher(teacher, 1.0, 4.0))
    assert reference - lost > 0.1
    found = folded_weights(network)
    content = write_tflite(graph, found, dtype="int8", ranges={**ranges_of(graph, found, data), **network.ranges()})
    after = evaluate(network, data.validation)
    assert evaluate(FileNetwork(content), data.validation) == after
    assert reference - after < 0.25 * (reference - lost)


def test_ranges_of_least_error_leave_out_what_is_rare(graph: Graph, weights: Weights, data: ImageData) -> None:
    """A single outlier in a thousand values makes min-max steps coarse; the other ranges are finer in sum."""
    ranges = ranges_of(graph, weights, data)
    found = least_error_ranges(
        graph, weights, {**ranges, "inner": (-1000.0, 1000.0)}, data.train.take(torch.arange(64))
    )
    assert found.keys() == ranges.keys()
    low, high = found["inner"]
    assert ranges["inner"][0] * 1.5 < low < 0 < high < ranges["inner"][1] * 1.5
    exact = TorchGraph(graph).eval()
    load_weights(exact, weights)
    wanted = scores(exact, data)
    errors = [
        float((scores(Int8Network(graph, weights, one), data) - wanted).square().mean())
        for one in (found, {**ranges, "inner": (-1000.0, 1000.0)})
    ]
    assert errors[0] < 0.2 * errors[1]


def test_corrected_biases_give_each_channel_the_mean_that_it_has(
    graph: Graph, weights: Weights, data: ImageData
) -> None:
    """Where coarse weights shift the means: those of a network whose channels are of unlike sizes."""
    wide = rescaled(weights, 1000.0)
    ranges = ranges_of(graph, wide, data)
    found = corrected_biases(graph, wide, ranges, data.train.take(torch.arange(64)))
    assert all(np.array_equal(found[node]["kernel"], wide[node]["kernel"]) for node in wide)
    exact = TorchGraph(graph).eval()
    load_weights(exact, wide)

    def shift(given: Weights) -> float:
        """Of the scores' means on training images."""
        network, split = Int8Network(graph, given, ranges), data.train.take(torch.arange(64))
        x = split.normalization(split.load(torch.arange(len(split))))
        with torch.no_grad():
            return float((network(x).mean(0) - exact(x).mean(0)).abs().max())

    assert shift(found) < 0.2 * shift(wide)
