import pytest

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.graph import GraphBuilder, chain
from netlathe.archspace.kernels import kernels_of
from netlathe.archspace.ops import Activation, ActivationKind, FullyConnected, Softmax
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status
from netlathe.predictor.features.kernel_times import kernel_label, kernel_records, match_rows

SETUP = Setup("phone", "soc", "android", "litert", "2.3")
BLOCK = MBConv(16, 16, 28, 28, activation=ActivationKind.HARD_SWISH, se=0.25).graph()
BUILTIN = [
    ("CONV_2D", "expand"), ("HARD_SWISH", "expand_act"), ("DEPTHWISE_CONV_2D", "depthwise"),
    ("HARD_SWISH", "depthwise_act"), ("MEAN", "se_pool"), ("CONV_2D", "se_reduce_act"), ("CONV_2D", "se_gate.relu6"),
    ("MUL", "se_gate"), ("MUL", "se_scale"), ("CONV_2D", "project"), ("ADD", "residual"),
]  # fmt: skip
"""What TFLite's own kernels print of BLOCK: a layer is named by the activation that it applies."""
XNNPACK = [
    "Convolution (NHWC, F32) IGEMM", "HardSwish (NC, F32)", "Convolution (NHWC, F32) DWConv", "HardSwish (NC, F32)",
    "Mean (ND, F32)", "Convolution (NHWC, F32) GEMM", "Convolution (NHWC, F32) GEMM", "Multiply (ND, F32)",
    "Multiply (ND, F32)", "Convolution (NHWC, F32) IGEMM", "Add (ND, F32)",
]  # fmt: skip


TOTAL_MS = 66.0  # 1 + 2 + ... + 11: what the 11 ops take together in these tests


def row(node_type, name, op_ms, times_called=1):
    return {"node_type": node_type, "name": name, "share": op_ms / TOTAL_MS, "times_called": times_called}


def builtin_rows(scope=""):
    return [row(kind, f"[{scope}{name}]:{i}", 1.0 + i) for i, (kind, name) in enumerate(BUILTIN)]


def xnnpack_rows():
    return [row(kind, f"Delegate/{kind}:{i}", 1.0 + i) for i, kind in enumerate(XNNPACK)]


KEYS = [kernel.key for kernel in kernels_of(BLOCK)]


def matched_ms(graph, rows, **more):
    """Times of the kernels in ms, and the words on the rest."""
    matched, unmatched = match_rows(graph, rows, TOTAL_MS, **more)
    return [latency_ms for _, latency_ms in matched], unmatched


@pytest.mark.parametrize("rows", [builtin_rows(), xnnpack_rows()], ids=["builtin", "xnnpack"])
def test_every_row_of_a_block_finds_its_kernel(rows):
    matched, unmatched = match_rows(BLOCK, rows, TOTAL_MS)
    assert [kernel.key for kernel, _ in matched] == KEYS
    assert [latency_ms for _, latency_ms in matched] == pytest.approx(range(1, 12))
    assert unmatched == []


def test_rows_are_found_by_name_in_any_order():
    assert matched_ms(BLOCK, builtin_rows()[::-1])[0] == pytest.approx(range(1, 12))


def test_kernels_share_the_time_of_the_whole():
    matched, _ = match_rows(BLOCK, builtin_rows(), 5.0)
    assert sum(latency_ms for _, latency_ms in matched) == pytest.approx(5)


def test_a_network_is_matched_by_the_names_of_its_scopes():
    latency_ms, unmatched = matched_ms(chain([("b00", BLOCK)]), builtin_rows("b00/"))
    assert latency_ms == pytest.approx(range(1, 12))
    assert unmatched == []


def test_types_of_newer_versions_that_say_less_are_told_apart_by_their_order():
    vague = {"HardSwish (NC, F32)": "Unary Elementwise (NC)", "Multiply (ND, F32)": "Binary Elementwise (ND)"}
    rows = [{**r, "node_type": vague.get(r["node_type"], r["node_type"])} for r in xnnpack_rows()]
    assert matched_ms(BLOCK, rows)[0] == pytest.approx(range(1, 12))


def test_a_hard_sigmoid_behind_no_layer_takes_the_time_of_its_two_ops():
    builder = GraphBuilder((1, 8))
    builder.add("gate", Activation(ActivationKind.HARD_SIGMOID), builder.add("soft", Softmax(), 0))
    rows = [row("SOFTMAX", "[soft]:0", 1.0), row("ADD", "[gate.relu6]:1", 2.0), row("MUL", "[gate]:2", 4.0)]
    latency_ms, unmatched = matched_ms(builder.build(), rows)
    assert latency_ms == pytest.approx([1, 6])
    assert unmatched == []


