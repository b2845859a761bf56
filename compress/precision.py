"""Precisions as decisions: a network in segments, each of which computes in float32, in int8, or with narrow weights.

A segment is a stretch of the network between two places where a single tensor crosses, so that a change of precision
converts one tensor: a block of it, with its residual.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from netlathe.archspace.decisions import Choices
from netlathe.archspace.errors import GraphError, SpaceError, did_you_mean
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import clamped_nodes, gated_layers
from netlathe.archspace.precisions import Precision, expect_precision, mixed
from netlathe.compress.errors import CompressError

if TYPE_CHECKING:
    from netlathe.archspace.forms.tflite_audit import AuditedOp

Plan = Mapping[str, str]
"""Precision of each segment, by their names; segments that are not named stay float32."""

BOTH = (Precision.FLOAT32, Precision.INT8)
"""Precisions that each segment may have by default."""
_IN_FILES = {
    Precision.FLOAT32: ("float32", "float32"),
    Precision.INT8: ("int8", "int8"),
    Precision.INT8_WEIGHTS: ("float32 with int8 weights", "float32"),
    Precision.FLOAT16: ("float32 with float16 weights", "float32"),
}
"""Precision that a file's layers, and its other ops, have in a segment."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a network's nodes, by name. Its own name is the scope of its first node, or that node's name."""

    name: str
    nodes: tuple[str, ...]


def segments_of(graph: Graph) -> tuple[Segment, ...]:
    """The segments of a network, in their order: its blocks, cut where a single tensor crosses.

    A network without scopes is cut as Graph.scoped does. An activation stays with the op that applies it.
    """
    parts = (graph if graph.is_network else graph.scoped()).segments()
    ends = list(itertools.accumulate(len(part.nodes) for part in parts))
    fused = [(a, b) for a, b in (clamped_nodes(graph) | gated_layers(graph)).items()]
    cuts = [0, *(end for end in ends[:-1] if not any(a < end <= b for a, b in fused)), len(graph.nodes)]
    segments: list[Segment] = []
    taken: set[str] = set()
    for start, stop in itertools.pairwise(cuts):
        nodes = graph.nodes[start:stop]
        name = nodes[0].scope or nodes[0].name
        if name in taken:
            name = nodes[0].name
        taken.add(name)
        segments.append(Segment(name, tuple(node.name for node in nodes)))
    return tuple(segments)


def node_precisions(segments: Sequence[Segment], plan: Plan) -> dict[str, Precision]:
    """The precision of each node, by the plan, as mixed() and write_tflite take them. Raises CompressError for segments
    that there are not, and for unknown precisions."""
    known = {segment.name for segment in segments}
    for name in plan:
        if name not in known:
            raise CompressError(
                f"there is no segment {name!r:.80}{did_you_mean(name, known)}; there are {', '.join(sorted(known))}"
            )
    found = {}
    for segment in segments:
        precision = _precision(plan.get(segment.name, Precision.FLOAT32), f"segment {segment.name!r:.80}")
        found.update(dict.fromkeys(segment.nodes, precision))
    return found


def _precision(value: str, where: str) -> Precision:
    try:
        return expect_precision(value, where)
    except GraphError as error:
        raise CompressError(str(error)) from error


def audited_segments(data: bytes | Path, segments: Sequence[Segment]) -> dict[str, tuple[AuditedOp, ...]]:
    """The ops of a .tflite file that netlathe wrote of the network, by the segment that they belong to. What converts
    at the borders belongs to none. Raises FormatError for what is no .tflite file, CompressError for an op of no
    segment."""
    from netlathe.archspace.forms.tflite_audit import audit_tflite

    owners = {node: segment.name for segment in segments for node in segment.nodes}
    found: dict[str, list[AuditedOp]] = {segment.name: [] for segment in segments}
    for op in audit_tflite(data):
        if not op.converts:
            found[_owner(op, owners)].append(op)
    return {name: tuple(ops) for name, ops in found.items()}


def _owner(op: AuditedOp, owners: Mapping[str, str]) -> str:
    """The segment of an op: its result is named after its node, with a part of the work behind a dot."""
    name = op.name
    while name and name not in owners:
        name = name.rpartition(".")[0]
    if not name:
        raise CompressError(f"op {op.name!r:.80} ({op.kind}) is of no segment: is this a file of the same network?")
    return owners[name]


