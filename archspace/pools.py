"""Pools: devices of one model that share their work, and their records as those of one setup."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status

UNIT, POOLED = "unit", "pooled"
"""Detail of a setup that tells devices of one model apart, and its value where a setup is of several."""

APART_S = 1e-6
"""Seconds by which rounds of several devices are told apart that began at the same time."""

BEST_LAST = (Status.FAILED, Status.UNSUPPORTED, Status.OK)
"""Outcomes of a graph on several devices: the last of these stands for all."""


def pool_of(setup: Setup) -> Setup:
    """The setup of any device that differs in nothing but which very device it is."""
    return dataclasses.replace(setup, details=tuple({**dict(setup.details), UNIT: POOLED}.items()))


def is_pool(setup: Setup) -> bool:
    """Whether the setup is of several devices of one model."""
    return dict(setup.details).get(UNIT) == POOLED


def pooled_records(pool: Setup, members: Sequence[tuple[Sequence[LatencyRecord], float]]) -> list[LatencyRecord]:
    """Records of a pool, by kind and name, from those of its devices: (records, level), where a device of level 1.05
    takes 5 % longer than the pool.

    A latency is of the rounds of all devices that have one, their drift times the level. Where none has one, a device's
    reason stands.
    """
    found: dict[str, list[tuple[LatencyRecord, tuple[Round, ...]]]] = {}
    for place, (records, level) in enumerate(members):
        for record in records:
            rounds = record.measurement.rounds if record.measurement else ()
            found.setdefault(record.graph.key, []).append((record, _levelled(rounds, level, place)))
    pooled = [_pooled(pool, candidates) for candidates in found.values()]
    return sorted(pooled, key=lambda record: (record.kind, record.name))


def _pooled(pool: Setup, candidates: Sequence[tuple[LatencyRecord, tuple[Round, ...]]]) -> LatencyRecord:
    first = max((record for record, _ in candidates), key=lambda record: BEST_LAST.index(record.status))
    rounds = sorted((one for _, rounds in candidates for one in rounds), key=lambda one: one.started_at)
    measurement = Measurement(tuple(rounds)) if first.status is Status.OK else None
    return dataclasses.replace(first, setup=pool, measurement=measurement)


def _levelled(rounds: Sequence[Round], level: float, place: int) -> tuple[Round, ...]:
    return tuple(
        dataclasses.replace(one, drift=one.drift * level, started_at=one.started_at + APART_S * place) for one in rounds
    )
