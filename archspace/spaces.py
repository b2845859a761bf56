"""Architecture: a chain of blocks. SearchSpace: a decision space of such chains, as candidates per position."""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from netlathe.archspace.block_names import parse_block
from netlathe.archspace.blocks import Block, MBConv
from netlathe.archspace.errors import BlockError, FormatError, SpaceError
from netlathe.archspace.graph import Graph, chain
from netlathe.archspace.jsonfile import read_json, write_json
from netlathe.archspace.ops import Shape

SCHEMA_VERSION = 1
MOST_BLOCKS = 10_000
"""Most blocks of an architecture, and of all candidates of a space."""


class _Stored(ABC):
    """Anything that has a JSON file of its own."""

    file_kind: ClassVar[str]

    @abstractmethod
    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    @abstractmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises FormatError when the content is none."""

    def save(self, path: str | Path) -> None:
        """Writes the file, whole or not at all. Raises OSError."""
        write_json(path, self.file_kind, SCHEMA_VERSION, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Raises FormatError when the file is missing, damaged, foreign or newer."""
        data = read_json(path, cls.file_kind, SCHEMA_VERSION)
        try:
            return cls.from_json(data)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Architecture(_Stored):
    """A network as a chain of blocks, each fed by the one before. Raises SpaceError when shapes do not follow."""

    file_kind = "architecture"
    name: str
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        if not self.blocks:
            raise SpaceError(f"architecture {self.name!r:.80} has no blocks")
        _check_count(f"architecture {self.name!r:.80}", len(self.blocks))
        for index, (before, after) in enumerate(itertools.pairwise(self.blocks)):
            if before.output_shape != after.input_shape:
                raise SpaceError(
                    f"architecture {self.name!r:.80}: block {index} ({before}) gives {before.output_shape}, "
                    f"but block {index + 1} ({after}) takes {after.input_shape}"
                )

    @property
    def input_shape(self) -> Shape:
        """(height, width, channels)."""
        return self.blocks[0].input_shape

    @property
    def output_shape(self) -> Shape:
        """(classes,) behind a head."""
        return self.blocks[-1].output_shape

    @cached_property
    def _graph(self) -> Graph:
        return self.graph()

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self._graph.macs

    @property
    def parameters(self) -> int:
        return self._graph.parameters

    def graph(self, batch: int = 1) -> Graph:
        """The whole network; nodes of block i have scope 'b<i>'."""
        return chain((block_scope(i), block.graph(batch)) for i, block in enumerate(self.blocks))

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "blocks": [block.name for block in self.blocks]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises FormatError when the content is not an architecture."""
        with _wording("an architecture"):
            _check_count("an architecture", len(data["blocks"]))
            return cls(_name(data), tuple(parse_block(name) for name in data["blocks"]))


def block_scope(index: int) -> str:
    """The scope of block `index` inside a network's graph."""
    return f"b{index:02d}"


