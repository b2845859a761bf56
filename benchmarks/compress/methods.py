"""Ways to choose the widths of a network for a latency: each says which channels are kept, for each group."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import netlathe as nl
from benchmarks.compress.cases import Case, few
from benchmarks.compress.networks import example
from netlathe.archspace.graph import Graph
from netlathe.compress import magnitudes
from netlathe.compress.gradients import taylor
from netlathe.compress.importance import Scores
from netlathe.runs.compression.settings import Count
from netlathe.search.successive import CostLimit, solve
from netlathe.training import ImageData, TrainConfig

NEAR = 0.2
"""Networks whose prediction is further from the target than that are not measured."""
LOOKS = 30
IMPORTANCE_IMAGES = 1000


@dataclass(frozen=True)
class Target:
    """A latency to meet."""

    name: str
    predictor: str
    ms: float
    profile: Path | None
    """This machine's profile, where its stopwatch judges; the prediction judges elsewhere."""
    measure: Callable[[Sequence[Graph]], list[float]]
    """Milliseconds of networks, in the judge's eyes."""
    predict: Callable[[Sequence[Graph]], list[float]]


@dataclass(frozen=True)
class Choice:
    """Choice of a method."""

    keep: dict[str, list[int]]
    """Units to keep, by the names of groups."""
    ms: float
    """In the judge's eyes."""
    cpu_s: float
    """The processor's seconds for the choice."""
    left_out: list[int] = field(default_factory=list)
    """Residual blocks to leave out, by their numbers."""


def largest_within(graphs: Sequence[Graph], target: Target) -> int:
    """The first of the networks, from the largest on, that is within the target in the judge's eyes."""
    predicted = np.array(target.predict(graphs)) / target.ms
    near = [i for i, share in enumerate(predicted) if abs(share - 1) < NEAR] or [int(np.abs(predicted - 1).argmin())]
    measured = target.measure([graphs[i] for i in near])
    within = [i for i, ms in zip(near, measured, strict=True) if ms <= target.ms]
    return within[0] if within else near[-1]


def uniform_l1(case: Case, target: Target) -> Choice:
    """All layers of the same share of their channels, rounded to 8, those of the largest L1 norm (Li et al.,
    arXiv:1608.08710; summed over what is coupled, as Torch-Pruning does)."""
    begun = time.process_time()
    space = case.space
    networks = list(dict.fromkeys(space.alike(float(share)) for share in np.arange(1, 0.1, -0.005)))
    best = networks[largest_within([space.graph(one) for one in networks], target)]
    scores = magnitudes(space.coupled, case.read[1], order=1)
    return _chosen(case, target, best, scores, begun)


def _chosen(case: Case, target: Target, choices: Sequence[int], scores: Scores, begun: float) -> Choice:
    keep = {name: units.tolist() for name, units in case.space.keep(choices, scores).items()}
    ms = target.measure([case.space.graph(choices)])[0]
    return Choice(keep, ms, time.process_time() - begun)


def by_macs(case: Case, target: Target) -> Choice:
    """Network that loses least by our scores for a number of MACs, the largest such number that keeps the target."""
    begun = time.process_time()
    space, graph = case.space, case.read[0]
    scores = taylor(
        space.coupled, case.read[1], case.data.train, images=IMPORTANCE_IMAGES, compute=case.compute
    )  # fmt: skip
    option_scores = space.option_scores(scores)
    low, high, found = 0.0, 1.0, []
    for _ in range(7):
        share = (low + high) / 2
        limit = CostLimit("macs", "", Count("macs"), share * graph.macs)
        least = space.alike(0.0)
        if limit.cost(space, least) > limit.limit:
            low = share
            continue
        choices = solve(space, option_scores, [limit], least).choices
        found.append(choices)
        low, high = (share, high) if target.predict([space.graph(choices)])[0] <= target.ms else (low, share)
    found.sort(key=lambda one: -space.graph(one).macs)
    best = found[largest_within([space.graph(one) for one in found], target)]
    return _chosen(case, target, best, scores, begun)


def by_netlathe(case: Case, target: Target, folder: Path, **settings: Any) -> Choice:
    """nl.compress, its training left out."""
    begun = time.process_time()
    data = ImageData(
        case.data.name, case.data.classes, case.data.train, case.data.validation, few(case.data.test, 100, 0)
    )
    report = nl.compress(
        case.module, example(), target=nl.Target(target.predictor, ms=target.ms), output=folder, data=data,
        training=TrainConfig(epochs=0), device="local" if target.profile else None, profile=target.profile,
        compute=case.compute, restart=True, **settings,
    )  # fmt: skip
    cpu_s = time.process_time() - begun
    record = json.loads((folder / "widths.json").read_text())
    content, latency = record.get("result", record), report.targets[0]
    blocks = content["choices"][len(case.space.groups) :]
    left_out = [number for number, choice in enumerate(blocks) if choice] if settings.get("leave_out") else []
    return Choice(content["kept"], latency.measured_ms or latency.predicted_ms, cpu_s, left_out)


METHODS: dict[str, Callable[[Case, Target, Path], Choice]] = {
    "uniform L1": lambda case, target, folder: uniform_l1(case, target),
    "FLOPs": lambda case, target, folder: by_macs(case, target),
    "NetAdapt": lambda case, target, folder: by_netlathe(case, target, folder, strategy="netadapt"),
    "actor-critic": lambda case, target, folder: by_netlathe(
        case, target, folder, strategy="actor-critic", looks=LOOKS
    ),
    "netlathe": lambda case, target, folder: by_netlathe(case, target, folder),
    "netlathe, depth too": lambda case, target, folder: by_netlathe(
        case, target, folder, leave_out=True, unknown="price"
    ),
}
