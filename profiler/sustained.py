"""A load that lasts: networks that run one after the other, until a device is as hot as it gets.

The time is the device's own: the starts of its rounds. So nothing here reads a clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

from netlathe.archspace.records import lower_quartile
from netlathe.archspace.sustained import MOST_S, WINDOW_S, SustainedPoint, SustainedRun
from netlathe.profiler.device import Device, RoundEnd, Timing, Visit, Waiting
from netlathe.profiler.errors import MeasurementError, ProfilerError

VISIT_S = 4.0
"""Longest time of one network's runs in a row: the device rests for the tenth of a second in which its conditions are
read behind them."""

PASSES = 3
"""Times that each network is to be visited in a stretch, as far as VISIT_S allows."""

MOST_RUNS = 20_000
MOST_FAILURES = 3

OnSustained = Callable[[float, Mapping[str, float | str]], None]
"""(seconds so far, conditions) of a load that goes on."""


def run_sustained(
    device: Device,
    names: Mapping[str, str],
    duration_s: float,
    *,
    seed: int = 0,
    on_sustained: OnSustained = lambda at_s, conditions: None,
) -> SustainedRun:
    """Runs what is loaded under these keys, {key: name}, one after the other in ever new order, for so long.

    Ctrl-C ends it with what there is, if that suffices. Raises DeviceError when the device is lost, MeasurementError
    where something fails again and again, or where the load is too short for two visits of each.
    """
    if not 0 < duration_s <= MOST_S:
        raise MeasurementError(f"a load lasts from a few seconds to a week, not {duration_s:g} s")
    load = _Load(device, names, duration_s, random.Random(seed), on_sustained)
    is_interrupted = False
    try:
        while load.elapsed_s < duration_s:
            load.go_round()
    except KeyboardInterrupt:
        is_interrupted = True
    run = load.run(is_interrupted)
    if run is not None:
        return run
    if is_interrupted:
        raise KeyboardInterrupt
    raise MeasurementError(
        f"{duration_s:g} s are too short for a visit of {len(names)} networks at the start and at the end; give them "
        "longer"
    )


class _Load:
    """A load under way."""

    def __init__(
        self, device: Device, names: Mapping[str, str], duration_s: float, rng: random.Random, told: OnSustained
    ) -> None:
        self.device, self.names, self.duration_s, self.rng, self.told = device, names, duration_s, rng, told
        self.points: list[SustainedPoint] = []
        self.elapsed_s = 0.0
        """Time since the first round began."""
        self._known_ms: dict[str, float] = {}
        self._began: float | None = None
        self._failures = 0

    def run(self, is_interrupted: bool) -> SustainedRun | None:
        """The load so far; None where no network was visited at its begin and its end."""
        lasted_s = min(self.duration_s, self.elapsed_s)
        if not lasted_s:
            return None
        run = SustainedRun(tuple(self.points), self.names, lasted_s, is_interrupted, self._began or 0.0)
        return run if run.networks else None

    def go_round(self) -> None:
        """Visits each network once, in random order."""
        keys = self.rng.sample(list(self.names), len(self.names))
        visits = [self._visit(key) for key in keys]
        for end, timing in _rounds(self.device, visits, (self._began or 0.0) + self.elapsed_s):
            self._began = end.started_at if self._began is None else self._began
            self.elapsed_s = end.started_at - self._began
            if isinstance(timing.outcome, ProfilerError):
                self._fail(timing.key, timing.outcome)
            else:
                self._add(timing.key, lower_quartile(timing.outcome), end)
            self.told(self.elapsed_s, end.conditions)
            if self.elapsed_s >= self.duration_s:
                return

    def _visit(self, key: str) -> Visit:
        """As many runs as fill the network's share of a stretch; one while its latency is not known."""
        share_s = min(VISIT_S, min(WINDOW_S, self.duration_s / 4) / (PASSES * len(self.names)))
        known_ms = self._known_ms.get(key)
        return Visit(key, 1 if known_ms is None else max(1, min(MOST_RUNS, int(1e3 * share_s / known_ms))), 0)

    def _add(self, key: str, latency_ms: float, end: RoundEnd) -> None:
        """Adds a point; a network's first visit, of one run without a warm-up, only tells how many runs fit."""
        if key in self._known_ms and self.elapsed_s < self.duration_s:
            self.points.append(SustainedPoint(self.elapsed_s, key, latency_ms, end.conditions))
        self._known_ms[key] = latency_ms

    def _fail(self, key: str, error: ProfilerError) -> None:
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            raise MeasurementError(f"{self.names[key]}: fails under load: {error}")


def _rounds(device: Device, visits: Sequence[Visit], after: float) -> Iterator[tuple[RoundEnd, Timing]]:
    """A round for each visit, so that the conditions at its end are those of this network."""
    timing: Timing | None = None
    with closing(device.time_rounds([[visit] for visit in visits], after=after)) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Timing):
                timing = event
            elif not isinstance(event, Waiting) and timing is not None:
                yield event, timing
                timing = None
