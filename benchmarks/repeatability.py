"""How well latencies repeat: two passes over the same blocks, some minutes apart, by several ways of measuring.

    python -m benchmarks.repeatability                   # 5 minutes apart
    python -m benchmarks.repeatability --busy            # another program computes during the second pass

Prints the median and the 90th percentile of |difference| between the passes, and what a block costs in inference time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Round, lower_quartile
from netlathe.profiler.campaign import WorkItem, run_campaign
from netlathe.profiler.device import Timing, Visit
from netlathe.profiler.devices import Device, open_device
from netlathe.profiler.errors import ProfilerError
from netlathe.profiler.protocol import Plan, round_drifts

SIZES = {16: 56, 24: 56, 32: 28, 40: 28, 64: 14, 96: 14, 160: 7}  # channels -> pixels, as in MobileNetV2
NEIGHBOUR = "import numpy as np\nx = np.ones(4_000_000)\nwhile True: x = x * 1.0001"

Latencies = dict[str, float]
"""Graph key -> ms."""


@dataclass(frozen=True)
class Pass:
    """Latencies of one pass over the blocks."""

    consecutive_ms: Mapping[str, Sequence[float]]
    rounds: Mapping[str, Sequence[Round]]
    anchors: frozenset[str]


def varied_blocks(count: int, seed: int) -> list[WorkItem]:
    """Different MBConv blocks of kernels 3 and 5 (7x7 takes XNNPACK on x86 30 times as long)."""
    rng = random.Random(seed)
    blocks: dict[str, MBConv] = {}
    while len(blocks) < count:
        channels = rng.choice(list(SIZES))
        block = MBConv(
            channels, rng.choice([channels, channels + 8]), SIZES[channels], SIZES[channels], rng.choice([1, 1, 2]),
            kernel=rng.choice([3, 5]), expand=rng.choice([1, 3, 6]),
        )  # fmt: skip
        blocks[block.name] = block
    return [WorkItem(name, "block", block.graph()) for name, block in blocks.items()]


def measure(device: Device, items: Sequence[WorkItem], rounds: int, path: Path) -> Pass:
    """Each block 50 times in a row, then a campaign of that many rounds."""
    consecutive: dict[str, list[float]] = {}
    for item in items:
        device.load(item.graph.key, item.graph)
        timing = next(device.time_rounds([[Visit(item.graph.key, 50, 2)]]))
        assert isinstance(timing, Timing)
        if isinstance(timing.outcome, ProfilerError):
            raise timing.outcome
        consecutive[item.graph.key] = list(timing.outcome)
        device.unload([item.graph.key])
    with ProfileFile(path, create=True) as profile:
        run_campaign(device, items, profile, Plan(min_rounds=rounds, max_rounds=rounds))
        return Pass(consecutive, profile.rounds(device.setup), frozenset(profile.anchors(device.setup)))


def round_medians(passes: Sequence[Pass], keys: Sequence[str]) -> dict[float, dict[str, float]]:
    """{round: {key: median ms}} of these graphs over both passes."""
    table: dict[float, dict[str, float]] = {}
    for one in passes:
        for key in keys:
            for r in one.rounds[key]:
                table.setdefault(r.started_at, {})[key] = statistics.median(r.samples_ms)
    return table


def corrected(one: Pass, keys: Sequence[str], drifts: Mapping[float, float]) -> Latencies:
    """Median over rounds of the lower quartile of runs, each divided by the round's drift."""
    return {
        key: statistics.median(lower_quartile(r.samples_ms) / drifts.get(r.started_at, 1.0) for r in one.rounds[key])
        for key in keys
    }


def methods(passes: Sequence[Pass], items: Sequence[WorkItem]) -> dict[str, list[Latencies]]:
    """Latencies in both passes by method. The blocks that serve as anchors in the last one are judged in none."""
    by_size = sorted(items, key=lambda item: item.graph.macs)
    own = [by_size[int((i + 0.5) * len(by_size) / 5)].graph.key for i in range(5)]
    keys = [item.graph.key for item in items if item.graph.key not in own and item.graph.key not in passes[0].anchors]
    standard = round_drifts(round_medians(passes, list(passes[0].anchors)))
    blocks = round_drifts(round_medians(passes, own))
    return {
        "mean of 50 consecutive runs": [{k: statistics.fmean(p.consecutive_ms[k]) for k in keys} for p in passes],
        "median of 50 consecutive runs": [{k: statistics.median(p.consecutive_ms[k]) for k in keys} for p in passes],
        "rounds, not corrected": [corrected(p, keys, {}) for p in passes],
        "rounds, anchors (netlathe profile)": [corrected(p, keys, standard) for p in passes],
        "rounds, five of the blocks as anchors": [corrected(p, keys, blocks) for p in passes],
    }


def report(passes: Sequence[Pass], items: Sequence[WorkItem], rounds: int) -> None:
    """Prints the table."""
    print(f"{'method':40} {'median':>8} {'90 %':>8} {'ms a block':>11}")
    for name, (first, second) in methods(passes, items).items():
        differences = np.abs([second[key] / first[key] - 1 for key in first])
        runs = 50 if "consecutive" in name else 5 * rounds
        cost_ms = runs * statistics.fmean(first.values())
        print(f"{name:40} {np.median(differences):8.1%} {np.quantile(differences, 0.9):8.1%} {cost_ms:11.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="local", help="local or onnxruntime")
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--gap-s", type=float, default=300)
    parser.add_argument("--busy", action="store_true", help="run a neighbour that computes during the second pass")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    items = varied_blocks(options.blocks, options.seed)
    with open_device(options.device) as device, tempfile.TemporaryDirectory() as folder:
        print(device.setup, f"{len(items)} blocks, {options.rounds} rounds, {options.gap_s:g} s apart", sep="\n")
        passes = [measure(device, items, options.rounds, Path(folder) / "first")]
        time.sleep(options.gap_s)
        neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) if options.busy else None
        try:
            passes.append(measure(device, items, options.rounds, Path(folder) / "second"))
        finally:
            if neighbour:
                neighbour.kill()
                neighbour.wait()
    report(passes, items, options.rounds)


if __name__ == "__main__":
    main()
