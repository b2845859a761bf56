"""What a prediction is warned of: a file's dtype, ops that were never measured; and who can price what."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from model_files import open_batch
from onnx import TensorProto, helper, numpy_helper
from test_cli import answer, netlathe, refusal

import netlathe as nl
from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.forms.onnx import read_onnx_precision, write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_file import pack, unpack
from netlathe.archspace.forms.tflite_reader import read_precision
from netlathe.archspace.graph import Graph, Node, chain
from netlathe.archspace.networks import NETWORKS, network
from netlathe.archspace.ops import Opaque, Softmax
from netlathe.predictor import LatencyPredictor, read_card, shipped_names
from netlathe.pricing import Priced, other_dtype
from netlathe.profiler.devices.local import LocalDevice

SMALL = chain([("a", ConvBlock(3, 8, 32, 32, 2).graph()), ("b", LinearHead(8, 10, 16, 16).graph())])
FLOAT, INT8, GPU = "pixel4-cpu-networks", "pixel4-cpu-int8-networks", "pixel4-gpu"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network as a file of each dtype."""
    folder = tmp_path_factory.mktemp("files")
    graph = network("mobilenet_v2_0.35_96").graph()
    found = {"float32": folder / "f.tflite", "int8": folder / "q.tflite", "onnx": folder / "f.onnx"}
    found["float32"].write_bytes(write_tflite(graph))
    found["int8"].write_bytes(write_tflite(graph, dtype="int8"))
    found["onnx"].write_bytes(write_onnx(graph))
    return found


def of_dtypes(warnings: list[str]) -> list[str]:
    return [warning for warning in warnings if "computes in" in warning]


@pytest.mark.parametrize(
    ("file", "predictor", "is_told"),
    [
        ("float32", FLOAT, False), ("float32", INT8, True), ("float32", GPU, False),
        ("int8", FLOAT, True), ("int8", INT8, False), ("int8", GPU, True),
        ("onnx", FLOAT, False), ("onnx", INT8, True), ("onnx", GPU, False),
    ],
)  # fmt: skip
def test_a_file_of_another_dtype_than_the_predictors_is_never_priced_without_a_word(
    file: str, predictor: str, is_told: bool, files: dict[str, Path]
) -> None:
    path = files[file]
    for words in (("predict", path), ("show", path), ("compare", path)):
        found = of_dtypes(answer(*words, "--predictor", predictor)["warnings"])
        assert len(found) == is_told
        if is_told:
            assert f"computes in {'int8' if file == 'int8' else 'float32'}" in found[0]


def test_a_file_of_several_precisions_is_never_priced_without_a_word(tmp_path: Path) -> None:
    graph = network("mobilenet_v2_0.35_96").graph()
    precisions = {node.name: "int8" for node in graph.nodes if node.scope == "b05"}
    (tmp_path / "mixed.tflite").write_bytes(write_tflite(graph, precisions=precisions))
    found = nl.predict(tmp_path / "mixed.tflite", FLOAT)
    told = "has layers in float32 and int8, but the predictor was fitted on float32: all are priced as such"
    assert [warning for warning in found.warnings if told in warning]
    assert [warning for warning in nl.compare([tmp_path / "mixed.tflite"], [FLOAT]).warnings if told in warning]


def test_a_name_has_no_dtype() -> None:
    for predictor in (FLOAT, INT8, GPU):
        assert of_dtypes(answer("predict", "mobilenet_v2", "--predictor", predictor)["warnings"]) == []


def test_a_file_is_not_timed_against_a_predictor_of_another_dtype(files: dict[str, Path]) -> None:
    assert "computes in int8, but float32 is asked for" in refusal("time", files["int8"], "--predictor", FLOAT)


def test_a_tflite_files_precision_is_its_layers() -> None:
    assert read_precision(write_tflite(SMALL)) == "float32"
    assert read_precision(write_tflite(SMALL, dtype="int8")) == "int8"
    model = unpack(write_tflite(SMALL))
    layers = {op.inputs[1] for op in model.operators if op.kind in ("CONV_2D", "FULLY_CONNECTED")}
    tensors = tuple(
        dataclasses.replace(t, dtype="INT8", data=np.zeros(t.shape, np.int8)) if index in layers else t
        for index, t in enumerate(model.tensors)
    )
    assert read_precision(pack(dataclasses.replace(model, tensors=tensors), "")) == "float32 with int8 weights"


def edited(change: Any) -> bytes:
    model = onnx.load_from_string(write_onnx(SMALL))
    change(model.graph)
    return bytes(model.SerializeToString())


