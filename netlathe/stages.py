"""The steps from device to network, each from files to files. The commands and the demo call these same functions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspace.blocks import MBConv
from archspace.errors import RecordError
from archspace.graph import Graph
from archspace.profile_file import ProfileFile
from archspace.records import LatencyRecord
from archspace.spaces import Architecture, SearchSpace
from archspace.tables import read_records
from netlathe.console import Terminal, Watch, percent

if TYPE_CHECKING:
    from predictor import CrossValidation, LatencyPredictor, Metrics
    from profiler.campaign import CampaignSummary, Progress, WorkItem
    from profiler.devices.base import Device
    from profiler.protocol import Plan


FEWEST_BLOCKS = 4
"""To fit on, when one is held out to check."""

WIDE_INTERVAL = 4.0
"""High over low, from which on a prediction deserves a warning."""


def sample_networks(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Different networks over the whole range of latencies: up to half of them with the same candidate everywhere,
    from the lightest to the heaviest, the rest uniformly random (which all are of medium latency)."""
    widest = max((len(space.positions[i]) for i in space.searchable), default=1)
    uniform = [_uniform(space, candidate) for candidate in range(widest)]
    uniform.sort(key=lambda architecture: architecture.macs)
    places = min(len(uniform), max(2, count // 2))
    spread = [uniform[round(i * (len(uniform) - 1) / max(1, places - 1))] for i in range(places)]
    found = dict.fromkeys(spread)
    rng = random.Random(seed)
    while len(found) < min(count, space.size):
        found[space.sample(rng)] = None
    return list(found)[:count]


def _uniform(space: SearchSpace, candidate: int) -> Architecture:
    """The same candidate at each position, the lightest one where there is none of that number."""
    choices = []
    for index in space.searchable:
        blocks = space.positions[index]
        macs = [block.graph().macs for block in blocks]
        choices.append(candidate if candidate < len(blocks) else macs.index(min(macs)))
    return space.architecture(choices)


def baseline(space: SearchSpace, name: str = "baseline") -> Architecture:
    """The space's MobileNetV2: 3x3 kernels and the largest expansion everywhere, nothing skipped."""
    choices = []
    for index in space.searchable:
        rank = [(-b.kernel, b.expand) if isinstance(b, MBConv) else (-99, 0) for b in space.positions[index]]
        choices.append(rank.index(max(rank)))
    return space.architecture(choices, name)


def work_items(space: SearchSpace, *, networks: int, batch: int, seed: int) -> list[WorkItem]:
    """The space's distinct blocks, then some whole networks: they tell what a network costs beyond its blocks."""
    from profiler.campaign import WorkItem

    blocks = [WorkItem(block.name, "block", block.graph(batch)) for block in space.distinct_blocks()]
    return blocks + [WorkItem(a.name, "network", a.graph(batch)) for a in sample_networks(space, networks, seed)]


def profile(
    device: Device, items: Sequence[WorkItem], path: Path, plan: Plan, *, seed: int, terminal: Terminal
) -> CampaignSummary:
    """Measures what the profile file does not hold yet."""
    with terminal.watching(["measuring"]) as (watch,):
        return measure(device, items, path, plan, seed=seed, watch=watch)


def measure(
    device: Device, items: Sequence[WorkItem], path: Path, plan: Plan, *, seed: int, watch: Watch
) -> CampaignSummary:
    """The same, told to `watch`."""
    from profiler.campaign import run_campaign

    with ProfileFile(path, create=True) as file:
        return run_campaign(device, items, file, plan, seed=seed, on_progress=lambda p: watch(*_told(p)))


def _told(progress: Progress) -> tuple[float, float | None, str]:
    """Share done, seconds left, and a note of what is going on."""
    left_s = progress.eta_s
    finished = progress.done == progress.total
    share = 1.0 if finished else progress.elapsed_s / (progress.elapsed_s + left_s) if left_s else 0.0
    notes = [f"{progress.done}/{progress.total} graphs", f"round {progress.round}"]
    notes += [f"{progress.redone} redone"] if progress.redone else []
    warmest = [progress.conditions[name] for name in ("skin_c", "battery_c", "cpu_c") if name in progress.conditions]
    notes += [f"{warmest[0]:.1f} °C"] if warmest else []
    return share, left_s, ", ".join([*notes, progress.current] if progress.current else notes)


@dataclass(frozen=True)
class Fit:
    """A fitted predictor and how well it predicts what it has not seen."""

    predictor: LatencyPredictor
    records: list[LatencyRecord]
    validation: CrossValidation


def fit(profile_path: Path, output: Path, *, residual: str = "auto", seed: int = 0, setup_key: str = "") -> Fit:
    """Fits on a profile file or table of records, cross-validates by configuration, and saves.

    `setup_key`, or the beginning of one, chooses among several setups. Raises RecordError when none has it.
    """
    from predictor import LatencyPredictor, TooFewRecordsError, cross_validate

    records = read_records(profile_path)
    chosen = [record for record in records if record.setup.key.startswith(setup_key)]
    if records and not chosen:
        keys = ", ".join(sorted({record.setup.key for record in records}))
        raise RecordError(f"{profile_path}: no setup's key begins with {setup_key!r}; there are {keys}")
    if len({record.setup for record in chosen}) > 1:
        raise RecordError(f"{profile_path}: choose one of its setups with --setup:\n{_setups(chosen)}")
    measured = {r.graph.key for r in chosen if r.kind == "block" and r.measurement}
    if 0 < len(measured) < FEWEST_BLOCKS:
        raise TooFewRecordsError(
            f"{profile_path}: {len(measured)} blocks are measured; to fit and to check takes at least {FEWEST_BLOCKS}, "
            "and about 100 make a good predictor: profile more blocks"
        )
    model = LatencyPredictor(residual=residual, random_state=seed).fit(chosen)  # type: ignore[arg-type]
    validation = cross_validate(chosen, residual=residual, seed=seed)  # type: ignore[arg-type]
    output.parent.mkdir(parents=True, exist_ok=True)
    model.save(output)
    return Fit(model, chosen, validation)


def _setups(records: Sequence[LatencyRecord]) -> str:
    """A line per setup: the beginning of its key, what it is, and in what else it differs from the first."""
    setups = list(dict.fromkeys(record.setup for record in records))
    first = dict(setups[0].details)
    lines = []
    for setup in setups:
        others = [f"{name} {value}" for name, value in setup.details if first.get(name) != value]
        lines.append(f"  {setup.key[:8]}  {setup}" + (f" ({', '.join(others)})" if others else ""))
    return "\n".join(lines)


def print_fit(fitted: Fit, terminal: Terminal) -> None:
    """The table of errors, what they can be compared with, and warnings."""
    model = fitted.predictor
    columns = ("held out", "n", "MAPE", "within 5 %", "within 10 %", "Spearman", "in 90 % interval")
    rows = [
        (
            name,
            m.n,
            percent(m.mape),
            percent(m.within_5, 0),
            percent(m.within_10, 0),
            f"{m.spearman:.3f}",
            percent(m.coverage, 0),
        )
        for name, m in metric_rows(fitted.validation)
    ]
    terminal.table(columns, rows)
    noise = percent(fitted.validation.noise_floor)
    terminal.say(
        f"  Noise floor (two halves of the same measurements): {noise}. Physics + {model.residual_} residual. "
        f"Network = {_network_formula(model)}.",
        style="dim",
    )
    if fitted.validation.not_predicted:
        names = ", ".join(fitted.validation.not_predicted)
        terminal.say(f"  Fitted, but not in the table, as no other block has such ops: {names}.", style="dim")
    terminal.warn(fit_warnings(fitted))


def _network_formula(model: LatencyPredictor) -> str:
    network = model.networks_
    terms = [f"{network.slope:.3f} x its blocks"]
    for value, unit in (
        (1e3 * network.offset_ms, ""), (1e3 * network.ms_per_weight_mb, " per MB of weights"),
        (1e3 * network.ms_per_block, " per block"),
    ):  # fmt: skip
        if abs(value) > 1e-3:
            terms.append(f"{'-' if value < 0 else '+'} {abs(value):.3g} us{unit}")
    return " ".join(terms)


def fit_warnings(fitted: Fit) -> list[str]:
    """What a user should know before trusting the predictor, each with its remedy."""
    blocks, networks = fitted.validation.blocks.metrics, fitted.validation.networks
    warnings = []
    if blocks.n < 30:
        warnings.append(f"only {blocks.n} blocks; about 100 make a good predictor: profile a larger space")
    if networks is None:
        warnings.append(
            "no whole networks were measured, so a network is taken as the plain sum of its blocks, which may be off "
            "by 10 % and more: profile with --networks 12"
        )
    noise = fitted.validation.noise_floor
    if noise is not None and noise > 0.05:
        warnings.append(
            f"measurements differ by {percent(noise)} between their own halves: profile again on a quiet machine"
        )
    return warnings


def metric_rows(validation: CrossValidation) -> list[tuple[str, Metrics]]:
    """What to print of a cross-validation."""
    rows = [("blocks", validation.blocks.metrics)]
    return rows + ([("networks", validation.networks.metrics)] if validation.networks else [])


def validation_json(validation: CrossValidation) -> dict[str, Any]:
    """The same for machines."""
    metrics = {name: asdict(metrics) for name, metrics in metric_rows(validation)}
    return {**metrics, "noise_floor": validation.noise_floor, "not_predicted": list(validation.not_predicted)}


def doubts(model: LatencyPredictor, name: str, graph: Graph) -> list[str]:
    """A warning where the predictor knows next to nothing about such a graph."""
    low, high = (float(bound[0]) for bound in model.predict_interval([graph]))
    if high <= WIDE_INTERVAL * low:
        return []
    return [
        f"{name} is unlike what the predictor was fitted on, so its latency is little more than a guess; profile a "
        "space of its kind and size, and fit on that"
    ]


def part_latencies_ms(model: LatencyPredictor, architecture: Architecture) -> list[float]:
    """What each block adds to the network's predicted latency, in ms; an identity adds nothing."""
    return [float(row[0]) for row in model.tabulate([[block] for block in architecture.blocks])]
