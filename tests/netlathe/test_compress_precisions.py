"""`netlathe compress` of widths, blocks and precisions together, on a small network of digits."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from test_cli import answer, refusal
from test_compress import ONE, Digits, data, module, undrawn

import netlathe as nl
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite_audit import audit_tflite
from netlathe.archspace.graph import Graph
from netlathe.archspace.precisions import Precision, is_mixed, precisions_of, unmixed
from netlathe.archspace.records import Setup
from netlathe.compress import check_precisions, segments_of, width_space
from netlathe.exporting import file_accuracy
from netlathe.predictor import LatencyPredictor
from netlathe.profiler import open_device
from netlathe.profiler.devices import DeviceOptions
from netlathe.profiler.protocol import Plan
from netlathe.runs.compression.report import CompressReport
from netlathe.training import ImageData, TrainConfig

__all__ = ["data", "module"]  # fixtures
SPEEDS = {Precision.FLOAT32: 1.0, Precision.FLOAT16: 1.0, Precision.INT8: 0.4, Precision.INT8_WEIGHTS: 3.0}
TRAINING = TrainConfig(epochs=1, batch_size=32, learning_rate=0.02)


class Law:
    """A model of the user's own: a million MACs per ms, more in int8, and a microsecond for each op that converts; all
    of it times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def predict(self, graphs: Sequence[Graph], /) -> Any:
        return np.array([self.ms(graph) for graph in graphs])

    def ms(self, graph: Graph) -> float:
        precisions = precisions_of(graph) if is_mixed(graph) else {}
        total = 0.0
        for node, inputs, _ in graph.steps():
            converts = node.op.kind in ("quantize", "dequantize")
            speed = SPEEDS[precisions.get(node.name, Precision.FLOAT32)]
            total += 1e-3 if converts else 1e-6 * speed * node.op.macs(*inputs)
        return self.factor * total


@pytest.fixture(scope="module", autouse=True)
def _without_programs_and_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        patch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
        yield


@pytest.fixture(scope="module")
def whole(module: Digits) -> Graph:
    return nl.read_weights(module, ONE)[0]


@pytest.fixture(scope="module")
def report(module: Digits, whole: Graph, data: ImageData, tmp_path_factory: pytest.TempPathFactory) -> CompressReport:
    """At 35 % of its time: more than int8 alone brings, so that widths are cut as well."""
    return nl.compress(
        module, ONE, target=nl.Target(Law(), 0.35 * Law().ms(whole), "law"), data=data, training=TRAINING, step=4,
        precisions=("float32", "int8"), finalists=2, output=tmp_path_factory.mktemp("mixed") / "run",
    )  # fmt: skip


def test_widths_and_precisions_are_chosen_together(report: CompressReport, whole: Graph) -> None:
    assert report.is_met
    assert "int8" in report.precisions.values()
    assert any(layer.after < layer.before for layer in report.layers)
    assert {layer.precision for layer in report.layers} <= {"float32", "int8"}
    original, half, fastest, _ = report.stages
    assert fastest.latencies[0].ms < 0.2 * original.latencies[0].ms  # in int8: narrower alone is not as fast
    assert fastest.latencies[0].ms < half.latencies[0].ms < original.latencies[0].ms


def test_the_mixed_file_computes_as_planned_and_is_as_accurate_as_is_told(
    report: CompressReport, data: ImageData
) -> None:
    file = Path(report.files["mixed"])
    assert file.name == "network_mixed.tflite"
    shaped = unmixed(nl.read(file))
    assert shaped.shapes == nl.read(report.files["tflite"]).shapes
    check_precisions(file, segments_of(shaped), report.precisions)
    assert report.accuracy["mixed"] == file_accuracy(file, data.test)
    assert report.accuracy["mixed"] > report.accuracy["torch"] - 0.05
    assert Law().ms(nl.read(file)) == pytest.approx(report.targets[0].predicted_ms)


def test_precisions_stand_in_tables_and_records(report: CompressReport) -> None:
    folder = Path(report.folder)
    with (folder / "widths.csv").open(newline="") as stream:
        assert [row["precision"] for row in csv.DictReader(stream)] == [layer.precision for layer in report.layers]
    rises = json.loads((folder / "sensitivity.json").read_text())["rises"]
    assert {*rises} == {f"precision of {name}" for name in report.precisions}
    assert all(first == 0 <= second for first, second in rises.values())
    assert CompressReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_another_plan_for_the_same_widths_trains_nothing_anew(
    report: CompressReport, module: Digits, whole: Graph, data: ImageData
) -> None:
    """With float16 allowed for a limit that the choice keeps already, all is found again but the training."""
    before = (Path(report.folder) / "training.json").stat().st_mtime_ns
    again = nl.compress(
        module, ONE, target=nl.Target(Law(), 0.35 * Law().ms(whole), "law"), data=data, training=TRAINING, step=4,
        precisions=("float32", "float16", "int8"), finalists=1, output=report.folder,
    )  # fmt: skip
    is_same = [layer.after for layer in again.layers] == [layer.after for layer in report.layers]
    assert ((Path(report.folder) / "training.json").stat().st_mtime_ns == before) is is_same
    assert again.is_met


def test_a_limit_of_the_size_is_met_by_the_file_that_is_written(whole: Graph, module: Digits, tmp_path: Path) -> None:
    """Without images, and where int8 weights are slow: they are taken where the size asks for it."""
    size_kib = len(write(whole)) / 1024
    found = nl.compress(
        module, ONE, target=nl.Target(Law(), 1.5 * Law().ms(whole), "law"), output=tmp_path / "run", step=4,
        limits=[nl.Limit("size-kb", 0.75 * size_kib)], precisions=("float32", "int8-weights"),
    )  # fmt: skip
    assert found.is_changed
    (limit,) = found.limits
    assert limit.value == Path(found.files["mixed"]).stat().st_size / 1024 <= limit.limit
    assert "int8-weights" in found.precisions.values()
    assert any(op.precision == "float32 with int8 weights" for op in audit_tflite(Path(found.files["mixed"])))
    assert found.warnings == ()


