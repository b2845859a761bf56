"""`netlathe compress --max-drop`: files in int8 that lose more than is asked are brought within it, and say how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import refusal
from test_compress import Digits, undrawn
from test_compress_precisions import Law

import netlathe as nl
from benchmarks.mixed_accuracy import unequal
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.cli.compress import show_compression
from netlathe.cli.console import Terminal
from netlathe.exporting import file_accuracy
from netlathe.runs.compression import recovered
from netlathe.runs.compression.report import CompressReport
from netlathe.training import Compute, ImageData, TrainConfig, load_images, train

ONE = torch.zeros(1, 1, 8, 8)
MOST = 1000.0


class Linear(Digits):
    """A residual network of digits, whose block has a linear end inside, so that int8 can be hurt there."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.inner[:2]  # type: ignore[index]


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_images("digits", (8, 8), channels=1, limit=256)


@pytest.fixture(scope="module")
def read(data: ImageData) -> tuple[Graph, Weights]:
    torch.manual_seed(0)
    network = Linear()
    with Compute(threads=1).threaded():
        train(network, data, TrainConfig(epochs=8, batch_size=32, learning_rate=0.1))
    return nl.read_weights(network, ONE)


@pytest.fixture(scope="module")
def hurt(read: tuple[Graph, Weights], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network with channels of unlike sizes, which computes the same in float32."""
    path = tmp_path_factory.mktemp("hurt") / "hurt.onnx"
    path.write_bytes(write_onnx(read[0], unequal(*read, MOST, 0)))
    return path


@pytest.fixture(autouse=True)
def _without_programs_and_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    undrawn(monkeypatch)


class Heard(nl.Listener):
    """Keeps notes and steps of trainings; fails at a step of one, as a power cut would."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.fails_at = fails_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Any]:
        is_ours = "with its rounding" in label

        def update(done: int, total: int, note: str | None) -> None:
            if is_ours:
                self.steps.append(done)
                if done == self.fails_at:
                    raise MemoryError("the power is gone")

        yield update


def compressed(model: Path, data: ImageData, output: Path, max_drop: float | None, **settings: Any) -> CompressReport:
    """At a target that precisions alone meet: widths stay."""
    law, graph = Law(), nl.read(model)
    return nl.compress(
        model, target=nl.Target(law, 0.5 * law.ms(graph), "law"), data=data, output=output, max_drop=max_drop,
        precisions=("float32", "int8"), least_share=1.0, finalists=1, normalization="-1..1",
        training=TrainConfig(epochs=0, batch_size=32), compute=Compute(threads=1), **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(hurt: Path, data: ImageData, tmp_path_factory: pytest.TempPathFactory) -> CompressReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
        undrawn(patch)
        return compressed(hurt, data, tmp_path_factory.mktemp("whole") / "run", 0.5)


def test_a_network_that_int8_hurts_is_brought_within_what_is_asked(whole: CompressReport, data: ImageData) -> None:
    assert whole.is_met
    assert not whole.is_missed
    assert [one.form for one in whole.recoveries] == ["int8", "mixed"]
    for one in whole.recoveries:
        assert one.images == len(data.validation)
        first, *_, last = one.steps
        assert (first.name, last.name) == ("as written", "channels equalized")
        assert first.accuracy is not None
        assert one.reference - first.accuracy > 0.1
        file = Path(whole.files[one.form])
        assert one.accuracy == last.accuracy == file_accuracy(file, data.validation)
        assert whole.accuracy[one.form] == file_accuracy(file, data.test) > whole.accuracy["tflite"] - 0.02
    assert CompressReport.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_the_page_and_the_records_tell_each_step(whole: CompressReport) -> None:
    folder = Path(whole.folder)
    page = nl.report(folder, folder / "page.html").output.read_text()
    assert "channels equalized" in page
    assert "as written" in page
    assert "points below float32" in page
    stored = json.loads((folder / "export.json").read_text())["recoveries"]
    assert [one["steps"][-1]["name"] for one in stored] == ["channels equalized"] * 2


def test_what_loses_nothing_is_left_as_it_is(read: tuple[Graph, Weights], data: ImageData, tmp_path: Path) -> None:
    """And so is what loses less than is asked: the files are those without --max-drop."""
    model = tmp_path / "well.onnx"
    model.write_bytes(write_onnx(*read))
    heard = Heard()
    plain = compressed(model, data, tmp_path / "plain", None)
    asked = compressed(model, data, tmp_path / "asked", 5.0, progress=heard)
    assert plain.recoveries == ()
    assert [len(one.steps) for one in asked.recoveries] == [1, 1]
    assert sum("nothing was to be done" in line for line in heard.notes) == 2
    for form in ("int8", "mixed"):
        assert Path(asked.files[form]).read_bytes() == Path(plain.files[form]).read_bytes()


@pytest.fixture
def _trained_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs no training is switched off, and every step saved."""
    monkeypatch.setattr(recovered, "CALIBRATIONS", ())
    monkeypatch.setattr("netlathe.runs.folder.EVERY_S", 0.0)


@pytest.mark.slow
@pytest.mark.usefixtures("_trained_alone")
def test_training_alone_wins_it_back_and_goes_on_where_it_was_cut_off(
    read: tuple[Graph, Weights], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovered, "EPOCHS", 20)
    data = load_images("digits", (8, 8), channels=1)
    model = tmp_path / "hurt.onnx"
    model.write_bytes(write_onnx(read[0], unequal(*read, 200.0, 0)))
    report = compressed(model, data, tmp_path / "whole", 1.0)
    for one in report.recoveries:
        first, last = one.steps
        assert first.accuracy is not None
        assert one.reference - first.accuracy > 0.01
        assert last.name == "trained with rounding"
        assert one.is_met, str(one)
    with pytest.raises(MemoryError):
        compressed(model, data, tmp_path / "cut", 1.0, progress=Heard(fails_at=12))
    heard = Heard()
    again = compressed(model, data, tmp_path / "cut", 1.0, progress=heard)
    assert heard.steps[0] == 13
    assert [one.steps for one in again.recoveries] == [one.steps for one in report.recoveries]
    for form in ("int8", "mixed"):
        assert Path(again.files[form]).read_bytes() == Path(report.files[form]).read_bytes()


@pytest.mark.usefixtures("_trained_alone")
def test_what_is_not_enough_is_said_and_the_best_file_kept(
    hurt: Path, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training of an epoch is far too short for channels so unlike; asked for less, the folder goes on."""
    monkeypatch.setattr(recovered, "EPOCHS", 1)
    with pytest.raises(MemoryError):
        compressed(hurt, data, tmp_path / "run", 0.1, progress=Heard(fails_at=3))
    heard = Heard()
    report = compressed(hurt, data, tmp_path / "run", 0.1, progress=heard)
    assert heard.steps[0] == 4
    assert not report.is_met
    assert report.is_missed
    assert len([line for line in report.warnings if "--max-drop 0.1 is not met" in line]) == 2
    for one in report.recoveries:
        best = max(step.accuracy or 0.0 for step in one.steps)
        assert one.accuracy == best == file_accuracy(Path(report.files[one.form]), data.validation)
    assert (Path(report.folder) / "fine_tuning_int8.npz").is_file()
    kept = {form: Path(report.files[form]).read_bytes() for form in ("int8", "mixed")}
    shutil.copytree(report.folder, tmp_path / "lenient")
    lenient = compressed(hurt, data, tmp_path / "lenient", 99.0)
    assert lenient.is_met
    assert Path(lenient.files["int8"]).read_bytes() != kept["int8"] or len(lenient.recoveries[0].steps) == 1


def test_the_command_shows_the_steps(whole: CompressReport, capsys: pytest.CaptureFixture[str]) -> None:
    show_compression(whole, Terminal(as_json=False))
    shown = " ".join("".join(capsys.readouterr()).split())
    for one in whole.recoveries:
        assert f"{one.form} file, on {one.images} validation images accuracy points below float32" in shown
    assert "as written" in shown
    assert "channels equalized" in shown


def test_the_command_refuses_what_is_no_drop(hurt: Path, tmp_path: Path) -> None:
    words = "compress", hurt, "--target", "pixel4-cpu-networks=1", "--output", tmp_path / "run"
    assert "--max-drop is judged on images: give --data" in refusal(*words, "--max-drop", 0.5)
    for value in (0, -1, 100.5, "nan"):
        message = refusal(*words, "--data", "digits", "--max-drop", value)
        assert "give points of accuracy, above 0 and at most 100" in message
    assert not (tmp_path / "run").exists()


def test_values_that_are_no_drop_are_refused_before_any_work(hurt: Path, data: ImageData, tmp_path: Path) -> None:
    for value in (0.0, -0.5, 101.0, float("nan"), float("inf")):
        with pytest.raises(nl.NetlatheError, match="give points of accuracy, above 0 and at most 100"):
            compressed(hurt, data, tmp_path / "run", value)
    with pytest.raises(nl.NetlatheError, match="is judged on images"):
        nl.compress(hurt, target=nl.Target(Law(), 1.0, "law"), output=tmp_path / "run", max_drop=0.5)
    assert not (tmp_path / "run").exists()
