"""Every strategy of `netlathe compress` to its end, with all else that it may meet: a stopwatch, int8, two devices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_compress import ONE, Digits, data, module
from test_compress_precisions import Law

import netlathe as nl
from netlathe.archspace.graph import Graph
from netlathe.archspace.precisions import unmixed
from netlathe.compress import check_precisions, segments_of
from netlathe.profiler import open_device
from netlathe.profiler.protocol import Plan
from netlathe.runs.compression.report import CompressReport
from netlathe.runs.compression.strategies import INTEGER_PROGRAM, NETADAPT, UNIFORM
from netlathe.search.strategies.blackbox.names import STRATEGIES
from netlathe.training import ImageData, TrainConfig

__all__ = ["data", "module"]  # fixtures
pytestmark = pytest.mark.slow
EVERY = (INTEGER_PROGRAM, UNIFORM, NETADAPT, *STRATEGIES)
TRAINING = TrainConfig(epochs=1, batch_size=32, learning_rate=0.02)
LOOKS = 4


@pytest.fixture(scope="module", autouse=True)
def _without_programs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
        yield


@pytest.fixture(scope="module")
def whole(module: Digits) -> Graph:
    return nl.read_weights(module, ONE)[0]


def check_whole(report: CompressReport, strategy: str, data: ImageData) -> None:
    """Files of every form are there, compute as planned, and the record says how the network was chosen."""
    assert report.is_changed
    assert {"tflite", "int8", "onnx", "weights"} <= {*report.files}
    assert all(Path(file).is_file() for form, file in report.files.items() if form != "program")
    assert report.run.get("strategy", INTEGER_PROGRAM) == strategy
    looked = report.stages[-1].choices in [one.choices for one in report.finalists]
    assert looked or report.judged["by"].startswith("stopwatch")  # which may ask for one that nobody looked at
    if "mixed" in report.files:
        shaped = unmixed(nl.read(report.files["mixed"]))
        check_precisions(Path(report.files["mixed"]), segments_of(shaped), report.precisions)
    assert CompressReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize("strategy", EVERY)
def test_with_a_stopwatch_and_int8_together(
    strategy: str, module: Digits, whole: Graph, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a target that no network meets here, so that every judgement refuses, whatever this machine is."""
    monkeypatch.setattr("netlathe.timing.plan_for", lambda device: Plan(min_rounds=3, max_rounds=3))
    monkeypatch.setattr("netlathe.runs.compression.pipeline._check_fastest", lambda *_: None)  # it would be refused
    law = Law(1e-3)
    with open_device("local") as device:
        law.setup_ = device.setup  # type: ignore[attr-defined]
    report = nl.compress(
        module, ONE, target=nl.Target(law, 0.35 * law.ms(whole), "here"), data=data, training=TRAINING, step=4,
        precisions=("float32", "int8"), strategy=strategy, looks=LOOKS, finalists=2, device="local",
        output=tmp_path / "run", compute=nl.Compute(threads=1),
    )  # fmt: skip
    check_whole(report, strategy, data)
    assert report.judged["by"] == "stopwatch on local"
    assert 1 <= report.judged["judgements"] <= 9
    assert not report.is_met
    assert report.targets[0].measured_ms is not None
    assert any("networks tried meets every limit" in one for one in report.warnings)


@pytest.mark.parametrize("strategy", EVERY)
def test_with_two_devices_and_int8_together(
    strategy: str, module: Digits, whole: Graph, data: ImageData, tmp_path: Path
) -> None:
    """The second device is slow in int8, so that neither of the two decides alone."""

    class Other(Law):
        def ms(self, graph: Graph) -> float:
            return 0.5 * super().ms(graph) + 5e-7 * graph.macs

    laws = {"one": Law(), "other": Other(2.0)}
    report = nl.compress(
        module, ONE, target=[nl.Target(law, 0.5 * law.ms(whole), name) for name, law in laws.items()], data=data,
        training=TRAINING, step=4, precisions=("float32", "int8"), strategy=strategy, looks=LOOKS, finalists=2,
        output=tmp_path / "run", compute=nl.Compute(threads=1),
    )  # fmt: skip
    check_whole(report, strategy, data)
    assert report.is_met
    assert [one.device for one in report.targets] == ["one", "other"]
    assert all(one.predicted_ms <= one.target_ms for one in report.targets)
    assert all(law.ms(nl.read(report.files.get("mixed", report.files["tflite"]))) <= 0.5 * law.ms(whole) * 1.0001
               for law in laws.values())  # fmt: skip
