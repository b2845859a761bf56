"""Any model's latency from a profile of single kernels, beside the common ways to predict it.

    python -m benchmarks.any_model --device local --output runs/any_model       # networks of netlathe's own
    python -m benchmarks.any_model --device onnxruntime --models FOLDER         # and .onnx and .tflite files in there
    python -m benchmarks.any_model --part phone                                 # 70 networks of a phone, public tables
    python -m benchmarks.any_model --part export --models FOLDER                # networks of timm and torchvision
    python -m benchmarks.any_model --part read --models FOLDER --predictor P    # what is read, priced, and its MACs
    python -m benchmarks.any_model --part weights --models FOLDER               # what is computed with the weights read
    python -m benchmarks.any_model --part given --models FOLDER [--packages W]  # both, of files that packages bring

Of the device: up to `--kernels` kernels are profiled, then every network is timed in the same file. Whatever is learned
from networks (slope, offset, rates per MB and kernel; a ratio for the others) is learned without the family of the
network that is predicted; kernels know no families. Families go by the first letters of the names.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.any_model import host, phone, reading
from netlathe.archspace.errors import NetlatheError
from netlathe.cli.console import Terminal


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.any_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("device", "phone", "export", "read", "weights", "given"), default="device")
    parser.add_argument("--device", default="local")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--kernels", type=int, default=300)
    parser.add_argument("--models", type=Path, default=None, help="folder of .onnx and .tflite files")
    parser.add_argument("--packages", type=Path, default=None, help="given: wheels and tarballs to take models from")
    parser.add_argument("--names", nargs="+", default=(), help="networks to export: timm:NAME, torchvision:NAME")
    parser.add_argument("--predictor", default=reading.PREDICTOR, help="who prices what is read; best one of kernels")
    parser.add_argument("--most-macs", type=float, default=6e9, help="larger networks are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=None, help="folder of the profile; an existing one is continued")
    options = parser.parse_args(arguments)
    terminal = Terminal()
    folder = options.output or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    if options.part == "phone":
        phone.report(terminal)
    elif options.part == "read":
        reading.report(options.models, options.predictor, terminal)
    elif options.part == "weights":
        from benchmarks.any_model import weights  # torch

        weights.report(options.models, terminal)
    elif options.part == "given":
        from benchmarks.any_model import given

        given.report(options.models, options.packages, terminal)
    elif options.part == "export":
        if options.models is None:
            raise NetlatheError("--models: name the folder to export into")
        from benchmarks.any_model import corpus  # torch, timm and torchvision

        corpus.export(options.models, terminal, options.names)
    else:
        host.report(options, folder, terminal)


if __name__ == "__main__":
    main()
