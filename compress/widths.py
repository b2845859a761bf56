"""Widths and residual blocks of a network as a decision space."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.archspace.errors import SpaceError
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.residuals import ResidualBlock, residual_blocks
from netlathe.compress.coupling import ChannelGroup, CoupledChannels, Units, couple_channels
from netlathe.compress.errors import CompressError
from netlathe.compress.importance import Scores, most_important
from netlathe.compress.shaping import Shaper, pruned

STEP = 8
"""Channels from one width to the next: what kernels of phones and of tensor cores take at a time."""
LEAST_SHARE = 0.25
"""Least width, as a share of the original one."""


@dataclass(frozen=True, eq=False)
class WidthSpace:
    """Networks that differ from a given one in the widths of its layers, and in the residual blocks left out.

    A DecisionSpace. The first decisions are the `groups` of channels, whose options are `widths` (channels of the
    group's first producer, the original first); then come the `blocks`, each kept (0) or left out (1). `at_batch` reads
    the same network for another batch. `width_space` makes it.
    """

    name: str
    coupled: CoupledChannels
    groups: tuple[ChannelGroup, ...]
    widths: tuple[tuple[int, ...], ...]
    blocks: tuple[ResidualBlock, ...] = ()
    at_batch: Callable[[int], Graph] | None = None

    @property
    def decision_names(self) -> tuple[str, ...]:
        """The names of the groups and blocks that are decided on."""
        return (*(group.name for group in self.groups), *(block.name for block in self.blocks))

    @cached_property
    def option_counts(self) -> tuple[int, ...]:
        return (*map(len, self.widths), *(2 for _ in self.blocks))

    @cached_property
    def option_places(self) -> tuple[tuple[float, ...], ...]:
        """Widths stand by their logarithms, as what a layer loses goes by the share that it keeps; a block left out
        stands nowhere."""
        logs = [np.log(widths[0] / np.array(widths)) for widths in self.widths]
        return (*(tuple((one / one[-1]).tolist()) for one in logs), *(() for _ in self.blocks))

    @cached_property
    def reference(self) -> Choices:
        """The network as it is."""
        return (0,) * len(self.option_counts)

    def network_name(self, choices: Sequence[int]) -> str:
        """The space's name and the choices. Raises SpaceError for too many, too few, or unknown choices."""
        self._check(choices)
        return f"{self.name}-{('-' if max(self.option_counts, default=0) > 10 else '').join(map(str, choices))}"

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        """The network at those widths. Raises SpaceError for too many, too few, or unknown choices, and for a batch
        that it cannot be had for."""
        self._check(choices)
        return self._shaper(batch).graph(self._units(choices), self.left_out(choices))

    def left_out(self, choices: Sequence[int]) -> tuple[ResidualBlock, ...]:
        """The residual blocks that are left out."""
        taken = choices[len(self.groups) : len(self.groups) + len(self.blocks)]
        return tuple(b for b, choice in zip(self.blocks, taken, strict=True) if choice)

    def keep(self, choices: Sequence[int], scores: Scores) -> dict[str, Units]:
        """The units that each group keeps, by name: those of the highest scores. Raises SpaceError for too many, too
        few, or unknown choices, CompressError where a group has no scores."""
        self._check(choices)
        kept = {}
        for group, widths, choice in zip(self.groups, self.widths, choices, strict=False):
            units = widths[choice] // group.channels_per_unit
            kept[group.name] = most_important(self._scores_of(group, scores), units)
        return kept

    def option_scores(self, scores: Scores, *, comparable: bool = True) -> NDArray[np.float64]:
        """Scores (decisions, options) that add up over decisions; -inf where there is no option.

        The logarithm of the share that a width keeps of what its group's units have together, as what layers in series
        keep multiplies: the last units of a layer are worth any number of others elsewhere. Of `scores` that are
        comparable over groups, mean squares of a change of the loss, it is weighted by the root of their sum, the
        change as if the units' were independent; of others, such as magnitudes, it is of their squares, and every group
        weighs alike. A residual block left out is never an option here: such scores tell nothing of it. Raises what
        `keep` raises.
        """
        found = np.full((len(self.option_counts), max(self.option_counts, default=1)), -np.inf)
        for index, (group, widths) in enumerate(zip(self.groups, self.widths, strict=True)):
            values = np.sort(self._scores_of(group, scores))[::-1]
            kept = np.cumsum(values if comparable else values**2)
            total, shares = float(kept[-1]), kept[np.array(widths) // group.channels_per_unit - 1]
            weight = np.sqrt(total) if comparable else 1.0
            found[index, : len(widths)] = weight * np.log(shares / total) if total else 0.0
        found[len(self.groups) :, 0] = 0.0
        return found

    def alike(self, share: float) -> Choices:
        """The network whose groups all have the option nearest to that share of their width; no block is left out."""
        nearest = (np.abs(np.array(widths) / widths[0] - share).argmin() for widths in self.widths)
        return (*map(int, nearest), *(0 for _ in self.blocks))

    def _scores_of(self, group: ChannelGroup, scores: Scores) -> NDArray[np.float64]:
        if group.name not in scores or len(scores[group.name]) != group.units:
            raise CompressError(f"group {group.name!r} needs a score for each of its {group.units} units")
        return scores[group.name]

    def pruned(self, choices: Sequence[int], weights: Weights, scores: Scores) -> tuple[Graph, Weights]:
        """The network at those widths with the weights of its most important channels, for the batch that it was read
        with. Raises what `keep` and `pruned` raise."""
        return pruned(self.coupled, weights, self.keep(choices, scores), self.left_out(choices))

    def _units(self, choices: Sequence[int]) -> list[int]:
        """The number of units that each group of the network keeps."""
        units = [group.units for group in self.coupled.groups]
        for index, group, widths, choice in zip(self._indices, self.groups, self.widths, choices, strict=False):
            units[index] = widths[choice] // group.channels_per_unit
        return units

    @cached_property
    def _indices(self) -> tuple[int, ...]:
        return tuple(self.coupled.group_index(group.name) for group in self.groups)

    @cached_property
    def _shapers(self) -> dict[int, Shaper]:
        """By batch."""
        return {self.coupled.graph.batch: Shaper(self.coupled)}

    def _shaper(self, batch: int) -> Shaper:
        if batch not in self._shapers:
            if self.at_batch is None:
                own = self.coupled.graph.batch
                raise SpaceError(f"{self.name!r:.80} is of batch {own}; to have it at {batch}, read it so (at_batch)")
            again = couple_channels(self.at_batch(batch), self.coupled.ignored)
            if again.groups != self.coupled.groups:
                raise SpaceError(f"{self.name!r:.80} is another network at batch {batch}: its channels are others")
            self._shapers[batch] = Shaper(again)
        return self._shapers[batch]

    def _check(self, choices: Sequence[int]) -> None:
        counts = self.option_counts
        if len(choices) != len(counts):
            raise SpaceError(f"{self.name!r:.80} has {len(counts)} decisions, got {len(choices)} choices")
        for name, count, choice in zip(self.decision_names, counts, choices, strict=True):
            if not 0 <= choice < count:
                raise SpaceError(f"{name!r:.80} has {count} options, there is no number {choice}")


def width_space(
    graph: Graph,
    name: str = "network",
    *,
    step: int = STEP,
    least_share: float = LEAST_SHARE,
    widths: Mapping[str, Sequence[int]] | None = None,
    ignored: Collection[str] = (),
    leave_out: bool = True,
    at_batch: Callable[[int], Graph] | None = None,
) -> WidthSpace:
    """The decision space of a network's widths, and with `leave_out` of its residual blocks.

    A group's options are its own width and the multiples of `step` channels below, down to `least_share` of it;
    `widths` gives others in channels, by the names of groups, such as those at which a device is fast. What leaves one
    option is no decision. Nodes named in `ignored` keep what they give. Raises CompressError for names that are not the
    graph's, and for settings out of range.
    """
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        raise CompressError(f"step must be a positive number of channels, got {step!r:.40}")
    if not 0 < least_share <= 1:
        raise CompressError(f"least_share must be above 0 and at most 1, got {least_share!r:.40}")
    coupled = couple_channels(graph, ignored)
    given = {coupled.group_index(group): options for group, options in (widths or {}).items()}
    decided = []
    for index, group in enumerate(coupled.groups):
        options = _given_widths(group, given[index]) if index in given else _stepped_widths(group, step, least_share)
        if len(options) > 1:
            decided.append((group, options))
    groups, options_of = zip(*decided, strict=True) if decided else ((), ())
    return WidthSpace(name, coupled, groups, options_of, residual_blocks(graph) if leave_out else (), at_batch)


def _stepped_widths(group: ChannelGroup, step: int, least_share: float) -> tuple[int, ...]:
    """The group's width, and the multiples below, from the widest on."""
    by = math.lcm(step, group.channels_per_unit)
    least = max(math.ceil(group.width * least_share / by), 1)
    return (group.width, *(by * times for times in range((group.width - 1) // by, least - 1, -1)))


def _given_widths(group: ChannelGroup, widths: Sequence[int]) -> tuple[int, ...]:
    for width in widths:
        if not 0 < width <= group.width or width % group.channels_per_unit:
            raise CompressError(
                f"group {group.name!r:.80} can have {group.channels_per_unit} to {group.width} channels in steps of "
                f"{group.channels_per_unit}, not {width!r:.40}"
            )
    return (group.width, *sorted({*widths} - {group.width}, reverse=True))
