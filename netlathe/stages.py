"""The steps from device to network, each from files to files. The commands and the demo call these same functions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspace.blocks import ConvBlock, LinearHead, MBConv
from archspace.profile_file import ProfileFile, read_records
from archspace.records import LatencyRecord, Setup
from archspace.spaces import Architecture, SearchSpace
from netlathe.console import Terminal

if TYPE_CHECKING:
    from predictor import CrossValidation, LatencyPredictor
    from profiler.campaign import CampaignSummary, Plan, WorkItem
    from profiler.devices.base import Device


def work_items(space: SearchSpace, *, networks: int, batch: int, seed: int) -> list[WorkItem]:
    """The space's distinct blocks, then `networks` whole networks: the lightest and the heaviest, the rest random."""
    from profiler.campaign import WorkItem

    blocks = space.distinct_blocks()
    items = [WorkItem(block.name, "block", block.graph(batch)) for block in blocks]
    return items + [WorkItem(a.name, "network", a.graph(batch)) for a in sample_networks(space, networks, seed)]


def sample_networks(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Different networks: of least and most MACs first, then uniformly random ones."""
    lightest, heaviest = [], []
    for index in space.searchable:
        macs = [block.graph().macs for block in space.positions[index]]
        lightest.append(macs.index(min(macs)))
        heaviest.append(macs.index(max(macs)))
    found = dict.fromkeys([space.architecture(lightest), space.architecture(heaviest)])
    rng = random.Random(seed)
    while len(found) < min(count, space.size):
        found[space.sample(rng)] = None
    return list(found)[:count]


def baseline(space: SearchSpace, name: str = "baseline") -> Architecture:
    """The space's MobileNetV2: 3x3 kernels and the largest expansion everywhere, nothing skipped."""
    choices = []
    for index in space.searchable:
        candidates = space.positions[index]
        rank = [(-b.kernel, b.expand) if isinstance(b, MBConv) else (-99, 0) for b in candidates]
        choices.append(rank.index(max(rank)))
    return space.architecture(choices, name)


def profile(
    device: Device, items: Sequence[WorkItem], path: Path, plan: Plan, *, seed: int, terminal: Terminal
) -> CampaignSummary:
    """Measures what the file does not hold yet."""
    from profiler.campaign import run_campaign

    with ProfileFile(path, create=True) as file, terminal.progress("measuring", "done") as update:
        return run_campaign(
            device, items, file, plan, seed=seed,
            on_progress=lambda p: update(p.done, p.total, f"round {p.round}  drift {p.drift:.2f}  {p.name}"),
        )  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """A fitted predictor and how well it predicts what it has not seen."""

    predictor: LatencyPredictor
    validation: CrossValidation
    records: list[LatencyRecord]


def fit(profile_path: Path, output: Path, *, residual: str, seed: int, setup_key: str | None = None) -> Fit:
    """Fits on a profile file or table of records, cross-validates, and saves."""
    from predictor import LatencyPredictor, cross_validate

    records = read_records(profile_path)
    if setup_key:
        records = [r for r in records if r.setup.key.startswith(setup_key)]
    model = LatencyPredictor(residual=residual, random_state=seed).fit(records)
    validation = cross_validate(records, model)
    model.save(output)
    return Fit(model, validation, records)


def block_latencies_ms(model: LatencyPredictor, architecture: Architecture) -> list[float]:
    """What each block adds to the network's predicted latency; an identity adds nothing."""
    return [float(ms) for ms in model.contributions([block.graph() for block in architecture.blocks])]


def describe_setup(setup: Setup) -> dict[str, Any]:
    """For JSON answers."""
    return {"key": setup.key, **setup.to_json()}
