"""Every strategy of `netlathe compress` on a small trained network: limits kept, the least loss chosen, the same by the
same seed, nothing lost by an interruption; the optimum where all networks can be listed."""

from __future__ import annotations

import csv
import itertools
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import refusal
from test_compress import ONE, Digits, predictor_of

import netlathe as nl
from netlathe.archspace.decisions import Choices
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.records import Setup
from netlathe.events import Listener
from netlathe.predictor import LatencyPredictor
from netlathe.runs.compression.looked import layer_features, steadied
from netlathe.runs.compression.outlook import look_ahead
from netlathe.runs.compression.scored import ScorePhase
from netlathe.runs.compression.settings import CompressSettings, read_original
from netlathe.runs.compression.shaped import Shaped, ShapePhase
from netlathe.runs.compression.strategies import INTEGER_PROGRAM, NETADAPT, UNIFORM
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.search.strategies.blackbox.names import STRATEGIES
from netlathe.targets import make_goal
from netlathe.training import Compute, ImageData, TrainConfig, load_images, train

EVERY = (INTEGER_PROGRAM, UNIFORM, NETADAPT, *STRATEGIES)
LOOKS = 12


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_images("digits", (8, 8), channels=1, limit=300)


@pytest.fixture(scope="module")
def module(data: ImageData) -> Digits:
    torch.manual_seed(0)
    network = Digits()
    train(network, data, TrainConfig(epochs=4, batch_size=32, learning_rate=0.1))
    return network


@pytest.fixture(scope="module")
def predictor(module: Digits) -> LatencyPredictor:
    return predictor_of(nl.read_weights(module, ONE)[0], Setup("bench", "cpu", "os", "litert", "2"))


@pytest.fixture(scope="module")
def settings(module: Digits, data: ImageData, predictor: LatencyPredictor) -> CompressSettings:
    """Half of its time, and 60 % of its parameters, in steps of one channel."""
    original = read_original(module, ONE, None)
    now_ms = float(predictor.predict([original.graph])[0])
    goal = make_goal(
        [nl.Target(predictor, 0.5 * now_ms, "bench")], [nl.Limit("parameters", 0.6 * original.graph.parameters)]
    )
    return CompressSettings(original, goal, data, TrainConfig(), step=1, looks=LOOKS, finalists=4)


def shaped(settings: CompressSettings, path: Path, listener: Listener | None = None) -> Shaped:
    """The choice of these settings in a folder."""
    path.mkdir(exist_ok=True)
    place = Workplace(RunFolder(path), Compute(), listener or Listener())
    scored = ScorePhase(settings, place).output()
    return ShapePhase(settings.taking_images(scored.normalization), place, look_ahead(settings), scored).work()


def upper_ms(settings: CompressSettings, choices: Choices) -> float:
    main = settings.goal.main
    return float(main.model.predict_interval([settings.space.graph(choices)])[1][0])


def keeps(settings: CompressSettings, choices: Choices) -> bool:
    parameters = settings.space.graph(choices).parameters
    return upper_ms(settings, choices) <= settings.goal.main.limit_ms and parameters <= settings.goal.limits[0].value


@pytest.mark.parametrize("strategy", EVERY)
def test_every_strategy_keeps_every_limit_and_takes_the_least_loss(
    strategy: str, settings: CompressSettings, tmp_path: Path
) -> None:
    settings = replace(settings, strategy=strategy)
    found = shaped(settings, tmp_path)
    assert found.judged.is_met
    assert all(keeps(settings, one) for one in found.examined)
    assert found.examined[found.choices] == min(found.examined.values())
    assert LOOKS <= len(found.examined) <= LOOKS + 1 or strategy in (INTEGER_PROGRAM, UNIFORM, NETADAPT)
    assert upper_ms(settings, found.choices) > 0.6 * settings.goal.main.limit_ms


