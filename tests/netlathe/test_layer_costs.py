"""Tables of layers' costs: what a row is, what is interpolated, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import netlathe as nl
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.kernels import kernels_of
from netlathe.archspace.ops import Activation, ActivationKind, Conv2d, FullyConnected, GlobalAvgPool
from netlathe.archspace.precisions import mixed
from netlathe.layer_costs import Layer, layer_of, read_layer_table
from netlathe.targets import make_goal, parse_limits, parse_targets


def small(width: int = 16) -> Graph:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("stem", Conv2d(width, (3, 3), (2, 2)), 0)
    x = builder.add("relu", Activation(ActivationKind.RELU), x)
    x = builder.add("depthwise", Conv2d(width, (3, 3), groups=width), x)
    x = builder.add("pool", GlobalAvgPool(), x)
    return builder.build(builder.add("head", FullyConnected(10), x))


ROWS = """op,shape,bits,ms,mJ
conv k3x3 s2x2,8x8x3->4x4x16,32,0.4,2
conv k3x3 s2x2,8x8x3->4x4x16,8,0.1,0.5
conv k3x3 s2x2,8x8x3->4x4x8,32,0.3,1
depthwise k3x3,4x4x16->4x4x16,32,0.2,1
depthwise k3x3,4x4x8->4x4x8,32,0.1,0.5
fully_connected,16->10,32,0.05,0.25
fully_connected,8->10,32,0.03,0.15
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "costs.csv").write_text(ROWS)
    return tmp_path / "costs.csv"


def test_a_layer_goes_by_op_shape_and_bits_whatever_activation_it_applies() -> None:
    assert [layer_of(kernel) for kernel in kernels_of(small())] == [
        Layer("conv k3x3 s2x2", "8x8x3->4x4x16", "32"),
        Layer("depthwise k3x3", "4x4x16->4x4x16", "32"),
        Layer("global_avg_pool", "4x4x16->16", "32"),
        Layer("fully_connected", "16->10", "32"),
    ]
    narrow = mixed(small(), {"stem": "int8", "relu": "int8", "depthwise": "int8-weights", "head": "float16"})
    assert [layer_of(kernel).bits for kernel in kernels_of(narrow)] == ["8", "8", "8", "8w", "32", "16"]


def test_costs_add_up_and_what_no_row_names_and_has_no_macs_is_free(table: Path) -> None:
    assert read_layer_table(table, "ms").predict([small()]).tolist() == [pytest.approx(0.4 + 0.2 + 0.05)]
    narrow = mixed(small(), {"stem": "int8", "relu": "int8"})
    assert read_layer_table(table, "mJ").predict([narrow]).tolist() == [pytest.approx(0.5 + 1 + 0.25)]


def test_channels_between_rows_are_interpolated_and_beyond_them_refused(table: Path) -> None:
    found = read_layer_table(table, "ms")
    assert found.predict([small(12)]).tolist() == [pytest.approx(0.35 + 0.15 + 0.04)]
    message = r"costs.csv: has no row for op 'conv k3x3 s2x2', shape '8x8x3->4x4x24', bits 32.* nor for 2 others"
    with pytest.raises(nl.FormatError, match=message):
        found.predict([small(24)])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",8->8,32,1,1", "line 9 names no op"),
        ("conv,eight,32,1,1", "line 9 has the shape 'eight'; it must be like"),
        ("conv,1x1x8->1x1x8,4,1,1", "line 9 has '4' bits; they must be 32, 16, 8, 8w"),
        ("conv,1x1x8->1x1x8,32,-1,1", "line 9 has '-1' as its ms; it must be a number of at least zero"),
        ("conv,1x1x8->1x1x8,32", "line 9 has None as its ms"),
        ("fully_connected,16 -> 10,32,1,1", "line 9 tells of fully_connected, 16->10, 32 again"),
    ],
)
def test_a_bad_row_is_one_clear_error(table: Path, line: str, message: str) -> None:
    table.write_text(ROWS + line + "\n")
    with pytest.raises(nl.FormatError, match=message):
        read_layer_table(table, "ms")


def test_a_table_is_a_target_or_a_limit(table: Path, tmp_path: Path) -> None:
    goal = make_goal(parse_targets(None, None, [f"{table}=0.5"]), parse_limits(["mJ=2", "macs=1e6"], table))
    assert goal.main.model.predict([small()])[0] == pytest.approx(0.65)
    energy, macs = goal.limits
    assert (energy.name, energy.value, macs.name) == ("mJ", 2.0, "macs")
    assert energy.layers is not None
    before = goal.to_json()
    table.write_text(ROWS.replace("0.4,2", "0.41,2.1"))
    again = make_goal(parse_targets(None, None, [f"{table}=0.5"]), parse_limits(["mJ=2", "macs=1e6"], table))
    assert before["targets"] != again.to_json()["targets"]
    assert before["limits"] != again.to_json()["limits"]
    with pytest.raises(nl.NetlatheError, match=r"--costs .*: say what it limits, as --limit mJ=3"):
        parse_limits(["macs=1e6"], table)
    with pytest.raises(nl.FormatError, match="has no column 'joule', only op, shape, bits, ms, mJ"):
        make_goal(parse_targets(None, None, [f"{table}=0.5"]), parse_limits(["joule=2"], table))


def test_a_model_is_shaped_to_the_energy_of_other_hardware(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    from netlathe.archspace.forms.onnx import write_onnx

    (tmp_path / "small.onnx").write_bytes(write_onnx(small()))
    report = nl.compress(
        tmp_path / "small.onnx", target=nl.Target(table, 10.0), limits=[nl.Limit(f"{table}:mJ", 2.0)], step=4,
        least_share=0.5, output=tmp_path / "run",
    )  # fmt: skip
    (limit,) = report.limits
    assert limit.value <= 2.0
    assert report.layers[0].after == 8
