"""Speed under a load that lasts: latency, heat, clocks and power over time, and the level at which a device settles.

The time is the device's own: the starts of its rounds. So nothing here reads a clock.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from netlathe.archspace.records import Measurement, Round, lower_quartile
from netlathe.profiler.device import Device, RoundEnd, Timing, Visit, Waiting
from netlathe.profiler.errors import MeasurementError, ProfilerError

WINDOW_S = 60.0
"""Length of the first and of the last stretch that are compared."""

VISIT_S = 4.0
"""Longest time of one network's runs in a row: the device rests for the tenth of a second in which its conditions are
read behind them."""

PASSES = 3
"""Times that each network is to be visited in a stretch, as far as VISIT_S allows."""

MOST_RUNS = 20_000
MOST_FAILURES = 3
SETTLED = 0.02
"""Difference from the last stretch's level below which a device has settled."""

OnSustained = Callable[[float, Mapping[str, float | str]], None]
"""(seconds so far, conditions) of a load that goes on."""


@dataclass(frozen=True)
class SustainedPoint:
    """Runs of one network at a stretch, under load since `at_s` seconds."""

    at_s: float
    key: str
    latency_ms: float
    conditions: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def power_w(self) -> float | None:
        """Power that the battery gave; None where it was charged meanwhile, or does not tell."""
        current, voltage = self.conditions.get("current_ua"), self.conditions.get("voltage_mv")
        if self.conditions.get("powered") != "none" or not isinstance(current, float) or not isinstance(voltage, float):
            return None
        # Makers count a discharge as positive or negative, and some in mA: a phone at work draws tens of mA at least.
        amperes = abs(current) / (1e3 if abs(current) < 1e4 else 1e6)
        return amperes * voltage / 1e3 or None


@dataclass(frozen=True)
class SustainedNetwork:
    """One network's latency in the first and in the last stretch."""

    name: str
    first_ms: float
    last_ms: float
    rounds: tuple[Round, ...] = field(repr=False)
    """Visits of the last stretch."""
    energy_mj: float | None
    """Energy of one inference in the last stretch, of the whole phone; None where the device does not tell."""

    @property
    def slower(self) -> float:
        """Ratio of the last to the first latency."""
        return self.last_ms / self.first_ms

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "first_ms": self.first_ms, "last_ms": self.last_ms, "slower": self.slower,
            "energy_mj": self.energy_mj,
        }  # fmt: skip


