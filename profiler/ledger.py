"""The rounds of one setup, and the machine's drift in each."""

from __future__ import annotations

import math
import statistics
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence

from netlathe.archspace.records import Round
from netlathe.profiler.errors import MeasurementError
from netlathe.profiler.protocol import REFERENCE_ROUNDS, drift_of, first_rounds, reference_times_ms, round_drifts


class Ledger:
    """Record of all times of one setup so far, corrected for drift with what is known now."""

    def __init__(self, stored: Mapping[str, Sequence[Round]], anchors: Sequence[str]) -> None:
        """`stored` are the rounds per graph key that earlier campaigns left."""
        self.anchors = tuple(anchors)
        self.since: Mapping[str, float] = {}
        """Times from which on graphs are measured anew, by key: their earlier rounds no longer count for them, though
        those of anchors still tell the drift."""
        self._samples: dict[str, dict[float, tuple[float, ...]]] = {}
        self._anchor_ms: dict[float, dict[str, float]] = {}
        self._drifts: dict[float, float] = {}
        for key, rounds in stored.items():
            for one in rounds:
                self._drifts[one.started_at] = one.drift  # stands where a round has no anchors, as after an import
                self._insert(key, one.started_at, one.samples_ms)
        self._first_rounds = first_rounds(self._anchor_ms)
        self._drifts |= round_drifts(self._anchor_ms)

    def _insert(self, key: str, started_at: float, samples_ms: Sequence[float]) -> None:
        self._samples.setdefault(key, {})[started_at] = tuple(samples_ms)
        if key in self.anchors:
            self._anchor_ms.setdefault(started_at, {})[key] = statistics.median(samples_ms)

    def add(self, started_at: float, samples_ms: Mapping[str, Sequence[float]]) -> dict[float, float]:
        """Enters a round, {graph key: times in ms}. Returns the drifts that are new or other than before, by round:
        the first rounds still move the reference. Raises MeasurementError when no anchor ran in it."""
        if not any(key in self.anchors for key in samples_ms):
            raise MeasurementError(
                "none of the anchor blocks ran in this round, so the machine's drift is unknown and the round is lost; "
                "run the same command again"
            )
        settled, moved = self._is_settled(started_at, samples_ms), self._moved(started_at, samples_ms)
        self._drifts |= moved
        for key, samples in samples_ms.items():
            self._insert(key, started_at, samples)
        if not settled:
            self._first_rounds = first_rounds(self._anchor_ms)
        return moved

    def preview(self, started_at: float, samples_ms: Mapping[str, Sequence[float]]) -> Mapping[float, float]:
        """Drift per round if this one were entered, too: a view, until the next one is. A round without anchors has
        none."""
        return ChainMap(self._moved(started_at, samples_ms), self._drifts)

    def _moved(self, started_at: float, samples_ms: Mapping[str, Sequence[float]]) -> dict[float, float]:
        """The drifts that this round makes new or other than they are. Long campaigns have thousands of rounds, so the
        earlier ones are looked at only while they may move."""
        anchors = {key: statistics.median(times) for key, times in samples_ms.items() if key in self.anchors}
        if not anchors:
            return {}
        if self._is_settled(started_at, samples_ms):
            return {started_at: drift_of(anchors, reference_times_ms(self._first_rounds))}
        drifts = round_drifts({**self._anchor_ms, started_at: anchors})
        return {at: drift for at, drift in drifts.items() if self._drifts.get(at) != drift}

    def _is_settled(self, started_at: float, keys: Iterable[str]) -> bool:
        """Whether a round from then on, of these graphs, leaves the reference of all anchors as it is."""
        firsts = [self._first_rounds.get(key, {}) for key in keys if key in self.anchors]
        return all(len(first) == REFERENCE_ROUNDS and started_at > max(first) for first in firsts)

    @property
    def drifts(self) -> Mapping[float, float]:
        """Drift per round, by the time it started."""
        return self._drifts

    def count(self, key: str) -> int:
        """Number of rounds of the graph, since it is measured anew."""
        since = self.since.get(key, -math.inf)
        return sum(at > since for at in self._samples.get(key, ()))

    def rounds(self, key: str) -> tuple[Round, ...]:
        """The graph's rounds in order of time, since it is measured anew."""
        since, times = self.since.get(key, -math.inf), sorted(self._samples.get(key, {}).items())
        return tuple(Round(samples, self._drifts[at], at) for at, samples in times if at > since)

    def latency_ms(self, key: str) -> float | None:
        """Median of the graph's latest round, in ms and uncorrected, as the next visit is going to take it; None before
        the first."""
        samples = self._samples.get(key)
        return statistics.median(samples[max(samples)]) if samples else None
