"""This machine's latencies of small networks: a predictor fitted on what networks of a space are made of."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import netlathe as nl
from netlathe.archspace.graph import Graph
from netlathe.compress import WidthSpace
from netlathe.events import Listener

KERNELS, BUDGET_S = 300, 170
NARROWED = 14
"""Networks of random widths that are profiled, whole and by their kernels, for each network."""


def host_predictor(spaces: Sequence[WidthSpace], folder: Path, seed: int, listener: Listener) -> tuple[Path, Path]:
    """The predictor's file and the profile's, of kernels of narrowed networks and of these as a whole."""
    path, profile = folder / "host.json", folder / "host.sqlite"
    if not path.exists():
        models = [graph for pair in zip(*(narrowed(one, seed) for one in spaces), strict=True) for graph in pair]
        folder.mkdir(parents=True, exist_ok=True)
        nl.profile(
            profile, space="kernels", models=models, networks=len(models), blocks=KERNELS, device="local",
            budget_s=BUDGET_S, seed=seed, progress=listener,
        )  # fmt: skip
        nl.fit(profile, output=path)
    return path, profile


def narrowed(space: WidthSpace, seed: int, count: int = NARROWED) -> list[Graph]:
    """The network itself, then some of widths drawn around a level, from nearly all of it to the least."""
    rng = random.Random(seed)
    graphs = [space.graph(space.reference)]
    for number in range(count):
        level = 1 - (number + 1) / count
        choices = tuple(
            min(options - 1, max(0, round((1 - level) * (options - 1) + rng.uniform(-0.25, 0.25) * options)))
            for options in space.option_counts
        )
        graphs.append(space.graph(choices))
    return graphs
