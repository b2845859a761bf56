"""The objectives and the decode on a cross-entropy that is made from the benchmark's accuracies: seconds a search.

The architecture learns from what the real search would see: two candidates per position, of which the active ones make
a path; its cross-entropy is -log(accuracy) times a scale, and the gradient of a position's gates is what its two
candidates give on that path, with the noise of a batch upon it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.search_regret.objectives import AddLinear
from benchmarks.search_regret.truth import OURS, SHARES, Method, Truth, methods
from netlathe.search.decode import decode
from netlathe.search.strategies.binarized.parameters import ArchitectureParameters, Gate
from netlathe.search.strategies.binarized.updates import GradientUpdate

POSITIONS = np.arange(8)
GAINS = (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class ProxyConfig:
    steps: int
    learning_rate: float
    scale: float
    """Cross-entropy is -scale * log(accuracy): in a supernet, networks differ more than when trained to the end."""
    noise: float
    """Standard deviation, in nats, of the noise on the cross-entropy of a batch and on each gate's gradient."""


def variants() -> list[Method]:
    """Every form, then no price of latency at all (what the decode does alone), then other gains of ours."""
    found = [*methods(), Method("no price", lambda: AddLinear(0.0))]
    for gain in GAINS:
        if gain != 1:
            found += [Method(f"gains x{gain:g}", methods(gain, 0.03 * gain)[0].objective)]
    return found


def search_proxy(truth: Truth, method: Method, share: float, seed: int, config: ProxyConfig) -> dict[str, Any]:
    """The architecture steps of search/loop.py, with the proxy in the supernet's place."""
    limit_ms = truth.limit_ms(share)
    constraint = method.constraint(truth.table, limit_ms)
    objective, rule = method.objective(), GradientUpdate()
    parameters = ArchitectureParameters([3] * 8)
    optimizer = torch.optim.Adam(parameters.parameters(), lr=config.learning_rate, betas=(0.0, 0.999))
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    cross_entropy = -config.scale * np.log(truth.accuracy / 100)

    def run(gates: Sequence[Gate]) -> Iterator[Tensor]:
        path = [gate.active for gate in gates]
        batch = config.noise * rng.standard_normal()
        swapped = np.array(path)[:, None, None].repeat(8, 1).repeat(2, 2)  # (layer, position, candidate of the pair)
        swapped[POSITIONS, POSITIONS] = [(gate.active, *gate.inactive) for gate in gates]
        slopes = cross_entropy[tuple(swapped)] + batch + config.noise * rng.standard_normal((8, 2))
        values = torch.stack([gate.values for gate in gates if gate.values is not None])
        yield cross_entropy[tuple(path)] + batch + ((values - values.detach()) * torch.from_numpy(slopes)).sum()

    for _ in range(config.steps):
        before = parameters.alpha.detach().clone()
        value, slope, gates = rule.estimate(parameters, run, generator)
        task = torch.tensor(value, requires_grad=True)
        expected = constraint.table.expected(parameters.probabilities())
        loss = objective.loss(task, [expected], [constraint.limit])
        by_task, by_cost = torch.autograd.grad(loss, [task, parameters.alpha], allow_unused=True)
        parameters.alpha.grad = by_task * slope + (0 if by_cost is None else by_cost)
        optimizer.step()
        rule.finish(parameters, before, gates)
        objective.observe([constraint.excess(parameters.likeliest())])
    decoded = decode(parameters.log_probabilities().detach().double().numpy(), [constraint])
    picks = {"argmax": parameters.likeliest(), "decode": decoded}
    judged = {pick: truth.judge(path, limit_ms) for pick, path in picks.items()}
    return {"method": method.name, "share": share, "seed": seed, **judged}


def _job(truth: Truth, index: int, seeds: int, config: ProxyConfig) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    method = variants()[index]
    return [search_proxy(truth, method, share, seed, config) for share in SHARES for seed in range(seeds)]


def run_proxy(truth: Truth, seeds: int, config: ProxyConfig, jobs: int) -> tuple[list[dict[str, Any]], float]:
    """The rows in the order of `variants`, and seconds."""
    begun = time.monotonic()
    with ProcessPoolExecutor(min(jobs, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(_job, truth, i, seeds, config) for i in range(len(variants()))]
        rows = [row for future in futures for row in future.result()]
    return rows, time.monotonic() - begun


def is_sensitivity(row: dict[str, Any]) -> bool:
    """Whether a row belongs to the second table: ours, with other gains."""
    return str(row["method"]).startswith("gains") or row["method"] == OURS
