"""A search whose judge is a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from test_cli import answer, refusal
from test_search_cli import SPACE, words

from netlathe.predictor import LatencyPredictor
from netlathe.profiler import open_device
from netlathe.profiler.devices import DeviceOptions
from netlathe.profiler.protocol import Plan

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))


@pytest.mark.slow
def test_a_phone_judges_the_network_and_times_it_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlathe.timing.plan_for", lambda device: Plan(min_rounds=3, max_rounds=3))
    SPACE.save(tmp_path / "small.json")
    blocks = SPACE.distinct_blocks()
    with LoopbackPhone(tmp_path / "phone") as phone, AdbDaemon(phone) as daemon:
        options = DeviceOptions(benchmark_binary=BENCHMARK_MODEL, cores="big")
        with open_device(daemon.address, options) as device:
            setup = device.setup
        times_ms = [1e-6 * block.graph().macs for block in blocks]
        LatencyPredictor("none").fit(blocks, times_ms, setup=setup).save(tmp_path / "phone.json")
        more = ("--predictor", tmp_path / "phone.json", "--device", daemon.address)
        found = answer(
            *words(tmp_path, tmp_path / "run", *more), "--target-ms", 1e4, "--benchmark-binary", BENCHMARK_MODEL
        )
        assert "--benchmark-binary needs one" in refusal(
            *words(tmp_path, tmp_path / "other", "--target-ms", 1e4, *more), "--benchmark-binary", tmp_path / "none"
        )
    assert found["judged"]["by"] == f"stopwatch on {daemon.address}"
    assert 0 < found["measured_ms"] < 1e4
    assert found["targets"][0]["measured_on"] == daemon.address