@dataclass(frozen=True)
class SustainedMinute:
    """Means of one stretch of a load that lasts; None is what the device does not tell."""

    at_s: float
    """Begin of the stretch."""
    slower: float
    """Median ratio of the networks' latencies to those of the first stretch."""
    temperature_c: float | None
    """Skin, else battery, else processor."""
    frequency_mhz: float | None
    """Mean over cores."""
    power_w: float | None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class SustainedRun:
    """All points of a load that lasted `duration_s` seconds."""

    points: tuple[SustainedPoint, ...]
    names: Mapping[str, str]
    """Names by key of what ran."""
    duration_s: float
    is_interrupted: bool = False
    """Whether this is what there was at Ctrl-C."""

    @property
    def window_s(self) -> float:
        """Length of a stretch: a minute, or a quarter of the load where that is shorter."""
        return min(WINDOW_S, self.duration_s / 4)

    @property
    def networks(self) -> tuple[SustainedNetwork, ...]:
        """Networks that ran in the first and in the last stretch, in their order."""
        found = []
        for key, name in self.names.items():
            first, last = self._within(key, 0.0), self._within(key, self.duration_s - self.window_s)
            if first and last:
                rounds = tuple(Round((one.latency_ms,), started_at=one.at_s) for one in last)
                last_ms, power_w = _latency_ms(last), _mean(one.power_w for one in last)
                energy_mj = None if power_w is None else power_w * last_ms
                found.append(SustainedNetwork(name, _latency_ms(first), last_ms, rounds, energy_mj))
        return tuple(found)

    def measurement(self, name: str) -> Measurement | None:
        """Latency of a network in the last stretch; None where it was not visited then."""
        rounds = next((one.rounds for one in self.networks if one.name == name), ())
        return Measurement(rounds) if rounds else None

    @property
    def minutes(self) -> tuple[SustainedMinute, ...]:
        """Stretch after stretch."""
        first_ms = {key: _latency_ms(points) for key in self.names if (points := self._within(key, 0.0))}
        found = []
        for number in range(round(self.duration_s / self.window_s)):
            at_s = number * self.window_s
            points = [one for key in first_ms for one in self._within(key, at_s)]
            if points:
                slower = statistics.median(one.latency_ms / first_ms[one.key] for one in points)
                found.append(_minute(at_s, slower, points))
        return tuple(found)

    @property
    def level(self) -> float:
        """Ratio of the latencies of the last stretch to those of the first: the throttled level. 1 where it did not
        throttle."""
        return statistics.median(one.slower for one in self.networks)

    @property
    def settled_s(self) -> float:
        """Begin of the first stretch from which on the level stays within 2 % of the last one."""
        settled_s = self.duration_s
        for one in reversed(self.minutes):
            if abs(one.slower / self.minutes[-1].slower - 1) > SETTLED:
                break
            settled_s = one.at_s
        return settled_s

    @property
    def is_settled(self) -> bool:
        """Whether the level stayed for two stretches at least."""
        return self.settled_s <= self.duration_s - 1.5 * self.window_s

    @property
    def rankings(self) -> tuple[list[str], list[str]]:
        """Names from fast to slow, in the first and in the last stretch."""
        first = sorted(self.networks, key=lambda one: one.first_ms)
        return [one.name for one in first], [one.name for one in sorted(self.networks, key=lambda one: one.last_ms)]

    def to_json(self) -> dict[str, Any]:
        first, last = self.rankings
        return {
            "duration_s": self.duration_s, "window_s": self.window_s, "level": self.level, "settled_s": self.settled_s,
            "is_settled": self.is_settled, "networks": [one.to_json() for one in self.networks],
            "minutes": [one.to_json() for one in self.minutes], "ranking_first": first, "ranking_last": last,
        }  # fmt: skip

    def _within(self, key: str, from_s: float) -> list[SustainedPoint]:
        until_s = from_s + self.window_s
        return [one for one in self.points if one.key == key and from_s <= one.at_s < until_s]


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
    load = _Load(device, names, duration_s, random.Random(seed), on_sustained)
    is_interrupted = False
    try:
        while load.elapsed_s < duration_s:
            load.go_round()
    except KeyboardInterrupt:
        is_interrupted = True
    run = SustainedRun(tuple(load.points), names, min(duration_s, load.elapsed_s), is_interrupted)
    if run.networks:
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


def _minute(at_s: float, slower: float, points: Sequence[SustainedPoint]) -> SustainedMinute:
    told = [one.conditions for one in points]
    return SustainedMinute(
        at_s, slower, _mean(map(temperature_c, told)), _mean(map(frequency_mhz, told)),
        _mean(one.power_w for one in points),
    )  # fmt: skip


def temperature_c(conditions: Mapping[str, float | str]) -> float | None:
    """Temperature of the skin, else of the battery, the processor, or this computer's hottest zone."""
    for name in ("skin_c", "battery_c", "cpu_c", "temperature_c"):
        value = conditions.get(name)
        if isinstance(value, float):
            return value
    return None


def frequency_mhz(conditions: Mapping[str, float | str]) -> float | None:
    """Mean frequency of the cores, as far as it is told."""
    mean = conditions.get("frequency_mhz")
    if isinstance(mean, float):
        return mean
    words = str(conditions.get("freq_mhz", "")).split(",")
    return _mean(float(word) for word in words if word.isdigit())


def _latency_ms(points: Sequence[SustainedPoint]) -> float:
    return statistics.median(one.latency_ms for one in points)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
