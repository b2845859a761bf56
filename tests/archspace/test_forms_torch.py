"""The torch form: arithmetic in closed form, training, and life as a module."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch import Tensor, nn

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Pool, Skip, Zero
from netlathe.archspace.errors import GraphError
from netlathe.archspace.forms.torch import TorchGraph, folded_weights
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.ops import Activation, ActivationKind, Add, Conv2d, Padding

NETWORK = chain(
    [
        ("b00", ConvBlock(3, 8, 8, 8, 2).graph()),
        ("b01", MBConv(8, 8, 4, 4, se=0.25, activation=ActivationKind.HARD_SWISH).graph()),
        ("head", LinearHead(8, 5, 4, 4).graph()),
    ]
)


def conv_of_ones(height: int, stride: int, padding: Padding = Padding.SAME) -> Tensor:
    """What a 3x3 kernel of ones gives on an image of ones: how many pixels each window covers."""
    builder = GraphBuilder((1, height, height, 1))
    builder.add("conv", Conv2d(1, (3, 3), (stride, stride), padding=padding, batch_norm=False), 0)
    module = TorchGraph(builder.build())
    nn.init.ones_(module.layers["conv"].weight)
    with torch.no_grad():
        return module(torch.ones(1, 1, height, height))[0, 0]


def test_same_padding_at_stride_2_on_an_even_size_adds_pixels_after_only() -> None:
    assert conv_of_ones(4, 2).tolist() == [[9, 6], [6, 4]]


def test_same_padding_at_stride_2_on_an_odd_size_is_symmetric() -> None:
    assert conv_of_ones(5, 2).tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_valid_padding_adds_nothing() -> None:
    assert conv_of_ones(5, 2, Padding.VALID).tolist() == [[9, 9], [9, 9]]


def test_symmetric_padding_is_done_by_the_convolution_itself() -> None:
    module = TorchGraph(ConvBlock(3, 4, 8, 8, 2, padding="symmetric").graph())
    assert module.layers["conv"].conv.padding == (1, 1)
    assert [step.function for step in module._steps[:2]] == [None, None]


@pytest.mark.parametrize("size", [4, 5])
def test_an_average_pool_divides_by_the_pixels_that_exist(size: int) -> None:
    module = TorchGraph(Pool("avg", 1, size, size, 3, 2).graph())
    ones = torch.ones(2, 1, size, size)
    assert torch.equal(module(ones), module(ones).new_ones(2, 1, (size + 1) // 2, (size + 1) // 2))


def test_a_max_pool_never_takes_its_padding_for_a_pixel() -> None:
    module = TorchGraph(Pool("max", 1, 4, 4, 3, 2).graph())
    assert torch.equal(module(-torch.ones(1, 1, 4, 4)), -torch.ones(1, 1, 2, 2))


def test_a_graph_without_nodes_is_the_identity() -> None:
    x = torch.randn(2, 4, 6, 6)
    assert TorchGraph(Skip(4, 4, 6, 6).graph())(x) is x


def test_zeros_have_the_batch_and_dtype_of_the_input() -> None:
    module = TorchGraph(Zero(4, 6, 7, 7, 2).graph())
    y = module(torch.randn(3, 4, 7, 7, dtype=torch.float64))
    assert y.shape == (3, 6, 4, 4)
    assert y.dtype == torch.float64
    assert not y.any()


def test_the_batch_is_free_but_the_size_is_not() -> None:
    module = TorchGraph(NETWORK)
    assert module(torch.zeros(7, 3, 8, 8)).shape == (7, 5)
    with pytest.raises(GraphError, match=r"built for \(\(3, 8, 8\),\).*\(7, 3, 9, 8\)"):
        module(torch.zeros(7, 3, 9, 8))
    with pytest.raises(GraphError, match="built for"):
        module()


def test_layers_are_keyed_by_node_name_and_reach_the_state_dict() -> None:
    module = TorchGraph(NETWORK)
    layers = [n.name for n in NETWORK.nodes if n.op.kind in ("conv", "fully_connected")]
    assert list(module.layers) == layers
    keys = set(module.state_dict())
    assert {"layers.b01/expand.conv.weight", "layers.b01/expand.bn.running_var"} <= keys
    assert {"layers.b01/se_reduce.weight", "layers.b01/se_reduce.bias", "layers.head/linear.weight"} <= keys


def test_parameters_are_as_many_as_the_graph_says() -> None:
    assert sum(p.numel() for p in TorchGraph(NETWORK).parameters()) == NETWORK.parameters


def test_initial_weights_follow_the_generator() -> None:
    first, same, other = (TorchGraph(NETWORK, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    weight = "layers.b00/conv.conv.weight"
    assert torch.equal(first.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


def test_initial_weights_are_kaiming_fan_out_with_neutral_batch_norm() -> None:
    builder = GraphBuilder((1, 4, 4, 32))
    builder.add("conv", Conv2d(64, (3, 3)), 0)
    layer = TorchGraph(builder.build(), generator=torch.Generator().manual_seed(0)).layers["conv"]
    assert layer[0].weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.05)
    assert layer[1].weight.eq(1).all()
    assert layer[1].bias.eq(0).all()
    head = TorchGraph(LinearHead(500, 100, 1, 1).graph(), generator=torch.Generator().manual_seed(0)).layers["linear"]
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert head.bias.eq(0).all()


def test_gradients_reach_every_parameter_and_the_input() -> None:
    module = TorchGraph(NETWORK).train()
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    module(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    silent = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent


def test_gradients_are_those_of_the_same_network_written_by_hand() -> None:
    """In-place activations and freed tensors must not disturb them."""
    module = TorchGraph(MBConv(4, 4, 6, 6, expand=2).graph()).train()
    expand, depthwise, project = module.layers.values()
    x = torch.randn(3, 4, 6, 6)
    relu6 = nn.functional.relu6
    by_hand = copy.deepcopy(x) + project(relu6(depthwise(relu6(expand(x)))))
    by_hand.square().sum().backward()
    expected = {name: p.grad for name, p in module.named_parameters()}
    module.zero_grad(set_to_none=True)
    y = module(x)
    y.square().sum().backward()
    assert torch.allclose(y, by_hand, atol=1e-6)
    for name, parameter in module.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-4, atol=1e-5), name


def test_batch_norm_learns_its_statistics_in_training_and_keeps_them_in_evaluation() -> None:
    builder = GraphBuilder((1, 4, 4, 1))
    builder.add("conv", Conv2d(1), 0)
    module = TorchGraph(builder.build())
    nn.init.constant_(module.layers["conv"][0].weight, 2.0)
    mean = module.layers["conv"][1].running_mean
    module.train()(torch.full((2, 1, 4, 4), 3.0))
    assert mean.item() == pytest.approx(0.1 * 2 * 3)  # momentum 0.1, from 0
    module.eval()(torch.full((2, 1, 4, 4), 30.0))
    assert mean.item() == pytest.approx(0.1 * 2 * 3)


def test_the_input_is_left_as_it_was() -> None:
    builder = GraphBuilder((1, 4, 4, 2))
    x = builder.add("act", Activation(ActivationKind.RELU), 0)
    builder.add("sum", Add(), 0, x)
    module = TorchGraph(builder.build())
    image = torch.full((1, 2, 4, 4), -2.0)
    assert torch.equal(module(image), image)
    assert image.eq(-2).all()


def test_a_copy_runs_its_own_layers() -> None:
    module = TorchGraph(NETWORK).eval()
    x = torch.randn(1, 3, 8, 8)
    twin = copy.deepcopy(module)
    before = module(x)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(module(x), before)
    assert not twin(x).any()


def test_a_layer_that_replaces_another_is_the_one_that_runs() -> None:
    module = TorchGraph(NETWORK).eval()
    x = torch.randn(1, 3, 8, 8)
    before = module(x)
    module.layers["head/linear"] = nn.Identity()
    assert module(x).shape == (1, 8)
    assert before.shape == (1, 5)


def test_tensors_are_freed_after_their_last_use() -> None:
    module = TorchGraph(NETWORK).eval()
    alive: dict[str, weakref.ref[Tensor]] = {}
    seen_at_head: list[str] = []
    for name, layer in module.layers.items():
        layer.register_forward_hook(lambda _m, _i, y, name=name: alive.update({name: weakref.ref(y)}))
    module.layers["head/linear"].register_forward_pre_hook(
        lambda _m, _i: seen_at_head.extend(name for name, tensor in alive.items() if tensor() is not None)
    )
    with torch.no_grad():
        module(torch.randn(1, 3, 8, 8))
    assert list(alive) == list(module.layers)
    assert seen_at_head == []


def test_folding_puts_batch_norm_into_kernel_and_bias() -> None:
    builder = GraphBuilder((1, 4, 4, 1))
    builder.add("conv", Conv2d(1), 0)
    module = TorchGraph(builder.build()).eval()
    conv, norm = module.layers["conv"]
    norm.eps = 3.0
    for tensor, value in (
        (conv.weight, 6.0), (norm.weight, 3.0), (norm.bias, 5.0), (norm.running_mean, 7.0), (norm.running_var, 1.0),
    ):  # fmt: skip
        nn.init.constant_(tensor, value)
    layer = folded_weights(module)["conv"]
    assert layer["kernel"].item() == 6 * 3 / 2  # the square root of 1 + 3
    assert layer["bias"].item() == 5 - 7 * 3 / 2


def test_folded_weights_of_layers_without_batch_norm_are_their_own() -> None:
    module = TorchGraph(LinearHead(4, 3, 2, 2).graph())
    layer = folded_weights(module)["linear"]
    linear = module.layers["linear"]
    assert torch.equal(torch.from_numpy(layer["kernel"]), linear.weight)
    assert torch.equal(torch.from_numpy(layer["bias"]), linear.bias)


def test_a_graph_of_two_inputs_takes_both() -> None:
    builder = GraphBuilder((1, 2, 2, 3), (1, 1, 1, 3))
    builder.add("sum", Add(), 0, 1)
    graph: Graph = builder.build()
    a, b = torch.randn(5, 3, 2, 2), torch.randn(5, 3, 1, 1)
    assert torch.equal(TorchGraph(graph)(a, b), a + b)
