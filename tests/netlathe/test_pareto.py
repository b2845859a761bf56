"""The curve between latency and accuracy, from the reports of finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from test_cli import answer, netlathe, refusal

from netlathe.archspace.jsonfile import write_json
from netlathe.archspace.networks import network
from netlathe.pareto_front import Point, mark_front


def point(name: str, ms: float, accuracy: float) -> Point:
    return Point(name, f"runs/{name}", ms, None, accuracy)


def run(folder: Path, ms: float, accuracy: float, *, setup: str = "a phone", measured_ms: float | None = None) -> Path:
    """A finished run's folder, as far as the curve looks at it."""
    folder.mkdir(parents=True)
    network("mobilenet_v2_0.5").save(folder / "architecture.json")
    target = {"device": "phone", "setup": setup, "predicted_ms": ms, "measured_ms": measured_ms}
    report = {"name": folder.name, "targets": [target], "accuracy": {"torch": accuracy}}
    write_json(folder / "report.json", "run", 1, report)
    return folder


def test_the_front_holds_what_no_other_beats() -> None:
    points = [point("d", 4, 0.9), point("a", 1, 0.5), point("c", 3, 0.4), point("b", 2, 0.7), point("e", 5, 0.9)]
    marked = mark_front(points)
    assert [p.name for p in marked] == ["a", "b", "c", "d", "e"]
    assert [p.name for p in marked if p.on_front] == ["a", "b", "d"]


def test_equal_points_do_not_beat_each_other() -> None:
    assert all(p.on_front for p in mark_front([point("a", 1, 0.5), point("b", 1, 0.5)]))
    assert [p.on_front for p in mark_front([point("a", 1, 0.5), point("b", 1, 0.6)])] == [True, False]


def test_runs_below_a_folder_make_one_curve(tmp_path: Path) -> None:
    run(tmp_path / "runs" / "fast", 1.0, 0.5, measured_ms=1.1)
    run(tmp_path / "runs" / "slow", 2.0, 0.8)
    lone = run(tmp_path / "bad", 3.0, 0.7)
    found = answer("pareto", tmp_path / "runs", lone, "--output", tmp_path / "out")
    assert [(p["name"], p["on_front"]) for p in found["networks"]] == [("fast", True), ("slow", True), ("bad", False)]
    assert [p["measured_ms"] for p in found["networks"]] == [1.1, None, None]
    assert (tmp_path / "out" / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    written: dict[str, Any] = json.loads((tmp_path / "out" / "pareto.json").read_text())
    assert written["networks"] == found["networks"]
    shown = netlathe("pareto", tmp_path / "runs", lone).stdout
    assert "dominated" in shown.splitlines()[-1]


def test_another_predictor_prices_the_networks_anew(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", 1.0, 0.5, measured_ms=1.1)
    run(tmp_path / "b", 2.0, 0.8, setup="another phone")
    priced = answer("predict", folder, "--predictor", "pixel4-cpu-networks")
    found = answer("pareto", tmp_path, "--predictor", "pixel4-cpu-networks")
    assert [p["predicted_ms"] for p in found["networks"]] == [priced["latency_ms"]] * 2
    assert found["networks"][0]["measured_ms"] is None  # what was measured was another device
    assert "Pixel 4" in found["setup"]


def test_another_predictor_refuses_what_it_never_measured_or_prices_it_as_asked(tmp_path: Path) -> None:
    run(tmp_path / "a", 1.0, 0.5)
    words = ("pareto", tmp_path, "--predictor", "pixel4-cpu")
    assert "no measured block contains conv" in refusal(*words)
    priced = answer("predict", tmp_path / "a", "--predictor", "pixel4-cpu", "--unknown", "price")
    found = answer(*words, "--unknown", "price")
    assert found["networks"][0]["predicted_ms"] == priced["latency_ms"]
    assert any("never measured" in warning and "conv (at most" in warning for warning in found["warnings"])


def test_runs_for_different_devices_do_not_mix(tmp_path: Path) -> None:
    run(tmp_path / "a", 1.0, 0.5)
    run(tmp_path / "b", 2.0, 0.8, setup="another phone")
    message = refusal("pareto", tmp_path)
    assert "searched for different devices" in message
    assert "--predictor" in message


def test_what_holds_no_finished_run_is_refused(tmp_path: Path) -> None:
    assert "holds a finished run" in refusal("pareto", tmp_path)
    assert "holds a finished run" in refusal("pareto", tmp_path / "none")
    run(tmp_path / "a", 1.0, 0.5)
    (tmp_path / "a" / "report.json").write_text('{"schema": "netlathe.run/1", "name": "a"}')
    assert "its report lacks or confuses 'targets'" in refusal("pareto", tmp_path)
    (tmp_path / "a" / "report.json").write_text("{")
    assert "cannot be read as JSON" in refusal("pareto", tmp_path)


def test_the_front_is_by_measured_latency_where_it_was_measured() -> None:
    points = [
        Point("predicted fast", "a", 1.0, 3.0, 0.5),
        Point("measured fast", "b", 2.0, 1.5, 0.6),
        Point("predicted only", "c", 2.0, None, 0.7),
    ]
    marked = mark_front(points)
    assert [p.name for p in marked] == ["measured fast", "predicted only", "predicted fast"]
    assert [p.on_front for p in marked] == [True, True, False]
