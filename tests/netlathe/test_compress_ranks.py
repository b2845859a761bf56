"""`netlathe compress` in two processes: one writes and speaks, and one that is gone ends both."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rank_processes import start
from test_cli import answer
from test_compress import ONE, Digits, predictor_of
from test_compress_max_drop import MOST, Linear
from test_search_ranks_cli import command, ends, saving
from torch import nn

import netlathe as nl
from benchmarks.mixed_accuracy import unequal
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Setup
from netlathe.runs.compression import recovered
from netlathe.training import Compute, TrainConfig, load_images, train


def watched(*words: str) -> None:
    """The command, whose second process says what it writes in the folder."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.mkdir", "os.rename", "os.remove")) and "run" in str(arguments[0]).split(os.sep):
            print(event, arguments, file=sys.stderr)

    if os.environ["RANK"] == "1":
        sys.addaudithook(heard)
    command()


def elsewhere(*words: str) -> None:
    """The command without the steps in int8 that need no training, whose second process has no such folder."""
    recovered.CALIBRATIONS = ()  # type: ignore[misc]
    if os.environ["RANK"] == "1":
        sys.argv[sys.argv.index("--output") + 1] += "_of_the_second"
    command()


def trained(network: nn.Module) -> tuple[Graph, Weights]:
    data = load_images("digits", (8, 8), channels=1, limit=300)
    with Compute(threads=1).threaded():
        train(network, data, TrainConfig(epochs=8, batch_size=32, learning_rate=0.1))
    return nl.read_weights(network, ONE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a network, and a predictor of about a million MACs per ms."""
    path = tmp_path_factory.mktemp("ranks")
    torch.manual_seed(0)
    read = trained(Digits())
    (path / "digits.onnx").write_bytes(write_onnx(*read))
    predictor_of(read[0], Setup("bench", "cpu", "os", "litert", "2")).save(path / "bench.json")
    return path


def words(folder: Path, output: Path, *more: object, model: str = "digits.onnx") -> tuple[str, ...]:
    """A compression to about half of the network's time."""
    given = (
        "compress", folder / model, "--target", f"{folder / 'bench.json'}=0.19", "--data", "digits", "--limit-images",
        300, "--step", 4, "--finalists", 3, "--train-epochs", 2, "--train-batch-size", 32, "--output", output, *more,
    )  # fmt: skip
    return tuple(map(str, given))


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    """A finished compression of one process."""
    answer(*words(folder, folder / "undisturbed"))
    return folder / "undisturbed"


def content(run: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The report and the weights."""
    with np.load(run / "weights.npz") as file:
        return json.loads((run / "report.json").read_text()), {name: file[name] for name in file.files}


def last_loss(run: Path) -> float:
    """Of the last epoch; that in which a process was killed is the mean of the steps since then."""
    with (run / "train.csv").open(newline="") as stream:
        return float([*csv.DictReader(stream)][-1]["loss"])


def check_same(run: Path, other: Path) -> None:
    """That two compressions came to the same: one chose the widths, and the training's sums differ in rounding."""
    (report, weights), (wanted, expected) = content(run), content(other)
    assert report["layers"] == wanted["layers"]
    assert report["finalists"] == wanted["finalists"]
    assert report["original_accuracy"] == wanted["original_accuracy"]
    assert report["accuracy"] == pytest.approx(wanted["accuracy"], abs=2 / report["test_images"])
    assert weights.keys() == expected.keys()
    for name, values in weights.items():
        assert values == pytest.approx(expected[name], rel=1e-3, abs=1e-3), name
    assert last_loss(run) == pytest.approx(last_loss(other), rel=1e-3)


def test_two_processes_come_to_what_one_does_and_one_of_them_writes_and_speaks(
    undisturbed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.delenv("NETLATHE_PAGES")
    codes, outs, errors = ends(*words(folder, run, "--json"), by=watched)
    assert codes == [0, 0], errors
    assert (outs[1], errors[1]) == ("", "")
    assert {path.name for path in run.iterdir()} == {path.name for path in undisturbed.iterdir()} | {"report.html"}
    told = json.loads(outs[0].splitlines()[-1])
    assert told["layers"] == content(run)[0]["layers"]
    check_same(run, undisturbed)
    assert answer(*words(folder, run))["seconds"] == told["seconds"]  # one process reads what two have finished


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 0])
def test_a_process_that_is_killed_ends_both_with_one_line_and_the_same_command_comes_to_the_same(
    lost: int, undisturbed: Path, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    processes = start(2, saving, words(folder, run))
    while not (run / "training.npz").exists():
        assert [process.exit_code for process in processes] == [None, None]
        time.sleep(0.01)
    processes[lost].kill()
    code, _, error = processes[1 - lost].end()
    assert (processes[lost].end()[0], code) == (-signal.SIGKILL, 1)
    (line,) = [line for line in error.splitlines() if "Error: a process of this run is gone (" in line]
    assert "the same command goes on from there" in line
    assert "Traceback" not in error
    assert not (run / "report.json").exists()
    codes, _, errors = ends(*words(folder, run))
    assert codes == [0, 0], errors
    assert "training digits: " in errors[0]
    assert "training digits: 1/36 steps" not in errors[0]
    check_same(run, undisturbed)


@pytest.mark.slow
def test_two_processes_look_at_whole_networks_and_train_with_rounding_as_one_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the steps that need no training, which would be enough. The second process has no folder."""
    monkeypatch.setattr(recovered, "CALIBRATIONS", ())
    torch.manual_seed(0)
    graph, weights = trained(Linear())
    (folder / "hurt.onnx").write_bytes(write_onnx(graph, unequal(graph, weights, MOST, 0)))
    asked = ("--strategy", "random", "--looks", 6, "--max-drop", 0.05)
    answer(*words(folder, tmp_path / "one", *asked, model="hurt.onnx"))
    run = tmp_path / "two"
    codes, outs, errors = ends(*words(folder, run, *asked, model="hurt.onnx"), by=elsewhere)
    assert codes == [0, 0], errors
    assert (outs[1], errors[1]) == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
    check_same(run, tmp_path / "one")
    found, wanted = (content(one)[0]["recoveries"][0] for one in (run, tmp_path / "one"))
    assert [one["name"] for one in found["steps"]] == [one["name"] for one in wanted["steps"]]
    assert found["steps"][-1]["name"] == "trained with rounding"
    assert found["accuracy"] == pytest.approx(wanted["accuracy"], abs=2 / found["images"])
