"""Trackers: MLflow and Weights & Biases get the numbers, the settings and the end of a run, without a network."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from test_cli import netlathe, refusal
from test_search_cli import folder, one, words

import netlathe as nl
from netlathe.archspace.errors import NetlatheError
from netlathe.tracking import TRACKERS, Tracker, tracked

__all__ = ["folder"]


class Told:
    """A report."""

    def to_json(self) -> dict[str, Any]:
        return {"accuracy": {"torch": 0.5}, "is_met": True, "run": {"seed": 3, "space": "tiny"}, "layers": [1, 2]}


class Heard(nl.Listener):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.numbers: list[tuple[str, float, int]] = []

    def warn(self, warnings: Iterable[str]) -> None:
        self.said += warnings

    def scalar(self, name: str, value: float, step: int) -> None:
        self.numbers.append((name, value, step))


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both services keep what they get in files."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))


def mlflow_runs() -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))


def history(run: Any, name: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return [(one.step, one.value) for one in MlflowClient().get_metric_history(run.info.run_id, name)]


def wandb_records(folder: Path) -> list[Any]:
    """What an offline run has in its file: protocol buffers in a log of LevelDB's format (blocks of 32 KiB; each piece
    after its checksum, length and kind), behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = b"".join(path.read_bytes() for path in (folder / "wandb").glob("offline-run-*/*.wandb"))
    at, whole, found = 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no piece begins in so short a rest of a block
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(Record.FromString(whole))
            whole = b""
    return found


def mlflow_ends(folder: Path) -> tuple[list[tuple[int, float]], dict[str, str], str]:
    (run,) = mlflow_runs()
    return (
        history(run, "search/loss"),
        {k: v for k, v in run.data.tags.items() if k.startswith("run/")},
        run.info.status,
    )


def wandb_ends(folder: Path) -> tuple[list[tuple[int, float]], dict[str, str], str]:
    import wandb

    wandb.teardown()  # what writes the file is a process of its own
    records = wandb_records(folder)
    rows = [{"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item} for r in records]
    points = [(int(row["search/step"]), row["search/loss"]) for row in rows if "search/loss" in row]
    updates = [u for r in records for u in r.config.update]
    settings = {u.key: json.loads(u.value_json) for u in updates if u.key.startswith("run/")}
    (code,) = {r.exit.exit_code for r in records if r.HasField("exit")}
    return points, settings, {0: "FINISHED", 1: "FAILED", 130: "KILLED"}[code]


@pytest.mark.parametrize(("name", "ends"), [("mlflow", mlflow_ends), ("wandb", wandb_ends)])
class TestTrackers:
    """Every tracker keeps the same, and stops nothing."""

    def test_numbers_settings_and_the_end_are_kept_and_handed_on(
        self, tmp_path: Path, name: str, ends: Callable[[Path], Any]
    ) -> None:
        heard = Heard()
        with tracked(name, tmp_path / "run", heard) as listener:
            for step in (1, 2):
                listener.scalar("search/loss", 2.0 / step, step)
            listener.scalar("search/loss", float("nan"), 3)  # no service draws it
            listener.report(Told())
        points, settings, end = ends(tmp_path)
        assert points == [(1, 2.0), (2, 1.0)]
        assert settings == {"run/space": "tiny"}
        assert end == "FINISHED"
        assert [step for _, _, step in heard.numbers] == [1, 2, 3]
        assert heard.said == []

    @pytest.mark.parametrize(("error", "end"), [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
    def test_a_run_that_breaks_off_is_told_so(
        self, tmp_path: Path, name: str, ends: Callable[[Path], Any], error: BaseException, end: str
    ) -> None:
        def broken() -> None:
            with tracked(name, tmp_path / "run", Heard()) as listener:
                listener.scalar("search/loss", 1.0, 1)
                raise error

        with pytest.raises(type(error)):
            broken()
        assert ends(tmp_path)[2] == end

    def test_a_service_that_fails_is_told_once_and_stops_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ends: Callable[[Path], Any]
    ) -> None:
        def gone(*_: object) -> None:
            raise OSError("no route to host")

        heard = Heard()
        monkeypatch.setattr(TRACKERS[name], "_log", gone)
        with tracked(name, tmp_path / "run", heard) as listener:
            for step in range(20):
                listener.scalar("search/loss", 1.0, step)
        assert len(heard.numbers) == 20
        (told,) = heard.said
        assert told == f"{TRACKERS[name].package} did not take what it was told: no route to host"

    def test_a_package_that_is_not_there_is_asked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ends: Callable[[Path], Any]
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, TRACKERS[name].package, None)
        with pytest.raises(NetlatheError, match=rf"pip install 'netlathe\[{name}\]'"):
            TRACKERS[name](tmp_path / "run")


def test_a_run_that_is_continued_is_one_run(tmp_path: Path) -> None:
    for step in (1, 2):
        with nl.MLflow(tmp_path / "run") as listener:
            listener.scalar("search/loss", 1.0, step)
    with nl.MLflow(tmp_path / "other"):
        pass
    runs = {run.info.run_name: run for run in mlflow_runs()}
    assert set(runs) == {str(tmp_path / "run"), str(tmp_path / "other")}
    assert [step for step, _ in history(runs[str(tmp_path / "run")], "search/loss")] == [1, 2]


@pytest.mark.parametrize("name", ["multiplier/latency on ../x (old).json", "..", "a//b", "50 %/ms"])
def test_mlflow_takes_every_name(tmp_path: Path, name: str) -> None:
    heard = Heard()
    with nl.MLflow(tmp_path / "run", heard) as listener:
        listener.scalar(name, 1.0, 1)
    (run,) = mlflow_runs()
    assert len(run.data.metrics) == 1


def test_a_search_tells_mlflow_what_its_logs_say(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("draw_search", "draw_architectures"):
        monkeypatch.setattr(f"netlathe.runs.chosen.{name}", lambda *_: None)
    run = tmp_path / "run"
    done = netlathe(*words(folder, run, *one(folder)), "--track", "mlflow", "--finalists", 0)
    assert done.exit_code == 0, done.output
    (kept,) = mlflow_runs()
    report = json.loads((run / "report.json").read_text())
    assert kept.data.metrics["accuracy/torch"] == pytest.approx(report["accuracy"]["torch"])
    with (run / "history.csv").open(newline="") as stream:
        entropies = [float(row["entropy"]) for row in csv.DictReader(stream)]
    assert [value for _, value in history(kept, "search/entropy")] == pytest.approx(entropies)
    assert history(kept, "train/loss")


def test_an_unknown_tracker_is_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    message = refusal(*words(folder, tmp_path / "run", *one(folder)), "--track", "clearml")
    assert "there is no such tracker; there are mlflow, wandb" in message
    assert not (tmp_path / "run").exists()


def test_a_tracker_is_a_listener_that_others_can_hold(tmp_path: Path) -> None:
    heard = Heard()
    tracker: Tracker = nl.MLflow(tmp_path / "run", heard)
    with tracker, tracker.working("x"), tracker.progress("y", "z") as update, tracker.watching(["a"]) as watches:
        update(1, 2, "")
        watches[0](0.5, None, "")
        tracker.warn(["doubt"])
    assert heard.said == ["doubt"]
    assert tracker.undone is heard.undone
