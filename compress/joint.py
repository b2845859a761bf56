"""Widths, residual blocks and precisions of a network as one decision space."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import clamped_nodes, gated_layers
from netlathe.archspace.precisions import Precision, mixed
from netlathe.compress.errors import CompressError
from netlathe.compress.importance import Scores
from netlathe.compress.precision import Segment, expect_precisions, node_precisions, segments_of
from netlathe.compress.widths import LEAST_SHARE, STEP, WidthSpace, width_space


@dataclass(frozen=True)
class Sensitivity:
    """How much the loss rises where single decisions are taken otherwise, in nats."""

    rate: float
    """Rise of the loss per unit of the widths' scores (WidthSpace.option_scores)."""
    rises: Mapping[str, Sequence[float]]
    """Rise of the loss of each option, by the names of blocks and segments: 0 for the first, which changes nothing."""


@dataclass(frozen=True, eq=False)
class JointSpace(WidthSpace):
    """Networks that differ from a given one in the widths of its layers, in the residual blocks left out, and in the
    precisions of its segments.

    A DecisionSpace. Behind the decisions of a WidthSpace come the `segments`, whose options are `precisions`, the
    original's float32 first. `joint_space` makes it.
    """

    segments: tuple[Segment, ...] = ()
    precisions: tuple[Precision, ...] = (Precision.FLOAT32,)

    @property
    def decision_names(self) -> tuple[str, ...]:
        """The names of the groups, blocks and segments that are decided on."""
        return (*super().decision_names, *(f"{SEGMENT}{segment.name}" for segment in self.segments))

    @cached_property
    def option_counts(self) -> tuple[int, ...]:
        return (*self._shape_counts, *(len(self.precisions) for _ in self.segments))

    @cached_property
    def option_places(self) -> tuple[tuple[float, ...], ...]:
        """Those of a WidthSpace; precisions have no order."""
        return (*super().option_places, *(() for _ in self.segments))

    @cached_property
    def shape_decisions(self) -> int:
        """Number of the decisions on widths and blocks, which come first."""
        return len(self.groups) + len(self.blocks)

    def plan(self, choices: Sequence[int]) -> dict[str, Precision]:
        """The precision of each segment. Raises SpaceError for too many, too few, or unknown choices."""
        self._check(choices)
        taken = choices[self.shape_decisions :]
        return {s.name: self.precisions[choice] for s, choice in zip(self.segments, taken, strict=True)}

    def is_mixed(self, choices: Sequence[int]) -> bool:
        """Whether any segment is not in float32."""
        return any(choices[self.shape_decisions :])

    def shaped_graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        """The network at those widths, in float32. Raises as `graph` does."""
        return super().graph(choices, batch)

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        """The network at those widths in those precisions, with what converts at the borders (mixed). Raises SpaceError
        for too many, too few, or unknown choices, and for a batch that it cannot be had for."""
        shaped = self.shaped_graph(choices, batch)
        return mixed(shaped, self.node_precisions(choices, shaped)) if self.is_mixed(choices) else shaped

    def node_precisions(self, choices: Sequence[int], shaped: Graph) -> dict[str, Precision]:
        """The precision of each node of the network at those widths."""
        return node_precisions(self.segments_at(choices, shaped), self.plan(choices))

    def segments_at(self, choices: Sequence[int], shaped: Graph) -> tuple[Segment, ...]:
        """The segments with the nodes that the network at those widths has.

        Where a block left out brings an activation behind a layer of another segment, which applies it, it is of that
        segment.
        """
        if not self.left_out(choices):
            return self.segments
        owners = {node: segment.name for segment in self.segments for node in segment.nodes}
        nodes = shaped.nodes
        for before, after in sorted((clamped_nodes(shaped) | gated_layers(shaped)).items()):
            owners[nodes[after].name] = owners[nodes[before].name]
        found: dict[str, list[str]] = {segment.name: [] for segment in self.segments}
        for node in nodes:
            found[owners[node.name]].append(node.name)
        return tuple(Segment(name, tuple(taken)) for name, taken in found.items())

    def option_scores(
        self, scores: Scores, *, comparable: bool = True, sensitivity: Sensitivity | None = None
    ) -> NDArray[np.float64]:
        """Scores (decisions, options) that add up over decisions; -inf where there is no option.

        With a `sensitivity`, minus the rise of the loss in nats, for all kinds of decisions; without one, those of
        WidthSpace, and neither a block left out nor another precision is an option. Raises what `keep` raises, and
        CompressError where a block or segment has no rise for each option.
        """
        found = super().option_scores(scores, comparable=comparable)
        found[self.shape_decisions :, 0] = 0.0
        if sensitivity is None:
            return found
        found[: len(self.groups)] *= sensitivity.rate
        names, counts = self.decision_names, self.option_counts
        for place in range(len(self.groups), len(counts)):
            rises = np.asarray(sensitivity.rises.get(names[place], ()), np.float64)
            if rises.shape != (counts[place],) or not np.isfinite(rises).all():
                raise CompressError(
                    f"{names[place]!r:.80} needs a rise of the loss for each of {counts[place]} options"
                )
            found[place, : counts[place]] = -rises
        return found

    def neighbours(self, choices: Choices) -> list[Choices]:
        """The networks one move away: a width one step narrower or wider, a block left out or not, or another precision
        for a stretch of segments one behind the other."""
        first, count = self.shape_decisions, len(choices)
        shapes = [
            (*choices[:place], option, *choices[place + 1 :])
            for place in range(first) for option in (choices[place] - 1, choices[place] + 1)
            if 0 <= option < self.option_counts[place]
        ]  # fmt: skip
        stretches = [
            (*choices[:start], *[precision] * (stop - start), *choices[stop:])
            for start in range(first, count) for stop in range(start + 1, count + 1)
            for precision in range(len(self.precisions))
        ]  # fmt: skip
        return [*shapes, *stretches]

    def alike(self, share: float, precision: int = 0) -> Choices:
        """The network whose groups all have the option nearest to that share of their width, in one precision
        throughout; no block is left out."""
        return (*super().alike(share), *(precision for _ in self.segments))

    @cached_property
    def _shape_counts(self) -> tuple[int, ...]:
        return (*map(len, self.widths), *(2 for _ in self.blocks))


SEGMENT = "precision of "
"""Beginning of the name of a decision on a segment, which may be called as a group is."""


def joint_space(
    graph: Graph,
    name: str = "network",
    *,
    precisions: Sequence[str] = (Precision.FLOAT32,),
    step: int = STEP,
    least_share: float = LEAST_SHARE,
    widths: Mapping[str, Sequence[int]] | None = None,
    ignored: Collection[str] = (),
    leave_out: bool = False,
    at_batch: Callable[[int], Graph] | None = None,
) -> JointSpace:
    """The decision space of a network's widths, with `leave_out` of its residual blocks, and of its segments'
    `precisions`, among which float32 must be. All else is as width_space takes it. Raises CompressError as width_space
    does, and for precisions that are unknown, repeated, or lack float32."""
    shapes = width_space(
        graph, name, step=step, least_share=least_share, widths=widths, ignored=ignored, leave_out=leave_out,
        at_batch=at_batch,
    )  # fmt: skip
    found = expect_precisions(precisions)
    if Precision.FLOAT32 not in found:
        raise CompressError("float32 must be among the precisions: it is what the original computes in")
    ordered = tuple(one for one in Precision if one in found)
    own = {field.name: getattr(shapes, field.name) for field in fields(shapes)}
    return JointSpace(**own, segments=segments_of(graph) if len(ordered) > 1 else (), precisions=ordered)