def halve(graph: Any) -> None:
    for tensor in graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))


def insert(kind: str) -> Any:
    return lambda graph: graph.node.insert(0, helper.make_node(kind, ["x", "scale", "zero"], ["y"]))


@pytest.mark.parametrize(
    ("change", "precision"),
    [
        (lambda graph: None, "float32"), (halve, "float16"), (insert("QuantizeLinear"), "int8"),
        (insert("QLinearConv"), "int8"), (insert("DequantizeLinear"), "float32 with int8 weights"),
        (insert("ConvInteger"), "float32 with int8 weights"),
    ],
)  # fmt: skip
def test_an_onnx_files_precision_is_its_weights_and_its_quantization(change: Any, precision: str) -> None:
    assert TensorProto.FLOAT16 == 10
    assert read_onnx_precision(edited(change)) == precision


@pytest.mark.parametrize(
    ("runs", "dtype", "is_told"),
    [
        ("float16", "float16", False), ("float16", "float32", False), ("float32", "float16", True),
        ("int8", "float16", True), ("float32", "float32 with int8 weights", True), ("float32", None, False),
    ],
)  # fmt: skip
def test_half_precision_is_told_from_single_where_it_is_another_file(
    runs: str, dtype: str | None, is_told: bool
) -> None:
    model = LatencyPredictor.load(FLOAT)
    model.setup_ = dataclasses.replace(model.setup_, dtype=runs)
    assert bool(list(other_dtype(model, "it", dtype))) == is_told


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network's file that ends in a softmax."""
    graph = network("mobilenet_v2").graph()
    path = tmp_path_factory.mktemp("classifier") / "classifier.tflite"
    path.write_bytes(write_tflite(Graph(graph.inputs, (*graph.nodes, Node("softmax", Softmax(), (len(graph.nodes),))))))
    return path


@pytest.mark.parametrize("predictor", [FLOAT, INT8, GPU, "unnamed-phone-cpu"])
def test_a_classifier_with_a_softmax_is_priced_and_the_softmax_is_named(predictor: str, classifier: Path) -> None:
    for words in (("predict", classifier), ("show", classifier), ("compare", classifier)):
        warnings = answer(*words, "--predictor", predictor)["warnings"]
        assert [w for w in warnings if "never measured" in w and "softmax (at most" in w]
    plain_ms = answer("predict", "mobilenet_v2", "--predictor", predictor)["latency_ms"]
    assert answer("predict", classifier, "--predictor", predictor)["latency_ms"] == pytest.approx(plain_ms, rel=0.01)


@pytest.mark.parametrize("command", ["predict", "show", "compare"])
def test_a_predictor_of_parts_refuses_networks_and_names_those_that_do_not(command: str) -> None:
    message = refusal(command, "mobilenet_v2", "--predictor", "pixel4-cpu")
    assert "no measured block contains conv" in message
    assert f"all ops of it are known to {INT8}, {FLOAT}, {GPU}, unnamed-phone-cpu" in message
    found = answer(command, "mobilenet_v2", "--predictor", "pixel4-cpu", "--unknown", "price")
    assert any("never measured" in warning and "conv (at most" in warning for warning in found["warnings"])


def test_what_is_priced_as_asked_tells_which_parts_are_known() -> None:
    found = answer("predict", "mobilenet_v2", "--predictor", "pixel4-cpu", "--unknown", "price")
    assert 0 < found["known_macs_share"] < 1
    assert 0 < found["known_ms_share"] < 1
    (warning,) = (w for w in found["warnings"] if "never measured" in w)
    assert f"{100 * found['known_macs_share']:.1f} % of the MACs" in warning
    assert f"{100 * found['known_ms_share']:.1f} % of the latency" in warning
    assert nl.show("mobilenet_v2", "pixel4-cpu", unknown="price").known_ms_share == found["known_ms_share"]
    known = nl.predict("mobilenet_v2", FLOAT)
    assert (known.known_macs_share, known.known_ms_share) == (1, 1)


def test_what_netlathe_has_no_op_for_is_counted_and_its_price_named(tmp_path: Path) -> None:
    graph = network("mobilenet_v2_0.35_96").graph()
    end = tuple(
        Node(f"tail/{at}", Opaque("com.example::Mystery", (graph.output_shape,)), (len(graph.nodes) + at,), "tail")
        for at in (0, 1)
    )
    foreign = Graph(graph.inputs, (*graph.nodes, *end))
    shown = nl.show(foreign)
    (counted,) = shown.breakdown.opaque
    assert (counted.name, counted.count) == ("com.example::Mystery", 2)
    assert shown.to_json()["opaque"][0]["count"] == 2
    assert nl.show(graph).breakdown.opaque == ()
    with pytest.raises(nl.UnknownOpError, match=r"com\.example::Mystery"):
        nl.predict(foreign, FLOAT)
    found = nl.predict(foreign, FLOAT, unknown="price")
    assert found.known_macs_share == 1
    assert 0.5 < found.known_ms_share < 1
    assert any("com.example::Mystery (at most" in w and "that can be counted" in w for w in found.warnings)


