"""Forecast of what a campaign would do, without a device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from netlathe.archspace.graph import Graph
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Round, Setup, Status
from netlathe.profiler.again import Repetition, Which
from netlathe.profiler.campaign import WorkItem, unique_items
from netlathe.profiler.guess import LatencyGuess, work
from netlathe.profiler.protocol import ANCHORS, Plan, missing_rounds

LOAD_MS = 5.0
"""Time to make one graph ready to run."""

OVERHEAD = 1.2
"""Ratio of wall time to the time of all visits: choosing, storing, telling."""


@dataclass(frozen=True)
class Forecast:
    """Names of a campaign's items by what it would do with them."""

    new: tuple[str, ...]
    continued: tuple[str, ...]
    """Items begun by an earlier campaign, or failed in it."""
    again: tuple[str, ...]
    """Items with a record, or found unsupported, that are measured again."""
    reused: tuple[str, ...]
    unsupported: tuple[str, ...]
    """Items found unsupported by an earlier campaign, and left alone."""
    estimate_s: float
    """Wall time, within a factor of about two; the budget at most."""


def dry_run(
    items: Sequence[WorkItem],
    profile: ProfileFile | None,
    setup: Setup,
    plan: Plan | None = None,
    again: Which | None = None,
) -> Forecast:
    """Forecast of what run_campaign would measure on this setup. `profile` is None where there is no file yet.

    Raises MeasurementError for graphs of another batch than the setup's.
    """
    plan = plan or Plan()
    rounds = profile.rounds(setup) if profile else {}
    outcomes = profile.outcomes(setup) if profile else {}
    unique = unique_items(items, setup.batch)
    repetition = Repetition(profile, setup, again, unique) if profile else None
    repeated, due = (repetition.open, set(repetition.due())) if repetition else (set(), set(unique))
    groups: dict[str, list[str]] = {"new": [], "continued": [], "again": [], "reused": [], "unsupported": []}
    for key, item in unique.items():
        status = outcomes.get(key)
        if key in repeated:
            group = "again"
        elif key in due:
            group = "continued" if status or key in rounds else "new"
        else:
            group = "unsupported" if status is Status.UNSUPPORTED else "reused"
        groups[group].append(item.name)
    since = dict.fromkeys(repeated, math.inf) | (repetition.since if repetition else {})
    known = [record for record in (profile.records(setup) if profile else []) if record.measurement]
    guess = LatencyGuess((work(record.graph), record.latency_ms) for record in known)
    todo = {key: item.graph for key, item in unique.items() if key in due}
    estimate_s = _estimate_s(todo, rounds, since, guess, plan, setup.batch)
    return Forecast(
        **{name: tuple(names) for name, names in groups.items()},
        estimate_s=estimate_s if plan.budget_s is None else min(estimate_s, plan.budget_s),
    )


def _estimate_s(
    todo: Mapping[str, Graph],
    rounds: Mapping[str, Sequence[Round]],
    since: Mapping[str, float],
    guess: LatencyGuess,
    plan: Plan,
    batch: int,
) -> float:
    """Estimated time of loads, visits until about half way between the plan's least and most rounds, and the anchors'
    visits. Of graphs
    in `since`, only rounds that started later count."""
    cost_ms, most_rounds = 0.0, 0.0
    for key, graph in todo.items():
        known = rounds.get(key, ())
        own = [one for one in known if one.started_at > since.get(key, -math.inf)]
        latency_ms = known[-1].latency_ms if known else guess.latency_ms(work(graph))
        missing = max(missing_rounds(own, plan), (plan.min_rounds + plan.max_rounds) / 2 - len(own))
        cost_ms += LOAD_MS + missing * plan.cost_ms(latency_ms)
        most_rounds = max(most_rounds, missing)
    anchors_ms = sum(plan.cost_ms(guess.latency_ms(work(block.graph(batch)))) for block in ANCHORS)
    return OVERHEAD * (cost_ms + most_rounds * plan.anchor_visits * anchors_ms) / 1e3
