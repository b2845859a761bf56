"""A network for this CPU from Python, with a block and a data set of my own: measure, learn, search.

From the root of a checkout, some minutes:

    python -m examples.search_from_python
    python -m examples.search_from_python --quick     # a minute: few rounds and epochs, to see it run

Leaves a folder with the run; its report.html and search.png show how it went.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import netlathe as nl
from netlathe.archspace import ops
from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.graph import Graph, GraphBuilder

SIZE, CLASSES = 16, 4


@dataclass(frozen=True)
class Wide:
    """A block of my own: a grouped 3x3 convolution beside a shortcut. It needs a name, shapes and a graph, no more."""

    channels: int
    size: int
    groups: int

    @property
    def name(self) -> str:
        """Name in tables and files: it must tell the block's settings."""
        return f"wide_g{self.groups}_c{self.channels}_{self.size}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return (self.size, self.size, self.channels)

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.input_shape

    def graph(self, batch: int = 1) -> Graph:
        """The block as primitive ops; files, modules and predictions are made from it."""
        builder = GraphBuilder((batch, *self.input_shape))
        conv = ops.Conv2d(self.channels, (3, 3), (1, 1), self.groups, ops.Padding.SAME, True)  # with BatchNorm
        mixed = builder.add("conv", conv, 0)
        active = builder.add("relu", ops.Activation(ops.ActivationKind.RELU), mixed)
        builder.add("add", ops.Add(), active, 0)
        return builder.build()


def my_space() -> nl.SearchSpace:
    """Positions with candidates; one candidate is a fixed part."""
    half = SIZE // 2
    narrow = MBConv(16, 16, half, half, kernel=3, expand=3)
    own: tuple[Any, ...] = (Wide(16, half, 1), Wide(16, half, 4), narrow, Skip(16, 16, half, half))
    return nl.SearchSpace(
        "my-space", ((ConvBlock(3, 16, SIZE, SIZE, 2),), own, own, own, (LinearHead(16, CLASSES, half, half),))
    )


def my_images(count: int, seed: int) -> tuple[Any, Any]:
    """A data set of my own: stripes in four directions, in noise. Any pair of arrays will do, or a torch Dataset."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    y, x = np.mgrid[:SIZE, :SIZE]
    along = np.stack([x, y, x + y, x - y])[labels] + rng.integers(0, SIZE, (count, 1, 1))
    stripes = 60 * np.sin(2 * np.pi * along / 5)[..., None] + rng.normal(0, 60, (count, SIZE, SIZE, 3))
    return np.clip(128 + stripes, 0, 255).astype(np.uint8), labels


def main(given: Sequence[str] | None = None) -> None:
    """Profiles, fits, searches and exports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/from_python", help="a folder; default runs/from_python")
    parser.add_argument("--quick", action="store_true", help="few rounds and epochs")
    options = parser.parse_args(given)
    folder, quick = Path(options.output), options.quick
    folder.mkdir(parents=True, exist_ok=True)
    space, images = my_space(), {"train": my_images(1200, 0), "test": my_images(400, 1)}

    # 1. Time every distinct block of the space, and some whole networks; 2. learn what they cost.
    nl.profile(folder / "cpu.sqlite", space=space, networks=6, rounds=4 if quick else None)
    nl.fit(folder / "cpu.sqlite", folder / "cpu.json", residual="none" if quick else "auto")

    # 3. A target: 70 % of the most expensive network.
    usual_ms = nl.predict(space.architecture(space.reference), folder / "cpu.json").latency_ms
    target = nl.Target(folder / "cpu.json", ms=0.7 * usual_ms)

    # 4. Search, train, export, and time on this very CPU.
    found = nl.search(
        space,
        images,
        target=target,
        device="local",
        profile=folder / "cpu.sqlite",
        output=folder / "run",
        config=nl.SearchConfig(start_epochs=1, warmup_epochs=1, epochs=2, finalists=8) if quick else None,
        training=nl.TrainConfig(epochs=2 if quick else 20),
    )
    print(f"{found.name}: {', '.join(block.name for block in found.architecture.blocks)}")
    print(f"{found.measured_ms:.3g} ms, target {target.ms:.3g} ms, {found.test_accuracy:.1%} of the test images right")
    print(f"the network: {found.files['tflite']}, {found.files['onnx']}")
    print(f"look at {folder / 'run' / 'report.html'} and {folder / 'run' / 'search.png'}")


if __name__ == "__main__":
    main()