def test_unknown_ops_are_refused_or_priced_and_nothing_else() -> None:
    with pytest.raises(nl.NetlatheError, match="unknown='assume': expected 'refuse' or 'price'"):
        nl.predict("mobilenet_v2", FLOAT, unknown="assume")  # type: ignore[call-overload]
    result = netlathe("predict", "x", "--predictor", FLOAT, "--unknown", "assume")
    assert result.exit_code == 2
    assert "'assume' is not one of 'refuse'" in result.output


def test_an_own_predictor_is_not_compared_with_shipped_ones(tmp_path: Path) -> None:
    blocks = [MBConv(8, 8, size, size) for size in (8, 16, 32)]
    LatencyPredictor("none").fit(blocks, [1.0, 2.0, 3.0]).save(tmp_path / "mine.json")
    message = refusal("predict", "mobilenet_v2", "--predictor", tmp_path / "mine.json")
    assert "contains conv" in message
    assert "ship" not in message


@pytest.mark.parametrize("name", shipped_names())
def test_what_a_shipped_predictor_is_said_to_price_is_what_it_prices(name: str) -> None:
    (row,) = (p for p in answer("predictors")["predictors"] if p["name"] == name)
    assert row["prices"] == answer("predictors", name)["prices"]
    model = LatencyPredictor.load(name)
    for one in NETWORKS:
        found = netlathe("predict", one, "--predictor", name)
        assert (found.exit_code == 0) == (one in row["prices"]["networks"])
    assert set(row["prices"]["lacking"]) <= set(row["prices"]["unknown_ops"])
    assert bool(row["prices"]["networks"]) != bool(row["prices"]["lacking"])
    assert not set(row["prices"]["unknown_ops"]) & model.model_.blocks.physics.classes


def test_the_table_and_the_card_say_which_cannot_price_networks() -> None:
    shown = netlathe("predictors").stdout
    assert "prices" in shown.splitlines()[0]
    for name in ("pixel1-cpu", "pixel4-cpu", "sd855-cpu-kernels"):
        assert Priced.by(name).word == "only blocks"
        assert f"Prices: {Priced.by(name).words}" in " ".join(netlathe("predictors", name).output.split())
    assert Priced.by(FLOAT).word == "networks"
    (said,) = (line for line in netlathe("predictors").output.splitlines() if "No whole network" in line)
    assert "pixel1-cpu, pixel4-cpu, sd855-cpu-kernels" in said


@pytest.mark.parametrize("name", shipped_names())
def test_a_card_tells_what_its_predictor_prices(name: str) -> None:
    """If not, `python -m scripts.fit_predictors` writes it."""
    assert (
        Priced.by(name, read_card(name)) == Priced.of(LatencyPredictor.load(name)) == Priced(**read_card(name).prices)
    )


def test_what_is_timed_beside_a_prediction_is_warned_of_alike(files: dict[str, Path], tmp_path: Path) -> None:
    blocks = [ConvBlock(3, 8, size, size, 2) for size in (8, 16, 32)] + [MBConv(8, 8, size, size) for size in (8, 16)]
    with LocalDevice(dtype="int8") as device:
        fitted = LatencyPredictor("none").fit(blocks, [1.0, 2.0, 3.0, 4.0, 5.0], setup=device.setup)
    fitted.save(tmp_path / "int8.json")
    words = ("--predictor", tmp_path / "int8.json", "--budget-s", 1)
    assert "no measured block contains fully_connected, global_avg_pool" in refusal("time", files["onnx"], *words)
    warnings = answer("time", files["onnx"], *words, "--unknown", "price")["warnings"]
    assert len(of_dtypes(warnings)) == 1
    assert [w for w in warnings if "never measured" in w and "fully_connected (at most" in w]


