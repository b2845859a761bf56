"""`netlathe compare`: each network on each predictor, as in ProxylessNAS's table of specialised networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.outputs import Output, check_outputs
from netlathe.pricing import (
    WIDE_INTERVAL,
    Unknown,
    load_predictor,
    naming_others,
    other_dtype,
    several_precisions,
    unknown_ops,
)
from netlathe.runs.files import write_csv
from netlathe.subjects import Given, Subject, find_subject

if TYPE_CHECKING:
    from netlathe.archspace.records import Setup
    from netlathe.predictor import LatencyPredictor
    from netlathe.predictor.own_model import Predicts


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
    """Warnings of ops and dtypes that are not the predictor's."""

    @property
    def is_guess(self) -> bool:
        """Whether the predictor knows next to nothing of such a network."""
        return self.high_ms > WIDE_INTERVAL * self.low_ms


@dataclass(frozen=True)
class CompareReport:
    """Networks on devices."""

    devices: dict[str, Setup]
    table: HardwareTable

    @property
    def warnings(self) -> list[str]:
        """Doubts about the prices, each with its network and device."""
        warnings = [
            warning for prices in self.table.values() for price in prices.values() for warning in price.warnings
        ]
        return warnings + [
            f"{name} is unlike what the predictor of {device} was fitted on, so its {price.latency_ms:.3g} ms are "
            "little more than a guess"
            for name, prices in self.table.items()
            for device, price in prices.items()
            if price.is_guess
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "devices": {device: setup.to_json() for device, setup in self.devices.items()},
            "networks": [
                {
                    "name": name,
                    "latency_ms": {device: p.latency_ms for device, p in prices.items()},
                    "interval_ms": {device: [p.low_ms, p.high_ms] for device, p in prices.items()},
                    "best_on": [device for device, p in prices.items() if p.is_best],
                }
                for name, prices in self.table.items()
            ],
            "warnings": self.warnings,
        }


HardwareTable = dict[str, dict[str, Price]]
"""network -> device -> price."""


def compare(
    networks: Sequence[Given],
    predictors: Sequence[str | Path] | Mapping[str, str | Path | LatencyPredictor | Predicts],
    *,
    output: str | Path | None = None,
    unknown: Unknown = "refuse",
    force: bool = False,
) -> CompareReport:
    """The latency of each network on each device, in ms, and where each is the fastest.

    `networks` and `unknown` are what predict takes; `predictors` files or names of shipped ones, or any predictors by a
    name of your own. `output` is a CSV to write, an earlier one of this function is replaced, with `force` any file.
    Raises OutputError for an output that must not or cannot be written, and what predict raises.
    """
    if isinstance(predictors, Mapping):
        given: dict[str, str | Path | LatencyPredictor | Predicts] = dict(predictors)
    else:
        names = [Path(one).stem if Path(one).is_file() else str(one) for one in predictors]
        given = {name if names.count(name) == 1 else str(one): one for name, one in zip(names, predictors, strict=True)}
    place = None if output is None else Path(output)
    if place:
        inputs = [str(one) for one in (*networks, *given.values()) if isinstance(one, str | Path)]
        check_outputs([Output("--output", place, "latencies")], inputs, force=force)
    models = {name: load_predictor(one, name=name, unknown=unknown) for name, one in given.items()}
    table = price_networks(networks, models)
    if place:
        write_table(table, place)
    return CompareReport({name: model.setup_ for name, model in models.items()}, table)


def price_networks(networks: Sequence[Given], models: Mapping[str, LatencyPredictor]) -> HardwareTable:
    """Networks as `netlathe predict` takes them; those of one name are told apart by where they are from."""
    subjects = {
        what: {device: find_subject(what, batch=model.setup_.batch) for device, model in models.items()}
        for what in networks
    }
    names = {what: next(iter(by_device.values())).name for what, by_device in subjects.items()}
    taken = list(names.values())
    return _price(
        {names[what] if taken.count(names[what]) == 1 else f"{names[what]} ({what!s})": by_device
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
            unknown, known = model.unknown_ops(graphs), model.known_shares(graphs)
            lows, highs = (bound.tolist() for bound in model.predict_interval(graphs))
        best = min(latencies)
        for name, subject, ms, low, high, shares, parts in zip(
            subjects, column, latencies, lows, highs, unknown, known, strict=True
        ):
            told = f"{name} on {device}"
            warnings = (
                *other_dtype(model, told, subject.dtype),
                *several_precisions(model, told, subject.graph),
                *unknown_ops(told, subject.graph, shares, parts),
            )
            table[name][device] = Price(ms, low, high, len(subjects) > 1 and ms == best, warnings)
    return table


def write_table(table: HardwareTable, path: Path) -> None:
    """CSV: a line per network, a column of milliseconds per device."""
    devices = list(next(iter(table.values())))
    rows = [[name, *(p.latency_ms for p in prices.values())] for name, prices in table.items()]
    write_csv(path, ["network", *devices], rows)
