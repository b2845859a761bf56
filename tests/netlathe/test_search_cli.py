"""`netlathe search` from end to end on a space of nine networks: several targets, limits, judges, resuming, errors."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import answer, netlathe, refusal

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.jsonfile import write_json
from netlathe.archspace.records import Measurement, Round, Setup
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.predictor import LatencyPredictor
from netlathe.profiler import Plan, open_device
from netlathe.runs.files import load_report
from netlathe.training import StepProgress
from netlathe.training.checkpoint import save_checkpoint

CHOICES = (MBConv(8, 8, 8, 8, kernel=3, expand=6), MBConv(8, 8, 8, 8, kernel=3, expand=2), Skip(8, 8, 8, 8))
SPACE = SearchSpace("small", ((ConvBlock(3, 8, 8, 8),), CHOICES, CHOICES, (LinearHead(8, 10, 8, 8),)))
HEAVIEST_MS = 1e-6 * SPACE.architecture([0, 0]).macs
LIGHTEST_MS = 1e-6 * SPACE.architecture([2, 2]).macs
MIDDLE_MS = (HEAVIEST_MS + LIGHTEST_MS) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the space, a predictor of a fictitious machine, and one of this machine, both of a million MACs per ms."""
    path = tmp_path_factory.mktemp("search")
    SPACE.save(path / "small.json")
    blocks = SPACE.distinct_blocks()
    times_ms = [1e-6 * block.graph().macs for block in blocks]
    LatencyPredictor("none").fit(blocks, times_ms, setup=Setup("bench", "cpu", "os", "litert", "2")).save(
        path / "bench.json"
    )
    with open_device("local") as device:
        here = LatencyPredictor("none").fit(blocks, times_ms, setup=device.setup)
    here.save(path / "here.json")
    return path


def words(folder: Path, output: Path, *more: object) -> tuple[object, ...]:
    return (
        "search", "--space", folder / "small.json", "--data", "digits", "--limit-images", 100, "--start-epochs", 1,
        "--warmup-epochs", 1, "--epochs", 1, "--train-epochs", 1, "--output", output, *more,
    )  # fmt: skip


def one(folder: Path, target_ms: float = MIDDLE_MS, predictor: str = "bench") -> tuple[object, ...]:
    return "--predictor", folder / f"{predictor}.json", "--target-ms", target_ms


def content(run: Path) -> tuple[bytes, dict[str, Any]]:
    """What a run found: the architecture, and the numbers of its weights."""
    with np.load(run / "weights.npz") as file:
        weights = {name: file[name].tobytes() for name in file.files}
    return (run / "architecture.json").read_bytes(), weights


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    """A finished run."""
    answer(*words(folder, folder / "undisturbed", *one(folder)))
    return folder / "undisturbed"


