"""Exported files classify as the network they come from, and say so when they do not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from netlathe import exporting
from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.tflite_reader import read_tflite
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.presets import tiny
from netlathe.archspace.spaces import SearchSpace
from netlathe.exporting import Dtype, Format, export_all, file_accuracy, form_of, write_network
from netlathe.training import Compute, ImageData, TrainConfig, evaluate, load_images, recalibrate_batch_norm, train
from netlathe.training.images import MemorySplit
from netlathe.words import percent_within

CPU = Compute("cpu")


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", (8, 8), limit=300)


@pytest.fixture(scope="module")
def network(digits: ImageData) -> TorchGraph:
    positions = ((ConvBlock(3, 8, 8, 8),), (MBConv(8, 16, 8, 8, 2, 3, 3),), (LinearHead(16, 10, 4, 4),))
    graph = SearchSpace("chain", positions).architecture(()).graph()
    net = TorchGraph(graph, generator=torch.Generator().manual_seed(0))
    train(net, digits, TrainConfig(epochs=10, batch_size=32), compute=CPU)
    recalibrate_batch_norm(net, digits.train, compute=CPU)
    return net


def test_every_file_classifies_as_well_as_the_network(network: TorchGraph, digits: ImageData, tmp_path: Path) -> None:
    accuracy = evaluate(network, digits.test, compute=CPU)
    assert accuracy > 0.5  # chance is 0.1
    exported = export_all(network, tmp_path / "run", digits, compute=CPU)
    found = {name: (e.path.name, e.format, e.dtype) for name, e in exported.items()}
    assert found == {
        "tflite": ("network.tflite", "tflite", "float32"),
        "int8": ("network_int8.tflite", "tflite", "int8"),
        "onnx": ("network.onnx", "onnx", "float32"),
    }
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(e.path.name for e in exported.values())
    assert all(e.bytes == e.path.stat().st_size and e.warning is None for e in exported.values())
    assert exported["tflite"].accuracy == exported["onnx"].accuracy == pytest.approx(accuracy)
    assert exported["int8"].accuracy == pytest.approx(accuracy, abs=0.03)


def test_an_int8_file_is_int8_and_close_to_the_network(network: TorchGraph, digits: ImageData, tmp_path: Path) -> None:
    path = tmp_path / "q.tflite"
    write_network(network, path, "tflite", "int8", digits.train)
    classify = exporting._open_tflite(path, (1, 3, 8, 8))
    x = digits.test.load(torch.arange(20)).float() / 127.5 - 1
    with torch.no_grad():
        wanted = network(x).numpy()
    got = np.concatenate([classify(image[None]) for image in x.numpy()])
    assert np.abs(got - wanted).mean() < 0.05 * np.abs(wanted).max()
    interpreter = Interpreter(model_path=str(path))
    for details in (interpreter.get_input_details(), interpreter.get_output_details()):
        assert [tensor["dtype"] for tensor in details] == [np.int8]


def test_int8_scales_come_from_images_of_every_class(network: TorchGraph, digits: ImageData, tmp_path: Path) -> None:
    """Calibrated on black images, the network is lost; on a few of each class it is not."""
    black = MemorySplit(torch.full_like(digits.train.load(torch.arange(50)), 127), digits.train.labels[:50])
    accuracies = []
    for name, samples in (("black", black), ("real", digits.train)):
        write_network(network, tmp_path / f"{name}.tflite", "tflite", "int8", samples)
        accuracies.append(file_accuracy(tmp_path / f"{name}.tflite", digits.test))
    assert accuracies[0] < accuracies[1] - 0.2
    labels = torch.arange(1000) % 2 + 8 * (torch.arange(1000) > 990)
    split = MemorySplit(torch.arange(1000)[:, None, None, None].expand(1000, 1, 1, 1) % 256, labels)
    assert len(list(exporting.calibration(split))) == exporting.CALIBRATION_IMAGES


def test_a_quantized_value_is_the_nearest_that_the_tensor_has() -> None:
    tensor = {"dtype": np.int8, "quantization": (0.5, -3)}
    x = np.array([0, 0.2, 0.3, -1, 99, -99], np.float32)
    assert exporting.quantized(x, tensor).tolist() == [-3, -3, -2, -5, 127, -128]
    assert exporting.dequantized(np.array([-3, -1, 127], np.int8), tensor).tolist() == [0, 1, 65]
    plain = {"dtype": np.float32, "quantization": (0.0, 0)}
    assert exporting.dequantized(exporting.quantized(x, plain), plain) is x


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_accuracy_counts_every_image_once(
    network: TorchGraph, digits: ImageData, tmp_path: Path, form: Format, threads: int
) -> None:
    path = tmp_path / f"a.{form}"
    write_network(network, path, form)
    few = digits.test.take(torch.arange(70))
    with torch.no_grad():
        answers = network(few.load(torch.arange(70)).float() / 127.5 - 1).argmax(1)
    wrong = torch.where(torch.arange(70) < 7, (answers + 1) % 10, answers)
    split = MemorySplit(few.load(torch.arange(70)), wrong)
    assert file_accuracy(path, split, threads=threads) == pytest.approx(0.9)


def test_a_loss_of_accuracy_is_a_warning(
    network: TorchGraph, digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file_right, warned in ((0.96, []), (0.952, ["tflite", "onnx"]), (0.92, ["tflite", "int8", "onnx"])):
        monkeypatch.setattr(exporting, "file_accuracy", lambda path, split, right=file_right: right)
        exported = export_all(network, tmp_path, digits, accuracy=0.96)
        assert [name for name, e in exported.items() if e.warning] == warned
    told, wanted = (percent_within(share, len(digits.test), 2) for share in (0.92, 0.96))
    assert told.startswith("92.00 % ± ")
    advice = "train longer, or use the float32 file"
    assert exported["int8"].warning == (
        f"network_int8.tflite classifies {told} right where PyTorch does {wanted}; {advice}"
    )


def test_a_network_that_does_not_fit_into_int8_keeps_its_other_files(digits: ImageData, tmp_path: Path) -> None:
    space = tiny(8)
    unlike = TorchGraph(space.graph(space.reference), generator=torch.Generator().manual_seed(0)).eval()
    layers = [layer for layer in unlike.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        layers[3].weight *= 1e7  # what is added to its result is nothing beside it
    exported = export_all(unlike, tmp_path, digits)
    assert exported["int8"].accuracy is None
    assert "network_int8.tflite cannot be used" in (exported["int8"].warning or "")
    assert exported["tflite"].accuracy is not None
    assert exported["onnx"].accuracy is not None


def test_without_onnxruntime_the_onnx_file_is_written_but_not_judged(
    network: TorchGraph, digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    monkeypatch.setattr(exporting, "_open_tflite", lambda *_: lambda x: np.eye(10)[[0]])
    exported = export_all(network, tmp_path, digits, accuracy=0.0)["onnx"]
    assert exported.path.exists()
    assert exported.accuracy is None
    assert exported.warning is not None
    assert "was not judged: onnxruntime is not installed; pip install" in exported.warning
    with pytest.raises(FormatError, match="cannot be judged: onnxruntime is not installed"):
        file_accuracy(exported.path, digits.test)


@pytest.mark.parametrize(
    ("form", "dtype", "message"),
    [("tflite", "int8", "give training images"), ("onnx", "int8", r"only \.tflite files are written in int8")],
)
def test_what_cannot_be_written_is_refused_and_leaves_no_file(
    network: TorchGraph, tmp_path: Path, form: Format, dtype: Dtype, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        write_network(network, tmp_path / f"a.{form}", form, dtype)
    assert list(tmp_path.iterdir()) == []


def test_calibration_images_of_another_size_are_refused(network: TorchGraph, tmp_path: Path) -> None:
    other = load_images("digits", (12, 12), limit=40)
    with pytest.raises(FormatError, match=r"\(1, 8, 8, 3\).*\(1, 12, 12, 3\)"):
        write_network(network, tmp_path / "a.tflite", "tflite", "int8", other.train)


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_files_that_cannot_be_judged_say_why(
    network: TorchGraph, digits: ImageData, tmp_path: Path, form: Format
) -> None:
    path = tmp_path / f"a.{form}"
    write_network(network, path, form)
    with pytest.raises(FormatError, match=r"takes \(1, .*, the images are \(1, .*12"):
        file_accuracy(path, load_images("digits", (12, 12), limit=40).test)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match=r"a\.\w+: \w+.* cannot run it \(.*export it again"):
        file_accuracy(path, digits.test)
    with pytest.raises(FormatError, match="cannot run it"):
        file_accuracy(tmp_path / f"none.{form}", digits.test)
    with pytest.raises(FormatError, match=r"is this to be a \.tflite or an \.onnx"):
        file_accuracy(tmp_path / "a.bin", digits.test)


def test_the_format_comes_from_the_ending_or_the_option() -> None:
    assert form_of(Path("a.onnx"), None) == "onnx"
    assert form_of(Path("a.bin"), "tflite") == "tflite"
    with pytest.raises(FormatError, match="ending says onnx, --format says tflite"):
        form_of(Path("a.onnx"), "tflite")


def test_exported_files_carry_their_graph(network: TorchGraph, tmp_path: Path) -> None:
    write_network(network, tmp_path / "a.tflite", "tflite")
    assert read_tflite(tmp_path / "a.tflite") == network.graph
