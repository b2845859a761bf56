"""Progress of a campaign, and the time that it will take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

TELL_EVERY_S = 0.2  # often enough for the eye; drawing between two visits disturbs the caches

NOT_YET = 0.99
"""Largest share done before the end."""


@dataclass(frozen=True)
class Progress:
    """State of a campaign that is under way."""

    done: int
    """Graphs with an outcome, those from earlier campaigns included."""
    total: int
    round: int
    """Rounds so far in this campaign."""
    elapsed_s: float
    eta_s: float | None
    """Time left, the budget's rest at most; None while it cannot be told. It stands still while the device waits."""
    current: str
    """Name of what is being loaded or measured, or what the device waits for."""
    drift: float
    """Drift of the latest round."""
    blocks_per_s: float
    """Graphs finished by this campaign per second of it."""
    redone: int = 0
    """Rounds so far that had to be measured again."""
    conditions: Mapping[str, float | str] = field(default_factory=dict)
    """Conditions of the latest round."""
    waited_s: float = 0.0
    """Part of the time elapsed in which the device has waited, as for cooling."""
    is_waiting: bool = False

    @property
    def share(self) -> float:
        """Share of the campaign's time that is over, waits aside, from 0 to 1."""
        if self.done == self.total:
            return 1.0
        if self.eta_s is None:
            return 0.0
        active_s = self.elapsed_s - self.waited_s
        return min(active_s / (active_s + self.eta_s), NOT_YET) if active_s > 0 else 0.0


OnProgress = Callable[[Progress], None]


class Pace:
    """Clock of a campaign, which reports to `on_progress`, not more often than the eye can follow.

    `clock` gives seconds; `budget_s` is the wall time the campaign may take.
    """

    def __init__(
        self,
        total: int,
        reused: int,
        budget_s: float | None,
        on_progress: OnProgress | None,
        clock: Callable[[], float],
    ) -> None:
        self.done, self.rounds, self.redone, self.drift = reused, 0, 0, 1.0
        self.conditions: Mapping[str, float | str] = {}
        self._total, self._reused = total, reused
        self._on_progress, self._clock = on_progress, clock
        self._started = self._told_at = clock()
        self._budget_s = math.inf if budget_s is None else budget_s
        self._visited_ms = 0.0
        self._left_ms: float | None = None
        self._first_s: float | None = None  # when the first visit ended, waits aside
        self._waited_s = 0.0
        self._waits_since: float | None = None

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._started

    @property
    def budget_left_s(self) -> float:
        return self._budget_s - self.elapsed_s

    @property
    def waited_s(self) -> float:
        """Time in which the device has waited in all."""
        now = 0.0 if self._waits_since is None else self._clock() - self._waits_since
        return self._waited_s + now

    def waits(self, reason: str) -> None:
        """Notes that the device waits from now on, which is told at once, or still."""
        if self._waits_since is None:
            self._waits_since = self._told_at = self._clock()
            self.tell_now(reason)
        else:
            self.tell(reason)

    def goes_on(self) -> None:
        """Notes that the device no longer waits."""
        self._waited_s, self._waits_since = self.waited_s, None

    def visited(self, planned_ms: float) -> None:
        """Counts a visit that has ended and was planned to take so long."""
        if self._first_s is None:  # nobody knows when it began: what is sent before it takes its time, too
            self._first_s = self.elapsed_s - self.waited_s
        else:
            self._visited_ms += planned_ms
        self._left_ms = max(0.0, (self._left_ms or 0.0) - planned_ms)

    def expect(self, planned_ms: float, *, anew: bool = False) -> None:
        """Sets the time that the visits to come are going to take, overhead aside. `anew`: what was planned before were
        guesses, so that what it has cost says nothing of this."""
        self._left_ms = planned_ms
        if anew:
            self._visited_ms, self._first_s = 0.0, self.elapsed_s - self.waited_s

    @property
    def slowness(self) -> float:
        """Ratio of the time that visits have cost so far, waits aside, to the time planned for them."""
        if self._first_s is None or not self._visited_ms:
            return 1.0
        return 1e3 * (self.elapsed_s - self.waited_s - self._first_s) / self._visited_ms

    @property
    def eta_s(self) -> float | None:
        """Planned time left, times the slowness so far."""
        if self._left_ms is None:
            return None
        return max(0.0, min(self._left_ms / 1e3 * self.slowness, self.budget_left_s))

    def tell(self, current: str) -> None:
        now = self._clock()
        if self._on_progress is None or now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        self.tell_now(current)

    def tell_now(self, current: str = "") -> None:
        """Reports at once, as at the end."""
        if self._on_progress is not None:
            speed = (self.done - self._reused) / self.elapsed_s if self.elapsed_s > 0 else 0.0
            self._on_progress(
                Progress(
                    self.done, self._total, self.rounds, self.elapsed_s, self.eta_s, current, self.drift, speed,
                    self.redone, self.conditions, self.waited_s, self._waits_since is not None,
                )
            )  # fmt: skip
