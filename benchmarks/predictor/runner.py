"""Runs a task: every method learns the same splits and is judged by the same predictions."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.predictor.baselines import BASELINES, Baseline
from benchmarks.predictor.product import PRODUCT, fit_product
from benchmarks.predictor.score import Score, Spread, mean_score, over_seeds, score, worst_tenth
from benchmarks.predictor.splits import FloatArray, Split
from benchmarks.predictor.tasks import WORST, Task

QUICK_SPLITS = 3


class Row(NamedTuple):
    """One line of the table: a task in one view."""

    table: str
    split: str
    learnt: int
    """Items of a split's training set, the median."""
    judged: int
    """Predictions judged per seed."""
    seeds: int
    scores: dict[str, Spread]
    """By method, PRODUCT first."""
    aim: float
    by_rank: bool
    seconds: dict[str, float]
    """Processor time to fit and predict, all seeds together, by method."""


class _Outcome(NamedTuple):
    """One seed of a task."""

    groups: dict[str, dict[str, Score]]
    """Method -> group -> score."""
    learnt: int
    judged: int


def run_task(task: Task, seeds: Sequence[int], quick: bool = False, product: Baseline = fit_product) -> list[Row]:
    """One row per view of the task. `quick` judges a few of each seed's splits only."""
    methods = {PRODUCT: product, **{name: BASELINES[name] for name in task.baselines}}
    seconds: dict[str, float] = defaultdict(float)
    seeds = seeds if task.is_random else seeds[:1]
    most = min(QUICK_SPLITS, task.most_splits or QUICK_SPLITS) if quick else task.most_splits
    outcomes = [_run_seed(_drawn(task, seed, most), methods, seed, seconds) for seed in seeds]
    rows = []
    for view, aim in task.aims.items():
        scores = {name: _summary([o.groups[name] for o in outcomes], view) for name in methods}
        split = f"{task.split}, {view}" if view else task.split
        learnt, judged = (int(np.median([getattr(o, what) for o in outcomes])) for what in ("learnt", "judged"))
        rows.append(Row(task.table, split, learnt, judged, len(seeds), scores, aim, task.by_rank, dict(seconds)))
    return rows


def _summary(seeds: Sequence[Mapping[str, Score]], view: str) -> Spread:
    """Over the groups of that view; a method's own worst tenth is not another's."""
    worst = worst_tenth(seeds) if view == WORST else ()
    return over_seeds([mean_score(s for group, s in one.items() if not worst or group in worst) for one in seeds])


def _drawn(task: Task, seed: int, most: int | None) -> list[Split]:
    splits = list(task.splits(seed))
    chosen = np.random.default_rng(seed).permutation(len(splits))[:most]
    return [splits[i] for i in sorted(chosen)]


def _run_seed(
    splits: Sequence[Split], methods: Mapping[str, Baseline], seed: int, seconds: dict[str, float]
) -> _Outcome:
    predictions: dict[str, dict[str, list[FloatArray]]] = defaultdict(lambda: defaultdict(list))
    measured: dict[str, list[FloatArray]] = defaultdict(list)
    for split in splits:
        measured[split.group].append(split.test_ms)
        for name, method in methods.items():
            start = time.process_time()
            predictions[name][split.group].append(method(split, seed))
            seconds[name] += time.process_time() - start
    groups = {
        name: {g: score(np.concatenate(measured[g]), np.concatenate(parts, axis=-1)) for g, parts in by_group.items()}
        for name, by_group in predictions.items()
    }
    learnt = int(np.median([len(split.train) for split in splits]))
    return _Outcome(groups, learnt, sum(len(split.test) for split in splits))
