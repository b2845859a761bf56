"""Are the blocks that `netlathe profile --budget N` chooses better to learn from than random ones?

    python -m benchmarks.predictor.selection [--seeds 5] [--residual auto] [--data FOLDER]

In each seed, a random half of a table's blocks may be measured; n of them are, chosen or random, and all that neither
took are predicted. On phones49, n of all networks are measured on phones of models that the prior has not seen; there
the choice knows the prior, which `netlathe profile` does not use. Prints one table: mean and standard deviation over
the seeds; the last column says in how many the choice has the smaller MAPE.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from benchmarks.predictor.report import print_table
from benchmarks.predictor.score import Score, mean_score, over_seeds, score
from benchmarks.predictor.splits import FloatArray, Measured, Split, split_at
from netlathe.predictor import LatencyPredictor
from netlathe.predictor.blocks.residual import ResidualChoice
from netlathe.predictor.selection import choose
from netlathe.predictor.transfer.prior import Prior
from scripts import latency_tables as tables

COUNTS = (10, 20, 50, 100)
PHONE_COUNTS = (3, 10, 20, 50)
PHONES = 6
"""Phone models left out per seed, other ones in each."""
POOL = 0.5
"""Share of the blocks that may be measured."""
WIDTH = 100
"""Width of the table, in characters."""
HEADER = ("table", "n", "±10 % chosen", "random", "MAPE % chosen", "random", "better")


class Case(NamedTuple):
    """Items to learn from and to predict in one seed, possibly on several phones."""

    data: Measured
    prior: Prior | None = None


class Table(NamedTuple):
    """`cases(seed)` are judged together."""

    name: str
    cases: Callable[[int], Iterator[Case]]
    counts: tuple[int, ...]
    pool: float


def all_tables(folder: Path) -> list[Table]:
    """Blocks of three phones, and whole networks of many."""
    pixels, unnamed = tables.pixel1_pixel4_blocks(folder), tables.unnamed_phone_blocks(folder)
    blocks = {
        "Pixel 1 blocks": Measured(pixels.graphs, pixels.frame.pixel1_ms.to_numpy(float)),
        "Pixel 4 blocks": Measured(pixels.graphs, pixels.frame.pixel4_ms.to_numpy(float)),
        "unnamed phone's blocks": Measured(unnamed.graphs, unnamed.frame.latency_ms.to_numpy(float)),
    }
    networks = tables.phones49(folder)
    return [
        *(Table(name, partial(same, Case(data)), COUNTS, POOL) for name, data in blocks.items()),
        Table("phones49 networks, prior", partial(new_phones, networks), PHONE_COUNTS, 1.0),
    ]


def same(case: Case, _: int) -> Iterator[Case]:
    """The same table in each seed."""
    yield case


def new_phones(networks: tables.Networks, seed: int) -> Iterator[Case]:
    """One phone each of some random models, with a prior learned from the phones of all other models."""
    items = [networks.pieces[name] for name in networks.latency_ms.index]
    models = np.array([tables.phone_model(device) for device in networks.latency_ms.columns])
    order = np.random.default_rng(0).permutation(np.unique(models))
    for place in range(PHONES):
        model = order[(PHONES * seed + place) % len(order)]
        known = networks.latency_ms.loc[:, models != model]
        own_ms = networks.latency_ms.loc[:, models == model].iloc[:, 0].to_numpy(float)
        prior = Prior.learn({str(name): (items, column.to_numpy(float)) for name, column in known.items()})
        yield Case(Measured(items, own_ms), prior)


def judge(case: Case, counts: tuple[int, ...], pool: float, seed: int, residual: ResidualChoice) -> list[list[Score]]:
    """For each count: the score of the choice, and of as many random items."""
    order = np.random.default_rng(seed).permutation(len(case.data.items))
    open_ = order[: round(pool * len(order))]
    picks = choose([case.data.items[i] for i in open_.tolist()], max(counts), prior=case.prior, seed=seed)
    ways = (open_[picks], open_)
    splits = []
    for n in counts:
        judged = np.setdiff1d(order, np.concatenate([way[:n] for way in ways]))  # the same items for both
        splits.append([split_at("", case.data, way[:n], judged) for way in ways])
    return [[score(split.test_ms, predict(split, case.prior, residual)) for split in pair] for pair in splits]


def predict(split: Split, prior: Prior | None, residual: ResidualChoice) -> FloatArray:
    """ms of the tested items, NaN where nothing measured has one of their ops."""
    model = LatencyPredictor(residual=residual, prior=prior).fit(list(split.train), split.train_ms)
    known = np.flatnonzero(model.knows(list(split.test)))
    latency_ms = np.full(len(split.test), np.nan)
    latency_ms[known] = model.predict([split.test[i] for i in known.tolist()])
    return latency_ms


def rows(table: Table, seeds: int, residual: ResidualChoice) -> Iterator[list[str]]:
    """A line per count: mean and standard deviation over the seeds."""
    judged = [
        [judge(case, table.counts, table.pool, seed, residual) for case in table.cases(seed)] for seed in range(seeds)
    ]
    for place, n in enumerate(table.counts):
        chosen, random = ([mean_score(case[place][way] for case in cases) for cases in judged] for way in (0, 1))
        better = sum(a.mape < b.mape for a, b in zip(chosen, random, strict=True))
        figures = [
            f"{getattr(one.mean, what):.1f} ±{getattr(one.deviation, what):.1f}"
            for what in ("within_10", "mape")
            for one in (over_seeds(chosen), over_seeds(random))
        ]
        yield [table.name, str(n), *figures, f"{better} of {seeds}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--residual", default="auto")
    parser.add_argument("--data", type=Path, default=tables.SHIPPED)
    arguments = parser.parse_args()
    lines: list[list[str]] = []
    for table in all_tables(arguments.data):
        lines += rows(table, arguments.seeds, arguments.residual)
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    print_table(console, HEADER, lines, left=1)


if __name__ == "__main__":
    main()
