"""Repair by a stopwatch on simulated devices: how often `netlathe compress` meets its target, and how much it uses.

    python -m benchmarks.repair                    # two networks, 6 devices of each kind, 3 targets: some minutes
    python -m benchmarks.repair --first 100        # the same on other devices

The base is what a shipped predictor says of a network's kernels. A device takes that, times a level of its own, times a
factor for each kind of kernel (op, size, image) and one for each kernel, both log-normal; its runs have noise, and it
drifts. The predictor of the run is fitted on the base of other widths, so that it knows nothing of the device. `true`
is what the device takes without noise and drift: what all later measurements are around. Rows are kinds of devices;
`met` counts compressions whose result truly takes no more than the target, or 1 % more; `used` is the true share of the
target: the median, the least and the most; `timed` are networks on the device, mean and most.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import netlathe as nl
from benchmarks.compress_strategies import Residual
from netlathe.archspace.forms.weights import random_weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import kernels_of
from netlathe.archspace.records import Setup
from netlathe.cli.console import Terminal
from netlathe.compress import width_space
from netlathe.events import Listener
from netlathe.predictor import LatencyPredictor
from netlathe.profiler.testing import SimulatedDevice
from netlathe.runs.compression.outlook import look_ahead
from netlathe.runs.compression.scored import ScorePhase
from netlathe.runs.compression.settings import CompressSettings, Original, read_original
from netlathe.runs.compression.shaped import ShapePhase
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.runs.judges import DeviceAtHand
from netlathe.targets import DeviceTarget, make_goal
from netlathe.timing import Stopwatch, plan_for, stopwatch
from netlathe.training import Compute

SETUP = Setup("simulated", "cpu", "os", "litert", "2")
ALLOWED = 1.01


@dataclass(frozen=True)
class Kind:
    """A kind of device, and how much its predictor knows."""

    name: str
    of_kinds: float = 0.1
    """Standard deviation of the logarithm of the factors of kinds of kernels; of single ones half of it."""
    noise: float = 0.02
    drift: float = 0.02
    fitted: int = 60
    """Networks that the predictor is fitted on."""
    blurred: float = 0.0
    """Standard deviation of the logarithm of what they are off by, each: the wider the predictor's intervals."""
    level: float = 0.25
    """Standard deviation of the logarithm of the level."""


KINDS = (
    Kind("as predicted, but for its level", of_kinds=0.0),
    Kind("kernels 10 % off"),
    Kind("kernels 25 % off", of_kinds=0.25),
    Kind("noise and drift of 5 %", noise=0.05, drift=0.05),
    Kind("a predictor of wide intervals", fitted=16, blurred=0.2),
)


@dataclass
class Base:
    """Milliseconds of kernels, as a shipped predictor has them."""

    model: LatencyPredictor
    known: dict[str, float] = field(default_factory=dict)

    def kernels(self, graph: Graph) -> list[tuple[Graph, float]]:
        """The graph's kernels, and what each takes."""
        found = kernels_of(graph)
        new = {one.key: one for one in found if one.key not in self.known}
        if new:
            self.known.update(zip(new, self.model.predict([*new.values()]).tolist(), strict=True))
        return [(one, self.known[one.key]) for one in found]

    def ms(self, graph: Graph) -> float:
        """The graph's base."""
        return sum(ms for _, ms in self.kernels(graph))


@dataclass(frozen=True)
class Truth:
    """Latencies that a device truly has."""

    base: Base
    kind: Kind
    seed: int

    @property
    def level(self) -> float:
        """Factor of all that it takes."""
        return math.exp(self.kind.level * self._normal("level"))

    def ms(self, graph: Graph) -> float:
        """A network's latency without noise and drift."""
        return self.level * sum(ms * self._factor(kernel) for kernel, ms in self.base.kernels(graph))

    def slowdown(self, now: float) -> float:
        """Drift at a time in seconds: a wave of some minutes."""
        return 1 + self.kind.drift * math.sin(now / 40 + self.seed)

    def _factor(self, kernel: Graph) -> float:
        main = next((node for node in kernel.nodes if node.op.has_macs), kernel.nodes[0])
        size, settings = kernel.output_shape[1:-1], [getattr(main.op, name, 0) for name in ("kernel", "stride")]
        normal = self._normal(main.op.kind, size, settings) + 0.5 * self._normal(kernel.key)
        return math.exp(self.kind.of_kinds * normal)

    def _normal(self, *key: object) -> float:
        """A standard normal number of the device and a key."""
        words = np.frombuffer(repr((self.seed, *key)).encode(), np.uint8).tolist()
        return float(np.random.default_rng(words).standard_normal())


