"""A network's latency kernel by kernel: whatever the model was fitted on, the parts add up to the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from synthetic_latency import block_records, head_and_stem_records, random_blocks, true_latency_ms

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.kernels import kernel_bytes, kernels_of
from netlathe.archspace.networks import network
from netlathe.archspace.ops import Activation, ActivationKind, Conv2d, Pad, Padding
from netlathe.predictor import LatencyPredictor, Prior

NETWORK = network("mobilenet_v2_0.35_96").graph()
PLAIN = MBConv(16, 24, 28, 28, se=0.25).graph()


class Law:
    """A model of the user's own: the known law of each graph, and half a millisecond for each network."""

    def predict(self, graphs: Sequence[Graph]) -> list[float]:
        return [true_latency_ms(graph) + (0.5 if graph.is_network else 0.0) for graph in graphs]


def fitted(prior: Prior | None = None) -> LatencyPredictor:
    records = [*block_records(random_blocks(60, kernels=(3, 5))), *head_and_stem_records()]
    return LatencyPredictor("none", prior=prior).fit(records)


def adapted() -> LatencyPredictor:
    blocks = [block.graph() for block in random_blocks(40, kernels=(3, 5))]
    graphs = [*blocks, *(record.graph for record in head_and_stem_records())]
    times = np.array([true_latency_ms(graph) for graph in graphs])
    prior = Prior.learn({str(speed): (graphs, speed * times) for speed in (1.0, 2.0, 4.0)})
    return LatencyPredictor(prior=prior).fit(graphs[:6], 3 * times[:6])


@pytest.mark.parametrize("graph", [NETWORK, PLAIN], ids=["network", "block"])
@pytest.mark.parametrize("name", ["blocks", "adapted", "own", "pixel4-cpu-networks", "pixel4-gpu", "pixel4-cpu"])
def test_kernels_and_the_rest_add_up_to_the_prediction(name: str, graph: Graph) -> None:
    made = {"blocks": fitted, "adapted": adapted, "own": lambda: LatencyPredictor.wrapping(Law())}
    model = (made[name]() if name in made else LatencyPredictor.load(name)).assuming()
    found = model.kernels(graph)
    assert found.total_ms == pytest.approx(float(model.predict([graph])[0]))
    assert found.latency_ms.sum() + found.rest_ms == pytest.approx(found.total_ms)
    assert (found.latency_ms >= 0).all()
    assert len(found.names) == len(found.graphs) == len(found.latency_ms) == len(found.limits)
    nodes = [node for names in found.names for node in names]
    assert sorted(nodes) == sorted(node.name for node in graph.nodes)
    if name == "own":
        assert found.rest_ms == pytest.approx(found.total_ms - sum(map(true_latency_ms, found.graphs)))
        assert np.isnan(found.limits).all()


def test_a_model_of_blocks_tells_each_blocks_latency_as_it_tabulates_it() -> None:
    model = fitted()
    found, blocks = model.kernels(NETWORK), NETWORK.segments()
    table = model.tabulate([[block] for block in blocks]).latency_ms[:, 0]
    scopes = [names[0].partition("/")[0] for names in found.names]
    sums = [found.latency_ms[[scope == block.nodes[0].scope for scope in scopes]].sum() for block in blocks]
    assert sums == pytest.approx(table.tolist())
    assert found.rest_ms == pytest.approx(model.network_offset_ms_, abs=1e-9)


def test_kernels_of_a_block_share_its_time_as_the_law_has_it() -> None:
    found = fitted().kernels(PLAIN)
    truth = np.array([true_latency_ms(kernel) for kernel in found.graphs]) - true_latency_ms(Graph(((1, 1, 1, 1),), ()))
    largest = truth > 0.1 * truth.sum()
    assert found.latency_ms[largest] == pytest.approx(truth[largest], rel=0.35)


def test_a_graph_without_nodes_has_no_kernels() -> None:
    found = LatencyPredictor.load("pixel4-cpu-networks").kernels(Graph(((1, 8, 8, 3),), ()))
    assert (found.names, found.graphs, found.total_ms, found.rest_ms) == ((), (), 0.0, 0.0)


def test_a_kernel_moves_what_is_not_fused_into_it() -> None:
    builder = GraphBuilder((1, 8, 8, 4))
    x = builder.add("pad", Pad((1, 1), (1, 1)), 0)
    x = builder.add("conv", Conv2d(16, (3, 3), padding=Padding.VALID), x)
    graph = builder.build(builder.add("relu", Activation(ActivationKind.RELU), x))
    (kernel,) = kernels_of(graph)
    values = 8 * 8 * 4 + 16 * 4 * 3 * 3 + 16 + 8 * 8 * 16
    assert kernel_bytes(kernel) == 4 * values
    assert kernel_bytes(kernel, itemsize=1) < 2 * values
    assert len(kernels_of(graph, "tflite")) == 2