def test_rows_that_are_no_ops_of_the_graph_are_told_and_left_out():
    extra = [row("QUANTIZE", "[tfl.quantize]:0", 0.2), row("AllocateTensors", "AllocateTensors/0", 0.3, 0)]
    latency_ms, unmatched = matched_ms(BLOCK, [*extra, *builtin_rows()])
    assert latency_ms == pytest.approx(range(1, 12))
    assert [text.split()[0] for text in unmatched] == ["QUANTIZE", "AllocateTensors"]


def test_a_delegate_that_runs_other_ops_is_not_guessed_at():
    latency_ms, unmatched = matched_ms(BLOCK, xnnpack_rows()[:-1])
    assert latency_ms == []
    assert "10 ops are not the graph's 11" in unmatched[0]
    assert "no time of conv 28x28x96 -> 28x28x16" in unmatched


def test_one_row_for_several_calls_or_for_a_whole_delegate_is_no_kernel():
    assert matched_ms(BLOCK, [row("TfLiteGpuDelegateV2", "[residual]:11", 66.0)])[0] == []
    several = xnnpack_rows()
    several[0] = row(XNNPACK[0], f"Delegate/{XNNPACK[0]}:0", 1.0, times_called=2)
    assert matched_ms(BLOCK, several)[0] == []


def test_a_delegate_that_took_a_single_kernel_tells_its_time():
    builder = GraphBuilder((1, 8))
    builder.add("linear", FullyConnected(4), 0)
    latency_ms, unmatched = matched_ms(builder.build(), [row("TfLiteGpuDelegateV2", "[linear]:1", 1.0)], fusion="gpu")
    assert latency_ms == [TOTAL_MS]
    assert unmatched == []


def test_an_op_whose_share_is_printed_as_zero_has_no_time():
    rows = builtin_rows()
    rows[-1]["share"] = 0.0
    latency_ms, unmatched = matched_ms(BLOCK, rows)
    assert len(latency_ms) == len(KEYS) - 1
    assert unmatched == ["no time of add 28x28x16 -> 28x28x16"]


NETWORK = chain([("b00", BLOCK), ("b01", BLOCK)])
EACH = {key: [ms] for ms, key in enumerate(KEYS, 1)} | {KEYS[1]: [2, 4]}  # both hard swishes are one kernel


def times_of(tmp_path, tables):
    """What a file tells of BLOCK, and of NETWORK, which takes 3 times as long, with these rows by kind of graph."""
    graphs = {"block": (BLOCK, TOTAL_MS), "network": (NETWORK, 3 * TOTAL_MS)}
    records = [
        LatencyRecord(kind, kind, graph, SETUP, Status.OK, Measurement((Round((latency_ms,)),)))
        for kind, (graph, latency_ms) in graphs.items()
    ]
    with ProfileFile(tmp_path / "p.sqlite", create=True) as file:
        file.add_records(records)
        for kind, rows in tables.items():
            file.set_op_times(SETUP, graphs[kind][0].key, rows)
        return kernel_records(file, SETUP)


def network_rows():
    return [{**r, "share": r["share"] / 2} for r in [*builtin_rows("b00/"), *builtin_rows("b01/")]]


def rounds_ms(found):
    return {r.graph.key: sorted(one.latency_ms for one in r.measurement.rounds) for r in found.records}


def test_a_profile_file_gives_one_record_per_kernel_with_a_round_for_each_time(tmp_path):
    found = times_of(tmp_path, {"block": builtin_rows()})
    assert found.unmatched == []
    assert rounds_ms(found) == {key: pytest.approx(values) for key, values in EACH.items()}
    assert {(r.kind, r.setup) for r in found.records} == {("block", SETUP)}
    assert found.records[0].name == kernel_label(found.records[0].graph)


def test_where_blocks_give_kernels_no_time_is_a_share_of_a_network_that_may_be_held_out(tmp_path):
    found = times_of(tmp_path, {"block": builtin_rows(), "network": network_rows()})
    assert not found.of_networks
    assert rounds_ms(found) == {key: pytest.approx(values) for key, values in EACH.items()}


@pytest.mark.parametrize("of_block", [[], [row("TfLiteGpuDelegateV2", "[residual]:11", TOTAL_MS)]])
def test_where_blocks_give_no_kernels_those_of_networks_are_taken_and_say_so(tmp_path, of_block):
    found = times_of(tmp_path, {"block": of_block, "network": network_rows()})
    assert found.of_networks
    assert rounds_ms(found) == {
        key: pytest.approx(sorted(1.5 * value for value in values * 2)) for key, values in EACH.items()
    }
    assert all(text.startswith("block: ") for text in found.unmatched)


def test_op_times_of_a_graph_that_was_never_finished_are_told(tmp_path):
    with ProfileFile(tmp_path / "p.sqlite", create=True) as file:
        file.add_setup(SETUP)
        file.add_graph("block", "block", BLOCK)
        file.set_op_times(SETUP, BLOCK.key, builtin_rows())
        assert kernel_records(file, SETUP) == ([], ["block: has no finished record"], False)
