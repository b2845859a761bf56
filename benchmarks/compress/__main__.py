"""Networks compressed for a latency: to a share of their own on this machine, or beside other ways to do it.

    python -m benchmarks.compress --part structure --models FOLDER [--share 0.6] [--names tv_resnet18 ...]
    python -m benchmarks.compress --part cifar --data cifar10.parquet [--seeds 3] [--output runs/compress_cifar]

`structure`: models of others without data, by structure alone, judged by the stopwatch; `python -m
benchmarks.any_model --part export --models FOLDER` writes some, with random weights. The predictor is fitted on 300
kernels of this machine.

`cifar`: ResNet-20 and MobileNetV2 x0.5 for 32x32, trained once, then brought to 35, 50 and 75 % of their milliseconds
on this machine and of a Pixel 4's predictor, each choice trained for --epochs over --images: uniform L1, the same
widths refitted and from scratch, our scores with MACs as the cost, NetAdapt, an actor-critic, and nl.compress. --steps
choose needs a quiet machine, as choices are timed; what is finished in --output stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from netlathe.cli.console import Terminal

STEPS = ("choose", "train", "report")
DEVICES = ("host", "pixel4-cpu-networks")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compress", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("structure", "cifar"), default="structure")
    parser.add_argument("--models", type=Path, default=None, help="structure: folder of .onnx files")
    parser.add_argument("--share", type=float, default=0.6, help="structure: target, in parts of the original's ms")
    parser.add_argument("--names", nargs="+", default=(), help="networks, or files without .onnx; all by default")
    parser.add_argument("--seed", type=int, default=0, help="structure: seed")
    parser.add_argument("--data", type=Path, default=None, help="cifar: the images")
    parser.add_argument("--images", type=int, default=12500, help="cifar: training images of all methods")
    parser.add_argument("--epochs", type=int, default=1, help="cifar: epochs over these")
    parser.add_argument("--seeds", type=int, default=3, help="cifar: trainings of each choice")
    parser.add_argument("--methods", nargs="+", default=(), help="cifar: methods by name; all by default")
    parser.add_argument("--devices", nargs="+", choices=DEVICES, default=DEVICES, help="cifar: whose targets")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--output", type=Path, default=Path("runs/compress"), help="what is finished there stays")
    options = parser.parse_args(arguments)
    if options.part == "structure":
        from benchmarks.compress import structure as part
    else:
        from benchmarks.compress import cifar as part  # type: ignore[no-redef]
    part.run(options, Terminal())


if __name__ == "__main__":
    main()
