"""A machine whose clock, speed, noise and failures are ours: what the protocol is judged against."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Setup
from netlathe.profiler.campaign import WorkItem
from netlathe.profiler.device import DeviceEvent, RoundEnd, Timing, Visit, check_loadable
from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError

EPOCH = 1.7e9  # when every simulated machine is switched on, in seconds

SETUP = Setup("simulated", "none", "none", "simulation", "1")


def true_ms(graph: Graph) -> float:
    """What the graph takes on the undisturbed machine."""
    return 0.01 + graph.macs / 1e7


class SimulatedDevice:
    """A run takes `true_ms`, times `slowdown(now)`, times log-normal noise of sigma `noise`, and in a share `outliers`
    of the runs three times as long. `now`, in seconds, advances by what runs take; the cable is pulled at `breaks_at`.
    """

    def __init__(
        self,
        *,
        setup: Setup = SETUP,
        slowdown: Callable[[float], float] = lambda now: 1.0,
        noise: float = 0.0,
        outliers: float = 0.0,
        breaks_at: float = float("inf"),
        unsupported: Iterable[str] = (),
        broken: Iterable[str] = (),
        seed: int = 0,
    ) -> None:
        self.setup = setup
        self.slowdown, self.noise, self.outliers, self.breaks_at = slowdown, noise, outliers, breaks_at
        self.unsupported, self.broken = set(unsupported), set(broken)
        self.now = 0.0
        self.loaded: dict[str, float] = {}
        self.loads: list[str] = []
        self.most_loaded = 0
        self.visits: list[Visit] = []
        self.rounds: list[float] = []  # duration of each, in s
        self.left_over: list[DeviceEvent] = []  # what an interrupted campaign did not fetch
        self._closed = False
        self._rng = random.Random(seed)

    def clock(self) -> float:
        return self.now

    def load(self, key: str, graph: Graph) -> None:
        self._check()
        check_loadable(graph, self.setup)
        self.loads.append(key)
        if key in self.unsupported:
            raise UnsupportedGraphError("op 'conv' is not known here")
        self.loaded[key] = true_ms(graph)
        self.most_loaded = max(self.most_loaded, len(self.loaded))

    def unload(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.loaded.pop(key, None)

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[DeviceEvent]:
        for visits in rounds:
            start = self.now
            after = max(EPOCH + start, after + 1e-3)
            for visit in visits:
                self._check()
                self.visits.append(visit)
                yield Timing(visit.key, self._outcome(visit), {"init_ms": 0.5})
            self.rounds.append(self.now - start)
            yield RoundEnd(after, self._conditions())

    def recovered(self) -> Iterator[DeviceEvent]:
        yield from self.left_over

    def _outcome(self, visit: Visit) -> list[float] | MeasurementError | UnsupportedGraphError:
        if visit.key in self.broken or visit.key not in self.loaded:
            return MeasurementError("segmentation fault")
        return [self._run(visit.key) for _ in range(visit.warmups + visit.runs)][visit.warmups :]

    def _run(self, key: str) -> float:
        ms = self.loaded[key] * self.slowdown(self.now) * self._rng.lognormvariate(0, self.noise)
        ms *= 3 if self._rng.random() < self.outliers else 1
        self.now += ms / 1e3
        return ms

    def _conditions(self) -> Mapping[str, float | str]:
        return {"load_1min": 0.25}

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise DeviceError("the simulated device is closed")
        if self.now >= self.breaks_at:
            raise DeviceError("the cable was pulled")

    def __enter__(self) -> SimulatedDevice:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def conv_items(count: int, first: int = 4) -> list[WorkItem]:
    """That many different convolutions, small to large."""
    blocks = [ConvBlock(3, first + i, 16, 16) for i in range(count)]
    return [WorkItem(block.name, "block", block.graph()) for block in blocks]
