"""How many files `nl.predict` prices a minute. How soon a command answers: benchmarks.startup.

Networks drawn from the space `proxyless` and published ones at several widths, written as .onnx and .tflite without
netlathe's metadata, as by another tool; files a minute on one core, by the processor's time of nl.predict([files], P).

    python -m benchmarks.predict_many [--predictor pixel4-cpu-networks] [--runs 7] [--networks 60] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import onnx

import netlathe as nl
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_file import pack, unpack
from netlathe.archspace.graph import Graph
from netlathe.archspace.networks import network

WIDTHS = (0.5, 1.0, 1.4, 2.0, 2.6)
"""Widths of MobileNetV2; the widest has 68 MB of weights."""
KINDS = ("onnx", "tflite")


def networks(count: int) -> dict[str, Graph]:
    """Different networks of 60 to 170 ops, by name."""
    found = {f"mobilenet_v2_{width}": network(f"mobilenet_v2_{width}").graph() for width in WIDTHS[:count]}
    space, rng = nl.load_space("proxyless"), random.Random(0)
    return found | {f"proxyless_{n}": space.sample(rng).graph() for n in range(count - len(found))}


def write(folder: Path, count: int) -> dict[str, list[Path]]:
    """The files of each kind; those that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for name, graph in networks(count).items():
        for kind, paths in files.items():
            path = folder / f"{name}.{kind}"
            paths.append(path)
            if not path.exists():
                path.write_bytes(_foreign_onnx(graph) if kind == "onnx" else _foreign_tflite(graph))
    return files


def _foreign_onnx(graph: Graph) -> bytes:
    model = onnx.ModelProto.FromString(write_onnx(graph))
    del model.metadata_props[:]
    return bytes(model.SerializeToString())


def _foreign_tflite(graph: Graph) -> bytes:
    return pack(replace(unpack(write_tflite(graph)), metadata={}), "another tool")


def spread(values: list[float], unit: str = " s") -> str:
    digits = 2 if values and max(values) < 100 else 0
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"


def many(files: dict[str, list[Path]], predictor: str, runs: int) -> None:
    """Prints files a minute on one core, by kind."""
    model = nl.LatencyPredictor.load(predictor)
    for kind, paths in files.items():
        nl.predict([*paths], model)
        rates = []
        for _ in range(runs):
            started = time.process_time()
            nl.predict([*paths], model)
            rates.append(60 * len(paths) / (time.process_time() - started))
        size_mb = sum(path.stat().st_size for path in paths) / 1e6 / len(paths)
        print(f"{len(paths)} .{kind} files of {size_mb:.0f} MB: {spread(rates, '')} files a minute on one core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictor", default="pixel4-cpu-networks")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="where the files are kept for other runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = write(options.folder or Path(scratch), options.networks)
        many(files, options.predictor, options.runs)


if __name__ == "__main__":
    main()
