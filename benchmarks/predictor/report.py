"""The one table, on a terminal, as Markdown or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.predictor.baselines import BASELINES
from benchmarks.predictor.product import PRODUCT
from benchmarks.predictor.runner import Row
from benchmarks.predictor.score import Spread

WIDTH = 210
"""Characters of a line at least: a narrower terminal may wrap it, but no figure is cut off."""
HEADER = ("table", "split", "n", "judged", "MAPE %", "±5 %", "±10 %", "Spearman", "90 % holds", *BASELINES, "aim")
WORDS = 2
"""The first columns hold words, the others numbers."""


def caption(seeds: int) -> str:
    """Meaning of the columns."""
    spread = f"Mean ± standard deviation over {seeds} seeds, none where nothing is drawn." if seeds > 1 else "One seed."
    return (
        f"n: items learnt from; judged: predictions per seed. {spread} Figures are pooled within a phone or setup, and "
        f"averaged over these. MAPE to Spearman are {PRODUCT}'s, and so is the share of measurements, in percent, that "
        "its 90 % intervals hold; a baseline's column is in the unit of the aim: share "
        "within ±10 % in percent, or Spearman where the aim is below 1. forest, XGBoost: nn-Meter's features, "
        "raw ms; roofline: non-negative least squares alone; ridge: from known devices' latencies. A "
        "refused prediction counts as a miss."
    )


def cells(row: Row) -> list[str]:
    """The columns of HEADER."""
    own = row.scores[PRODUCT]
    return [
        row.table, row.split, str(row.learnt), str(row.judged),
        _figure(own, "mape"), _figure(own, "within_5"), _figure(own, "within_10"), _figure(own, "spearman"),
        _figure(own, "coverage"),
        *(_figure(row.scores[name], _judge(row)) if name in row.scores else "" for name in BASELINES),
        f"{row.aim:g}{' ✓' if getattr(own.mean, _judge(row)) >= row.aim else ''}",
    ]  # fmt: skip


def result(row: Row) -> str:
    """The one figure that the aim is about."""
    return f"{_figure(row.scores[PRODUCT], _judge(row))} (aim {row.aim:g})"


def _judge(row: Row) -> str:
    return "spearman" if row.by_rank else "within_10"


def _figure(spread: Spread, name: str) -> str:
    mean, deviation = getattr(spread.mean, name), getattr(spread.deviation, name)
    digits = 3 if name == "spearman" else 1
    if math.isnan(mean):
        return "none"
    return f"{mean:.{digits}f}" + ("" if math.isnan(deviation) else f" ±{deviation:.{digits}f}")


def refusals(rows: Sequence[Row]) -> list[str]:
    """A sentence per row in which the product refused to predict something."""
    shares = {f"{row.table}, {row.split}": row.scores[PRODUCT].mean.refused for row in rows}
    return [f"{name}: {share:.2g} % refused, no training item has their ops" for name, share in shares.items() if share]


def print_table(console: Console, header: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> None:
    """Prints one table; the first `left` columns hold words."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index < left else "right", no_wrap=index >= left)
    for line in lines:
        table.add_row(*line)
    console.print(table)


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table; the first `left` columns hold words."""
    rule = [("---" if index < left else "---:") for index in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(header), rule, *lines]) + "\n"


def as_json(rows: Sequence[Row], cost: Sequence[Mapping[str, Any]]) -> str:
    """Everything, all methods' figures included; NaN becomes null."""

    def plain(spread: Spread) -> dict[str, Any]:
        parts = {"mean": spread.mean, "standard_deviation": spread.deviation}
        return {
            part: {name: None if math.isnan(value) else value for name, value in one._asdict().items()}
            for part, one in parts.items()
        }

    tasks = [{**row._asdict(), "scores": {name: plain(one) for name, one in row.scores.items()}} for row in rows]
    return json.dumps({"tasks": tasks, "cost": list(cost)}, indent=1, allow_nan=False) + "\n"