def test_a_list_is_predicted_one_by_one_and_a_folder_stands_for_its_model_files(
    files: dict[str, Path],
) -> None:
    folder = files["float32"].parent
    several = nl.predict(["mobilenet_v2", folder, network("mnasnet_b1").graph()], FLOAT)
    names = ["mobilenet_v2", *sorted(files.values()), network("mnasnet_b1").graph()]
    alone = [nl.predict(one, FLOAT) for one in names]
    assert [one.name for one in several] == [one.name for one in alone]
    assert [one.latency_ms for one in several] == pytest.approx([one.latency_ms for one in alone], rel=1e-12)
    assert [one.high_ms for one in several] == pytest.approx([one.high_ms for one in alone], rel=1e-12)


def test_one_that_cannot_be_priced_is_told_with_its_reason_and_the_others_are_priced(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "GOOD.ONNX").write_bytes(write_onnx(network("mobilenet_v2_0.35_96").graph()))
    (tmp_path / "broken.tflite").write_bytes(b"TFL3")
    (tmp_path / "notes.txt").write_text("no model")
    result = netlathe("predict", tmp_path, "mobilenet_v2", "--predictor", FLOAT, "--json")
    found = json.loads(result.stdout.splitlines()[-1])["predicted"]
    assert result.exit_code == 1
    assert [Path(one["name"]).name for one in found] == ["broken.tflite", "GOOD", "mobilenet_v2"]
    assert "not a .tflite file" in found[0]["error"]
    assert "latency_ms" not in found[0]
    assert found[1]["latency_ms"] > 0


def test_a_folder_without_model_files_is_refused(tmp_path: Path) -> None:
    assert "is not a run's, and holds no .onnx or .tflite file" in refusal("predict", tmp_path, "--predictor", FLOAT)


def test_names_paths_modules_graphs_and_blocks_are_predicted_in_one_call(files: dict[str, Path]) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 1)).eval()
    image = torch.zeros(1, 3, 64, 64)
    block = ConvBlock(3, 8, 32, 32, 2)
    given = ["mobilenet_v2", str(files["onnx"]), files["float32"], network("mnasnet_b1"), SMALL, block, module]
    found = nl.predict(given, FLOAT, example_inputs=image)
    assert [one.name for one in found] == [
        "mobilenet_v2", "f", "f", "mnasnet_b1", "graph", block.name, "Sequential",
    ]  # fmt: skip
    assert [one.source for one in found][:3] == ["mobilenet_v2", str(files["onnx"]), str(files["float32"])]
    (alone,) = nl.predict([nl.read(module, image)], FLOAT)
    assert found[-1].latency_ms == pytest.approx(alone.latency_ms, rel=1e-12)
    with pytest.raises(nl.FormatError, match="needs example inputs"):
        nl.predict(module, FLOAT)
    with pytest.raises(nl.FormatError, match=r"a name, path, graph, .* is needed, got 3"):
        nl.predict(3, FLOAT)  # type: ignore[call-overload]


