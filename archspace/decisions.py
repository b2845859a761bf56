"""Decision spaces: networks told apart by choices among options, which is all that a search needs to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from netlathe.archspace.graph import Graph

Choices = tuple[int, ...]
"""One option index per decision."""


class DecisionSpace(Protocol):
    """A set of networks, one for each combination of choices: blocks of a space, widths of a user's own model, ..."""

    @property
    def name(self) -> str:
        """The space's name, as errors and reports say it."""
        ...

    @property
    def option_counts(self) -> tuple[int, ...]:
        """Number of options of each decision; an index below it is a choice."""
        ...

    @property
    def reference(self) -> Choices:
        """The network that others are compared with: a well-known one, or the one that the user already has."""
        ...

    def network_name(self, choices: Sequence[int]) -> str:
        """A network's name, as errors and reports say it."""
        ...

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        """A network as a graph. Raises SpaceError for too many, too few, or unknown choices."""
        ...


@runtime_checkable
class OrderedOptions(Protocol):
    """A decision space whose options have an order in some of its decisions, as widths do."""

    @property
    def option_places(self) -> tuple[tuple[float, ...], ...]:
        """Places of each decision's options on a line, from 0 to 1; none where they have no order."""
        ...


def option_places(space: DecisionSpace) -> tuple[tuple[float, ...], ...]:
    """Places of the options of each decision of any space, none where they have no order."""
    return space.option_places if isinstance(space, OrderedOptions) else ((),) * len(space.option_counts)