def check_precisions(data: bytes | Path, segments: Sequence[Segment], plan: Plan) -> None:
    """A check that a .tflite file computes as the plan has it. Raises CompressError naming the first op that does not,
    and as node_precisions and audited_segments do."""
    node_precisions(segments, plan)
    for name, ops in audited_segments(data, segments).items():
        wanted = Precision(plan.get(name, Precision.FLOAT32))
        of_layers, of_others = _IN_FILES[wanted]
        for op in ops:
            if op.precision != (of_layers if op.has_weights else of_others):
                raise CompressError(
                    f"segment {name!r:.80} is to be {wanted}, but its op {op.name!r:.80} ({op.kind}) computes in "
                    f"{op.precision}"
                )


@dataclass(frozen=True, eq=False)
class PrecisionSpace:
    """Networks that differ from a given one in the precisions of its segments.

    A DecisionSpace: one decision per segment, whose options are `precisions`. `at_batch` reads the same network for
    another batch. `precision_space` makes it.
    """

    name: str
    network: Graph
    segments: tuple[Segment, ...]
    precisions: tuple[Precision, ...] = BOTH
    at_batch: Callable[[int], Graph] | None = None

    @property
    def decision_names(self) -> tuple[str, ...]:
        """The names of the segments."""
        return tuple(segment.name for segment in self.segments)

    @property
    def option_counts(self) -> tuple[int, ...]:
        return (len(self.precisions),) * len(self.segments)

    @cached_property
    def reference(self) -> Choices:
        """The network with the first precision throughout."""
        return (0,) * len(self.segments)

    def network_name(self, choices: Sequence[int]) -> str:
        """The space's name and the choices. Raises SpaceError for too many, too few, or unknown choices."""
        self._check(choices)
        return f"{self.name}-{''.join(map(str, choices))}"

    def plan(self, choices: Sequence[int]) -> dict[str, Precision]:
        """The precision of each segment. Raises SpaceError for too many, too few, or unknown choices."""
        self._check(choices)
        return {s.name: self.precisions[choice] for s, choice in zip(self.segments, choices, strict=True)}

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        """The network in those precisions, with what converts at the borders (mixed). Raises SpaceError for too many,
        too few, or unknown choices, and for a batch that it cannot be had for."""
        return mixed(self._network(batch), node_precisions(self.segments, self.plan(choices)))

    def _network(self, batch: int) -> Graph:
        if batch == self.network.batch:
            return self.network
        if self.at_batch is None:
            own = self.network.batch
            raise SpaceError(f"{self.name!r:.80} is of batch {own}; to have it at {batch}, read it so (at_batch)")
        return self.at_batch(batch)

    def _check(self, choices: Sequence[int]) -> None:
        if len(choices) != len(self.segments):
            raise SpaceError(f"{self.name!r:.80} has {len(self.segments)} decisions, got {len(choices)} choices")
        for segment, choice in zip(self.segments, choices, strict=True):
            if not 0 <= choice < len(self.precisions):
                count = len(self.precisions)
                raise SpaceError(f"{segment.name!r:.80} has {count} options, there is no number {choice}")


def precision_space(
    graph: Graph,
    name: str = "network",
    *,
    precisions: Sequence[str] = BOTH,
    at_batch: Callable[[int], Graph] | None = None,
) -> PrecisionSpace:
    """The decision space of a float32 network's precisions, segment by segment; the first of `precisions` is the
    reference. Raises CompressError for unknown precisions, for the same one twice, and for none."""
    return PrecisionSpace(name, graph, segments_of(graph), expect_precisions(precisions), at_batch)


def expect_precisions(given: Sequence[str]) -> tuple[Precision, ...]:
    """The precisions of those names. Raises CompressError for unknown ones, for the same one twice, and for none."""
    found = tuple(_precision(value, "precisions") for value in given)
    if not found or len(set(found)) < len(found):
        raise CompressError(f"precisions must be different ones, got {', '.join(found) or 'none'}")
    return found
