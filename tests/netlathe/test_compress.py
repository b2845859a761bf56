"""`netlathe compress` from end to end on a small network of digits: files, modules, targets, resuming, refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import answer, netlathe, refusal
from torch import nn

import netlathe as nl
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.networks import mobilenet_v2
from netlathe.archspace.records import Setup
from netlathe.compress import width_space
from netlathe.exporting import file_accuracy
from netlathe.predictor import LatencyPredictor
from netlathe.profiler import open_device
from netlathe.reading import read_trained
from netlathe.report.run_content import read_run
from netlathe.report.run_page import marks_of
from netlathe.runs.compression.report import CompressReport
from netlathe.training import ImageData, TrainConfig, evaluate, load_images, train
from netlathe.training.normalization import NORMALIZATIONS

ONE = torch.zeros(1, 1, 8, 8)


class Digits(nn.Module):
    """A residual network of digits in three convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = self.conv(1, 16), self.conv(16, 16), self.conv(16, 16)
        self.down, self.head = self.conv(16, 32, 2), nn.Linear(32, 10)

    @staticmethod
    def conv(before: int, after: int, stride: int = 1) -> nn.Module:
        conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.down(x + self.outer(self.inner(x))).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_images("digits", (8, 8), channels=1, limit=300)


@pytest.fixture(scope="module")
def module(data: ImageData) -> Digits:
    torch.manual_seed(0)
    network = Digits()
    train(network, data, TrainConfig(epochs=8, batch_size=32, learning_rate=0.1))
    assert evaluate(network, data.test) > 0.8
    return network


@pytest.fixture(scope="module")
def read(module: Digits) -> tuple[Graph, Weights]:
    return nl.read_weights(module, ONE)


OWN_CODE = """
from pathlib import Path

import torch
from test_compress import Digits


def make():
    module = Digits()
    module.load_state_dict(torch.load(Path(__file__).with_name("digits.pt")))
    return module.eval(), torch.zeros(1, 1, 8, 8)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, module: Digits, read: tuple[Graph, Weights]) -> Path:
    """Holds the network as .onnx, .tflite and code that makes it, and predictors of a fictitious machine and of this
    one."""
    path = tmp_path_factory.mktemp("compress")
    torch.save(module.state_dict(), path / "digits.pt")
    (path / "digits.py").write_text(OWN_CODE)
    (path / "digits.onnx").write_bytes(write_onnx(*read))
    (path / "digits.tflite").write_bytes(write_tflite(*read))
    predictor_of(read[0], Setup("bench", "cpu", "os", "litert", "2")).save(path / "bench.json")
    return path


def predictor_of(graph: Graph, setup: Setup) -> LatencyPredictor:
    """A predictor of about a million MACs per ms, from networks of random widths."""
    space, rng = width_space(graph, step=4, leave_out=False), np.random.default_rng(0)
    graphs = [space.graph([int(rng.integers(count)) for count in space.option_counts]) for _ in range(24)]
    return LatencyPredictor("none").fit(graphs, [1e-6 * one.macs for one in graphs], setup=setup)


@pytest.fixture(scope="module")
def now_ms(folder: Path, read: tuple[Graph, Weights]) -> float:
    return nl.predict(read[0], folder / "bench.json").latency_ms


def undrawn(patch: pytest.MonkeyPatch) -> None:
    """Draws no picture, which takes longer than a compression of digits."""
    for name in ("draw_widths", "draw_compared", "draw_finalists"):
        patch.setattr(f"netlathe.runs.compression.reported.{name}", lambda *_: None)


@pytest.fixture(autouse=True)
def _undrawn(tuned: CompressReport, monkeypatch: pytest.MonkeyPatch) -> None:
    """One compression's pictures are drawn."""
    undrawn(monkeypatch)


