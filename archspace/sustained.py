"""Speed under a load that lasts: latency, heat, clocks and power over time, and the level at which a device settles.

The time is the device's own: the starts of its rounds. So nothing here reads a clock.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from netlathe.archspace.errors import RecordError
from netlathe.archspace.records import Measurement, Round

WINDOW_S = 60.0
"""Length of the first and of the last stretch that are compared."""
SETTLED = 0.02
"""Difference from the last stretch's level below which a device has settled."""
MOST_S = 7 * 86_400.0
"""Longest load."""


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
    """In order of time."""
    names: Mapping[str, str]
    """Names by key of what ran."""
    duration_s: float
    is_interrupted: bool = False
    """Whether this is what there was at Ctrl-C."""
    started_at: float = 0.0
    """Start of the first round, in seconds since the epoch by the device's clock."""

    def __post_init__(self) -> None:
        if not 0 < self.duration_s <= MOST_S:
            raise RecordError(f"a load lasts up to {MOST_S:g} s, not {self.duration_s!r:.40}")
        if not all(0 <= one.at_s <= self.duration_s and 0 < one.latency_ms < math.inf for one in self.points):
            raise RecordError("a point of a load has a time within it, and a latency above 0")

    @property
    def window_s(self) -> float:
        """Length of a stretch: a minute, or a quarter of the load where that is shorter."""
        return min(WINDOW_S, self.duration_s / 4)

    @cached_property
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

    @cached_property
    def minutes(self) -> tuple[SustainedMinute, ...]:
        """Stretch after stretch."""
        first_ms = {key: _latency_ms(points) for key in self.names if (points := self._within(key, 0.0))}
        stretches: dict[int, list[SustainedPoint]] = {}
        for one in self.points:
            if one.key in first_ms:
                stretches.setdefault(int(one.at_s // self.window_s), []).append(one)
        found = []
        for number, points in sorted(stretches.items()):
            if number < round(self.duration_s / self.window_s):
                slower = statistics.median(one.latency_ms / first_ms[one.key] for one in points)
                found.append(_minute(number * self.window_s, slower, points))
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

    @cached_property
    def _by_key(self) -> dict[str, list[SustainedPoint]]:
        found: dict[str, list[SustainedPoint]] = {key: [] for key in self.names}
        for one in self.points:
            found[one.key].append(one)
        return found

    def _within(self, key: str, from_s: float) -> list[SustainedPoint]:
        """Points of a network in the stretch that begins then."""
        points, until_s = self._by_key[key], from_s + self.window_s
        begin, end = (bisect_left(points, at_s, key=lambda one: one.at_s) for at_s in (from_s, until_s))
        return points[begin:end]


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
