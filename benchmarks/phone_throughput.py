"""Cost of profiling a phone beyond the inference itself, against the plain way: per block, push, benchmark_model
with its defaults, rm.

Runs on a phone of 127.0.0.1 (tests/loopback: ADB's real protocol, mksh, toybox, LiteRT) whose cable is late by so
many milliseconds each way. Two campaigns over all blocks, and two passes of the plain way over some of them, tell how
well each repeats; the ratio is taken where a campaign of so many rounds repeats at least as well as the plain way.

    python -m benchmarks.phone_throughput [--latency-ms 0.5 3] [--blocks 150] [--plain 30]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.presets import load_space
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Measurement, Round
from netlathe.profiler.adb import open_connection
from netlathe.profiler.benchmark_tool import BenchmarkOptions, parse
from netlathe.profiler.campaign import WorkItem, run_campaign
from netlathe.profiler.devices import DeviceOptions, open_device
from netlathe.profiler.phone.workspace import Workspace
from netlathe.profiler.protocol import PHONE_PLAN
from tests.loopback.adbd import AdbDaemon
from tests.loopback.link import Link
from tests.loopback.phone import BENCHMARK_MODEL, LoopbackPhone

ROUNDS = 5
CALLS = 40
FILES, FILE_BYTES, PUSHED, PASSES = 500, 20_000, 50, 5
"""Number of files and their size, how many of them get a push each, and passes over them."""
Latencies = Mapping[str, float]


@dataclass(frozen=True)
class Campaign:
    """One campaign over all blocks."""

    wall_s: float
    """From opening the phone to closing it."""
    inference_s: float
    rounds: Mapping[str, Sequence[Round]]

    def latencies(self, rounds: int) -> Latencies:
        return {key: Measurement(tuple(own[:rounds])).latency_ms for key, own in self.rounds.items()}


def some_blocks(count: int) -> list[WorkItem]:
    """Distinct blocks of the proxyless space at several widths and resolutions, without the 7x7 ones that are slow on
    x86 for reasons of their own."""
    blocks = {}
    for width, resolution in ((1.0, 224), (0.75, 224), (1.0, 160), (0.75, 160)):
        for block in load_space("proxyless", width=width, resolution=resolution).distinct_blocks():
            if "_k7_" not in block.name:
                blocks[block.name] = block
    if len(blocks) < count:
        raise SystemExit(f"there are only {len(blocks)} blocks")
    return [WorkItem(name, "block", block.graph()) for name, block in list(blocks.items())[:count]]


def our_way(address: str, items: Sequence[WorkItem], folder: Path, name: str) -> Campaign:
    started = time.monotonic()
    plan = replace(PHONE_PLAN, min_rounds=ROUNDS, max_rounds=ROUNDS, redo_drift=None)
    options = DeviceOptions(benchmark_binary=BENCHMARK_MODEL)
    with open_device(address, options) as device, ProfileFile(folder / name, create=True) as profile:
        summary = run_campaign(device, items, profile, plan)
        rounds = profile.rounds(device.setup)
    wall_s = time.monotonic() - started
    keys = {item.graph.key for item in items}
    return Campaign(wall_s, summary.inference_s, {key: own for key, own in rounds.items() if key in keys})


def plain_way(address: str, items: Sequence[WorkItem]) -> tuple[float, Latencies]:
    """Seconds per block (median), and what the tool prints as average."""
    seconds, latencies = [], {}
    connection = open_connection(address)
    tool, model = "/data/local/tmp/benchmark_model", "/data/local/tmp/block.tflite"
    connection.push(BENCHMARK_MODEL.read_bytes(), tool, mode=0o755)
    for item in items:
        content = write_tflite(item.graph)
        started = time.monotonic()
        connection.push(content, model)
        result = connection.run(f"{tool} --graph={model} --num_threads=1", timeout_s=120)
        connection.run(f"rm {model}")
        seconds.append(time.monotonic() - started)
        parsed = parse(result.stdout + result.stderr, result.code, BenchmarkOptions())
        latencies[item.graph.key] = parsed.runs.mean_ms
    connection.run(f"rm {tool}")
    connection.close()
    return statistics.median(seconds), latencies


def bare_call_ms(address: str, item: WorkItem) -> float:
    """Time that the program takes to start, load a small block and run it once, called in a loop on the phone."""
    connection = open_connection(address)
    tool, model = "/data/local/tmp/benchmark_model", "/data/local/tmp/block.tflite"
    connection.push(BENCHMARK_MODEL.read_bytes(), tool, mode=0o755)
    connection.push(write_tflite(item.graph), model)
    call = f"{tool} --graph={model} --num_runs=1 --warmup_runs=0 --min_secs=0 --warmup_min_secs=0 >/dev/null 2>&1"
    started = time.monotonic()
    connection.run(f"i=0; while [ $i -lt {CALLS} ]; do {call}; i=$((i+1)); done; rm {tool} {model}", timeout_s=60)
    took_s = time.monotonic() - started
    connection.close()
    return 1e3 * took_s / CALLS


def push_ms(address: str) -> tuple[float, float]:
    """Milliseconds per small file (medians): as models are sent, and with a push each, one pass after the other."""
    connection = open_connection(address)
    place = Workspace(connection)
    place.open()
    files = {f"m{i:03d}": os.urandom(FILE_BYTES) for i in range(FILES)}
    ours, plain = [], []
    for _ in range(PASSES):
        place.models = {}
        started = time.monotonic()
        place.put_models(files, {"tar", "sha256sum"})
        ours.append(1e3 * (time.monotonic() - started) / FILES)
        started = time.monotonic()
        for name, content in list(files.items())[:PUSHED]:
            connection.push(content, place.path(f"models/{name}.tflite"))
        plain.append(1e3 * (time.monotonic() - started) / PUSHED)
    place.remove()
    connection.close()
    return statistics.median(ours), statistics.median(plain)


def differences(first: Latencies, second: Latencies) -> tuple[float, float]:
    """Median and 90th percentile of |difference| in percent."""
    values = sorted(100 * abs(first[key] / second[key] - 1) for key in first)
    return statistics.median(values), values[int(0.9 * (len(values) - 1))]


def report(latency_ms: float, items: Sequence[WorkItem], sample: Sequence[WorkItem], folder: Path) -> None:
    with LoopbackPhone(folder / "phone") as phone, AdbDaemon(phone, link=Link(latency_s=latency_ms / 1e3)) as daemon:
        first = our_way(daemon.address, items, folder, "first")
        plain_s, plain_first = plain_way(daemon.address, sample)
        second = our_way(daemon.address, items, folder, "second")
        _, plain_second = plain_way(daemon.address, sample)
        archive_ms, single_ms = push_ms(daemon.address)
        bare_ms = bare_call_ms(daemon.address, min(items, key=lambda item: item.graph.macs))
    visits = len(items) * ROUNDS
    overheads = [1e3 * (one.wall_s - one.inference_s) / visits for one in (first, second)]
    plain = differences(plain_first, plain_second)
    print(f"link {latency_ms:g} ms each way, {len(items)} blocks, {ROUNDS} rounds:")
    print(
        f"  beyond inference, per block and round: {overheads[0]:.1f} and {overheads[1]:.1f} ms (anchors, opening: all)"
    )
    print(f"  of it the program's own start, in a bare call on this phone: {bare_ms:.1f} ms")
    print(f"  a campaign takes {first.wall_s:.1f} and {second.wall_s:.1f} s, {first.inference_s:.1f} s of it inference")
    print(
        f"  push per file, {FILES} of {FILE_BYTES / 1e3:g} kB: {archive_ms:.2f} ms, checked and in place; with a push "
        f"each {single_ms:.2f} ms, {single_ms / archive_ms:.1f} times as much"
    )
    print(
        f"  plain way: {plain_s:.2f} s a block, repeats within {plain[0]:.1f} / {plain[1]:.1f} % ({len(sample)} blocks)"
    )
    keys = {item.graph.key for item in sample}
    for rounds in range(1, ROUNDS + 1):
        ours = differences(
            {k: v for k, v in first.latencies(rounds).items() if k in keys},
            {k: v for k, v in second.latencies(rounds).items() if k in keys},
        )
        per_block_s = (first.wall_s + second.wall_s) / 2 / len(items) * rounds / ROUNDS
        better = "  as good as plain or better" if ours[0] <= plain[0] and ours[1] <= plain[1] else ""
        speed = f"{1e3 * per_block_s:.0f} ms a block, {plain_s / per_block_s:.0f} times as fast"
        print(f"  {rounds} rounds: {speed}, repeats within {ours[0]:.1f} / {ours[1]:.1f} %{better}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0.5, 3.0])
    parser.add_argument("--blocks", type=int, default=150)
    parser.add_argument("--plain", type=int, default=30, help="blocks that the plain way measures")
    options = parser.parse_args()
    items = some_blocks(options.blocks)
    sample = items[:: max(1, len(items) // options.plain)][: options.plain]
    for latency_ms in options.latency_ms:
        with tempfile.TemporaryDirectory() as folder:
            report(latency_ms, items, sample, Path(folder))


if __name__ == "__main__":
    main()