class Heard(nl.Listener):
    """Keeps the lines that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def compress(model: Any, folder: Path, ms: float, output: Path, *inputs: Any, **settings: Any) -> CompressReport:
    target = nl.Target(folder / "bench.json", ms)
    return nl.compress(model, *inputs, target=target, output=output, **{"step": 4, **settings})


@pytest.fixture(scope="module")
def tuned(folder: Path, module: Digits, data: ImageData, now_ms: float) -> CompressReport:
    """The module at half of its time, trained for an epoch."""
    training = TrainConfig(epochs=1, batch_size=32, learning_rate=0.02)
    return compress(module, folder, 0.5 * now_ms, folder / "tuned", ONE, data=data, finalists=4, training=training)


def test_a_module_is_brought_to_the_target_and_stays_as_it_was(
    tuned: CompressReport, module: Digits, data: ImageData, now_ms: float
) -> None:
    (target,) = tuned.targets
    assert tuned.is_changed
    assert tuned.is_met
    assert target.predicted_ms <= target.high_ms <= target.target_ms == 0.5 * now_ms
    assert tuned.judged["by"] == "upper end of the 90 % interval"
    assert [one.name for one in tuned.stages] == ["original", "half-way", "fastest", "compressed"]
    original, half, fastest, found = (one.latencies[0].ms for one in tuned.stages)
    assert fastest < half <= (fastest + original) / 2 < original == pytest.approx(now_ms)
    assert fastest < found == target.predicted_ms
    assert tuned.stages[3].macs < tuned.stages[0].macs
    assert tuned.stages[3].memory_kib < tuned.stages[0].memory_kib
    assert tuned.fixed == ("b03/node_linear: the network's output has them",)
    before = evaluate(module, data.test)
    assert tuned.original_accuracy == pytest.approx(before, abs=0.01)
    assert evaluate(module, data.test) == before


def test_it_is_trained_and_every_file_is_as_accurate_as_is_told(tuned: CompressReport, data: ImageData) -> None:
    assert tuned.untrained_accuracy is not None
    assert tuned.accuracy["torch"] > max(0.7, tuned.untrained_accuracy - 0.05)
    for form in ("tflite", "onnx"):
        assert tuned.accuracy[form] == file_accuracy(Path(tuned.files[form]), data.test)
        assert tuned.accuracy[form] == pytest.approx(tuned.accuracy["torch"], abs=0.02)
    program = torch.export.load(tuned.files["program"]).module()
    with np.load(tuned.files["weights"], allow_pickle=False) as file:
        assert {name for name, _ in program.named_parameters()} <= {*file.files}


def test_its_files_are_called_as_the_module_is(tuned: CompressReport, module: Digits) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    _, _, interface = read_trained(module, ONE)
    assert interface is not None
    folder = Path(tuned.folder)
    session = onnxruntime.InferenceSession(folder / "network.onnx")
    assert [one.name for one in session.get_inputs()] == [one.name for one in interface.inputs]
    assert [one.name for one in session.get_outputs()] == [one.name for one in interface.outputs]
    x = torch.randn(1, 1, 8, 8)
    program = torch.export.load(folder / "network.pt2").module()
    (scores,) = session.run(None, {interface.inputs[0].name: x.numpy()})
    with torch.no_grad():
        assert program(x).shape == module.eval()(x).shape
        np.testing.assert_allclose(program(x).numpy(), scores, atol=1e-4)


def test_its_folder_is_a_network_as_that_of_a_search_is(tuned: CompressReport, folder: Path) -> None:
    run = Path(tuned.folder)
    assert answer("show", run)["macs"] == nl.read(run / "network.tflite").macs
    assert nl.predict(run, folder / "bench.json").name == "tuned"
    assert nl.predict(run, folder / "bench.json").latency_ms == tuned.targets[0].predicted_ms
    (timed,) = nl.time(run, budget_s=0.1).timed
    assert timed.latency_ms
    told = refusal("export", run, "--output", folder / "again.tflite")
    assert "a compression's folder has its files in every form already: network.tflite" in told


def test_layers_are_told_before_and_after(tuned: CompressReport) -> None:
    names = {layer.name: layer for layer in tuned.layers}
    assert len(names) == 5
    stem, outer, head = (tuned.layers[place] for place in (0, 2, 4))
    assert (stem.group, outer.group) == (stem.name, stem.name)  # they are added
    assert (stem.before, stem.after) == (outer.before, outer.after)
    assert (head.group, head.before, head.after) == ("", 10, 10)
    graph = nl.read(tuned.files["onnx"])
    widths = [results[0][3] for node, _, results in graph.steps() if type(node.op).__name__ == "Conv2d"]
    assert widths == [layer.after for layer in tuned.layers[:4]]
    with Path(tuned.folder, "widths.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["channels after"]) for row in rows] == [layer.after for layer in tuned.layers]
    assert Path(tuned.folder, "widths.png").read_bytes().startswith(b"\x89PNG")


def test_its_page_holds_the_original_against_it(tuned: CompressReport, tmp_path: Path) -> None:
    made = nl.report(tuned.folder, tmp_path / "page.html")
    assert "; the original takes " in made.verdict
    text = made.output.read_text()
    for told in ("Before and after", "layers are others than before", "torch.export.load", "Accuracy by class"):
        assert told in text
    content = read_run(Path(tuned.folder))
    assert {"before", "after"} == content.costs[0]["networks"].keys()
    assert sum(one.right for one in content.classes) == round(tuned.accuracy["torch"] * content.test_images)


def test_the_original_at_uniform_widths_is_judged_as_finalists_are(
    tuned: CompressReport, module: Digits, data: ImageData
) -> None:
    names = [one.name for one in tuned.uniform]
    assert names == ["uniform, at the target", "uniform 100 %", "uniform 75 %", "uniform 50 %", "uniform 25 %"]
    target, whole, *narrower = tuned.uniform
    assert whole.accuracy == pytest.approx(evaluate(module, data.validation), abs=0.01)
    assert whole.macs == tuned.stages[0].macs > narrower[0].macs > narrower[1].macs > narrower[2].macs
    assert target.predicted_ms <= tuned.targets[0].target_ms
    assert all(one.accuracy is not None and 0 <= one.accuracy <= 1 for one in tuned.finalists)
    with Path(tuned.folder, "finalists.csv").open(newline="") as stream:
        shares = [float(row["accuracy"]) for row in csv.DictReader(stream)]
    assert shares == pytest.approx([one.accuracy for one in tuned.finalists], rel=1e-5)


def test_all_networks_of_known_accuracy_stand_on_one_picture(tuned: CompressReport) -> None:
    roles = [one.role for one in marks_of(read_run(Path(tuned.folder)))]
    assert roles == ["chosen", "original", *["uniform"] * 5, *["finalist"] * len(tuned.finalists)]
    assert Path(tuned.folder, "accuracy.png").read_bytes().startswith(b"\x89PNG")


class Colours(nn.Module):
    """Three convolutions of colour images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Digits.conv(3, 8, 2), Digits.conv(8, 16, 2), Digits.conv(16, 16, 2))
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x).mean((2, 3)))  # type: ignore[no-any-return]


