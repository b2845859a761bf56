"""Compression with a device at hand: how much of a target is used where it is faster or slower than predicted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_compress import undrawn

import netlathe as nl
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.graph import Graph
from netlathe.compress import width_space
from netlathe.predictor import LatencyPredictor
from netlathe.profiler.testing import SETUP, SimulatedDevice, true_ms
from netlathe.runs.compression.report import CompressReport

Compress = Callable[..., CompressReport]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return nl.network("mobilenet_v2_0.35").graph()


@pytest.fixture(scope="module")
def predictor(graph: Graph) -> LatencyPredictor:
    """Of whole networks: right for some random ones, and hardly so for others."""
    space, rng = width_space(graph, step=16, leave_out=False), np.random.default_rng(0)
    graphs = [space.graph([int(rng.integers(count)) for count in space.option_counts]) for _ in range(24)]
    return LatencyPredictor("none").fit(graphs, [true_ms(one) for one in graphs], setup=SETUP)


@pytest.fixture
def compress(graph: Graph, predictor: LatencyPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compress:
    """Compresses the network to a target in parts of what it takes on a device of some slowness; each session has noise
    of its own."""
    monkeypatch.setattr("netlathe.runs.compression.written.write_program", lambda network, path, interface: path.name)
    undrawn(monkeypatch)
    (tmp_path / "m.onnx").write_bytes(write_onnx(graph))
    sessions = itertools.count()

    def run(slowness: float, share: float, model: LatencyPredictor = predictor) -> CompressReport:
        def opened(*_: object, **__: object) -> SimulatedDevice:
            return SimulatedDevice(slowdown=lambda now: slowness, noise=0.02, seed=next(sessions))

        monkeypatch.setattr("netlathe.timing.open_device", opened)
        monkeypatch.setattr("netlathe.arguments.check_device", lambda *_: None)
        target = nl.Target(model, share * slowness * true_ms(graph), "simulated")
        output = tmp_path / f"{slowness}-{share}"
        return nl.compress(tmp_path / "m.onnx", target=target, device="simulated", output=output, step=16)

    return run


@pytest.mark.parametrize(
    ("slowness", "share"),
    [(0.6, 0.5), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1.5, 0.6), (1.0, 0.35)))],
)
def test_a_target_is_used_and_holds_when_the_file_is_timed(compress: Compress, slowness: float, share: float) -> None:
    report = compress(slowness, share)
    (target,) = report.targets
    assert report.is_met
    assert report.judged["by"] == "stopwatch on simulated"
    assert report.judged["judgements"] <= 8
    assert target.measured_ms is not None
    assert 0.97 * target.target_ms <= target.measured_ms <= target.target_ms


def test_a_model_is_left_alone_only_where_it_is_measured_within_the_target(
    compress: Compress, predictor: LatencyPredictor, graph: Graph
) -> None:
    predicted_ms = float(predictor.predict([graph])[0])
    slow = compress(1.3, 0.95)
    assert predicted_ms < slow.targets[0].target_ms  # what was predicted would have done
    assert slow.is_changed
    assert slow.targets[0].measured_ms is not None
    assert slow.targets[0].measured_ms <= slow.targets[0].target_ms
    quick = compress(0.5, 1.05)
    assert predicted_ms > quick.targets[0].target_ms
    assert not quick.is_changed
    assert quick.judged["by"] == "stopwatch on simulated"
    assert quick.targets[0].is_met
    assert not Path(quick.folder).exists()


def test_where_intervals_are_wide_the_first_network_is_near_the_target_all_the_same(
    compress: Compress, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A predictor of few networks, each off: no upper end is within the target, some are hundreds of times what is
    predicted, and the device says what predictions are worth."""
    space, rng = width_space(graph, step=16, leave_out=False), np.random.default_rng(0)
    graphs = [space.graph([int(rng.integers(count)) for count in space.option_counts]) for _ in range(16)]
    off = np.exp(0.25 * rng.standard_normal(len(graphs))).tolist()
    latencies = [by * true_ms(one) for by, one in zip(off, graphs, strict=True)]
    vague = LatencyPredictor("none").fit(graphs, latencies, setup=SETUP)
    report = compress(1.2, 0.4, vague)
    (target,) = report.targets
    assert target.high_ms > 1.2 * target.target_ms
    first, *_ = report.judged["timed"]
    assert first["measured_ms"] <= 1.3 * target.target_ms
    assert report.is_met


def test_a_target_that_the_fastest_network_misses_when_it_is_timed_is_refused(
    compress: Compress, tmp_path: Path
) -> None:
    with pytest.raises(nl.TargetError, match=r"cannot be reached by widths of m: the fastest takes \d+\.\d+ ms"):
        compress(10.0, 0.2)
    assert not list(tmp_path.glob("10*"))
