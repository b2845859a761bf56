"""Timing given networks, files included, on a device: the judge of predictions."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from archspace.errors import NetlatheError
from archspace.graph import Graph
from netlathe import stages
from netlathe.console import Terminal, milliseconds
from predictor import LatencyPredictor
from profiler.campaign import WorkItem
from profiler.devices.local import LocalDevice
from profiler.protocol import Plan

PLAN = Plan(min_rounds=20, max_rounds=40)


@dataclass(frozen=True)
class Timed:
    """One network's latency, as measured."""

    latency_ms: float
    """At the speed that the machine had when its profile was begun: comparable with a predictor fitted on that."""
    drift: float
    """How many times as long the machine took just now; latency_ms * drift is what the clock showed."""


def time_networks(
    graphs: Mapping[str, Graph],
    models: Mapping[str, bytes],
    profile: Path | None,
    *,
    threads: int = 1,
    seed: int = 0,
    terminal: Terminal,
) -> dict[str, Timed]:
    """Times graphs by name through LiteRT on this CPU, all in the same rounds, beside the anchors of `profile`, where
    the records go too; without a profile, alone.

    `models` are .tflite files by graph key, run instead of ones with random weights. Raises NetlatheError for a network
    that could not be timed.
    """
    if profile is None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "profile.sqlite"
            return time_networks(graphs, models, path, threads=threads, seed=seed, terminal=terminal)
    items = [WorkItem(name, "network" if graph.is_network else "block", graph) for name, graph in graphs.items()]
    with LocalDevice(threads=threads, models=models) as device:
        summary = stages.profile(device, items, profile, PLAN, seed=seed, terminal=terminal)
    for record in (*summary.unsupported, *summary.failed):
        raise NetlatheError(f"{record.name} could not be timed: {record.message}")
    terminal.warn(summary.warnings)
    measured = {r.graph.key: r.measurement for r in summary.records if r.measurement}
    return {
        name: Timed(measured[graph.key].latency_ms, statistics.median(r.drift for r in measured[graph.key].rounds))
        for name, graph in graphs.items()
    }


def explain_drift(timed: Sequence[Timed], terminal: Terminal) -> None:
    """A line on the difference between the clock and the table, where there is one worth telling."""
    drift = statistics.median(one.drift for one in timed)
    if not 0.95 < drift < 1.05:
        clock = ", ".join(f"{one.latency_ms * one.drift:.3g}" for one in timed)
        terminal.say(
            f"  [dim]The machine now takes {drift:.2f} times as long as when the profile was begun (seen on the anchor "
            f"blocks); measured ms are corrected for it. The clock showed {clock} ms.[/dim]"
        )


def compare(
    graphs: Mapping[str, Graph], timed: Mapping[str, Timed], model: LatencyPredictor | None, terminal: Terminal
) -> None:
    """Measured, and where there is a predictor, predicted beside it."""
    predicted = model.predict(list(graphs.values())).tolist() if model else [None] * len(graphs)
    rows = []
    answers = []
    for (name, one), guess in zip(timed.items(), predicted, strict=True):
        off = "-" if guess is None else f"{100 * (guess / one.latency_ms - 1):+.1f} %"
        rows.append((name, milliseconds(guess), milliseconds(one.latency_ms), off))
        answers.append({"name": name, "latency_ms": one.latency_ms, "drift": one.drift, "predicted_ms": guess})
    terminal.table(("what", "predicted ms", "measured ms", "off by"), rows)
    explain_drift(list(timed.values()), terminal)
    terminal.result({"timed": answers})