class PerMac:
    """A model of the user's own: a million MACs per ms."""

    def predict(self, graphs: Sequence[Graph], /) -> Any:
        return np.array([1e-6 * one.macs for one in graphs])


def test_baselines_are_trained_priced_and_stand_on_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright images against dark ones."""
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    rng, labels = np.random.default_rng(0), np.arange(120) % 2
    images = (rng.integers(0, 100, (120, 32, 32, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    torch.manual_seed(0)
    module, data = Colours(), load_images((images, labels), (32, 32))
    train(module, data, TrainConfig(epochs=4, batch_size=16, learning_rate=0.1))
    example = torch.zeros(1, 3, 32, 32)
    target = nl.Target(PerMac(), 0.5e-6 * nl.read_weights(module, example)[0].macs, "law")
    settings: dict[str, Any] = {
        "target": target, "data": data, "step": 4, "finalists": 1, "output": tmp_path / "run", "baselines": [0.1],
        "training": TrainConfig(epochs=2, batch_size=16, learning_rate=0.02), "compute": nl.Compute(threads=1),
    }  # fmt: skip
    report = nl.compress(module, example, **settings)
    (baseline,) = json.loads((tmp_path / "run" / "baselines.json").read_text())["baselines"]
    assert baseline["name"] == "mobilenet_v2_0.1_32"
    assert baseline["predicted_ms"] == pytest.approx(1e-6 * mobilenet_v2(0.1, 32, 2).graph().macs)
    (mark,) = [one for one in marks_of(read_run(tmp_path / "run")) if one.role == "baseline"]
    assert mark.accuracy == baseline["accuracy"]
    before = (tmp_path / "run" / "baselines.json").stat().st_mtime_ns
    again = nl.compress(module, example, **settings)
    assert again.to_json() == json.loads(json.dumps(report.to_json()))
    assert (tmp_path / "run" / "baselines.json").stat().st_mtime_ns == before


def test_baselines_that_cannot_be_trained_are_refused_before_any_work(
    folder: Path, now_ms: float, tmp_path: Path
) -> None:
    words = (
        "compress", folder / "digits.onnx", "--target", f"{folder / 'bench.json'}={0.5 * now_ms}", "--output",
        tmp_path / "run", "--baselines",
    )  # fmt: skip
    assert "--baselines: these are trained, so give images" in refusal(*words, "0.5")
    assert "expected widths, such as 0.5,0.75,1" in refusal(*words, "half")
    told = refusal(*words, "0.5", "--data", "digits", "--limit-images", 100)
    assert "takes square images of three channels, not of 8x8x1" in told
    assert not (tmp_path / "run").exists()


def test_a_finished_one_is_read_and_another_is_refused_by_what_differs(
    tuned: CompressReport, folder: Path, module: Digits, data: ImageData, now_ms: float
) -> None:
    training = TrainConfig(epochs=1, batch_size=32, learning_rate=0.02)
    settings: dict[str, Any] = {"data": data, "finalists": 4, "training": training}
    before = {path: path.stat().st_mtime_ns for path in Path(tuned.folder).iterdir()}
    again = compress(module, folder, 0.5 * now_ms, folder / "tuned", ONE, **settings)
    assert again.to_json() == json.loads(json.dumps(tuned.to_json()))
    assert {path: path.stat().st_mtime_ns for path in Path(tuned.folder).iterdir()} == before
    with pytest.raises(nl.FormatError, match=r"widths.step: 8 here, 4 in the record.*--restart"):
        compress(module, folder, 0.5 * now_ms, folder / "tuned", ONE, **settings, step=8)
    longer = {**settings, "training": TrainConfig(epochs=2, batch_size=32, learning_rate=0.02)}
    with pytest.raises(nl.FormatError, match=r"train.epochs: 2 here, 1 in the record.*--restart"):
        compress(module, folder, 0.5 * now_ms, folder / "tuned", ONE, **longer)


def test_damaged_records_are_one_clear_error(
    folder: Path, now_ms: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    run = tmp_path / "run"
    compress(folder / "digits.onnx", folder, 0.5 * now_ms, run)
    scores = json.loads((run / "importance.json").read_text())["scores"]
    short = {name: values[1:] for name, values in scores.items()}
    for record, field, values in (
        ("importance.json", "scores", ({}, [], short, dict.fromkeys(scores, "high"))),
        ("widths.json", "choices", ([0], [99, 99, 99], ["a", "b", "c"], None)),
        ("export.json", "files", ([], None)),
        ("report.json", "stages", (None, [{}], [{"name": "original"}])),
    ):
        whole = (run / record).read_text()
        for value in values:
            (run / record).write_text(json.dumps({**json.loads(whole), field: value}))
            before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
            with pytest.raises(nl.FormatError, match=r"not a whole record of a run|no report of a compression"):
                compress(folder / "digits.onnx", folder, 0.5 * now_ms, run)
            assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before  # nothing is lost
        (run / record).write_text(whole)
    whole = (run / "widths.json").read_text()
    (run / "widths.json").write_text(json.dumps({**json.loads(whole), "choices": None}))
    target = f"{folder / 'bench.json'}={0.5 * now_ms}"
    told = refusal("compress", folder / "digits.onnx", "--target", target, "--step", 4, "--output", run)
    assert "widths.json: " in told
    assert "--restart" in told
    (run / "widths.json").write_text(whole)
    assert compress(folder / "digits.onnx", folder, 0.5 * now_ms, run).is_changed


@pytest.mark.parametrize("form", ["onnx", "tflite", "py"])
def test_a_file_without_images_is_cut_by_magnitudes_and_never_written_to(
    folder: Path, form: str, now_ms: float, read: tuple[Graph, Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    model, output = folder / f"digits.{form}", folder / f"cut-{form}"
    before = hashlib.sha256(model.read_bytes()).hexdigest()
    named, target = f"{model}:make" if form == "py" else model, f"{folder / 'bench.json'}={0.5 * now_ms}"
    found = answer("compress", named, "--target", target, "--step", 4, "--output", output)
    assert hashlib.sha256(model.read_bytes()).hexdigest() == before
    assert found["importance"].startswith("magnitudes")
    assert found["accuracy"] == {}
    assert found["targets"][0]["high_ms"] <= 0.5 * now_ms
    assert nl.predict(output / "network.tflite", folder / "bench.json").latency_ms == pytest.approx(
        found["targets"][0]["predicted_ms"]
    )
    kept = json.loads((output / "widths.json").read_text())["kept"]
    _, weights = nl.read_weights(output / "network.onnx")
    stem = next(iter(weights))
    (name,) = [one for one in kept if stem in one]
    assert np.array_equal(weights[stem]["bias"], read[1][stem]["bias"][kept[name]])


def test_a_model_that_meets_the_target_is_left_alone(folder: Path, now_ms: float, tmp_path: Path) -> None:
    words = "compress", folder / "digits.onnx", "--target", f"{folder / 'bench.json'}={2 * now_ms}"
    done = netlathe(*words, "--output", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "digits meets every limit as it is: nothing was done" in done.stderr
    assert not (tmp_path / "run").exists()
    report = compress(folder / "digits.onnx", folder, 2 * now_ms, tmp_path / "run")
    assert not report.is_changed
    assert report.is_met
    assert report.files == {}


def test_a_target_below_the_fastest_is_refused_with_the_fastest(folder: Path, tmp_path: Path, now_ms: float) -> None:
    words = "compress", folder / "digits.onnx", "--output", tmp_path / "run", "--target"
    message = refusal(*words, f"{folder / 'bench.json'}=0.001")
    assert "latency on bench: 0.001 ms cannot be reached by widths of digits" in message
    assert f"the original {now_ms:.4g} ms" in message
    assert not (tmp_path / "run").exists()
    limit = refusal(*words, f"{folder / 'bench.json'}={now_ms}", "--limit", "parameters=10")
    assert "parameters: 10 cannot be reached" in limit


def test_further_limits_are_kept(
    folder: Path, now_ms: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: tuple[Graph, Weights]
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    limits = [nl.Limit("parameters", 0.4 * read[0].parameters), nl.Limit("memory-kb", 6.5)]
    found = compress(folder / "digits.onnx", folder, 0.9 * now_ms, tmp_path / "run", limits=limits)
    assert [one.name for one in found.limits] == ["parameters", "memory-kb"]
    assert all(one.value <= one.limit for one in found.limits)


def test_what_cannot_be_compressed_is_refused_in_a_sentence(
    folder: Path, now_ms: float, tmp_path: Path, data: ImageData, module: Digits
) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    ms, output = 0.5 * now_ms, tmp_path / "run"
    with pytest.raises(nl.FormatError, match="Branching: torch cannot export it"):
        compress(Branching(), folder, ms, output, ONE)

    class Viewing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + 1
            x[:, :, :4].mul_(2)
            return x

    with pytest.raises(nl.FormatError, match=r"ScatterND.*netlathe has no such op"):
        compress(Viewing(), folder, ms, output, ONE)
    with pytest.raises(nl.FormatError, match="a module needs example inputs"):
        compress(module, folder, ms, output)
    with pytest.raises(nl.CompressError, match="there is no layer 'sterm'"):
        compress(folder / "digits.onnx", folder, ms, output, ignored="sterm")
    smaller = load_images("digits", (4, 4), channels=1, limit=50)
    with pytest.raises(nl.DataError, match=r"takes images of \(8, 8, 1\), not of \(4, 4, 1\)"):
        compress(folder / "digits.onnx", folder, ms, output, data=smaller)
    with pytest.raises(nl.NetlatheError, match="distillation 2: out of range"):
        compress(folder / "digits.onnx", folder, ms, output, distillation=2)
    shutil.copy(folder / "digits.onnx", tmp_path / "network.onnx")
    with pytest.raises(nl.OutputError, match=r"network.onnx: is an input"):
        compress(tmp_path / "network.onnx", folder, ms, tmp_path)
    with pytest.raises(nl.UnknownOpError, match=r"(no other knows all|all) ops of it"):
        nl.compress(folder / "digits.onnx", target=nl.Target("pixel4-cpu", 1e-3), output=output)
    assert not output.exists()


def test_layers_to_ignore_keep_their_channels(
    folder: Path, now_ms: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned: CompressReport
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    names = [layer.name for layer in compress(folder / "digits.onnx", folder, 2 * now_ms, tmp_path / "no").layers]
    assert names == []
    stem = nl.read(folder / "digits.onnx").nodes[0].name
    found = compress(folder / "digits.onnx", folder, 0.7 * now_ms, tmp_path / "run", ignored=stem)
    assert [layer.after for layer in found.layers if layer.group == ""] == [16, 16, 10]
    assert any("is to be left as it is" in line for line in found.fixed)


class Twice(nn.Module):
    """Calls one convolution twice, and has another whose groups of channels are too narrow to be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(1, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.grouped, self.head = nn.Conv2d(16, 16, 3, 1, 1, groups=8), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.again(self.stem(x).relu()).relu())
        return self.head(self.grouped(x.relu()).mean((2, 3)))  # type: ignore[no-any-return]


