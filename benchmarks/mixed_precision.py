"""Networks whose segments compute in float32 or int8, on this CPU: measured, and predicted from profiles of kernels.

    netlathe profile --device local --space kernels --budget 300 --output float32.sqlite
    netlathe profile --device local --space kernels --budget 300 --dtype int8 --output int8.sqlite
    python -m benchmarks.mixed_precision float32.sqlite int8.sqlite

Plans of each network: float32, int8, both ways of taking turns, halves, random ones, and int8 weights alone, which no
predictor knows. All of a network's are timed in the same rounds, at the speed that the machine had for the first
profile. Both ways of taking turns have each segment once in each precision: what they take together beyond the float32
and the int8 network is what their borders cost.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.networks import network
from netlathe.archspace.ops import Activation, ActivationKind, Add, Conv2d, FullyConnected, GlobalAvgPool
from netlathe.archspace.precisions import BORDERS, Precision
from netlathe.archspace.profile_file import ProfileFile
from netlathe.compress import PrecisionSpace, check_precisions, precision_space
from netlathe.events import Listener
from netlathe.predictor import LatencyPredictor, MixedPredictor
from netlathe.timing import time_networks

PRECISIONS = (Precision.FLOAT32, Precision.INT8, Precision.INT8_WEIGHTS)


def residual_network(size: int = 96, blocks: tuple[int, ...] = (32, 32, 64, 64, 128, 128)) -> Graph:
    """A residual network of basic blocks (He et al., arXiv:1512.03385); a change of width halves the image."""
    builder = GraphBuilder((1, size, size, 3))
    relu = Activation(ActivationKind.RELU)

    def conv(name: str, x: int, channels: int, kernel: int, stride: int, scope: str) -> int:
        return builder.add(f"{scope}/{name}", Conv2d(channels, (kernel, kernel), (stride, stride)), x, scope=scope)

    x, width = conv("conv", 0, blocks[0], 3, 2, "stem"), blocks[0]
    x = builder.add("stem/relu", relu, x, scope="stem")
    for number, channels in enumerate(blocks):
        scope, stride = f"b{number:02d}", 1 + (channels != width)
        y = builder.add(f"{scope}/relu1", relu, conv("conv1", x, channels, 3, stride, scope), scope=scope)
        y = conv("conv2", y, channels, 3, 1, scope)
        short = conv("short", x, channels, 1, stride, scope) if channels != width else x
        x = builder.add(f"{scope}/relu2", relu, builder.add(f"{scope}/sum", Add(), y, short, scope=scope), scope=scope)
        width = channels
    x = builder.add("head/pool", GlobalAvgPool(), x, scope="head")
    return builder.build(builder.add("head/linear", FullyConnected(100), x, scope="head"))


def plans(count: int, seed: int) -> dict[str, tuple[int, ...]]:
    """Choices of a network of so many segments, by what they are."""
    turns = tuple(index % 2 for index in range(count))
    half = count // 2
    rng = random.Random(seed)
    return {
        "float32": (0,) * count,
        "int8": (1,) * count,
        "turns": turns,
        "other turns": tuple(1 - choice for choice in turns),
        "int8, then float32": (1,) * half + (0,) * (count - half),
        "float32, then int8": (0,) * half + (1,) * (count - half),
        **{f"random {n}": tuple(rng.randrange(2) for _ in range(count)) for n in range(6)},
        "int8 weights": (2,) * count,
    }


def measure(space: PrecisionSpace, predictor: MixedPredictor, profile: Path, seed: int) -> None:
    """Prints a line for each plan of the space, and the errors over those of float32 and int8."""
    from netlathe.archspace.forms.tflite import write_tflite

    chosen = plans(len(space.segments), seed)
    graphs = {name: space.graph(choices) for name, choices in chosen.items()}
    files = {name: write_tflite(graph) for name, graph in graphs.items()}
    for name, content in files.items():
        check_precisions(content, space.segments, space.plan(chosen[name]))
    models = {graphs[name].key: content for name, content in files.items()}
    measured = {
        name: found.latency_ms
        for name, found in time_networks(graphs, models, profile, seed=seed, listener=Listener()).items()
    }
    errors, covered = [], []
    print(
        f"\n{space.name}, {len(space.segments)} segments\n  plan                borders   KB  measured ms  predicted ms"
    )
    for name, graph in graphs.items():
        line = f"  {name:20}{borders(graph):7} {len(files[name]) // 1000:5}  {measured[name]:10.3f}  "
        if name != "int8 weights":
            latency_ms, low_ms, high_ms = (float(values[0]) for values in predictor.predict_with_interval([graph]))
            errors.append(latency_ms / measured[name] - 1)
            covered.append(low_ms <= measured[name] <= high_ms)
            line += f"{latency_ms:10.3f} ({low_ms:.3f} to {high_ms:.3f}) {errors[-1]:+.1%}"
        print(line)
    mean = float(np.mean(np.abs(errors)))
    print(f"  mean error {mean:.1%}, {sum(covered)} of {len(covered)} within the interval of 90 %")
    both = ("turns", "other turns")
    beyond_ms = sum(measured[name] for name in both) - measured["float32"] - measured["int8"]
    count = sum(borders(graphs[name]) for name in both)
    print(f"  a border costs {1000 * beyond_ms / count:.1f} us, the mean of {count}")


def borders(graph: Graph) -> int:
    """Number of ops that convert."""
    return sum(isinstance(node.op, BORDERS) for node in graph.nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("float32", type=Path, help="profile of kernels in float32")
    parser.add_argument("int8", type=Path, help="profile of kernels in int8")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fitted = [LatencyPredictor().fit(ProfileFile(path).records()) for path in (options.float32, options.int8)]
    predictor = MixedPredictor(*fitted)
    graphs = {"mobilenet_v2_0.5_96": network("mobilenet_v2_0.5_96").graph(), "residual network": residual_network()}
    for name, graph in graphs.items():
        measure(precision_space(graph, name, precisions=PRECISIONS), predictor, options.float32, options.seed)


if __name__ == "__main__":
    main()
