"""Work for campaigns on simulated devices."""

from __future__ import annotations

from netlathe.archspace.blocks import ConvBlock
from netlathe.profiler.campaign import WorkItem


def conv_items(count: int, first: int = 4) -> list[WorkItem]:
    """That many different convolutions, small to large."""
    blocks = [ConvBlock(3, first + i, 16, 16) for i in range(count)]
    return [WorkItem(block.name, "block", block.graph()) for block in blocks]
