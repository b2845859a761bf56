"""Which network is taken, by the predictor's doubts or by the stopwatch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.errors import RecordError
from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Measurement, Round, Setup
from netlathe.archspace.spaces import SearchSpace
from netlathe.events import Listener
from netlathe.pareto_front import ParetoReport
from netlathe.predictor import LatencyPredictor
from netlathe.profiler.testing import SETUP, SimulatedDevice
from netlathe.runs.chosen import Chosen
from netlathe.runs.judges import DeviceAtHand, Judged, choose_network, time_file
from netlathe.runs.report import CurveReport, LimitReport, RunReport, TargetReport
from netlathe.runs.reported import missed
from netlathe.targets import DeviceTarget, Goal, Limit

CHOICES = tuple(MBConv(8, 8, 8, 8, kernel=3, expand=expand) for expand in (6, 4, 2, 1))
SPACE = SearchSpace("small", ((ConvBlock(3, 8, 8, 8),), CHOICES, CHOICES, (LinearHead(8, 10, 8, 8),)))
WIDEST_FIRST = np.log(np.array([[0.4, 0.3, 0.2, 0.1]] * 2))
"""Without a limit, the widest network would be taken."""


@dataclass
class Exact:
    """A predictor of a million MACs per ms, whose interval reaches `doubt` times as high."""

    doubt: float = 1.1
    setup_: Setup = field(default_factory=lambda: Setup("bench", "cpu", "os", "litert", "2"))
    has_intervals_ = True

    def predict(self, graphs: list[Graph]) -> Any:
        return np.array([1e-6 * graph.macs for graph in graphs])

    def predict_interval(self, graphs: list[Graph], coverage: float = 0.9) -> Any:
        return self.predict(graphs) / self.doubt, self.predict(graphs) * self.doubt


def ms(*choices: int) -> float:
    return 1e-6 * SPACE.architecture(choices).macs


def target(limit_ms: float, doubt: float = 1.1) -> DeviceTarget:
    return DeviceTarget("bench", cast(LatencyPredictor, Exact(doubt)), limit_ms)


def choose(goal: Goal, device: Any = None) -> tuple[Judged, list[str]]:
    return choose_network(SPACE, goal, WIDEST_FIRST, goal.constraints(SPACE), device, Listener())


@dataclass
class FakeWatch:
    """A stopwatch that shows what `measure` makes of the predicted ms."""

    measure: Callable[[float], float]
    listener: Listener
    warnings: list[str] = field(default_factory=list)
    timed: list[str] = field(default_factory=list)

    def time(self, graphs: Mapping[str, Graph]) -> dict[str, Measurement]:
        self.timed += graphs
        return {name: Measurement((Round((self.measure(1e-6 * graph.macs),)),)) for name, graph in graphs.items()}

    def time_again(self, graphs: Mapping[str, Graph], times: int) -> dict[str, Measurement]:
        return self.time(graphs)


@dataclass
class FakeDevice:
    measure: Callable[[float], float]
    address: str = "bench"

    @contextmanager
    def open(self, target: DeviceTarget, listener: Listener, **_: object) -> Iterator[FakeWatch]:
        self.watch = FakeWatch(self.measure, listener)
        yield self.watch


def test_the_whole_interval_keeps_the_target() -> None:
    limit = 1.05 * ms(0, 1)
    judged, warnings = choose(Goal((target(limit, doubt=1.2),)))
    assert judged.by == "upper end of the 90 % interval"
    assert 1.2 * ms(*judged.path) <= limit
    assert not warnings


def test_a_certain_predictor_gives_the_most_probable_network() -> None:
    judged, _ = choose(Goal((target(ms(0, 0)),)))
    assert 1.1 * ms(*judged.path) <= ms(0, 0)
    judged, _ = choose(Goal((target(1.2 * ms(0, 0)),)))
    assert judged.path == (0, 0)


def test_where_no_interval_is_short_enough_the_prediction_is_heeded_and_a_warning_says_so() -> None:
    judged, warnings = choose(Goal((target(ms(0, 1), doubt=50.0),)))
    assert judged.by == "prediction"
    assert judged.is_met
    assert sum(judged.path) == 1  # the best within the target, not the fastest of all
    assert "the prediction alone was heeded on bench" in warnings[0]


def test_a_slow_device_gets_a_smaller_network_by_its_stopwatch() -> None:
    limit = ms(0, 0)
    device = FakeDevice(lambda predicted: 1.5 * predicted)
    judged, warnings = choose(Goal((target(limit),)), device)
    assert judged.by == "stopwatch on bench"
    assert 1.5 * ms(*judged.path) <= limit
    assert not warnings
    name, predicted, measured = judged.timed[-1]
    assert (name, predicted) == (SPACE.architecture(judged.path).name, pytest.approx(ms(*judged.path)))
    assert measured == pytest.approx(1.5 * predicted)
    assert len(device.watch.timed) == len(set(device.watch.timed)) == len(judged.timed)


def test_a_device_that_no_network_pleases_is_warned_of_and_the_closest_is_taken() -> None:
    judged, warnings = choose(Goal((target(ms(0, 0)),)), FakeDevice(lambda predicted: 100 * predicted))
    assert not judged.is_met
    assert "by the stopwatch on bench; of the one that comes closest, latency on bench is" in warnings[0]


def test_another_targets_doubts_do_not_overrule_the_stopwatch_for_nothing() -> None:
    goal = Goal((target(ms(0, 0)), DeviceTarget("vague", cast(LatencyPredictor, Exact(50.0)), ms(0, 0))))
    judged, warnings = choose(goal, FakeDevice(lambda predicted: predicted))
    assert judged.is_met
    assert judged.path == (0, 0)
    assert "heeded on vague" in warnings[0]


def test_limits_hold_beside_the_judges() -> None:
    macs = SPACE.architecture([1, 1]).macs
    judged, _ = choose(Goal((target(1.2 * ms(0, 0)),), (Limit("macs", macs),)))
    assert SPACE.architecture(judged.path).macs <= macs


def test_a_device_at_hand_must_be_the_predictors() -> None:
    with (
        pytest.raises(RecordError, match="fitted on another setup"),
        DeviceAtHand("local").open(target(1.0), Listener()),
    ):
        pass


class Accepting(SimulatedDevice):
    """Runs given files."""

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, bytes] = {}


@pytest.mark.parametrize("kind", [Accepting, SimulatedDevice])
def test_a_device_that_accepts_models_is_given_the_exported_file(
    monkeypatch: pytest.MonkeyPatch, kind: type[SimulatedDevice]
) -> None:
    device = kind()
    monkeypatch.setattr("netlathe.timing.open_device", lambda *_, **__: device)
    network, wanted = (
        SPACE.architecture((0, 0)),
        DeviceTarget("bench", cast(LatencyPredictor, Exact(setup_=SETUP)), 1.0),
    )
    timed = time_file(network, b"exported", wanted, DeviceAtHand("bench"), Listener())
    assert timed.latency_ms > 0
    assert getattr(device, "models", None) in (None, {network.graph().key: b"exported"})
    assert hasattr(device, "models") is (kind is Accepting)


@pytest.mark.parametrize(("measured_ms", "warned"), [(0.9, False), (1.1, True)])
def test_a_last_measurement_above_the_target_is_warned_of(measured_ms: float, warned: bool) -> None:
    judged = Judged((0, 0), "stopwatch", True, 1, (("n", 1.0, 0.95),))
    chosen = Chosen(SPACE.architecture((0, 0)), judged, (1.0,), (), 1.0, {})
    warnings = missed(chosen, Goal((target(1.0),)), Measurement((Round((measured_ms,)),)))
    assert bool(warnings) is warned
    assert all("10.0% above the target" in warning and "0.95 ms" in warning for warning in warnings)


def test_any_network_that_was_measured_above_its_target_fails_the_search() -> None:
    runs = [run_report(is_met) for is_met in (True, None, False)]
    assert [run.is_missed for run in runs] == [False, False, True]
    assert CurveReport(Path("runs"), tuple(runs), ParetoReport((), "")).is_missed
    assert not CurveReport(Path("runs"), tuple(runs[:2]), ParetoReport((), "")).is_missed


def run_report(is_met: bool | None) -> RunReport:
    targets = (TargetReport("a", "", 1.0, 1.0, 1.0, 1.0, 1.0, is_met=is_met), TargetReport("b", "", *5 * (1.0,)))
    return RunReport(
        name=str(is_met), folder="", target_ms=1.0, predicted_ms=1.0, measured_ms=None, is_met=True, test_accuracy=1.0,
        tflite_accuracy=1.0, macs=1, parameters=1, targets=targets, limits=(LimitReport("macs", 2.0, None, 1.0),),
        judged={}, accuracy={}, files={}, test_images=1, seconds={}, warnings=("w",),
        architecture=SPACE.architecture((0, 0)), run={},
    )  # fmt: skip


@pytest.mark.parametrize("is_met", [True, None])
def test_a_report_comes_back_from_its_json(is_met: bool | None) -> None:
    report = run_report(is_met)
    assert RunReport.from_json(json.loads(json.dumps(report.to_json()))) == report