@pytest.fixture(autouse=True)
def _undrawn(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run's pictures are drawn; those of the others would take most of the time."""
    for name in ("draw_search", "draw_architectures"):
        monkeypatch.setattr(f"netlathe.runs.chosen.{name}", lambda *_: None)


def test_a_run_leaves_its_files_and_a_report_of_all_of_it(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    assert names >= {
        "architecture.json", "architecture.png", "search.png", "weights.npz", "network.tflite", "network_int8.tflite",
        "network.onnx", "search.json", "history.csv", "train.csv", "report.json", "checkpoint.npz",
    }  # fmt: skip
    report = load_report(undisturbed)
    (target,) = report["targets"]
    assert target["predicted_ms"] <= target["target_ms"] == MIDDLE_MS
    assert target["low_ms"] <= target["predicted_ms"] <= target["high_ms"] <= MIDDLE_MS
    assert target["measured_ms"] is None
    assert report["judged"]["by"] == "upper end of the 90 % interval"
    assert set(report["accuracy"]) == {"torch", "tflite", "int8", "onnx"}
    assert report["accuracy"]["torch"] == pytest.approx(report["accuracy"]["tflite"], abs=1e-9)
    assert Architecture.from_json(report["architecture"]) == Architecture.load(undisturbed / "architecture.json")


def test_the_logs_have_a_line_per_epoch(undisturbed: Path) -> None:
    with (undisturbed / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["epoch"], row["phase"]) for row in rows] == [("1", "start"), ("2", "warm-up"), ("3", "search")]
    assert LIGHTEST_MS < float(rows[-1]["expected latency on bench (ms)"]) < HEAVIEST_MS
    with (undisturbed / "train.csv").open(newline="") as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1"]


def test_a_finished_run_is_read_and_not_repeated(undisturbed: Path, folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    done = netlathe(*words(folder, undisturbed, *one(folder)), "--json")
    assert json.loads(done.stdout.splitlines()[-1]) == load_report(undisturbed)
    assert "Finished before" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()} == before


def test_another_run_in_the_folder_is_refused_by_what_differs(undisturbed: Path, folder: Path) -> None:
    before = content(undisturbed)
    message = refusal(*words(folder, undisturbed, *one(folder), "--batch-size", 16, "--seed", 1))
    assert "config.batch_size: 16 here, 32 in the record; config.seed: 1 here, 0 in the record" in message
    assert "--restart" in message
    assert "goal.targets[0].ms" in refusal(*words(folder, undisturbed, *one(folder, HEAVIEST_MS)))
    message = refusal(*words(folder, undisturbed, *one(folder), "--train-epochs", 2))
    assert "train.epochs: 2 here, 1" in message
    assert "--restart-training does that" in message
    assert "config.seed" in refusal(*words(folder, undisturbed, *one(folder), "--seed", 1, "--restart-training"))
    assert (undisturbed / "training.npz").is_file()
    assert content(undisturbed) == before
    assert load_report(undisturbed)


class Listener:
    """Hears every step that the terminal hears of, and presses Ctrl-C at one of the training."""

    def __init__(self, interrupt_at: int = 0) -> None:
        self.phases: list[str] = []
        self.interrupt_at = interrupt_at

    def __call__(self, step: StepProgress, update: object) -> None:
        self.phases.append(step.phase)
        if step.step == self.interrupt_at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_new_training_costs_no_search_and_an_old_report_is_not_taken_for_its_own(
    undisturbed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_hand: bool
) -> None:
    monkeypatch.setattr("netlathe.runs.folder.EVERY_S", 0.0)
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    if by_hand:
        (run / "training.npz").unlink()
    asked = words(folder, run, *one(folder), "--train-epochs", 2)
    monkeypatch.setattr("netlathe.runs.logs.show_step", Listener(interrupt_at=2))
    assert netlathe(*asked, *([] if by_hand else ["--restart-training"])).exit_code == 130
    assert not {"report.json", "weights.npz", "network.onnx"} & {path.name for path in run.iterdir()}
    heard = Listener()
    monkeypatch.setattr("netlathe.runs.logs.show_step", heard)
    report = answer(*asked)
    assert set(heard.phases) == {"train"}
    assert report["run"]["train"]["epochs"] == 2
    assert report["name"] == load_report(undisturbed)["name"]
    assert report["seconds"]["search"] == load_report(undisturbed)["seconds"]["search"]
    assert len((run / "train.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "kind",
    [
        "search",
        pytest.param("choice", marks=pytest.mark.slow),
        "training",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("export", "run")),
    ],
)
def test_a_run_that_ends_while_a_phase_is_saved_ends_in_the_same_network(
    undisturbed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """After the phase's files, before its record."""
    run = tmp_path / "run"

    def write(path: Path, written: str, *more: Any) -> None:
        if written == kind:
            raise KeyboardInterrupt
        write_json(path, written, *more)

    with monkeypatch.context() as patch:
        patch.setattr("netlathe.runs.phase.write_json", write)
        assert netlathe(*words(folder, run, *one(folder))).exit_code == 130
    assert not (run / "report.json").exists()
    heard = Listener()
    monkeypatch.setattr("netlathe.runs.logs.show_step", heard)
    answer(*words(folder, run, *one(folder)))
    assert set(heard.phases) <= {"train"}  # the search was at its last step
    assert content(run) == content(undisturbed)


def made_old(run: Path) -> None:
    """Turns a finished run into one of the time when the choice was a checkpoint, and training and export had no
    record."""
    choice, training = (json.loads((run / name).read_text()) for name in ("choice.json", "training.json"))
    own = {name: value for name, value in choice["run"].items() if name != "judge"}
    timed = tuple((one["name"], one["predicted_ms"], one["measured_ms"]) for one in choice["judged"]["timed"])
    judged = {**choice["judged"], "path": tuple(choice["choices"]), "timed": timed}
    found = {
        "architecture": choice["architecture"], "judged": judged, "expected": (1.0,), "costs": tuple(choice["costs"]),
        "constraints": (), "weights": {"w": torch.zeros(2)}, "warnings": tuple(choice["warnings"]), "seconds": 1.0,
    }  # fmt: skip
    save_checkpoint(run / "found.npz", {"judge": choice["run"]["judge"], "found": found, "seconds": 1.0}, own)
    for name in ("choice.json", "training.json", "export.json"):
        (run / name).unlink()
    assert training["run"]["train"]["epochs"] == 1


def test_a_finished_run_of_the_time_before_records_is_read_and_another_is_refused(
    undisturbed: Path, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    made_old(run)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir() if path.name != "found.npz"}
    message = refusal(*words(folder, run, *one(folder), "--seed", 1))
    assert "config.seed: 1 here, 0 in the checkpoint" in message
    found = (run / "found.npz").read_bytes()
    save_checkpoint(run / "found.npz", {"judge": None}, json.loads((run / "search.json").read_text())["run"])
    assert "does not fit this run ('found')" in refusal(*words(folder, run, *one(folder)))
    (run / "found.npz").write_bytes(found)
    for _ in range(2):
        assert answer(*words(folder, run, *one(folder))) == load_report(undisturbed)
    after = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"choice.json", "training.json", "export.json"}
    assert "train.epochs: 2 here, 1 in" in refusal(*words(folder, run, *one(folder), "--train-epochs", 2))


def test_a_run_of_the_time_before_records_that_was_cut_off_in_its_training_goes_on(
    undisturbed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    made_old(run)
    for name in ("report.json", "architecture.json", "weights.npz", "network.tflite"):
        (run / name).unlink()
    heard = Listener()
    monkeypatch.setattr("netlathe.runs.logs.show_step", heard)
    answer(*words(folder, run, *one(folder)))
    assert heard.phases == []  # both were at their last step
    assert content(run) == content(undisturbed)


def test_the_comparison_of_networks_shows_how_far_it_is(folder: Path, tmp_path: Path) -> None:
    done = netlathe(*words(folder, tmp_path, *one(folder), "--finalists", 6))
    assert done.exit_code == 0
    assert "comparing networks: 6/6 networks" in done.stderr


def test_a_damaged_checkpoint_is_refused_and_says_how_to_begin_anew(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 but not really")
    message = refusal(*words(folder, tmp_path, *one(folder)))
    assert "not a whole checkpoint" in message
    assert "--restart does that" in message


class Interrupter:
    """Ctrl-C at the n-th step that the terminal hears of."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, step: StepProgress, update: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "step", [pytest.param(2, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow), 8, 11]
)
def test_an_interrupted_run_ends_as_if_it_had_never_been(
    undisturbed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr("netlathe.runs.folder.EVERY_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("netlathe.runs.logs.show_step", Interrupter(step))
        result = netlathe(*words(folder, tmp_path / "run", *one(folder)))
    assert result.exit_code == 130
    assert "goes on from there" in " ".join(result.stderr.split())
    result = netlathe(*words(folder, tmp_path / "run", *one(folder)))
    assert result.exit_code == 0
    assert content(tmp_path / "run") == content(undisturbed)


def test_several_targets_share_one_warm_up_and_end_in_a_curve(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = f"{MIDDLE_MS},{HEAVIEST_MS}"
    more = ("--predictor", folder / "bench.json", "--target", "pixel4-cpu-networks=500", "--targets")
    found = answer(*words(folder, tmp_path, *more, targets))
    assert [run["target_ms"] for run in found["runs"]] == [MIDDLE_MS, HEAVIEST_MS]
    assert all(run["predicted_ms"] <= run["target_ms"] for run in found["runs"])
    for run in found["runs"]:
        rows = (Path(run["folder"]) / "history.csv").read_text().splitlines()
        assert (
            [row.split(",")[2] for row in rows[1:3]]
            == [  # losses: weights were warmed once, for all
                row.split(",")[2] for row in (tmp_path / "history.csv").read_text().splitlines()[1:3]
            ]
        )
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} >= {"pareto.json", "pareto.png", "hardware.csv"}
    assert len(answer("pareto", tmp_path)["networks"]) == 2
    assert (tmp_path / "hardware.csv").read_text().startswith("network,bench,pixel4-cpu-networks")
    monkeypatch.setattr("netlathe.runs.logs.show_step", Interrupter(1))  # nothing is left to do
    assert answer(*words(folder, tmp_path, *more, targets))["runs"] == found["runs"]


@pytest.mark.parametrize("step", [4, pytest.param(9, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.slow)])
def test_ctrl_c_saves_before_it_ends(
    undisturbed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Long before a checkpoint would be due, after the step that follows; in the search, at its last step, and in the
    training."""

    def press(progress: StepProgress, update: object) -> None:
        nonlocal step
        step -= 1
        if step == 0:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("netlathe.runs.logs.show_step", press)
        assert netlathe(*words(folder, tmp_path / "run", *one(folder))).exit_code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = netlathe(*words(folder, tmp_path / "run", *one(folder)))
    assert result.exit_code == 0
    assert any(word in result.stderr for word in ("Goes on from step 5", "Goes on from step 9", "was found before"))
    assert content(tmp_path / "run") == content(undisturbed)


def test_restart_meets_limits_and_several_devices_together(folder: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("netlathe.runs.folder.EVERY_S", 0.0)
        patch.setattr("netlathe.runs.logs.show_step", Interrupter(2))
        assert netlathe(*words(folder, tmp_path, *one(folder))).exit_code == 130
    macs = SPACE.architecture([1, 1]).macs
    found = answer(
        *words(folder, tmp_path, "--target", f"{folder}/bench.json={HEAVIEST_MS}"),
        "--target", "pixel4-cpu-networks=500", "--limit", f"macs={macs}", "--limit", "memory-kb=64",
        "--update", "reinforce", "--prune-below", 0.05, "--train-from", "supernet", "--accumulate", 2, "--restart",
    )  # fmt: skip
    assert [t["device"] for t in found["targets"]] == ["bench", "pixel4-cpu-networks"]
    assert all(t["predicted_ms"] <= t["target_ms"] for t in found["targets"])
    assert found["macs"] <= macs
    assert [limit["name"] for limit in found["limits"]] == ["macs", "memory-kb"]
    assert all(limit["value"] <= limit["limit"] for limit in found["limits"])
    assert any("little more than a guess" in warning for warning in netlathe_warnings(folder, tmp_path))


def netlathe_warnings(folder: Path, run: Path) -> list[str]:
    found: list[str] = answer("compare", run, "--predictor", "pixel4-cpu-networks")["warnings"]
    return found


def test_another_judge_costs_no_search_and_a_measured_miss_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.timing.PLAN", Plan(min_rounds=3, max_rounds=3))
    asked = words(folder, tmp_path, *one(folder, 1e3, "here"))
    before = answer(*asked)
    assert before["judged"]["by"] == "upper end of the 90 % interval"
    assert before["targets"][0]["is_met"] is None
    heard = Listener()
    monkeypatch.setattr("netlathe.runs.logs.show_step", heard)
    found = answer(*asked, "--device", "local")
    assert not heard.phases  # neither the search nor the same network's training is repeated
    assert found["judged"]["by"] == "stopwatch on local"
    assert [found["judged"]["is_met"], found["is_met"], found["targets"][0]["is_met"]] == [True] * 3
    assert 0 < found["measured_ms"] < 1e3
    assert found["targets"][0]["measured_on"] == "local"
    assert found["judged"]["timed"][-1]["name"] == found["name"] == before["name"]
    assert (tmp_path / "measured.png").is_file()
    (tmp_path / "report.json").unlink()
    monkeypatch.setattr("netlathe.runs.reported.time_file", lambda *_: Measurement((Round((1020.0,)),)))
    for _ in range(2):  # as it ends, and as it is read again
        missed = netlathe(*asked, "--device", "local")
        assert missed.exit_code == 1
        assert "the target is missed" in missed.stderr
    report = load_report(tmp_path)
    assert (report["is_met"], report["judged"]["is_met"]) == (False, True)
    assert "2.0% above the target, which may be no more than the measurement's noise" in report["warnings"][-1]


def test_a_device_that_is_not_the_predictors_is_refused_at_once(folder: Path, tmp_path: Path) -> None:
    message = refusal(*words(folder, tmp_path / "run", *one(folder), "--device", "local"))
    assert "fitted on another setup" in message
    assert "/ bench" in message
    assert not (tmp_path / "run").exists()


def test_a_diverging_search_keeps_its_last_good_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.runs.folder.EVERY_S", 0.0)
    message = refusal(*words(folder, tmp_path, *one(folder), "--learning-rate", 1e30))
    assert "the loss became" in message
    assert f"the last good state is in {tmp_path / 'checkpoint.npz'}" in message
    assert not (tmp_path / "report.json").exists()


def test_a_target_below_every_network_says_which_is_fastest(folder: Path, tmp_path: Path) -> None:
    message = refusal(*words(folder, tmp_path / "run", *one(folder, LIGHTEST_MS / 2)))
    assert f"the least is {LIGHTEST_MS:.3g} ms, of small-22" in message
    several = ("--predictor", folder / "bench.json", "--targets", f"{LIGHTEST_MS / 2},{HEAVIEST_MS}")
    assert "the least is" in refusal(*words(folder, tmp_path / "run", *several))
    assert not (tmp_path / "run").exists()


def test_a_class_without_training_images_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/c"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    message = refusal(*words(folder, tmp_path / "run", *one(folder)), "--data", tmp_path)
    assert "the test split has images of class 'c', and the training split none" in message


def test_more_classes_than_the_spaces_head_has_are_refused(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.integers(0, 255, (240, 8, 8, 3), dtype=np.uint8), y=np.arange(240) % 12)
    message = refusal(*words(folder, tmp_path / "run", *one(folder)), "--data", tmp_path / "d.npz")
    assert "has 12 classes, the head of space 'small' 10" in message


def test_tensorboard_is_asked_for_where_it_is_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = refusal(*words(folder, tmp_path, *one(folder)), "--tensorboard")
    assert "pip install 'netlathe[tensorboard]'" in message


def tensorboard_events(run: Path, stage: str) -> Any:
    """What TensorBoard reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tensorboard" / stage)).Reload()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_numbers_of_the_logs(folder: Path, tmp_path: Path) -> None:
    answer(*words(folder, tmp_path, *one(folder)), "--tensorboard", "--finalists", 0)
    events = {stage: tensorboard_events(tmp_path, stage) for stage in ("search", "train")}
    with (tmp_path / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    told = [e.value for e in events["search"].Scalars("search/entropy")]
    assert told == pytest.approx([float(row["entropy"]) for row in rows])
    expected = [e.value for e in events["search"].Scalars("search/expected ms")]
    assert expected[-1] == pytest.approx(float(rows[-1]["expected latency on bench (ms)"]))
    likeliest = [e.value for e in events["search"].Scalars("likeliest/latency on bench")]
    assert likeliest == pytest.approx([float(row["likeliest latency on bench (ms)"]) for row in rows])
    steps = [e.step for e in events["train"].Scalars("train/loss")]
    assert steps == list(range(1, len(steps) + 1))
    with (tmp_path / "train.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    (accuracy,) = events["train"].Scalars("train/accuracy")
    assert accuracy.value == pytest.approx(float(row["accuracy"]))


def test_a_compute_device_that_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "is not here" in refusal(*words(folder, tmp_path, *one(folder)), "--compute-device", "cuda:63")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("step", [4, 9, 14, 18])
def test_interrupted_searches_for_several_targets_end_as_undisturbed_ones(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr("netlathe.runs.folder.EVERY_S", 0.0)
    more = ("--predictor", folder / "bench.json", "--targets", f"{MIDDLE_MS},{HEAVIEST_MS}", "--tensorboard")
    with monkeypatch.context() as patch:
        patch.setattr("netlathe.runs.logs.show_step", Interrupter(step))
        assert netlathe(*words(folder, tmp_path / "a", *more)).exit_code == 130
    interrupted, whole = (answer(*words(folder, tmp_path / name, *more))["runs"] for name in ("a", "b"))
    for one_run, other in zip(interrupted, whole, strict=True):
        assert content(Path(one_run["folder"])) == content(Path(other["folder"]))
        events, undisturbed = (
            [(e.step, e.value) for e in tensorboard_events(Path(r["folder"]), "search").Scalars("search/loss")]
            for r in (one_run, other)
        )
        assert events == undisturbed


@pytest.mark.slow
def test_kill_9_anywhere_costs_nothing_but_time(undisturbed: Path, folder: Path, tmp_path: Path) -> None:
    """Killed again and again, each time a little later after it has begun to move; it saves after every step."""
    code = "import netlathe.runs.folder as j; j.EVERY_S = 0.0; from netlathe.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, words(folder, tmp_path / "run", *one(folder)))]
    for delay_s in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        for line in process.stderr:
            if "searching:" in line or "training" in line:
                break
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    subprocess.run(command, check=True, capture_output=True)
    assert content(tmp_path / "run") == content(undisturbed)
    assert load_report(tmp_path / "run")["accuracy"] == load_report(undisturbed)["accuracy"]


def disturb_at_step(monkeypatch: pytest.MonkeyPatch, phase: str, action: Any) -> None:
    """Lets `action` happen once, after the second step of the search or of the training."""
    seen: list[int] = []

    def show(step: StepProgress, update: Any) -> None:
        if (step.phase == "train") == (phase == "train"):
            seen.append(step.step)
            if len(seen) == 2:
                action()

    monkeypatch.setattr("netlathe.runs.logs.show_step", show)


@pytest.mark.parametrize("phase", [pytest.param("search", marks=pytest.mark.slow), "train"])
def test_a_run_whose_folder_is_moved_says_where_it_is_and_goes_on_there(
    folder: Path, undisturbed: Path, tmp_path: Path, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    with monkeypatch.context() as patch:
        disturb_at_step(patch, phase, lambda: run.rename(moved))
        message = refusal(*words(folder, run, *one(folder)))
    assert f"the run's folder was moved to {moved}" in message
    assert not run.exists()
    answer(*words(folder, moved, *one(folder)))
    assert content(moved) == content(undisturbed)


@pytest.mark.parametrize(
    ("every_s", "phase"),
    [
        (0.0, "search"),
        pytest.param(0.0, "train", marks=pytest.mark.slow),
        pytest.param(60.0, "search", marks=pytest.mark.slow),
        (60.0, "train"),
    ],
)
def test_a_run_whose_folder_is_deleted_does_not_end_as_if_all_were_well(
    folder: Path, tmp_path: Path, phase: str, every_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr("netlathe.runs.folder.EVERY_S", every_s)
    with monkeypatch.context() as patch:
        disturb_at_step(patch, phase, lambda: shutil.rmtree(run))
        message = refusal(*words(folder, run, *one(folder)))
    assert "the run's folder was deleted" in message
    assert "saved as" in message or not run.exists()
    assert not (run / "report.json").exists()
    answer(*words(folder, run, *one(folder)))
