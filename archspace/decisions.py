"""Decision spaces: networks told apart by choices among options, which is all that a search needs to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