def write(graph: Graph) -> bytes:
    from netlathe.archspace.forms.tflite import write_tflite

    return write_tflite(graph)


def test_a_block_is_left_out_where_that_is_allowed_and_little_worth(
    whole: Graph, module: Digits, tmp_path: Path
) -> None:
    """By a score of the user's own, in which the block counts for nothing and every channel for much."""

    def channels(network: Any) -> float:
        kept = [layer.out_channels for layer in network.modules() if hasattr(layer, "out_channels")]
        return float(kept[0] + kept[-1])

    found = nl.compress(
        module, ONE, target=nl.Target(Law(), 0.4 * Law().ms(whole), "law"), output=tmp_path / "run", step=4,
        leave_out=True, score=channels, finalists=1,
    )  # fmt: skip
    assert len(found.left_out) == 1
    gone = [layer for layer in found.layers if layer.after == 0]
    assert [layer.precision for layer in gone] == ["", ""]
    assert found.layers[0].after == 16
    assert len([node for node in nl.read(found.files["tflite"]).nodes if node.op.has_macs]) == 3


@pytest.mark.slow
@pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))
def test_a_phone_times_the_mixed_file_itself(
    whole: Graph, module: Digits, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a target that no network meets there, so that the choice ends near the fastest, whatever this machine is."""
    monkeypatch.setattr("netlathe.timing.plan_for", lambda device: Plan(min_rounds=3, max_rounds=3))
    monkeypatch.setattr("netlathe.runs.compression.pipeline._check_fastest", lambda *_: None)  # it would be refused
    law, binary = Law(1e-3), {"benchmark_binary": BENCHMARK_MODEL}
    with LoopbackPhone(tmp_path / "phone") as phone, AdbDaemon(phone) as daemon:
        with open_device(daemon.address, DeviceOptions(cores="big", **binary)) as device:
            law.setup_ = device.setup
        found = nl.compress(
            module, ONE, target=nl.Target(law, 0.35 * law.ms(whole), "phone"), data=data, training=TRAINING, step=4,
            precisions=("float32", "int8"), finalists=1, output=tmp_path / "run", device=daemon.address, **binary,
        )  # fmt: skip
        assert found.judged["by"] == f"stopwatch on {daemon.address}"
        assert found.targets[0].measured_ms is not None
    mixed_file = Path(found.files["mixed"])
    check_precisions(mixed_file, segments_of(unmixed(nl.read(mixed_file))), found.precisions)
    assert "int8" in found.precisions.values()


@pytest.fixture(scope="module")
def folder(whole: Graph, module: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as .onnx, and predictors of a fictitious machine in float32 and int8."""
    path = tmp_path_factory.mktemp("files")
    (path / "digits.onnx").write_bytes(write_onnx(*nl.read_weights(module, ONE)))
    space, rng = width_space(whole, step=4, leave_out=False), np.random.default_rng(0)
    graphs = [space.graph([int(rng.integers(count)) for count in space.option_counts]) for _ in range(24)]
    setup = Setup("bench", "cpu", "os", "litert", "2")
    for dtype, speed in (("float32", 1e-6), ("int8", 0.4e-6)):
        fitted = LatencyPredictor("none").fit(
            graphs, [speed * one.macs for one in graphs], setup=dataclasses.replace(setup, dtype=dtype)
        )
        fitted.save(path / f"{dtype}.json")
    return path


def test_the_command_takes_a_predictor_of_each_dtype(folder: Path, whole: Graph, tmp_path: Path) -> None:
    names = f"{folder / 'float32.json'}+{folder / 'int8.json'}"
    found = answer(
        "compress", folder / "digits.onnx", "--target", f"{names}={0.5 * 1e-6 * whole.macs}", "--output",
        tmp_path / "run", "--step", 4, "--precisions", "float32,int8", "--unknown", "price",
    )  # fmt: skip
    assert "int8" in found["precisions"].values()
    assert "network_mixed.tflite" in found["files"]["mixed"]
    assert any("are of random values: time it, and do not use it" in line for line in found["warnings"])


def test_what_cannot_be_priced_or_read_is_refused_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    target = f"{folder / 'float32.json'}=0.1"
    words = "compress", folder / "digits.onnx", "--output", tmp_path / "run"
    message = refusal(*words, "--target", target, "--precisions", "float32,int8")
    assert "float32 prices one dtype alone; give a predictor of the same device" in message
    both = f"{folder / 'float32.json'}+{folder / 'int8.json'}=0.1"
    message = refusal(*words, "--target", both, "--precisions", "float32,int8,int8-weights")
    assert "nothing tells what int8-weights costs on" in message
    assert "netlathe profile --space kernels --dtype int8-weights" in message
    assert "int4 is not written" in refusal(*words, "--target", both, "--precisions", "float32,int4")
    assert "float32 must be among" in refusal(*words, "--target", both, "--precisions", "int8")
    swapped = f"{folder / 'int8.json'}+{folder / 'float32.json'}=0.1"
    assert "a predictor of float32 and others of int8" in refusal(*words, "--target", swapped)
    assert "expected PREDICTOR+PREDICTOR=MS" in refusal(*words, "--target", f"{folder / 'int8.json'}+=0.1")
    assert not (tmp_path / "run").exists()
