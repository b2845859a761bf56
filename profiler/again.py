"""Repeated measurement, in place, of what was measured badly or not at all: which graphs, and what becomes of their
rounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from netlathe.archspace.profile_file import Again, ProfileFile
from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status

Which = Literal["unstable", "failed"]
"""unstable: records whose own rounds disagree. failed: graphs without a latency, unsupported ones, too."""


Outcome = tuple[Status, str, Mapping[str, float] | None]
"""Status, message and details, as ProfileFile.set_outcome takes them."""


def is_wanted(record: LatencyRecord, which: Which) -> bool:
    """Whether such a record is to be measured again."""
    if which == "failed":
        return record.measurement is None
    return record.measurement is not None and not record.measurement.is_stable


def best_rounds(earlier: Sequence[Round], new: Sequence[Round]) -> Sequence[Round]:
    """Rounds that a record is made of: the new ones, all, or the earlier ones, whichever tell the latency best by their
    own 90 % interval.

    New ones alone where the earlier come from a bad hour; all where the graph is as noisy as ever, so that rounds of
    several calls add up; the earlier ones where the new hour is the bad one.
    """
    return min((new, (*earlier, *new), earlier), key=_uncertainty)


def _uncertainty(rounds: Sequence[Round]) -> float:
    interval_ms = Measurement(tuple(rounds)).interval_ms if rounds else None
    return interval_ms[1] / interval_ms[0] if interval_ms else math.inf


class Repetition:
    """Graphs that are measured again on a setup, by this call and those that it continues.

    A call that was interrupted is continued where there are marks of the same kind (ProfileFile.again): it chose once,
    and what it has measured again already, well or badly, it does not measure a third time.
    """

    def __init__(self, profile: ProfileFile, setup: Setup, which: Which | None, keys: Collection[str]) -> None:
        self.profile, self.setup, self.which = profile, setup, which
        self._outcomes = profile.outcomes(setup)
        self._marks = profile.again(setup)
        self._keys = keys
        self._chosen: set[str] = set()
        self._earlier: dict[str, tuple[Round, ...]] = {}
        if which and not self.marks:
            self._chosen = {r.graph.key for r in profile.records(setup) if is_wanted(r, which)} & set(keys)

    @property
    def marks(self) -> dict[str, Again]:
        """Marks of this call's graphs in the profile, by key."""
        return {key: one for key, one in self._marks.items() if one.what == self.which and key in self._keys}

    @property
    def open(self) -> set[str]:
        """Keys of this call's graphs that are still to be measured again."""
        return self._chosen | {key for key, one in self.marks.items() if not one.is_done}

    @property
    def since(self) -> dict[str, float]:
        """The time from which on rounds are new, for all graphs that any call has begun to measure again."""
        return {key: one.since for key, one in self._marks.items() if not one.is_done}

    def due(self) -> list[str]:
        """Keys that the call measures: graphs that are not finished, or failed, and those that it measures again."""
        again, tried = self.open, self.marks
        undone = {key for key in self._keys if self._outcomes.get(key, Status.FAILED) is Status.FAILED} - set(tried)
        return [key for key in self._keys if key in undone or key in again]

    def begin(self, since: float) -> None:
        """Marks what was chosen as begun, so that the same call continues."""
        self.profile.begin_again(self.setup, self._chosen, self.which or "", since)
        self._chosen = set()
        self._marks = self.profile.again(self.setup)
        if self.since:
            self._earlier = self.profile.rounds(self.setup, counting=True)

    def record_outcome(
        self,
        key: str,
        outcome: Outcome,
        new: Sequence[Round],
        drifts: Mapping[float, float],
    ) -> None:
        """Stores the outcome of a graph of `since`, given its new rounds and all rounds' drifts. Where there is no new
        latency, an earlier one stays."""
        status, reason, _ = outcome
        kept: Outcome | None = outcome
        message, discounted = "", list[float]()
        if status is Status.OK:
            earlier = _redrifted(self._earlier.get(key, ()), drifts)
            best = {one.started_at for one in best_rounds(earlier, new)}
            discounted = [one.started_at for one in (*earlier, *new) if one.started_at not in best]
        elif self._outcomes.get(key) is Status.OK:
            kept, message, discounted = None, f"{status}: {reason}", [one.started_at for one in new]
        self.profile.end_again(self.setup, key, kept, message=message, discounted=discounted)
        self._marks[key] = dataclasses.replace(self._marks[key], is_done=True, message=message)


def _redrifted(rounds: Iterable[Round], drifts: Mapping[float, float]) -> list[Round]:
    return [dataclasses.replace(one, drift=drifts.get(one.started_at, one.drift)) for one in rounds]
