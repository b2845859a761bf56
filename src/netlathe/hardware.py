"""`netlathe compare`: each network on each predictor, as in ProxylessNAS's table of specialised networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.console import Terminal, milliseconds
from netlathe.run import write_csv
from netlathe.stages import WIDE_INTERVAL
from netlathe.subjects import find_subject

if TYPE_CHECKING:
    from netlathe.archspace.graph import Graph
    from netlathe.predictor import LatencyPredictor


@dataclass(frozen=True)
class Price:
    """One network on one device."""

    latency_ms: float
    low_ms: float
    high_ms: float
    """Ends of the 90 % interval."""
    is_best: bool
    """Whether no other network of the table is faster there."""

    @property
    def is_guess(self) -> bool:
        """Whether the predictor knows next to nothing of such a network."""
        return self.high_ms > WIDE_INTERVAL * self.low_ms


HardwareTable = dict[str, dict[str, Price]]
"""network -> device -> price."""


def price_networks(networks: Sequence[str], models: Mapping[str, LatencyPredictor]) -> HardwareTable:
    """Networks as `netlathe predict` takes them; those of one name are told apart by where they are from."""
    subjects = {
        what: {device: find_subject(what, batch=model.setup_.batch) for device, model in models.items()}
        for what in networks
    }
    names = {what: next(iter(by_device.values())).name for what, by_device in subjects.items()}
    taken = list(names.values())
    return price_graphs(
        {
            names[what] if taken.count(names[what]) == 1 else f"{names[what]} ({what})": {
                device: subject.graph for device, subject in by_device.items()
            }
            for what, by_device in subjects.items()
        },
        models,
    )


def price_graphs(graphs: Mapping[str, Mapping[str, Graph]], models: Mapping[str, LatencyPredictor]) -> HardwareTable:
    """{network: {device: graph at its batch}} -> prices."""
    table: HardwareTable = {name: {} for name in graphs}
    for device, model in models.items():
        column = [by_device[device] for by_device in graphs.values()]
        latencies = model.predict(column).tolist()
        lows, highs = (bound.tolist() for bound in model.predict_interval(column))
        best = min(latencies)
        for name, ms, low, high in zip(graphs, latencies, lows, highs, strict=True):
            table[name][device] = Price(ms, low, high, len(graphs) > 1 and ms == best)
    return table


def show_table(table: HardwareTable, models: Mapping[str, LatencyPredictor], terminal: Terminal) -> list[str]:
    """Prints it, the best of each column with a star, and returns the warnings."""
    rows = [
        (name, *(milliseconds(p.latency_ms) + (" *" if p.is_best else "  ") for p in prices.values()))
        for name, prices in table.items()
    ]
    terminal.table(("network, predicted ms on", *(f"{device}  " for device in models)), rows)
    batches = {device: m.setup_.batch for device, m in models.items() if m.setup_.batch != 1}
    notes = ["* the fastest there"] if len(table) > 1 else []
    notes += [f"{device}: batch {batch}" for device, batch in batches.items()]
    if notes:
        terminal.say(f"  {'; '.join(notes)}.", style="dim")
    warnings = [
        f"{name} is unlike what the predictor of {device} was fitted on, so its {price.latency_ms:.3g} ms are little "
        "more than a guess"
        for name, prices in table.items()
        for device, price in prices.items()
        if price.is_guess
    ]
    terminal.warn(warnings)
    return warnings


def table_json(table: HardwareTable, models: Mapping[str, LatencyPredictor]) -> dict[str, Any]:
    """The same for machines."""
    return {
        "devices": {device: model.setup_.to_json() for device, model in models.items()},
        "networks": [
            {
                "name": name,
                "latency_ms": {device: p.latency_ms for device, p in prices.items()},
                "interval_ms": {device: [p.low_ms, p.high_ms] for device, p in prices.items()},
                "best_on": [device for device, p in prices.items() if p.is_best],
            }
            for name, prices in table.items()
        ],
    }


def write_table(table: HardwareTable, path: Path) -> None:
    """CSV: a line per network, a column of milliseconds per device."""
    devices = list(next(iter(table.values())))
    rows = [[name, *(p.latency_ms for p in prices.values())] for name, prices in table.items()]
    write_csv(path, ["network", *devices], rows)