def test_what_cannot_be_priced_stays_in_its_place_or_ends_the_call(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    given = [files["onnx"], tmp_path / "empty", "no_such_network", SMALL]
    kept = nl.predict(given, FLOAT, on_error="keep")
    assert [hasattr(one, "latency_ms") for one in kept] == [True, False, False, True]
    assert [one.to_json()["source"] for one in kept][1:3] == [str(tmp_path / "empty"), "no_such_network"]
    with pytest.raises(nl.FormatError, match="is not a run's, and holds no"):
        nl.predict(given, FLOAT)
    with pytest.raises(nl.SpaceError, match="no_such_network"):
        nl.predict("no_such_network", FLOAT, on_error="keep")  # type: ignore[call-overload]


def test_one_that_its_predictor_refuses_does_not_keep_the_others_from_being_priced() -> None:
    mbconv, conv = MBConv(16, 16, 28, 28), ConvBlock(3, 8, 32, 32, 2)
    first, second, third = nl.predict([mbconv, conv, mbconv], "pixel4-cpu", on_error="keep")
    assert first == third
    assert first.latency_ms > 0  # type: ignore[union-attr]
    assert "no measured block contains conv" in second.error  # type: ignore[union-attr]
    assert "Of the predictors that ship, all ops of it are known to" in second.error  # type: ignore[union-attr]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_holds_the_columns_of_the_json_report_in_full_precision(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    words = ("predict", files["onnx"], files["int8"], tmp_path, "--predictor", FLOAT)
    result = netlathe(*words, "--csv", tmp_path / "out.csv", "--json")
    assert result.exit_code == 1
    reports = json.loads(result.stdout.splitlines()[-1])["predicted"]
    rows = rows_of((tmp_path / "out.csv").read_text())
    assert set(rows[0]) >= {key for one in reports for key in one}
    for row, report in zip(rows, reports, strict=True):
        assert (row["name"], row["source"], row["error"]) == (report["name"], report["source"], report.get("error", ""))
        if "latency_ms" in report:
            for name in ("latency_ms", "low_ms", "high_ms", "coverage"):
                assert float(row[name]) == report[name]
            assert row["warnings"] == "; ".join(report["warnings"])
    assert "computes in int8" in rows[1]["warnings"]
    assert rows[2]["latency_ms"] == ""
    piped = netlathe(*words, "--csv", "-")
    assert piped.exit_code == 1
    assert rows_of(piped.stdout) == rows_of((tmp_path / "out.csv").read_text())
    again = netlathe("predict", "mobilenet_v2", "--predictor", FLOAT, "--csv", tmp_path / "out.csv")
    assert again.exit_code == 0  # an earlier table is replaced
    assert [row["name"] for row in rows_of((tmp_path / "out.csv").read_text())] == ["mobilenet_v2"]
    assert "both are for standard output" in refusal(*words, "--csv", "-", "--json")
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    assert "not a table of latencies" in refusal(*words, "--csv", tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


@pytest.fixture(scope="module")
def of_eight() -> LatencyPredictor:
    """A predictor of batches of 8."""
    blocks = [ConvBlock(3, c, s, s, 2) for c in (8, 16) for s in (16, 32)] + [LinearHead(c, 10, 16, 16) for c in (8, 9)]
    setup = dataclasses.replace(LatencyPredictor.load(FLOAT).setup_, batch=8)
    graphs = [block.graph(8) for block in blocks]
    return LatencyPredictor("none").fit(graphs, [1.0, 2.0, 3.0, 4.0, 0.1, 0.2], setup=setup)


def with_batch(data: bytes, batch: int | str) -> bytes:
    """An .onnx file whose inputs and outputs take batches of that size, or leave it open."""
    model = onnx.load_from_string(data)
    del model.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        setattr(dim, "dim_value" if isinstance(batch, int) else "dim_param", batch)
    return bytes(model.SerializeToString())


def test_a_file_is_priced_by_predictors_of_its_batch_only(tmp_path: Path, of_eight: LatencyPredictor) -> None:
    (tmp_path / "one.onnx").write_bytes(with_batch(write_onnx(SMALL), 1))
    (tmp_path / "eight.onnx").write_bytes(with_batch(write_onnx(SMALL), 8))
    (tmp_path / "eight.tflite").write_bytes(write_tflite(chain([("a", ConvBlock(3, 8, 32, 32, 2).graph(8))])))
    for name in ("eight.onnx", "eight.tflite"):
        with pytest.raises(nl.FormatError, match="takes batches of 8, but the predictor was fitted on batches of 1"):
            nl.predict(tmp_path / name, FLOAT)
        assert nl.predict(tmp_path / name, of_eight).latency_ms > 0
    with pytest.raises(nl.FormatError, match="takes batches of 1, but the predictor was fitted on batches of 8"):
        nl.predict(tmp_path / "one.onnx", of_eight)


def test_an_open_batch_is_the_predictors_and_is_told(tmp_path: Path, of_eight: LatencyPredictor) -> None:
    (tmp_path / "open.onnx").write_bytes(with_batch(write_onnx(SMALL), "N"))
    (tmp_path / "eight.onnx").write_bytes(with_batch(write_onnx(SMALL), 8))
    (tmp_path / "open.tflite").write_bytes(open_batch())
    for name in ("open.onnx", "open.tflite"):
        one, eight = nl.predict(tmp_path / name, FLOAT), nl.predict(tmp_path / name, of_eight)
        assert one.notes == (f"{name} leaves its batch open; it is taken as 1",)
        assert eight.notes == (f"{name} leaves its batch open; it is taken as 8",)
        assert one.latency_ms > 0
        assert eight.latency_ms > 0
    assert nl.predict(tmp_path / "open.onnx", FLOAT).latency_ms == pytest.approx(nl.predict(SMALL, FLOAT).latency_ms)
    known_ms = nl.predict(tmp_path / "eight.onnx", of_eight).latency_ms
    assert nl.predict(tmp_path / "open.onnx", of_eight).latency_ms == pytest.approx(known_ms)
    assert "Note: open.onnx leaves its batch open; it is taken as 1" in netlathe(
        "predict", tmp_path / "open.onnx", "--predictor", FLOAT
    ).output  # fmt: skip
    fixed = nl.predict(tmp_path / "open.onnx", FLOAT, shapes={"": (1, 3, 32, 32)})
    assert fixed.notes == ()