class Device(SimulatedDevice):
    """A device of that truth."""

    def __init__(self, truth: Truth, session: int) -> None:
        super().__init__(setup=SETUP, slowdown=truth.slowdown, noise=truth.kind.noise, seed=1000 * truth.seed + session)
        self.truth = truth

    def load(self, key: str, graph: Graph) -> None:
        super().load(key, graph)
        self.loaded[key] = self.truth.ms(graph)


@dataclass(frozen=True)
class AtHand(DeviceAtHand):
    """A simulated device at hand; each session has noise of its own."""

    truth: Truth | None = None
    sessions: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def open(
        self, target: DeviceTarget, listener: Listener, *, models: Mapping[str, bytes] | None = None
    ) -> Iterator[Stopwatch]:
        assert self.truth
        device = Device(self.truth, next(self.sessions))
        with stopwatch(device, None, plan=plan_for(device), seed=self.seed, listener=listener) as watch:
            yield watch


@dataclass(frozen=True)
class Outcome:
    """A compression by stopwatch."""

    share: float
    """True milliseconds of the result, in parts of the target."""
    is_met: bool
    """In the judge's eyes."""
    timed: int


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.repair", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=("residual", "mobilenet_v2_0.35_96"))
    parser.add_argument("--predictor", default="sd855-cpu-kernels", help="what the base is by")
    parser.add_argument("--targets", nargs="+", type=float, default=(0.4, 0.55, 0.75), help="parts of the original")
    parser.add_argument("--kind", default="", help="part of the name of the kinds to run; all by default")
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--first", type=int, default=0, help="number of the first device")
    options = parser.parse_args(arguments)
    base = Base(make_goal([nl.Target(options.predictor, 1.0)], unknown="price").main.model)
    kinds = [kind for kind in KINDS if options.kind in kind.name]
    found: dict[str, list[Outcome]] = {kind.name: [] for kind in kinds}
    terminal = Terminal()
    for name, kind in itertools.product(options.networks, kinds):
        original = _original(name)
        predictor = _predictor(original, base, kind)
        for seed in range(options.first, options.first + options.devices):
            truth = Truth(base, kind, seed)
            for part in options.targets:
                found[kind.name].append(outcome(original, predictor, truth, part))
        terminal.log(f"{name}, {kind.name}: {_cells(found[kind.name])}")
    terminal.table(("devices", "met", "used", "least", "most", "timed", "most timed"), [
        (name, *_cells(rows)) for name, rows in found.items()
    ])  # fmt: skip


def _original(name: str) -> Original:
    import torch

    torch.manual_seed(0)
    if name == "residual":
        return read_original(Residual((16, 32, 64)).eval(), torch.zeros(1, 1, 16, 16), None)
    graph = nl.network(name).graph()
    return Original(name, graph, random_weights(graph))


def _predictor(original: Original, base: Base, kind: Kind) -> LatencyPredictor:
    """Fitted on the base of networks of other widths."""
    space, rng = width_space(original.graph, step=8, leave_out=False), np.random.default_rng(0)
    graphs = [space.graph(rng.integers(space.option_counts).tolist()) for _ in range(kind.fitted)]
    off = np.exp(kind.blurred * rng.standard_normal(len(graphs)))
    return LatencyPredictor("none").fit(graphs, (off * [*map(base.ms, graphs)]).tolist(), setup=SETUP)


def outcome(original: Original, predictor: LatencyPredictor, truth: Truth, part: float) -> Outcome:
    """Compresses the network to a part of what it truly takes on the device."""
    target_ms = part * truth.ms(original.graph)
    goal = make_goal([nl.Target(predictor, target_ms, "simulated")])
    at_hand = AtHand("simulated", seed=truth.seed, truth=truth)
    settings = CompressSettings(original, goal, None, None, step=8, device=at_hand)
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(RunFolder(Path(folder)), Compute(threads=1), Listener())
        scored = ScorePhase(settings, place).work()
        shaped = ShapePhase(settings, place, look_ahead(settings), scored).work()
    true_ms = truth.ms(settings.space.graph(shaped.choices))
    return Outcome(true_ms / target_ms, shaped.judged.is_met, shaped.judged.judgements)


def _cells(rows: Sequence[Outcome]) -> list[str]:
    shares, timed = np.array([one.share for one in rows]), [one.timed for one in rows]
    return [
        f"{(shares <= ALLOWED).sum()} of {len(rows)}", f"{np.median(shares):.3f}", f"{shares.min():.3f}",
        f"{shares.max():.3f}", f"{np.mean(timed):.1f}", f"{max(timed)}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
