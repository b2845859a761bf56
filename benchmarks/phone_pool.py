"""A pool of phones against one of them: wall time, and how well pooled records agree with a phone's own.

Simulated by default: each block takes what was measured on a Pixel 4 (data/latency/blocks_pixel1_pixel4.parquet), on
units whose speeds differ by up to a quarter and whose cables come off now and then; queue, campaigns, file and
calibration are the real ones, and only the clock is each phone's own. Single blocks scatter from unit to unit, too.

    python -m benchmarks.phone_pool [--units 1 8 40] [--blocks 600] [--scatter 0.015] [--seed 0]

With --loopback, phones of 127.0.0.1 share the work over ADB's real protocol, as far as this computer's cores show it: a
run there is this computer's own, then sixty times as long idle.

    python -m benchmarks.phone_pool --loopback [--units 1 2 8] [--blocks 40]
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from netlathe.archspace.configurations import graphs_of
from netlathe.archspace.graph import Graph
from netlathe.archspace.pools import pool_of
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.resources import data_path
from netlathe.profiler.campaign import WorkItem, run_campaign
from netlathe.profiler.device import DeviceEvent, Visit
from netlathe.profiler.devices import DeviceOptions
from netlathe.profiler.errors import ConnectionLostError
from netlathe.profiler.pool import PoolBoard, PoolPlan, PoolWork, WorkQueue, make_pool, run_pool
from netlathe.profiler.pool.phones import PhoneMember
from netlathe.profiler.protocol import PHONE_PLAN
from netlathe.profiler.testing import SETUP, SimulatedDevice
from tests.loopback.adbd import AdbDaemon
from tests.loopback.phone import BENCHMARK_MODEL, PIXEL_8, LoopbackPhone

OPEN_S, LOAD_S, AWAY_S = 15.0, 0.01, 60.0
"""Time to open a phone, to push a model, and for which a cable stays off."""
ANCHOR_MS = 3.0
NOISE = 0.02
"""Scatter of a visit."""
SPEED = 0.12
"""Scatter of the units' speeds: 95 % are within 26 %."""
DEATHS = 0.002
"""Chance of a round in which the cable comes off."""
SLOW = 60.0
"""Times as long as this computer that a phone of 127.0.0.1 takes, idle: its processor is not one of this computer's."""
PLAN = replace(PHONE_PLAN, redo_drift=None)


def recorded(count: int, seed: int) -> dict[str, tuple[WorkItem, float]]:
    """Blocks of a Pixel 4 by key, with the time in ms that was measured."""
    table = pd.read_parquet(data_path("latency/blocks_pixel1_pixel4.parquet"))
    found: dict[str, tuple[WorkItem, float]] = {}
    graphs = graphs_of(table.drop(columns=["pixel1_ms", "pixel4_ms"]))
    for place, (graph, ms) in enumerate(zip(graphs, table["pixel4_ms"], strict=True)):
        found.setdefault(graph.key, (WorkItem(f"block-{place}", "block", graph), float(ms)))
    return {key: found[key] for key in random.Random(seed).sample(sorted(found), min(count, len(found)))}


class Unit(SimulatedDevice):
    """A phone of a speed of its own."""

    def __init__(self, number: int, times_ms: Mapping[str, float], speed: float, scatter: float, seed: int) -> None:
        setup = replace(SETUP, device="Pixel 4", details=(("unit", f"{number:02}"),))
        super().__init__(setup=setup, noise=NOISE, seed=seed)
        self.times_ms, self.speed, self.scatter, self.number = times_ms, speed, scatter, number
        self.rng = random.Random(seed)

    def load(self, key: str, graph: Graph) -> None:
        super().load(key, graph)
        own = random.Random(f"{self.number} {key}").lognormvariate(0, self.scatter)
        self.loaded[key] = self.times_ms.get(key, ANCHOR_MS) * self.speed * own
        self.now += LOAD_S

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[DeviceEvent]:
        for visits in rounds:
            for event in super().time_rounds([visits], after=after):
                after = max(after, getattr(event, "started_at", 0.0))
                yield event
            self.now += PLAN.overhead_ms * len(visits) / 1e3
            if self.rng.random() < DEATHS:
                self.now += AWAY_S
                raise ConnectionLostError("the cable came off")


@dataclass(frozen=True)
class Outcome:
    """One pool's work."""

    wall_s: float
    batches: int
    errors: Sequence[float]
    """Relative errors of the pooled records, against what a phone of the median speed takes."""
    twice: int
    """Blocks that more than one unit has, beyond those that all measure."""
    pooled: int


