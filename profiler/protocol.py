"""Rules by which a fair time is taken. Pure: no clock, no device, no file.

Many short rounds in fresh random order, rather than many runs in a row: what disturbs a machine comes in phases longer
than a visit. Anchor blocks stand in every round; how slow they are tells the machine's drift in that round, by which
all times of the round are divided.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from netlathe.archspace.blocks import Block, ConvBlock, MBConv
from netlathe.archspace.records import Measurement, Round
from netlathe.profiler.device import Visit
from netlathe.profiler.errors import MeasurementError

ANCHORS: tuple[Block, ...] = (
    MBConv(16, 16, 16, 16, expand=3),
    ConvBlock(3, 32, 32, 32),
    MBConv(24, 24, 28, 28),
    MBConv(40, 40, 28, 28, kernel=5, expand=3),
    MBConv(24, 24, 56, 56),
)
"""Blocks that stand in every round, of 0.5 to 26 million MACs. Always the same ones, so that all campaigns into a file
share one reference, and a campaign over few blocks does not explain their own noise away. Anchors drawn from the
measured blocks are not better (benchmarks/repeatability.py)."""

FEWEST_ROUNDS = 3
"""Rounds that a latency needs at least when the budget is out."""

REFERENCE_ROUNDS = 30
"""Number of first rounds of a profile that set the machine's usual speed."""

CALM_DRIFT = 1.25
"""Drift up to which, either way, a round counts towards min_rounds."""


@dataclass(frozen=True)
class Plan:
    """Effort that a latency gets. Raises MeasurementError on values that make no sense."""

    runs: int = 5
    """Timed runs per visit; more rounds buy far more than more runs."""
    warmups: int = 2
    min_rounds: int = 8
    max_rounds: int = 30
    target_error: float = 0.01
    """Relative standard error of its latency below which a graph is done."""
    budget_s: float | None = None
    """Wall time for the whole campaign; None: until every graph is done."""
    anchor_visits: int = 3
    """Visits of each anchor in a round."""
    visit_ms: float = 50.0
    """Time of a visit's runs; it is cut to fewer where they would take longer, but one is always made."""
    round_s: float = 2.0
    """Length of a round; longer ones are split. A round is stored as it ends, so this is what a power cut, or the end
    of a time budget, may cost."""
    loaded_bytes: float = 2.0**31
    """Memory that the graphs of one wave need at once."""
    overhead_ms: float = 0.0
    """Time of a visit beyond its runs, as for starting a program on a phone."""
    redo_drift: float | None = None
    """Difference of a round's drift from the campaign's rounds so far above which it is measured again. None: such
    rounds are corrected like all others."""

    def __post_init__(self) -> None:
        budget = math.inf if self.budget_s is None else self.budget_s
        positive = (self.runs, self.anchor_visits, self.target_error, self.visit_ms, self.round_s, self.loaded_bytes)
        if min(*positive, budget, self.redo_drift or 1) <= 0 or min(self.warmups, self.overhead_ms) < 0:
            raise MeasurementError(f"runs, visits, errors, times and memory of a plan must be above zero: {self}")
        if not FEWEST_ROUNDS <= self.min_rounds <= self.max_rounds:
            raise MeasurementError(
                f"a plan needs {FEWEST_ROUNDS} <= min_rounds <= max_rounds, got {self.min_rounds} and {self.max_rounds}"
            )

    def visit(self, key: str, latency_ms: float) -> Visit:
        """One visit to a graph that takes about this long: a slow one gets fewer runs."""
        runs = max(1, min(self.runs, int(self.visit_ms / latency_ms)))
        return Visit(key, runs, min(self.warmups, runs))

    def cost_ms(self, latency_ms: float) -> float:
        """Time of one visit in ms, warm-ups included."""
        visit = self.visit("", latency_ms)
        return self.overhead_ms + (visit.runs + visit.warmups) * latency_ms


PHONE_PLAN = Plan(
    runs=10, warmups=3, min_rounds=5, max_rounds=20, visit_ms=150, round_s=4, overhead_ms=30, redo_drift=0.05
)
"""Plan for a phone, where each visit starts a program: more runs in fewer, longer rounds."""