def test_layers_that_share_their_weights_get_their_own_and_that_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    module = Twice()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    graph = nl.read_weights(module, ONE)[0]
    predictor = predictor_of(graph, Setup("bench", "cpu", "os", "litert", "2"))
    target = nl.Target(predictor, 0.6 * float(predictor.predict([graph])[0]), "bench")
    report = nl.compress(module, ONE, target=target, output=tmp_path / "run", step=4)
    (told,) = [one for one in report.warnings if "share their weights" in one]
    assert told.startswith("/".join(graph.nodes[2].name.split("/")[:1]))
    assert report.targets[0].predicted_ms <= target.ms
    after = {layer.name: layer.after for layer in report.layers}
    assert after[graph.nodes[-1].name] == 10
    assert all(width % 2 == 0 for width in after.values())  # whole groups of two channels go
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())


def test_images_of_other_classes_teach_by_the_models_outputs(
    folder: Path, now_ms: float, tmp_path: Path, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    rng = np.random.default_rng(0)
    two = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 2
    report = compress(
        folder / "digits.onnx", folder, 0.6 * now_ms, tmp_path / "run", data=two, finalists=2,
        training=TrainConfig(epochs=1, batch_size=8, learning_rate=0.01),
    )  # fmt: skip
    assert "tells 10 classes, the images have 2" in report.warnings[0]
    assert report.importance.endswith("against its own outputs")
    assert (report.accuracy, report.original_accuracy) == ({}, None)
    assert report.is_met


def own_recipe(network: nn.Module, data: ImageData, compute: nl.Compute) -> nn.Module:
    """Training of a user's own: none."""
    return network


def least_channels(network: nn.Module) -> float:
    """A score of a user's own: the fewest parameters."""
    return -float(sum(p.numel() for p in network.parameters()))


def test_a_recipe_and_a_score_of_ones_own_take_the_place_of_ours(
    folder: Path, now_ms: float, tmp_path: Path, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    settings: dict[str, Any] = {"data": data, "training": own_recipe, "score": least_channels, "finalists": 6}
    report = compress(folder / "digits.onnx", folder, 0.6 * now_ms, tmp_path / "run", **settings)
    assert report.accuracy["torch"] == report.untrained_accuracy
    examined = json.loads((tmp_path / "run" / "widths.json").read_text())["examined"]
    assert len(examined) > 1
    assert min(one["loss"] for one in examined) == next(
        one["loss"] for one in examined if one["choices"] == list(report.stages[3].choices)
    )
    with pytest.raises(nl.NetlatheError, match="cannot be told from another"):
        compress(folder / "digits.onnx", folder, 0.6 * now_ms, tmp_path / "other", **{**settings, "score": lambda _: 0})


def found_in(run: Path) -> tuple[list[int], dict[str, bytes], dict[str, float]]:
    """What a compression found: choices, weights, accuracies."""
    with np.load(run / "weights.npz") as file:
        weights = {name: file[name].tobytes() for name in file.files}
    choices = json.loads((run / "widths.json").read_text())["choices"]
    return choices, weights, json.loads((run / "report.json").read_text())["accuracy"]


def words(folder: Path, now_ms: float, output: Path) -> Sequence[object]:
    return (
        "compress", folder / "digits.onnx", "--target", f"{folder / 'bench.json'}={0.5 * now_ms}", "--step", 4,
        "--data", "digits", "--limit-images", 300, "--finalists", 4, "--train-epochs", 3, "--train-batch-size", 32,
        "--threads", 1, "--output", output,
    )  # fmt: skip


@pytest.mark.slow
def test_kill_9_anywhere_costs_nothing_but_time(folder: Path, now_ms: float, tmp_path: Path) -> None:
    """Killed in each phase; it saves after every step."""
    code = "import netlathe.runs.folder as j; j.EVERY_S = 0.0; from netlathe.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, *map(str, words(folder, now_ms, tmp_path / "whole"))],
        check=True,
        capture_output=True,
    )
    command = [sys.executable, "-c", code, *map(str, words(folder, now_ms, tmp_path / "run"))]
    for heard, delay_s in (
        ("importance", 0.0), ("choosing", 0.1), ("comparing", 0.2), ("training", 0.1), ("training", 0.3),
        ("exporting", 0.1), ("uniform widths", 0.0),
    ):  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        for line in process.stderr:
            if heard in line:
                break
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    subprocess.run(command, check=True, capture_output=True)
    assert found_in(tmp_path / "run") == found_in(tmp_path / "whole")


@pytest.mark.slow
def test_the_stopwatch_has_the_last_word_where_the_device_is_at_hand(
    module: Digits, read: tuple[Graph, Weights], tmp_path: Path
) -> None:
    """The predictor says that the network takes far longer than it does."""
    with open_device("local") as device:
        here = predictor_of(read[0], device.setup)
    now_ms = float(here.predict([read[0]])[0])
    report = nl.compress(
        module, ONE, target=nl.Target(here, 0.4 * now_ms, "here"), device="local", output=tmp_path / "run", step=4
    )
    assert report.judged["by"] == "stopwatch on local"
    assert report.targets[0].predicted_ms > report.targets[0].target_ms
    assert report.targets[0].measured_ms is not None
    assert report.targets[0].measured_ms <= report.targets[0].target_ms
    assert not report.is_changed


@pytest.mark.slow
def test_mobilenet_is_brought_near_each_target_by_a_shipped_predictor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    (tmp_path / "m.onnx").write_bytes(write_onnx(nl.network("mobilenet_v2").graph()))
    for ms in (20.0, 12.0, 7.0):
        target = nl.Target("pixel4-cpu-networks", ms)
        report = nl.compress(tmp_path / "m.onnx", target=target, output=tmp_path / f"{ms:g}")
        assert 0.97 * ms <= report.targets[0].high_ms <= ms


@pytest.mark.parametrize("said", [None, "0..255"])
def test_a_model_of_other_values_gets_them_and_so_do_its_files(
    folder: Path, now_ms: float, tmp_path: Path, data: ImageData, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    """Of bytes as they are; it finds that out, unless it is told."""
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    raw = data.normalized(NORMALIZATIONS["0..255"])
    torch.manual_seed(0)
    network = Digits()
    train(network, raw, TrainConfig(epochs=4, batch_size=32, learning_rate=0.1))
    listener = Heard()
    report = compress(
        network, folder, 0.6 * now_ms, tmp_path / "run", ONE, data=data, finalists=2, normalization=said,
        training=TrainConfig(epochs=1, batch_size=32, learning_rate=0.02), progress=listener,
    )  # fmt: skip
    assert report.normalization == "0..255"
    assert report.original_accuracy == pytest.approx(evaluate(network, raw.test), abs=0.01)
    for form in ("tflite", "int8", "onnx"):
        assert report.accuracy[form] == file_accuracy(Path(report.files[form]), raw.test)
        assert report.accuracy[form] > file_accuracy(Path(report.files[form]), data.test) + 0.2
    told = [line for line in listener.notes if "so it gets images as 0..255" in line]
    assert len(told) == (1 if said is None else 0)
    again = compress(
        network, folder, 0.6 * now_ms, tmp_path / "run", ONE, data=data, finalists=2, normalization=said,
        training=TrainConfig(epochs=1, batch_size=32, learning_rate=0.02),
    )  # fmt: skip
    assert again.to_json() == json.loads(json.dumps(report.to_json()))


def test_a_normalization_that_fits_worse_than_another_is_warned_of(
    module: Digits, folder: Path, now_ms: float, tmp_path: Path, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    report = compress(
        module, folder, 0.6 * now_ms, tmp_path / "run", ONE, data=data, finalists=1, normalization="3/0.5",
        training=TrainConfig(epochs=1, batch_size=32, learning_rate=0.02),
    )  # fmt: skip
    assert report.normalization == "3/0.5"
    told = re.compile(r"% ± [\d.]+ as -1\.\.1 \(3/0\.5 .*is the normalization the model's\?")
    assert any(told.search(line) for line in report.warnings)
    with pytest.raises(nl.DataError, match=r"normalization 'imagnet': give -1..1, imagenet"):
        compress(module, folder, 0.6 * now_ms, tmp_path / "no", ONE, data=data, normalization="imagnet")
