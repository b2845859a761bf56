"""The contract that every device keeps, as a class of tests, and a simulated device to test what uses devices.

A test file for a device of your own is a subclass with a fixture, run by pytest::

    import pytest
    from netlathe.profiler.testing import DeviceContract

    class TestMyDevice(DeviceContract):
        @pytest.fixture
        def device(self):
            with MyDevice() as opened:  # measures batches of 1
                yield opened
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from netlathe.archspace.blocks import ConvBlock, Skip, Zero
from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Setup
from netlathe.profiler.device import Device, DeviceEvent, RoundEnd, Timing, Visit, Waiting, check_loadable
from netlathe.profiler.errors import DeviceError, MeasurementError, ProfilerError, UnsupportedGraphError
from netlathe.profiler.protocol import ANCHORS

SMALL = ConvBlock(3, 4, 8, 8)
LARGE = ConvBlock(16, 64, 32, 32)
"""A thousand times the work of SMALL."""

EPOCH_S = 1.7e9
"""Time at which every simulated device is switched on, in seconds since the epoch."""

SETUP = Setup("simulated", "none", "none", "simulation", "1")


class DeviceContract:
    """Tests of what Device promises. A subclass has a fixture `device`: one that is open and measures batches of 1."""

    def test_the_setup_is_complete_and_constant(self, device: Device) -> None:
        setup = device.setup
        assert setup == device.setup, "the setup changes while the device is open"
        assert Setup.from_json(setup.to_json()) == setup, "the setup does not survive a file"
        named = {"device": setup.device, "processor": setup.processor, "runtime": setup.runtime}
        named["runtime_version"] = setup.runtime_version
        assert all(named.values()), f"the setup says nothing of {[name for name, word in named.items() if not word]}"

    def test_each_visit_gives_times_in_the_order_of_the_visits(self, device: Device) -> None:
        _load(device, small=SMALL.graph(), large=LARGE.graph())
        visits = [Visit("large", 2, 0), Visit("small", 5, 2), Visit("large", 1, 1)]
        found = one_round(device, visits)
        assert [key for key, _ in found] == [visit.key for visit in visits], f"unlike the visits: {found}"
        for visit, (_, outcome) in zip(visits, found, strict=True):
            samples_ms = _times_ms(outcome)
            assert 1 <= len(samples_ms) <= visit.runs, f"{len(samples_ms)} times of {visit.runs} runs"

    def test_more_work_takes_longer(self, device: Device) -> None:
        _load(device, small=SMALL.graph(), large=LARGE.graph())
        (_, small), (_, large) = one_round(device, [Visit("small", 20, 1), Visit("large", 20, 1)])
        assert min(_times_ms(large)) > min(_times_ms(small)), f"{large} ms is not more than {small} ms"

    def test_an_unloaded_graph_cannot_be_timed_and_the_others_can(self, device: Device) -> None:
        _load(device, small=SMALL.graph(), large=LARGE.graph())
        _times_ms(one_round(device, [Visit("large", 1, 0)])[0][1])
        device.unload(["large", "never-loaded"])
        visits = [Visit(key, 3, 1) for key in ("small", "large", "never-loaded")]
        (_, small), (_, large), (_, unknown) = one_round(device, visits)
        _times_ms(small)
        assert isinstance(large, MeasurementError), f"an unloaded graph gave {large}"
        assert isinstance(unknown, MeasurementError), f"a graph that was never loaded gave {unknown}"

    def test_loading_under_a_key_again_replaces_the_graph(self, device: Device) -> None:
        _load(device, x=SMALL.graph())
        ((_, before),) = one_round(device, [Visit("x", 20, 1)])
        _load(device, x=LARGE.graph())
        ((_, after),) = one_round(device, [Visit("x", 20, 1)])
        assert min(_times_ms(after)) > min(_times_ms(before)), "the first graph is still the one that runs"

    def test_a_graph_without_work_is_refused_because_there_is_nothing_to_time(self, device: Device) -> None:
        for block in (Skip(8, 8, 4, 4), Zero(8, 8, 4, 4)):
            with _raises(UnsupportedGraphError, "nothing to time"):
                device.load("empty", block.graph())

    def test_a_graph_of_another_batch_is_refused_with_what_to_do(self, device: Device) -> None:
        with _raises(MeasurementError, "graph(batch=1)"):
            device.load("x", SMALL.graph(batch=2))

    def test_all_anchors_run(self, device: Device) -> None:
        _load(device, **{block.name: block.graph() for block in ANCHORS})
        for _, outcome in one_round(device, [Visit(block.name, 1, 0) for block in ANCHORS]):
            assert len(_times_ms(outcome)) == 1

    def test_an_abandoned_round_does_no_harm(self, device: Device) -> None:
        _load(device, small=SMALL.graph())
        next(device.time_rounds([[Visit("small", 1, 0)] * 3]))
        gc.collect()
        assert gc.isenabled(), "the garbage collector stays off"
        assert len(one_round(device, [Visit("small", 1, 0)] * 2)) == 2

    def test_conditions_are_numbers_or_texts_by_name(self, device: Device) -> None:
        _load(device, small=SMALL.graph())
        *_, end = device.time_rounds([[Visit("small", 1, 0)]])
        assert isinstance(end, RoundEnd), f"a round ends with {end}"
        odd = {name: value for name, value in end.conditions.items() if not isinstance(value, int | float | str)}
        assert not odd, f"neither numbers nor texts: {odd}"

    def test_rounds_end_one_after_the_other_and_start_after_the_given_time(self, device: Device) -> None:
        _load(device, small=SMALL.graph())
        future_s = 4e9  # as if the clock had been set back since
        events = list(device.time_rounds([[Visit("small", 1, 0)]] * 3, after=future_s))
        kinds = [type(event) for event in events if not isinstance(event, Waiting)]
        assert kinds == [Timing, RoundEnd] * 3, f"three rounds of one visit gave {kinds}"
        starts = [event.started_at for event in events if isinstance(event, RoundEnd)]
        assert future_s < starts[0] < starts[1] < starts[2], f"rounds started at {starts}"

    def test_nothing_is_recovered_after_an_undisturbed_campaign(self, device: Device) -> None:
        found = list(device.recovered())
        assert not found, f"nobody was interrupted, and there are {found}"

    def test_after_closing_it_refuses_to_work_and_closing_again_is_harmless(self, device: Device) -> None:
        device.close()
        device.close()
        with _raises(DeviceError, "closed"):
            device.load("small", SMALL.graph())
        with _raises(DeviceError, "closed"):
            one_round(device, [Visit("small", 1, 0)])


def one_round(device: Device, visits: Sequence[Visit]) -> list[tuple[str, Sequence[float] | ProfilerError]]:
    """(key, times in ms or the error) of each visit of a single round."""
    events = [event for event in device.time_rounds([visits]) if not isinstance(event, Waiting)]
    *timings, end = events
    assert isinstance(end, RoundEnd), f"a round ends with {end}"
    assert all(isinstance(timing, Timing) for timing in timings), f"one round gave {timings}"
    return [(timing.key, timing.outcome) for timing in timings if isinstance(timing, Timing)]


def _load(device: Device, **graphs: Graph) -> None:
    for key, graph in graphs.items():
        device.load(key, graph)


def _times_ms(outcome: Sequence[float] | ProfilerError) -> Sequence[float]:
    assert not isinstance(outcome, ProfilerError), f"a graph that runs everywhere gave {outcome!r}"
    assert outcome, "a visit gave no time"
    assert all(0 < ms < math.inf for ms in outcome), f"impossible times: {outcome}"
    return outcome


@contextmanager
def _raises(kind: type[ProfilerError], words: str) -> Iterator[None]:
    raised: ProfilerError | None = None
    try:
        yield
    except kind as error:
        raised = error
    assert raised is not None, f"expected {kind.__name__} with {words!r}, and nothing was raised"
    assert words in str(raised), f"{raised!r} does not say {words!r}"


def true_ms(graph: Graph) -> float:
    """Latency of the graph on an undisturbed SimulatedDevice, in ms."""
    return 0.01 + graph.macs / 1e7


@dataclass(frozen=True)
class ThermalModel:
    """Heat of a device that never rests: its temperature rises exponentially, and above a limit it gets slower.

    temperature(now) = start_c + rise_k (1 - exp(-now / tau_s)); slowdown(now) = 1 + slower_per_k times what is above
    limit_c.
    """

    start_c: float = 30.0
    rise_k: float = 20.0
    tau_s: float = 120.0
    limit_c: float = 40.0
    slower_per_k: float = 0.05
    power_w: float = 4.0

    def temperature_c(self, now: float) -> float:
        return self.start_c + self.rise_k * (1 - math.exp(-now / self.tau_s))

    def slowdown(self, now: float) -> float:
        return 1 + self.slower_per_k * max(0.0, self.temperature_c(now) - self.limit_c)

    def conditions(self, now: float) -> Mapping[str, float | str]:
        """As conditions.sh tells them, of a phone on its battery."""
        mhz = 2000 / self.slowdown(now)
        return {
            "skin_c": self.temperature_c(now), "freq_mhz": f"{mhz:.0f},{mhz:.0f}", "powered": "none",
            "voltage_mv": 4000.0, "current_ua": -1e6 * self.power_w / 4.0,
        }  # fmt: skip


class SimulatedDevice:
    """Device whose clock, speed, noise and failures are set by the test; nothing runs.

    A run takes `true_ms`, times `slowdown(now)`, times log-normal noise of sigma `noise`, and in a share `outliers`
    of the runs three times as long. `now`, in seconds, may be set, and advances by what runs take; `clock` is what
    run_campaign takes. From `breaks_at` on, everything raises DeviceError, as if a cable were pulled. Graphs of the
    keys in `unsupported` are refused when they are loaded, those in `broken` fail whenever they run. `conditions(now)`
    are those at the end of a round.
    """

    def __init__(
        self,
        *,
        setup: Setup = SETUP,
        slowdown: Callable[[float], float] = lambda now: 1.0,
        noise: float = 0.0,
        outliers: float = 0.0,
        breaks_at: float = math.inf,
        unsupported: Iterable[str] = (),
        broken: Iterable[str] = (),
        conditions: Callable[[float], Mapping[str, float | str]] = lambda now: {"load_1min": 0.25},
        seed: int = 0,
    ) -> None:
        self.setup, self.conditions = setup, conditions
        self.slowdown, self.noise, self.outliers, self.breaks_at = slowdown, noise, outliers, breaks_at
        self.unsupported, self.broken = set(unsupported), set(broken)
        self.now = 0.0
        self.loaded: dict[str, float] = {}
        """Latencies in ms of the graphs that are loaded, by key."""
        self.loads: list[str] = []
        """Keys of all graphs that were loaded or refused, in order."""
        self.most_loaded = 0
        """Largest number of graphs that were loaded at once."""
        self.visits: list[Visit] = []
        """All visits that were begun."""
        self.rounds: list[float] = []
        """Duration of each whole round, in s."""
        self.left_over: list[DeviceEvent] = []
        """Events that an interrupted campaign did not fetch, for `recovered`."""
        self._closed = False
        self._rng = random.Random(seed)

    def clock(self) -> float:
        return self.now

    def load(self, key: str, graph: Graph) -> None:
        self._check()
        check_loadable(graph, self.setup)
        self.loads.append(key)
        if key in self.unsupported:
            raise UnsupportedGraphError("op 'conv' is not known here")
        self.loaded[key] = true_ms(graph)
        self.most_loaded = max(self.most_loaded, len(self.loaded))

    def unload(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.loaded.pop(key, None)

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[DeviceEvent]:
        for visits in rounds:
            start = self.now
            after = max(EPOCH_S + start, after + 1e-3)
            for visit in visits:
                self._check()
                self.visits.append(visit)
                yield Timing(visit.key, self._outcome(visit), {"init_ms": 0.5})
            self.rounds.append(self.now - start)
            yield RoundEnd(after, self._conditions())

    def recovered(self) -> Iterator[DeviceEvent]:
        yield from self.left_over

    def _outcome(self, visit: Visit) -> list[float] | MeasurementError | UnsupportedGraphError:
        if visit.key in self.broken or visit.key not in self.loaded:
            return MeasurementError("segmentation fault")
        return [self._run(visit.key) for _ in range(visit.warmups + visit.runs)][visit.warmups :]

    def _run(self, key: str) -> float:
        ms = self.loaded[key] * self.slowdown(self.now) * self._rng.lognormvariate(0, self.noise)
        ms *= 3 if self._rng.random() < self.outliers else 1
        self.now += ms / 1e3
        return ms

    def _conditions(self) -> Mapping[str, float | str]:
        return self.conditions(self.now)

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise DeviceError("the simulated device is closed")
        if self.now >= self.breaks_at:
            raise DeviceError("the cable was pulled")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