@runtime_checkable
class PlansItsEffort(Protocol):
    """Capability of a device whose latencies take another effort than Plan()."""

    @property
    def default_plan(self) -> Plan: ...


def is_calm(drift: float) -> bool:
    """Whether the machine was near its usual speed."""
    return 1 / CALM_DRIFT <= drift <= CALM_DRIFT


Latencies = Mapping[str, float]
"""Graph key -> latency in ms, known or guessed: what a visit is going to take."""


def split(pending: Sequence[str], latencies: Latencies, plan: Plan, rng: random.Random) -> list[list[str]]:
    """Cuts the pending graphs, in fresh random order, into parts of about `plan.round_s` seconds."""
    parts: list[list[str]] = []
    filled_ms = math.inf
    for key in rng.sample(pending, len(pending)):
        cost_ms = plan.cost_ms(latencies[key])
        if filled_ms + cost_ms > 1e3 * plan.round_s:
            parts.append([])
            filled_ms = 0.0
        parts[-1].append(key)
        filled_ms += cost_ms
    return parts


def arrange(
    keys: Sequence[str], anchors: Sequence[str], latencies: Latencies, plan: Plan, rng: random.Random
) -> list[Visit]:
    """The visits of one round: every graph once in fresh random order, every anchor once in each of
    `plan.anchor_visits` equal stretches of the round, at a random place there."""
    ordinary = [key for key in keys if key not in anchors]
    rng.shuffle(ordinary)
    order: list[str] = []
    for stretch in range(plan.anchor_visits):
        members = [*ordinary[stretch :: plan.anchor_visits], *anchors]
        rng.shuffle(members)
        order += members
    return [plan.visit(key, latencies[key]) for key in order]


def round_drifts(anchor_ms: Mapping[float, Mapping[str, float]]) -> dict[float, float]:
    """Drift of each round, {round: drift}, from {round: {anchor: median time in ms}}: how slow the machine was in it.

    An anchor's reference is its median over its first REFERENCE_ROUNDS rounds: once those are taken, the level of a
    profile stays, however fast the machine is in later campaigns. A round's drift is the median of its anchors' times
    over their references (their geometric mean repeats worse: one disturbed anchor spoils it). Rounds without anchors
    are left out.
    """
    reference_ms = reference_times_ms(first_rounds(anchor_ms))
    return {name: drift_of(anchors, reference_ms) for name, anchors in anchor_ms.items() if anchors}


def first_rounds(anchor_ms: Mapping[float, Mapping[str, float]]) -> dict[str, dict[float, float]]:
    """Each anchor's times in its first REFERENCE_ROUNDS rounds, in their order."""
    times: dict[str, dict[float, float]] = {}
    for name in sorted(anchor_ms):
        for key, ms in anchor_ms[name].items():
            first = times.setdefault(key, {})
            if len(first) < REFERENCE_ROUNDS:
                first[name] = ms
    return times


def reference_times_ms(first: Mapping[str, Mapping[float, float]]) -> dict[str, float]:
    """Median time of each anchor over its first rounds, as first_rounds gives them."""
    return {key: statistics.median(times.values()) for key, times in first.items()}


def drift_of(anchors: Mapping[str, float], reference_ms: Mapping[str, float]) -> float:
    """Drift of a round with these anchors' median times: the median ratio to their reference times."""
    return statistics.median(ms / reference_ms[key] for key, ms in anchors.items())


def is_done(rounds: Sequence[Round], plan: Plan) -> bool:
    """The stop rule: enough calm rounds that agree, or as many rounds as a graph may get."""
    if len(rounds) >= plan.max_rounds:
        return True
    if sum(is_calm(one.drift) for one in rounds) < plan.min_rounds:
        return False
    return Measurement(tuple(rounds)).relative_error <= plan.target_error


def missing_rounds(rounds: Sequence[Round], plan: Plan) -> float:
    """Rounds that a graph is likely to need yet: the error falls with the root of their number."""
    if is_done(rounds, plan):
        return 0.0
    needed: float = plan.min_rounds
    if len(rounds) >= FEWEST_ROUNDS:
        needed = len(rounds) * (Measurement(tuple(rounds)).relative_error / plan.target_error) ** 2
    return max(1.0, min(max(needed, plan.min_rounds), plan.max_rounds) - len(rounds))
