"""Queue of what a pool has yet to measure: the profile file, from which each unit takes batch after batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property

from netlathe.archspace.pools import is_pool, pool_of
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Measurement, Setup, Status
from netlathe.profiler.campaign import WorkItem
from netlathe.profiler.guess import LatencyGuess, work
from netlathe.profiler.pool.calibration import UnitLevel, calibrate
from netlathe.profiler.protocol import ANCHORS, Plan

OVERLAP = 8
"""Graphs that every unit measures beside the anchors."""

LEASE_S = 120.0
"""Time after which a batch is anybody's again whose unit gave no sign of life."""

SHARES = 2
"""A batch is a part of 1 / (SHARES x units) of the open work (guided self-scheduling; Polychronopoulos and Kuck, IEEE
Transactions on Computers, 1987): batches get smaller, so that all units end at about the same time."""

ENOUGH_COMPARED = 3
"""Units that tell which of them is the odd one."""

MOST_FAILED = 2
"""Units on which a graph may fail before it counts as failed."""


def overlap_of(items: Sequence[WorkItem], count: int = OVERLAP) -> list[WorkItem]:
    """Blocks that every unit measures, spread evenly over all in the order of their work."""
    blocks = sorted((item for item in items if item.kind == "block"), key=lambda item: work(item.graph))
    count = min(count, len(blocks))
    return [blocks[(2 * place + 1) * len(blocks) // (2 * count)] for place in range(count)]


class WorkQueue:
    """Work of one unit of a pool, for its own thread.

    `items` are all that the pool measures, equal ones once; `units` is how many devices there are; `failed_before` are
    (setup's key, graph's key) of failures of earlier calls, which are tried again. `now` gives seconds since the epoch.
    """

    def __init__(
        self,
        profile: ProfileFile,
        setup: Setup,
        items: Sequence[WorkItem],
        *,
        units: int,
        failed_before: Collection[tuple[str, str]] = (),
        overlap: int = OVERLAP,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.profile, self.setup, self.pool = profile, setup, pool_of(setup)
        self.items = {item.graph.key: item for item in items}
        self.units, self.failed_before, self.now = units, failed_before, now
        self.overlap = [item.graph.key for item in overlap_of(items, overlap)] if units > 1 else []
        self.tried: set[str] = set()
        """Keys of graphs that failed here in this call."""
        self.held: list[str] = []
        """Keys of the batch that is leased."""
        profile.add_setup(self.pool)
        profile.add_setup(setup)
        profile.add_graphs((item.name, item.kind, item.graph) for item in items)

    @cached_property
    def _work(self) -> Mapping[str, float]:
        return {key: work(item.graph) for key, item in self.items.items()}

    def levels(self) -> dict[Setup, UnitLevel]:
        """Levels of the units of this pool, by what the file holds."""
        return unit_levels(self.profile, self.pool)

    @property
    def is_apart(self) -> bool:
        """Whether this unit was compared, and differs from the others by more than one number tells."""
        levels = self.levels()
        sure = self._surely_apart(levels)
        return self.setup in (sure if self._open_without(sure) else apart_of(levels))

    def open(self) -> list[str]:
        """Keys of graphs without an outcome that stands for the pool, those that failed here aside. An outcome stands
        once its batch is at its end, as a unit is compared with the others by then."""
        levels = self.levels()
        return self._open_without(self._surely_apart(levels)) or self._open_without(apart_of(levels))

    def _surely_apart(self, levels: Mapping[Setup, UnitLevel]) -> set[Setup]:
        """Units that differ from the others by more than one number, where enough were compared, or all.

        Of two that differ, nobody knows which is the odd one, so a third one is heard, too, as long as there is work.
        """
        wanted = min(ENOUGH_COMPARED, len(units_of(self.profile, self.pool)))
        return apart_of(levels) if sum(one.is_known for one in levels.values()) >= wanted else set()

    def _open_without(self, apart: Collection[Setup]) -> list[str]:
        failed: dict[str, int] = {}
        settled: set[str] = set()
        for unit in set(units_of(self.profile, self.pool)).difference(apart):
            for key, status in self.profile.outcomes(unit).items():
                if status is not Status.FAILED:
                    settled.add(key)
                elif (unit.key, key) not in self.failed_before:
                    failed[key] = failed.get(key, 0) + 1
        settled |= {key for key, count in failed.items() if count >= MOST_FAILED}
        settled -= self._leased_elsewhere(self.now())
        return [key for key in self.items if key not in settled and key not in self.tried]

    def take(self, plan: Plan) -> list[WorkItem]:
        """Leases the next batch: a share of what is open, and what all units measure and this one has not. Empty where
        nothing is free."""
        self.give_back()
        own = self.profile.outcomes(self.setup)
        overlap = [
            key for key in self.overlap if own.get(key, Status.FAILED) is Status.FAILED and key not in self.tried
        ]
        now = self.now()
        leased = self._leased_elsewhere(now)
        open_keys = self.open()
        free = [key for key in open_keys if key not in leased and key not in self.overlap]
        batch = self._share(free, open_keys, plan)
        leased_here = self.profile.lease(self.pool, batch, self.setup.key, now=now, until=now + LEASE_S)
        still_open = set(self.open())  # another unit may have ended its lease meanwhile, with outcomes
        self.held = [key for key in leased_here if key in still_open]
        return [self.items[key] for key in (*overlap, *self.held)]

    def _leased_elsewhere(self, now: float) -> set[str]:
        return {key for key, holder in self.profile.leases(self.pool, now).items() if holder != self.setup.key}

    def _share(self, free: Sequence[str], open_keys: Sequence[str], plan: Plan) -> list[str]:
        """The largest of the free graphs, those begun here first, up to this unit's share of all open ones: a round at
        least, where all units can have one, and never less than the anchors take in each round."""
        known = latencies_of(self.profile, self.setup, finished(self.profile, self.setup))
        guess = LatencyGuess((self._work[key], ms) for key, ms in known.items() if key in self._work)
        cost_ms = {key: plan.cost_ms(guess.latency_ms(self._work[key])) for key in open_keys}
        whole_ms = sum(cost_ms.values())
        anchors_ms = sum(plan.cost_ms(guess.latency_ms(work(block.graph(self.setup.batch)))) for block in ANCHORS)
        share_ms = max(
            whole_ms / (SHARES * self.units), min(1e3 * plan.round_s, whole_ms / self.units),
            plan.anchor_visits * anchors_ms,
        )  # fmt: skip
        begun = self.profile.rounds(self.setup).keys()
        batch: list[str] = []
        for key in sorted(free, key=lambda key: (key not in begun, -self._work[key])):
            batch.append(key)
            share_ms -= cost_ms[key]
            if share_ms <= 0:
                break
        return batch

    def renew(self) -> bool:
        """Prolongs the leases; False where another unit has taken over some of them meanwhile."""
        now = self.now()
        return self.profile.lease(self.pool, self.held, self.setup.key, now=now, until=now + LEASE_S) == self.held

    def give_back(self) -> None:
        """Ends the leases of this unit."""
        self.profile.end_leases(self.pool, self.setup.key)
        self.held = []

    def settle(self, batch: Sequence[WorkItem]) -> None:
        """Notes what failed of a batch that was measured, and makes the pool of all units that agree."""
        outcomes = self.profile.outcomes(self.setup)
        self.tried |= {item.graph.key for item in batch if outcomes.get(item.graph.key) is Status.FAILED}
        self.give_back()
        make_pool(self.profile, self.pool)


def units_of(profile: ProfileFile, pool: Setup) -> list[Setup]:
    """Setups of the single devices that may be of this pool."""
    return [one for one in profile.setups(members=True) if not is_pool(one) and pool_of(one) == pool]


def finished(profile: ProfileFile, setup: Setup) -> set[str]:
    """Keys of graphs that have a latency there."""
    return {key for key, status in profile.outcomes(setup).items() if status is Status.OK}


def latencies_of(profile: ProfileFile, setup: Setup, keys: Collection[str]) -> dict[str, float]:
    """Latency in ms of each of these graphs, which have one, by key."""
    rounds = profile.rounds(setup, counting=True, keys=keys)
    return {key: Measurement(rounds[key]).latency_ms for key in keys}


def unit_levels(profile: ProfileFile, pool: Setup) -> dict[Setup, UnitLevel]:
    """Level of each unit that has measured something."""
    own = {unit: keys for unit in units_of(profile, pool) if (keys := finished(profile, unit))}
    counts = Counter(key for keys in own.values() for key in keys)
    shared = {key for key, count in counts.items() if count > 1}
    return calibrate({unit: latencies_of(profile, unit, keys & shared) for unit, keys in own.items()})


def apart_of(levels: Mapping[Setup, UnitLevel]) -> set[Setup]:
    """Units that were compared, and differ from the others of their model by more than one number tells."""
    return {unit for unit, one in levels.items() if one.is_known and not one.is_pooled}


def make_pool(profile: ProfileFile, pool: Setup) -> dict[Setup, UnitLevel]:
    """Makes the pool of the units that agree, and returns the levels of all."""
    levels = unit_levels(profile, pool)
    profile.set_pool(pool, {unit: one.level for unit, one in levels.items() if one.is_pooled and one.level})
    return levels