def simulate(
    units: int, blocks: Mapping[str, tuple[WorkItem, float]], scatter: float, seed: int, path: Path
) -> Outcome:
    """Unit after unit, whichever is free first, takes its next batch from the file."""
    rng = random.Random(seed)
    times_ms = {key: ms for key, (_, ms) in blocks.items()}
    items = [item for item, _ in blocks.values()]
    phones = [Unit(n, times_ms, rng.lognormvariate(0, SPEED), scatter, seed + n) for n in range(units)]
    free = [(OPEN_S, phone.number) for phone in phones]
    ends_s, batches = [], 0
    with ProfileFile(path, create=True) as file:
        queues = [WorkQueue(file, phone.setup, items, units=units) for phone in phones]
        while free:
            at_s, number = heapq.heappop(free)
            phone, queue = phones[number], queues[number]
            phone.now = at_s
            batch = queue.take(PLAN)
            if not batch:
                ends_s.append(at_s)
                continue
            batches += 1
            try:
                run_campaign(phone, batch, file, PLAN, clock=phone.clock)
                queue.settle(batch)
            except ConnectionLostError:
                phone.now += OPEN_S
                queue.give_back()
            heapq.heappush(free, (phone.now, number))
        pool = pool_of(phones[0].setup)
        levels = make_pool(file, pool)
        pooled = [phone for phone in phones if levels[phone.setup].is_pooled]
        middle = math.exp(statistics.median(math.log(phone.speed) for phone in pooled))
        errors = [
            abs(record.latency_ms / (times_ms[record.graph.key] * middle) - 1)
            for record in file.records(pool)
            if record.graph.key in times_ms
        ]
        shared = set(queues[0].overlap)
        owners = [set(file.outcomes(phone.setup)) - shared for phone in phones]
        twice = sum(sum(key in own for own in owners) > 1 for key in times_ms)
    return Outcome(max(ends_s), batches, errors, twice, len(pooled))


def show_simulated(options: argparse.Namespace, folder: Path) -> None:
    blocks = recorded(options.blocks, options.seed)
    print(f"{len(blocks)} blocks of a Pixel 4; single blocks scatter by {100 * options.scatter:.1f} % between units")
    print("units  wall    faster  of ideal  batches  measured twice  pooled  error: median  90 %")
    alone_s = 0.0
    for units in options.units or (1, 8, 40):
        one = simulate(units, blocks, options.scatter, options.seed, folder / f"{units}.sqlite")
        alone_s = alone_s or one.wall_s * units
        ratio = alone_s / one.wall_s
        errors = sorted(one.errors)
        print(
            f"{units:5}  {one.wall_s:5.0f} s  {ratio:5.1f}  {100 * ratio / units:6.0f} %  {one.batches:7}  "
            f"{one.twice:14}  {one.pooled:6}  {100 * statistics.median(errors):11.1f} %  "
            f"{100 * errors[int(0.9 * len(errors))]:.1f} %"
        )


def show_loopback(options: argparse.Namespace, folder: Path) -> None:
    items = [item for item, _ in recorded(options.blocks, options.seed).values()]
    print(f"{len(items)} blocks on phones of 127.0.0.1")
    print("phones  wall    faster")
    alone_s = 0.0
    for units in options.units or (1, 2, 8):
        wall_s = run_loopback(units, items, folder)
        alone_s = alone_s or wall_s
        print(f"{units:6}  {wall_s:5.1f} s  {alone_s / wall_s:.2f}", flush=True)


def run_loopback(units: int, items: Sequence[WorkItem], folder: Path) -> float:
    """Seconds from the first phone's opening to the last one's end."""
    with ExitStack() as stack:
        members = []
        for number in range(units):
            properties = {**PIXEL_8, "ro.serialno": f"POOL{number}"}
            phone = stack.enter_context(LoopbackPhone(folder / f"{units}-{number}", properties=properties))
            phone.fault("slow", factor=SLOW, idle=True)
            daemon = stack.enter_context(AdbDaemon(phone))
            members.append(PhoneMember(daemon.address, DeviceOptions(benchmark_binary=BENCHMARK_MODEL)))
        board = PoolBoard(lambda pool: PoolWork(items))
        began_s = time.monotonic()
        run_pool([members], PoolPlan(units, folder / f"{units}.sqlite", rounds=5), board, lambda message: None)
        return time.monotonic() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.phone_pool", description=__doc__)
    parser.add_argument("--units", type=int, nargs="+", help="phones of each pool")
    parser.add_argument("--blocks", type=int, default=600, help="blocks to measure; default 600")
    parser.add_argument("--scatter", type=float, default=0.015, help="of a block between units; default 0.015")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loopback", action="store_true", help="real phones of 127.0.0.1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="phone-pool-") as folder:
        (show_loopback if options.loopback else show_simulated)(options, Path(folder))


if __name__ == "__main__":
    main()
