"""Cost of a depthwise kernel size in MACs, and in milliseconds through two runtimes on this CPU.

    python -m benchmarks.kernel_cost [--rounds 30]

One MBConv (28x28, 40 channels, expansion 6, stride 1) with kernel 3, 5 and 7, in the same rounds per runtime; the
ratio is to kernel 3, the spread the interquartile range of the rounds over their median.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.profile_file import ProfileFile
from netlathe.profiler import Plan, WorkItem, open_device, run_campaign

BLOCKS = [MBConv(40, 40, 28, 28, kernel=kernel) for kernel in (3, 5, 7)]


def latencies_ms(device_name: str, rounds: int) -> list[tuple[float, float]]:
    """(ms, spread) per block."""
    items = [WorkItem(block.name, "block", block.graph()) for block in BLOCKS]
    plan = Plan(min_rounds=rounds, max_rounds=rounds)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_device(device_name) as device,
        ProfileFile(Path(folder) / "p.sqlite", create=True) as profile,
    ):
        summary = run_campaign(device, items, profile, plan)
    found = {r.name: r.measurement for r in summary.records if r.measurement}
    return [(found[b.name].latency_ms, 1.349 * found[b.name].spread) for b in BLOCKS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    table = Table("block", "M MACs", "LiteRT ms", "spread", "onnxruntime ms", "spread", box=None)
    litert, ort = (latencies_ms(name, rounds) for name in ("local", "onnxruntime"))
    for block, a, b in zip(BLOCKS, litert, ort, strict=True):
        macs = block.graph().macs
        table.add_row(
            block.name,
            f"{macs / 1e6:.2f} ({macs / BLOCKS[0].graph().macs:.2f}x)",
            f"{a[0]:.3f} ({a[0] / litert[0][0]:.1f}x)", f"{a[1]:.1%}",
            f"{b[0]:.3f} ({b[0] / ort[0][0]:.1f}x)", f"{b[1]:.1%}",
        )  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
