"""NAS-Bench-Macro as a judge: every network's accuracy and latency, hence the best feasible one, exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.search_common import quantile_text
from benchmarks.search_regret.objectives import AbsoluteReward, AddLinear, MulLog, SoftPenalty
from netlathe.cli.console import Terminal
from netlathe.search.costs import Constraint, CostTable
from netlathe.search.strategies.binarized.objectives import Objective, PIObjective

SHARES = (0.30, 0.45, 0.60, 0.75)
"""Targets, as shares of the range from the fastest to the slowest network."""

PICKS = ("argmax", "decode", "looks")
"""How a search's answer is taken: the most probable candidate of each layer; the most probable network within the
limit; that within the limit of the best quality by what the supernet's candidates were seen to do (only where there is
a supernet)."""

OURS = "multiplier (ours)"


@dataclass(frozen=True)
class Method:
    """An objective, and the unit that its constraint is given in."""

    name: str
    objective: Callable[[], Objective]
    unit: float = 1.0
    """Unit of the latency table, per ms: mul#log has no meaning where a latency is below 1, hence microseconds."""

    def constraint(self, table: CostTable, limit_ms: float) -> Constraint:
        scaled = replace(table, base=table.base * self.unit, values=table.values * self.unit)
        return Constraint(scaled, limit_ms * self.unit)


def methods(gain: float = 1.0, rate: float = 0.03) -> list[Method]:
    """Ours with these gains, and the reference forms with the constants of their papers (objectives.py)."""
    return [
        Method(OURS, lambda: PIObjective(1, gain, rate)),
        Method("mul#log", MulLog, 1000.0),
        Method("add#linear", AddLinear),
        Method("absolute value", AbsoluteReward),
        Method("soft penalty", SoftPenalty),
    ]


class Truth:
    """accuracy, latency_ms: (3,) * 8 by the choices of the 8 layers; in % (mean of three trainings) and ms."""

    def __init__(self, accuracy: NDArray[np.float64], table: CostTable) -> None:
        self.accuracy, self.table = accuracy, table
        latency = np.full((), table.base)
        for row in table.values:
            latency = np.add.outer(latency, row)
        self.latency_ms = latency

    @classmethod
    def read(cls, path: Path, table: CostTable) -> Truth:
        """From a .parquet or .csv with the columns arch, acc1, acc2, acc3."""
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype={"arch": str})
        accuracy = np.full((3,) * 8, np.nan)
        for arch, value in zip(frame["arch"], frame[["acc1", "acc2", "acc3"]].mean(axis=1), strict=True):
            accuracy[tuple(map(int, arch))] = value
        if np.isnan(accuracy).any():
            raise ValueError(f"{path}: {int(np.isnan(accuracy).sum())} of 6561 networks have no accuracy")
        return cls(accuracy, table)

    def limit_ms(self, share: float) -> float:
        return self.table.base + share * (self.table.most_expensive - self.table.base)

    def best(self, limit_ms: float) -> float:
        """Accuracy of the best network that keeps the limit, over all of them."""
        return float(self.accuracy[self.latency_ms <= limit_ms * (1 + 1e-9)].max())

    def judge(self, path: Sequence[int], limit_ms: float) -> dict[str, Any]:
        """regret: accuracy points below the best feasible network, below zero only for one that is too slow."""
        path = tuple(path)
        return {
            "path": list(path),
            "regret": self.best(limit_ms) - float(self.accuracy[path]),
            "ratio": float(self.latency_ms[path]) / limit_ms,
        }


Row = Mapping[str, Any]
"""method, share, seed, and judge()'s answer for each pick."""


def report(truth: Truth, rows: Sequence[Row], terminal: Terminal) -> None:
    """Per method and pick, over the seeds: median (worst) regret and median (largest) ms / target at each target, and
    the runs that ended above it."""
    shares = sorted({row["share"] for row in rows})
    for share in shares:
        limit_ms = truth.limit_ms(share)
        feasible = (truth.latency_ms <= limit_ms).mean()
        terminal.say(
            f"  {share:.0%}: {limit_ms:.3f} ms, kept by {feasible:.1%} of all networks, the best of which has "
            f"{truth.best(limit_ms):.2f} %"
        )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("", "taken by", *(word for s in shares for word in (f"regret, {s:.0%}", "ms/target")), "too slow"):
        table.add_column(column, justify="left" if column in ("", "taken by") else "right", no_wrap=True)
    for name in dict.fromkeys(row["method"] for row in rows):
        for pick in (pick for pick in PICKS if pick in rows[0]):
            cells = [name if pick == PICKS[0] else "", pick]
            mine = [row for row in rows if row["method"] == name]
            for share in shares:
                at = [row[pick] for row in mine if row["share"] == share]
                cells += [quantile_text([a[key] for a in at], digits) if at else "-"
                          for key, digits in (("regret", 2), ("ratio", 3))]  # fmt: skip
            over = sum(row[pick]["ratio"] > 1 + 1e-9 for row in mine)
            table.add_row(*cells, f"{over} of {len(mine)}")
    Console(width=170).print(table)
