"""Where the time goes: kernels and stages, bounds, what is not known, and the files that hold it."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
from test_cli import answer, netlathe, refusal

import netlathe as nl
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.networks import network
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Constant,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Mul,
    Opaque,
    Pad,
    Padding,
    Transpose,
)

FLOAT, GPU = "pixel4-cpu-networks", "pixel4-gpu"
SMALL = "mobilenet_v2_0.35_96"


def deep(blocks: int) -> Graph:
    """A network of more blocks than stages should be: residual blocks at two resolutions, and a head."""
    builder = GraphBuilder((1, 32, 32, 16))
    x = 0
    for index in range(blocks):
        stride = (2, 2) if index == blocks // 2 else (1, 1)
        scope = f"r{index}"
        y = builder.add(f"{scope}/conv", Conv2d(16, (3, 3), stride), x, scope=scope)
        y = builder.add(f"{scope}/relu", Activation(ActivationKind.RELU), y, scope=scope)
        x = builder.add(f"{scope}/add", Add(), x, y, scope=scope) if stride == (1, 1) else y
    x = builder.add("head/pool", GlobalAvgPool(), x, scope="head")
    return builder.build(builder.add("head/fc", FullyConnected(10), x, scope="head"))


def foreign() -> Graph:
    builder = GraphBuilder((1, 8, 8, 16))
    x = builder.add("b00/conv", Conv2d(16, (3, 3)), 0, scope="b00")
    x = builder.add("b01/odd", Opaque("Mystery", ((1, 8, 8, 16),), weight_bytes=100), x, scope="b01")
    x = builder.add("b02/odd", Opaque("Mystery", ((1, 8, 8, 16),)), x, scope="b02")
    return builder.build(builder.add("b03/conv", Conv2d(8), x, scope="b03"))


@pytest.mark.parametrize("predictor", [FLOAT, GPU])
def test_kernels_stages_and_the_rest_add_up_to_the_whole(predictor: str) -> None:
    found = nl.breakdown(SMALL, predictor)
    graph = network(SMALL).graph()
    assert found.predicted_ms == pytest.approx(nl.predict(SMALL, predictor).latency_ms)
    assert found.rest_ms is not None
    for parts in (found.kernels, found.stages):
        assert sum(one.latency_ms or 0 for one in parts) + found.rest_ms == pytest.approx(found.predicted_ms)
        assert sum(one.macs for one in parts) == graph.macs == found.total.macs
        assert sum(one.parameters for one in parts) == graph.parameters
        assert sum(one.share or 0 for one in parts) == pytest.approx(1 - found.rest_ms / found.predicted_ms)
    assert [one.name for one in found.stages] == [f"b{index:02d}" for index in range(len(found.stages))]
    assert [one.block for one in found.stages] == [block.name for block in network(SMALL).blocks]
    assert all(one.intensity == one.macs / one.bytes for one in found.kernels)


def test_without_a_predictor_work_is_told_and_no_time() -> None:
    found = nl.breakdown(SMALL)
    assert len(found.kernels) == len(nl.breakdown(SMALL, FLOAT).kernels)
    assert {(one.latency_ms, one.share, one.bound) for one in (*found.kernels, *found.stages)} == {(None, None, None)}
    assert (found.predicted_ms, found.rest_ms, found.limits, found.advice) == (None, None, None, ())
    assert found.total.bytes > 4 * network(SMALL).graph().parameters


def test_bytes_are_of_the_predictors_dtype() -> None:
    four, one = (nl.breakdown(SMALL, name).total.bytes for name in (FLOAT, "pixel4-cpu-int8-networks"))
    assert four == 4 * one


def test_a_network_of_many_blocks_is_told_by_its_resolutions() -> None:
    found = nl.breakdown(deep(40), FLOAT)
    assert [one.name for one in found.stages] == ["32x32", "16x16", "head"]
    assert [one.kernels for one in found.stages] == [40, 39, 2]
    assert len(nl.breakdown(deep(20), FLOAT).stages) == 21


def test_what_only_arranges_values_belongs_to_the_resolution_before_it() -> None:
    builder = GraphBuilder((1, 16, 16, 8))
    x = 0
    for index in range(40):
        x = builder.add(f"r{index}/conv", Conv2d(8), x, scope=f"r{index}")
        x = builder.add(f"r{index}/turn", Transpose((0, 3, 1, 2)), x, scope=f"r{index}")
        x = builder.add(f"r{index}/back", Transpose((0, 2, 3, 1)), x, scope=f"r{index}")
    assert [one.name for one in nl.breakdown(builder.build()).stages] == ["16x16"]


def test_the_whole_adds_nothing_to_a_block() -> None:
    found = nl.breakdown("mbconv_k3_e6_s1_c16-16_56x56_relu6", "pixel4-cpu")
    assert len(found.stages) == 1
    assert found.rest_ms == pytest.approx(0, abs=1e-12)


def test_a_bound_is_told_only_where_one_limit_takes_most_of_the_time() -> None:
    found = nl.breakdown("mobilenet_v2", FLOAT)
    bounds = {one.name: one.bound for one in found.kernels}
    assert bounds["b18/conv"] == "compute"
    assert bounds["b03/depthwise"] is None
    for one in found.kernels:
        largest = max(one.limits.values())
        assert (one.bound is not None) == (0.5 <= largest <= 1.25)
        assert one.bound is None or one.limits[one.bound] == largest
    assert sum(found.bound_ms.values()) == pytest.approx(sum(k.latency_ms or 0 for k in found.kernels if k.bound))
    assert found.limits is not None
    assert found.limits.macs_per_s is not None
    kernel = next(one for one in found.kernels if one.name == "b18/conv")
    assert kernel.limits["compute"] == pytest.approx(1e3 * kernel.macs / found.limits.macs_per_s / kernel.latency_ms)


def test_a_model_of_the_users_own_tells_no_bounds() -> None:
    class Macs:
        def predict(self, graphs: Any) -> list[float]:
            return [1e-6 * graph.macs for graph in graphs]

    found = nl.breakdown(SMALL, Macs())
    assert found.limits is None
    assert {one.bound for one in found.kernels} == {None}


def test_what_has_other_axes_in_the_place_of_the_batch_is_priced_too() -> None:
    """As tokens that are transposed for attention: a kernel of them takes no batches of one."""
    builder = GraphBuilder((1, 6, 4, 16))
    x = builder.add("b00/turn", Transpose((1, 0, 2, 3)), 0, scope="b00")
    x = builder.add("b01/act", Activation(ActivationKind.HARD_SWISH), x, scope="b01")
    graph = builder.build(builder.add("b02/back", Transpose((1, 0, 2, 3)), x, scope="b02"))
    shown = nl.show(graph, FLOAT, unknown="price")
    assert shown.predicted_ms
    assert sum(layer["predicted_ms"] for layer in shown.layers) == pytest.approx(shown.predicted_ms)


def test_a_kernel_goes_by_the_node_that_does_its_work() -> None:
    builder = GraphBuilder((1, 8, 8, 4))
    x = builder.add("b00/pad", Pad((1, 1), (1, 1)), 0, scope="b00")
    stored = builder.add("b00/stored", Constant((1, 1, 1, 8)), scope="b00")
    x = builder.add("b00/conv", Conv2d(8, (3, 3), padding=Padding.VALID), x, scope="b00")
    graph = builder.build(builder.add("b00/scale", Mul(), x, stored, scope="b00"))
    assert [one.name for one in nl.breakdown(graph).kernels] == ["b00/conv", "b00/scale"]


def test_foreign_ops_are_counted_by_name_with_their_bytes() -> None:
    found = nl.breakdown(foreign())
    (odd,) = found.opaque
    assert (odd.name, odd.count, odd.bytes) == ("Mystery", 2, 4 * 4 * 8 * 8 * 16 + 100)
    assert sum("Mystery" in one.kernel for one in found.kernels) == 2
    with pytest.raises(nl.UnknownOpError, match="Mystery"):
        nl.breakdown(foreign(), FLOAT)
    priced = nl.breakdown(foreign(), FLOAT, unknown="price")
    assert sum(one.latency_ms or 0 for one in priced.kernels) == pytest.approx(priced.predicted_ms)


def test_the_command_shows_the_largest_kernels_or_all(tmp_path: Path) -> None:
    shown = netlathe("show", SMALL, "--predictor", FLOAT, "--kernels", 3)
    table = shown.stdout.splitlines()
    assert "3 largest kernels" in shown.stdout
    assert len(table) == 1 + 20 + 1 + 1 + 3
    assert netlathe("show", SMALL, "--kernels", "all").stdout.count("/expand") == 16
    assert "--kernels 'many': expected a number such as 10, or all" in refusal("show", SMALL, "--kernels", "many")


def test_json_and_csv_hold_everything(tmp_path: Path) -> None:
    told = answer("show", SMALL, "--predictor", GPU, "--csv", tmp_path / "t.csv")
    report = nl.show(SMALL, GPU)
    assert told == {**report.to_json(), **told, "warnings": list(report.warnings)}
    assert [one["name"] for one in told["kernels"]] == [one.name for one in report.breakdown.kernels]
    assert {"latency_ms", "share", "macs", "bytes", "intensity", "bound", "limits", "stage"} <= told["kernels"][
        0
    ].keys()
    with (tmp_path / "t.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    levels = {level: [row for row in rows if row["level"] == level] for level in ("stage", "kernel", "rest", "network")}
    assert [len(found) for found in levels.values()] == [len(told["stages"]), len(told["kernels"]), 1, 1]
    parts = sum(float(row["latency_ms"]) for row in (*levels["kernel"], *levels["rest"]))
    assert parts == pytest.approx(float(levels["network"][0]["latency_ms"]))
    assert {row["name"]: float(row["bytes"]) for row in levels["kernel"]} == {
        one["name"]: one["bytes"] for one in told["kernels"]
    }
    assert netlathe("show", SMALL, "--csv", tmp_path / "t.csv").exit_code == 0  # its own table is replaced
    (tmp_path / "mine.csv").write_text("my,own\n1,2\n")
    assert "mine.csv" in refusal("show", SMALL, "--csv", tmp_path / "mine.csv")


def test_a_file_is_shown_as_the_network_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "n.onnx"
    path.write_bytes(write_onnx(network(SMALL).graph()))
    found, named = nl.breakdown(path, FLOAT), nl.breakdown(SMALL, FLOAT)
    assert found.predicted_ms == pytest.approx(named.predicted_ms)
    assert math.isclose(found.total.bytes, named.total.bytes)
    refused = refusal("show", path, "--csv", path)
    assert "is an input" in refused