@dataclass(frozen=True)
class SearchSpace(_Stored):
    """Chains of blocks, as candidates per position; a position with a single candidate is fixed.

    A DecisionSpace whose decisions are the positions that leave a choice. All candidates of a position map the same
    input shape to the same output shape, and positions follow on each other. Raises SpaceError otherwise.
    """

    file_kind = "space"
    name: str
    positions: tuple[tuple[Block, ...], ...]

    def __post_init__(self) -> None:
        if not self.positions:
            raise SpaceError(f"space {self.name!r:.80} has no positions")
        _check_count(f"space {self.name!r:.80}", sum(map(len, self.positions)))
        for index, candidates in enumerate(self.positions):
            if not candidates:
                raise SpaceError(f"space {self.name!r:.80}: position {index} has no candidates")
            if len(set(candidates)) != len(candidates):
                raise SpaceError(f"space {self.name!r:.80}: position {index} lists a candidate twice")
            first = candidates[0]
            for other in candidates[1:]:
                if (other.input_shape, other.output_shape) != (first.input_shape, first.output_shape):
                    raise SpaceError(f"space {self.name!r:.80}: position {index}: {other} and {first} differ in shape")
        self.architecture([0] * len(self.searchable))  # checks that the positions follow on each other

    @cached_property
    def searchable(self) -> tuple[int, ...]:
        """Indices of the positions that leave a choice."""
        return tuple(i for i, candidates in enumerate(self.positions) if len(candidates) > 1)

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(candidates) for candidates in self.positions)

    @property
    def input_shape(self) -> Shape:
        """(height, width, channels)."""
        return self.positions[0][0].input_shape

    @property
    def classes(self) -> int:
        """Width of the last output."""
        return self.positions[-1][0].output_shape[-1]

    def architecture(self, choices: Sequence[int], name: str = "") -> Architecture:
        """One candidate per searchable position. Raises SpaceError for too many, too few, or unknown choices."""
        if len(choices) != len(self.searchable):
            count = len(self.searchable)
            raise SpaceError(f"space {self.name!r:.80} has {count} searchable positions, got {len(choices)}")
        chosen = dict(zip(self.searchable, choices, strict=True))
        blocks = []
        for index, candidates in enumerate(self.positions):
            choice = chosen.get(index, 0)
            if not 0 <= choice < len(candidates):
                raise SpaceError(f"position {index} has {len(candidates)} candidates, there is no number {choice}")
            blocks.append(candidates[choice])
        separator = "-" if any(len(c) > 10 for c in self.positions) else ""
        return Architecture(name or f"{self.name}-{separator.join(map(str, choices))}", tuple(blocks))

    @cached_property
    def option_counts(self) -> tuple[int, ...]:
        """Number of candidates of each searchable position."""
        return tuple(len(self.positions[i]) for i in self.searchable)

    @cached_property
    def reference(self) -> tuple[int, ...]:
        """The space's MobileNetV2: 3x3 kernels and the largest expansion everywhere, nothing skipped."""
        choices = []
        for index in self.searchable:
            rank = [(-b.kernel, b.expand) if isinstance(b, MBConv) else (-99, 0) for b in self.positions[index]]
            choices.append(rank.index(max(rank)))
        return tuple(choices)

    @cached_property
    def main_path(self) -> tuple[int, ...]:
        """The network whose weights have most to give to the others: per position, of the MBConvs with the largest
        expansion the one of the middle kernel, else the candidate with most parameters."""
        path = []
        for index in self.searchable:
            blocks = self.positions[index]
            expand = max((b.expand for b in blocks if isinstance(b, MBConv)), default=None)
            widest = sorted((b.kernel, i) for i, b in enumerate(blocks) if isinstance(b, MBConv) and b.expand == expand)
            if widest:
                path.append(widest[len(widest) // 2][1])
            else:
                path.append(max(range(len(blocks)), key=lambda i: blocks[i].graph().parameters))
        return tuple(path)

    def network_name(self, choices: Sequence[int]) -> str:
        """Name of the architecture. Raises SpaceError for too many, too few, or unknown choices."""
        return self.architecture(choices).name

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        """The architecture's graph. Raises SpaceError for too many, too few, or unknown choices."""
        return self.architecture(choices).graph(batch)

    def choices(self, architecture: Architecture) -> tuple[int, ...]:
        """The inverse of `architecture`. Raises SpaceError when it is not in the space."""
        if len(architecture.blocks) != len(self.positions):
            raise SpaceError(f"{architecture.name!r} has {len(architecture.blocks)} blocks, not {len(self.positions)}")
        for candidates, block in zip(self.positions, architecture.blocks, strict=True):
            if block not in candidates:
                raise SpaceError(f"{architecture.name!r} is not in space {self.name!r:.80}: it has {block}")
        return tuple(self.positions[i].index(architecture.blocks[i]) for i in self.searchable)

    def distinct_blocks(self) -> list[Block]:
        """Every block that an architecture of the space can have, once, in order; what there is to profile."""
        blocks = dict.fromkeys(block for candidates in self.positions for block in candidates)
        return [block for block in blocks if block.graph().nodes]  # the identity runs nothing

    def sample(self, rng: random.Random) -> Architecture:
        """A uniformly random architecture."""
        return self.architecture([rng.randrange(len(self.positions[i])) for i in self.searchable])

    def sample_over_macs(self, count: int, seed: int) -> list[Architecture]:
        """Different networks over the whole range of MACs: up to half of them with the same candidate everywhere, from
        the lightest to the heaviest, the rest uniformly random (which all are of medium size)."""
        uniform = [self._uniform(candidate) for candidate in range(max(self.option_counts, default=1))]
        uniform.sort(key=lambda architecture: architecture.macs)
        places = min(len(uniform), max(2, count // 2))
        chosen = [uniform[round(i * (len(uniform) - 1) / max(1, places - 1))] for i in range(places)]
        found = dict.fromkeys(chosen)
        rng = random.Random(seed)
        while len(found) < min(count, self.size):
            found[self.sample(rng)] = None
        return list(found)[:count]

    def _uniform(self, candidate: int) -> Architecture:
        """The architecture with the same candidate at each position, the lightest one where there is none of that
        number."""
        choices = []
        for index in self.searchable:
            blocks = self.positions[index]
            macs = [block.graph().macs for block in blocks]
            choices.append(candidate if candidate < len(blocks) else macs.index(min(macs)))
        return self.architecture(choices)

    def save(self, path: str | Path) -> None:
        """Writes the file, whole or not at all. Raises OSError, and SpaceError for blocks of a class of your own, which
        `load` could not make from their names."""
        for block in self.distinct_blocks():
            if not _is_named_whole(block):
                raise SpaceError(
                    f"space {self.name!r:.80}: {block.name} is a {type(block).__module__}.{type(block).__qualname__}, "
                    "which a file cannot hold, only its name; make the space in Python wherever it is needed"
                )
        super().save(path)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "positions": [[block.name for block in c] for c in self.positions]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises FormatError when the content is not a space."""
        with _wording("a search space"):
            _check_count("a space", sum(map(len, data["positions"])))
            return cls(_name(data), tuple(tuple(parse_block(n) for n in c) for c in data["positions"]))


def _is_named_whole(block: Block) -> bool:
    """Whether the block's name alone makes it again."""
    try:
        return parse_block(block.name) == block
    except BlockError:
        return False


@contextmanager
def _wording(what: str) -> Iterator[None]:
    """Says of content that is none of these what is wrong with it, as a FormatError."""
    try:
        yield
    except (KeyError, TypeError, BlockError, SpaceError) as error:
        raise FormatError(f"this is not {what}: {_reason(error)}") from error


def _check_count(what: str, count: int) -> None:
    if count > MOST_BLOCKS:
        raise SpaceError(f"{what} has {count} blocks, more than the {MOST_BLOCKS} that netlathe takes")


def _name(data: dict[str, Any]) -> str:
    """Raises TypeError for a name that is no text."""
    if not isinstance(data["name"], str):
        raise TypeError(f"its name is {data['name']!r:.60}, and no text")
    return data["name"]


def _reason(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
