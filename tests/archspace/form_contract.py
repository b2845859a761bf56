"""What every file format promises, whatever it is made of: a contract that the tests of each format inherit."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Pool, SeparableConv, Skip, Zero
from netlathe.archspace.errors import FormatError
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Pad,
    Pool2d,
    Softmax,
)

BLOCKS: list[Block] = [
    MBConv(4, 4, 8, 8),
    MBConv(4, 6, 9, 8, 2, kernel=5, se=0.25, activation=ActivationKind.HARD_SWISH, padding="symmetric"),
    MBConv(4, 4, 8, 8, expand=1, se=0.5, activation=ActivationKind.SWISH),
    ConvBlock(3, 5, 8, 8, 2, padding="symmetric"),
    ConvBlock(3, 5, 8, 8, activation=ActivationKind.HARD_SIGMOID),
    ConvBlock(3, 5, 8, 8, activation=None),
    SeparableConv(3, 5, 8, 8, activation=ActivationKind.SIGMOID),
    Pool("avg", 4, 8, 8),
    Pool("max", 4, 9, 8, 2, 2),
    LinearHead(4, 7, 4, 4),
    Skip(4, 4, 6, 6),
    Skip(4, 6, 6, 6, 2),
    Zero(4, 6, 6, 6, 2),
]
NETWORK = chain(
    [
        ("b00", ConvBlock(3, 6, 12, 12, 2).graph()),
        ("b01", MBConv(6, 6, 6, 6, se=0.25, activation=ActivationKind.HARD_SWISH).graph()),
        ("b02", MBConv(6, 8, 6, 6, 2, padding="symmetric").graph()),
        ("head", LinearHead(8, 10, 3, 3).graph()),
    ]
)
GRAPHS = [*(block.graph(2) for block in BLOCKS), NETWORK]


def without_batch_norm(graph: Graph) -> Graph:
    """Deployed, as in files."""
    nodes = (
        dataclasses.replace(n, op=dataclasses.replace(n.op, batch_norm=False)) if isinstance(n.op, Conv2d) else n
        for n in graph.nodes
    )
    return dataclasses.replace(graph, nodes=tuple(nodes))


def chain_of_ops() -> Graph:
    """A graph of what the blocks do not have."""
    builder = GraphBuilder((2, 6, 6, 4))
    x = builder.add("pad", Pad((1, 0), (0, 2)), 0)
    x = builder.add("act", Activation(ActivationKind.RELU6), x)
    x = builder.add("grouped", Conv2d(6, (3, 3), groups=2, batch_norm=False), x)
    y = builder.add("sigmoid", Activation(ActivationKind.SIGMOID), x)
    z = builder.add("join", Concat(), y, x, y)
    z = builder.add("pool", Pool2d("max", (2, 2), (2, 2)), z)
    z = builder.add("softmax", Softmax(), z)
    z = builder.add("gate", Activation(ActivationKind.HARD_SIGMOID), z)
    z = builder.add("mean", GlobalAvgPool(), z)
    z = builder.add("linear", FullyConnected(5), z)
    z = builder.add("relu", Activation(ActivationKind.RELU), z)
    builder.add("probabilities", Softmax(), z)
    return builder.build()


class FormContract:
    """Of a format with these functions; `foreign` writes a file as if netlathe had not."""

    ending: ClassVar[str]
    write: ClassVar[Callable[..., bytes]]
    read: ClassVar[Callable[[bytes | Path], Graph]]
    foreign: ClassVar[Callable[[Graph], bytes]]

    def test_equal_seeds_write_equal_files(self) -> None:
        write = type(self).write
        assert write(NETWORK, seed=5) == write(NETWORK, seed=5) != write(NETWORK, seed=6)

    def test_weights_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(FormatError, match="'b00/conv'"):
            type(self).write(NETWORK, {})

    def test_weights_beyond_two_gigabytes_are_refused(self) -> None:
        builder = GraphBuilder((1, 30_000))
        builder.add("linear", FullyConnected(20_000), 0)
        zero = np.float32(0)
        weights = {"kernel": np.broadcast_to(zero, (20_000, 30_000)), "bias": np.broadcast_to(zero, (20_000,))}
        with pytest.raises(FormatError, match="2 GB"):
            type(self).write(builder.build(), {"linear": weights})

    @pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.key[:6])
    def test_an_own_file_gives_back_the_very_graph(self, graph: Graph) -> None:
        read = type(self).read(type(self).write(graph))
        assert read == graph
        assert read.key == graph.key

    def test_a_file_is_read_from_a_path_too(self, tmp_path: Path) -> None:
        path = tmp_path / f"network{self.ending}"
        path.write_bytes(type(self).write(NETWORK))
        assert type(self).read(path) == NETWORK

    @pytest.mark.parametrize(
        "block", [b for b in BLOCKS if b.graph().nodes and not isinstance(b, Zero)], ids=lambda block: block.name
    )
    def test_a_foreign_file_gives_the_same_computation_without_batch_norm(self, block: Block) -> None:
        graph = block.graph(2)
        assert type(self).read(type(self).foreign(graph)).key == without_batch_norm(graph).key

    def test_a_foreign_network_is_grouped_into_its_blocks(self) -> None:
        read = type(self).read(type(self).foreign(NETWORK))
        scopes = list(dict.fromkeys(node.scope for node in read.nodes))
        assert scopes == [f"b{i:02d}" for i in range(len(read.segments()))]
        assert len(scopes) == len(NETWORK.segments())  # its blocks, known by their layers
        assert read.key == without_batch_norm(NETWORK).key

    def test_all_other_ops_are_read_from_foreign_files(self) -> None:
        graph = chain_of_ops()
        assert type(self).read(type(self).foreign(graph)).key == graph.key

    def test_a_missing_file_is_an_error_with_its_path(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match=rf"cannot read .*absent\{self.ending}: No such file"):
            type(self).read(tmp_path / f"absent{self.ending}")

    @pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(100), b"ONNX", b"TFL3"])
    def test_what_is_no_such_file_is_refused(self, content: bytes) -> None:
        with pytest.raises(FormatError, match=rf"not an? \{self.ending} file"):
            type(self).read(content)

    def test_an_error_in_a_file_begins_with_its_path(self, tmp_path: Path) -> None:
        path = tmp_path / f"broken{self.ending}"
        path.write_bytes(type(self).write(NETWORK)[:61])
        with pytest.raises(FormatError, match=rf"^.*broken\{self.ending}: "):
            type(self).read(path)

    def test_flipped_bytes_give_a_graph_or_a_format_error_and_nothing_else(self) -> None:
        content = type(self).write(NETWORK)
        source = random.Random(0)
        refused = 0
        for _ in range(300):
            broken = bytearray(content)
            for _ in range(source.choice((1, 1, 4))):
                broken[source.randrange(len(broken))] = source.randrange(256)
            try:
                type(self).read(bytes(broken))
            except FormatError:
                refused += 1
        assert 0 < refused < 300
