"""How soon `netlathe time` answers: seconds from the command's start to its first estimate, and to its last word.

Run as a user runs it, in a process of its own, off a terminal; medians and the range over several runs, and how far the
first estimate is from the last word of the same run.

    python -m benchmarks.first_answer [--network mobilenet_v2_1.0_800] [--runs 5]
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time

PROGRAM = "import sys; from netlathe.cli import main; sys.exit(main())"
FIRST = re.compile(r": (?P<ms>[0-9.]+) ms after (?P<rounds>\d+) rounds")
LAST = re.compile(r"^\s*\S+\s+(?P<ms>[0-9.]+)\s+[0-9.]+ to [0-9.]+\s+(?P<rounds>\d+)\s*$")


def answers(network: str) -> tuple[float, float, float, float]:
    """Seconds to the first estimate and to the end, and both latencies in ms."""
    started = time.monotonic()
    command = [sys.executable, "-u", "-c", PROGRAM, "time", network]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        first_s = first_ms = last_ms = 0.0
        for line in process.stdout:
            if not first_ms and (found := FIRST.search(line)):
                first_s, first_ms = time.monotonic() - started, float(found["ms"])
            elif found := LAST.match(line):
                last_ms = float(found["ms"])
    if process.returncode or not first_ms or not last_ms:
        raise SystemExit(f"netlathe time {network} failed with exit code {process.returncode}")
    return first_s, time.monotonic() - started, first_ms, last_ms


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="mobilenet_v2_1.0_800")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    first_s, last_s, first_ms, last_ms = map(
        list, zip(*(answers(options.network) for _ in range(options.runs)), strict=True)
    )
    off = [100 * abs(first / last - 1) for first, last in zip(first_ms, last_ms, strict=True)]
    print(f"{options.network}, {statistics.median(last_ms):.1f} ms on this CPU, {options.runs} runs:")
    print(f"  first estimate after {spread(first_s)}, off the last word by {statistics.median(off):.1f} %")
    print(f"  last word after {spread(last_s)}")


if __name__ == "__main__":
    main()
