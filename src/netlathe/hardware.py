"""`netlathe compare`: each network on each predictor, as in ProxylessNAS's table of specialised networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.console import Terminal, milliseconds
from netlathe.pricing import WIDE_INTERVAL, naming_others, other_dtype, unknown_ops
from netlathe.run import write_csv
from netlathe.subjects import Subject, find_subject

if TYPE_CHECKING:
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
    warnings: tuple[str, ...] = ()
    """Of ops and dtypes that are not the predictor's."""

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
    return _price(
        {names[what] if taken.count(names[what]) == 1 else f"{names[what]} ({what})": by_device
         for what, by_device in subjects.items()},
        models,
    )  # fmt: skip


def _price(subjects: Mapping[str, Mapping[str, Subject]], models: Mapping[str, LatencyPredictor]) -> HardwareTable:
    """{network: {device: it at the device's batch}} -> prices."""
    table: HardwareTable = {name: {} for name in subjects}
    for device, model in models.items():
        column = [by_device[device] for by_device in subjects.values()]
        graphs = [subject.graph for subject in column]
        with naming_others(device, graphs):
            latencies = model.predict(graphs).tolist()
            lows, highs = (bound.tolist() for bound in model.predict_interval(graphs))
        best = min(latencies)
        rows = zip(subjects, column, model.unknown_ops(graphs), latencies, lows, highs, strict=True)
        for name, subject, unknown, ms, low, high in rows:
            told = f"{name} on {device}"
            warnings = (*other_dtype(model, told, subject.dtype), *unknown_ops(told, unknown))
            table[name][device] = Price(ms, low, high, len(subjects) > 1 and ms == best, warnings)
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
    warnings = [warning for prices in table.values() for price in prices.values() for warning in price.warnings]
    warnings += [
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