@pytest.mark.parametrize("strategy", [NETADAPT, "evolution"])
def test_what_was_interrupted_goes_on_and_ends_alike(
    strategy: str, settings: CompressSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netlathe.runs.compression.shaped import FinalistLoss

    settings = replace(settings, strategy=strategy, looks=40 if strategy == NETADAPT else LOOKS)
    whole, counted, real = shaped(settings, tmp_path / "whole"), [], FinalistLoss.__call__

    def counting(self: FinalistLoss, choices: Choices) -> float:
        counted.append(choices)
        if len(counted) == 7:
            raise KeyboardInterrupt
        return real(self, choices)

    monkeypatch.setattr(FinalistLoss, "__call__", counting)
    with pytest.raises(KeyboardInterrupt):
        shaped(settings, tmp_path / "run")
    again = shaped(settings, tmp_path / "run")
    assert (again.choices, again.examined) == (whole.choices, whole.examined)
    assert len(counted) == len(set(counted)) + 1  # the one that was interrupted is looked at again, no other


def test_more_looks_add_to_those_that_there_are(
    settings: CompressSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netlathe.runs.compression.shaped import FinalistLoss

    few = shaped(replace(settings, strategy="random", looks=5), tmp_path)
    seen: list[Choices] = []
    real = FinalistLoss.__call__
    monkeypatch.setattr(FinalistLoss, "__call__", lambda self, one: seen.append(one) or real(self, one))
    more = shaped(replace(settings, strategy="random", looks=9), tmp_path)
    assert 3 <= len(seen) <= 5  # four looks, one of which the first run may have widened to, and what is widened now
    assert len({*more.examined} & {*few.examined}) >= 5


@pytest.mark.parametrize("strategy", [INTEGER_PROGRAM, "ego", "local", "thompson", "tpe"])
def test_the_best_of_all_networks_is_found_where_they_can_be_listed(
    strategy: str, settings: CompressSettings, tmp_path: Path
) -> None:
    """Without images the sum of scores stands for the loss. Of some 100 networks, the optimum is known by listing."""
    settings = replace(settings, strategy=strategy, data=None, training=None, step=4, looks=60)
    scored = ScorePhase(settings, Workplace(RunFolder(tmp_path), Compute(), Listener())).work()
    scores = settings.space.option_scores(scored.scores, comparable=False)

    def total(choices: Choices) -> float:
        return float(scores[np.arange(len(choices)), list(choices)].sum())

    every = [one for one in itertools.product(*map(range, settings.space.option_counts)) if keeps(settings, one)]
    assert 20 < len(every) < 200
    assert total(shaped(settings, tmp_path).choices) == pytest.approx(max(map(total, every)))


def test_uniform_is_the_largest_share_and_single_layers_get_what_is_left(
    settings: CompressSettings, tmp_path: Path
) -> None:
    settings = replace(settings, strategy=UNIFORM)
    found = shaped(settings, tmp_path)
    alike = [settings.space.alike(share) for share in np.linspace(0.25, 1, 700)]
    widest = [one for one in alike if keeps(settings, one)][-1]
    assert widest in found.examined
    assert all(0 <= wide - narrow <= 1 for wide, narrow in zip(widest, max(found.examined), strict=True))


def test_a_repair_narrows_or_widens_but_changes_no_layer_for_another() -> None:
    scores = np.array([[0.0, -1.0, -3.0], [0.0, -0.5, -np.inf]])
    around = steadied(scores, (1, 0))
    assert around[0].tolist() == [0.01, 0.0, -2.0]
    assert around[1].tolist() == [0.0, -0.5, -np.inf]


def test_layers_are_described_to_the_agent_as_amc_does(settings: CompressSettings) -> None:
    """Kernel, stride, height, width, channels read and given, MACs; then the kind: width, block, precision."""
    stem, inner, down = layer_features(settings.space)
    assert stem.tolist() == [3, 1, 8, 8, 1, 16, 9 * 64 * 16 * (1 + 16), 1, 0, 0]  # coupled with the sum's other layer
    assert inner.tolist() == [3, 1, 8, 8, 16, 16, 9 * 64 * 16 * 16, 1, 0, 0]
    assert down.tolist() == [3, 2, 4, 4, 16, 32, 9 * 16 * 16 * 32, 1, 0, 0]
    more = replace(settings, leave_out=True, precisions=("float32", "int8")).space
    found = layer_features(more)
    assert len(found) == len(more.option_counts)
    assert found[:, 7:].sum(axis=0).tolist() == [3, 1, len(more.segments)]
    assert found[3].tolist() == [3, 1, 8, 8, 16, 16, 2 * 9 * 64 * 16 * 16, 0, 1, 0]


class Notes(Listener):
    """Keeps the notes of its steps' progress."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def progress(self, label: str, unit: str = "") -> Any:
        from contextlib import nullcontext

        return nullcontext(lambda done, total, note: self.notes.append(f"{label} {done}/{total} {note}"))


def test_progress_tells_the_least_loss_so_far(settings: CompressSettings, tmp_path: Path) -> None:
    notes = Notes()
    found = shaped(replace(settings, strategy="random", looks=4), tmp_path, notes)
    losses = sorted(found.examined.values())
    told = [one for one in notes.notes if one.startswith("looking at networks")]
    assert [one.split()[3] for one in told] == ["1/4", "2/4", "3/4", "4/4"]
    assert any(f"least so far {loss:.4g}" in told[-1] for loss in losses[:2])


def test_what_is_unknown_is_refused_before_any_work(
    module: Digits, predictor: LatencyPredictor, settings: CompressSettings, tmp_path: Path
) -> None:
    target = nl.Target(predictor, 1.0, "bench")
    with pytest.raises(nl.NetlatheError, match="strategy 'amc': unknown; known are integer-program, uniform, netadapt"):
        nl.compress(module, ONE, target=target, output=tmp_path / "run", strategy="amc")
    with pytest.raises(nl.NetlatheError, match="looks 0: out of range"):
        replace(settings, strategy="ego", looks=0)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, module: Digits, predictor: LatencyPredictor) -> Path:
    path = tmp_path_factory.mktemp("strategies")
    (path / "digits.onnx").write_bytes(write_onnx(*nl.read_weights(module, ONE)))
    predictor.save(path / "bench.json")
    return path


def command(folder: Path, output: Path, *more: object) -> list[str]:
    now_ms = nl.predict(folder / "digits.onnx", folder / "bench.json").latency_ms
    words = (
        "compress", folder / "digits.onnx", "--target", f"{folder / 'bench.json'}={0.5 * now_ms}", "--step", 1,
        "--data", "digits", "--limit-images", 300, "--train-epochs", 0, "--threads", 1, "--output", output, *more,
    )  # fmt: skip
    return [*map(str, words)]


def test_the_command_leaves_a_report_a_table_and_a_picture_of_what_was_looked_at(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_cli import answer

    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    run = tmp_path / "run"
    found = answer(*command(folder, run, "--strategy", "uct", "--looks", 6))
    assert len(found["finalists"]) >= 6
    assert found["finalists"][0]["choices"] == found["stages"][-1]["choices"]
    with (run / "finalists.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["network"] for row in rows] == [one["name"] for one in found["finalists"]]
    assert [float(row["predicted ms"]) for row in rows] == pytest.approx(
        [one["predicted_ms"] for one in found["finalists"]], rel=1e-5
    )
    assert (run / "finalists.png").read_bytes().startswith(b"\x89PNG")
    assert found["run"]["strategy"] == "uct"
    told = refusal(*command(folder, run, "--strategy", "amc"))
    assert "strategy 'amc': unknown" in told


@pytest.mark.slow
def test_kill_9_during_the_looks_costs_nothing_but_time(folder: Path, tmp_path: Path) -> None:
    def run_of(output: Path) -> list[str]:
        return [sys.executable, "-m", "netlathe", *command(folder, output, "--strategy", "ego", "--looks", 16)]

    subprocess.run(run_of(tmp_path / "whole"), check=True, capture_output=True)
    for _ in range(3):
        process = subprocess.Popen(run_of(tmp_path / "run"), stderr=subprocess.PIPE, text=True)
        assert process.stderr
        for line in process.stderr:
            if "looking at networks" in line:
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
    subprocess.run(run_of(tmp_path / "run"), check=True, capture_output=True)
    one, other = (json.loads((tmp_path / name / "widths.json").read_text()) for name in ("whole", "run"))
    assert one["choices"] == other["choices"]
    assert sorted(map(str, one["examined"])) == sorted(map(str, other["examined"]))
