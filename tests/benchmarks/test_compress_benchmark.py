"""The benchmark of compression: what it keeps is what it says, and the widest network within a target is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.compress.cases import Case
from benchmarks.compress.cifar import jobs
from benchmarks.compress.methods import Target, largest_within
from benchmarks.compress.networks import ResNet
from netlathe.archspace.forms.torch import TorchGraph, load_weights
from netlathe.compress import magnitudes, pruned
from netlathe.training import ImageData
from netlathe.training.images import MemorySplit


def images(count: int) -> MemorySplit:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return MemorySplit(pixels, torch.arange(count) % 10)


def case() -> Case:
    torch.manual_seed(0)
    module, split = ResNet(1), images(40)
    with torch.no_grad():
        module.train()(split.normalization(split.images))
    return Case("resnet8", module.eval(), ImageData("noise", tuple("0123456789"), split, split, split), "float32")


def test_a_sliced_network_computes_what_the_cut_one_does_and_a_refitted_one_what_the_original_does_nearly() -> None:
    given = case()
    weights = given.read[1]
    scores = magnitudes(given.space.coupled, weights, order=1)
    keep = given.space.keep(given.space.alike(0.5), scores)
    x = given.data.test.normalization(images(16).images)
    small = TorchGraph(pruned(given.space.coupled, weights, keep)[0]).eval()
    load_weights(small, pruned(given.space.coupled, weights, keep)[1])
    with torch.no_grad():
        original, cut = given.module(x), small(x)
        sliced, refitted = given.sliced(keep, 0).eval()(x), given.refitted(keep, [], 0).eval()(x)
    torch.testing.assert_close(sliced, cut, rtol=1e-3, atol=1e-3)
    assert (refitted - original).norm() < 0.5 * (cut - original).norm()
    assert given.from_scratch(keep, 0).graph.macs == small.graph.macs


@dataclass(frozen=True)
class Timed:
    """Stands for a graph of so many milliseconds."""

    ms: float


def test_the_widest_network_that_is_within_the_target_is_taken() -> None:
    graphs: Any = [Timed(ms) for ms in (3.0, 1.1, 1.05, 0.95, 0.9, 0.2)]
    measured: list[float] = []

    def measure(some: Any) -> list[float]:
        measured.extend(one.ms for one in some)
        return [0.94 * one.ms for one in some]

    target = Target("here", "", 1.0, None, measure, lambda some: [one.ms for one in some])  # type: ignore[attr-defined]
    assert largest_within(graphs, target) == 2
    assert measured == [1.1, 1.05, 0.95, 0.9]  # others are too far off to be it


def test_every_job_has_a_name_of_its_own_and_seeds_share_choices() -> None:
    found = list(jobs(2))
    assert len({job.name for job in found}) == len(found)
    assert len({job.choice for job in found}) == len({job.choice for job in jobs(1)})
    assert np.isin([0, 1], [job.seed for job in found]).all()
