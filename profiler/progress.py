"""How far a campaign is and how long it will take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

TELL_EVERY_S = 0.2  # often enough for the eye; drawing between two visits disturbs the caches


@dataclass(frozen=True)
class Progress:
    """How far a campaign is."""

    done: int
    """Graphs with an outcome, those from earlier campaigns included."""
    total: int
    round: int
    """Rounds so far in this campaign."""
    elapsed_s: float
    eta_s: float | None
    """Time left, the budget's rest at most; None while it cannot be told."""
    current: str
    """Name of what is being loaded or measured, or what the device waits for."""
    drift: float
    """Of the latest round."""
    blocks_per_s: float
    """Graphs finished by this campaign per second of it."""
    redone: int = 0
    """Rounds so far that had to be measured again."""
    conditions: Mapping[str, float | str] = field(default_factory=dict)
    """Of the latest round."""


OnProgress = Callable[[Progress], None]


class Pace:
    """Keeps the time of a campaign and reports to `on_progress`, not more often than the eye can follow.

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
        self._started = self._told_at = self._estimated_at = clock()
        self._budget_s = math.inf if budget_s is None else budget_s
        self._visited_ms = self._left_ms = 0.0

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._started

    @property
    def budget_left_s(self) -> float:
        return self._budget_s - self.elapsed_s

    def visited(self, planned_ms: float) -> None:
        """Counts visits that were planned to take so long."""
        self._visited_ms += planned_ms

    def expect(self, planned_ms: float) -> None:
        """What is still to be visited is going to take so long, anchors and overhead aside."""
        self._left_ms, self._estimated_at = planned_ms, self._clock()

    @property
    def eta_s(self) -> float | None:
        """Planned time left, times what planned time has cost so far."""
        if not self._visited_ms:
            return None
        total_s = self._left_ms * (self._estimated_at - self._started) / self._visited_ms
        return max(0.0, min(total_s - (self._clock() - self._estimated_at), self.budget_left_s))

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
                    self.redone, self.conditions,
                )
            )  # fmt: skip
