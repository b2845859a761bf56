"""A space of fewer options: a look teaches a strategy more, the fewer it has to tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace, option_places
from netlathe.archspace.graph import Graph

MOST_OPTIONS = 8
"""Options of a decision that are left."""


@dataclass(frozen=True)
class CoarseSpace:
    """Networks of a space by some options of each decision. A DecisionSpace; `chosen` leads back to the space itself.

    `kept` are the options of each decision, in order; the reference's are among them.
    """

    space: DecisionSpace
    kept: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, space: DecisionSpace, asked: NDArray[np.bool_], *networks: Choices, most: int = MOST_OPTIONS
    ) -> CoarseSpace:
        """At most so many of the options `asked` (decisions, options) of each decision, evenly over them, and those of
        the space's reference and of `networks`."""
        kept = []
        for decision, row in enumerate(asked):
            options = np.flatnonzero(row)
            even = options[np.rint(np.linspace(0, len(options) - 1, min(len(options), most))).astype(int)].tolist()
            kept.append(tuple(sorted({*even, *(one[decision] for one in (space.reference, *networks))})))
        return cls(space, tuple(kept))

    @property
    def name(self) -> str:
        """The space's own."""
        return self.space.name

    @property
    def option_counts(self) -> tuple[int, ...]:
        """Number of options that are left."""
        return tuple(map(len, self.kept))

    @property
    def option_places(self) -> tuple[tuple[float, ...], ...]:
        """Places of the options that are left."""
        pairs = zip(option_places(self.space), self.kept, strict=True)
        return tuple(tuple(places[option] for option in kept) if places else () for places, kept in pairs)

    @property
    def reference(self) -> Choices:
        """The space's own."""
        return self.coarse(self.space.reference)

    def network_name(self, choices: Sequence[int]) -> str:
        """The network's name in the space itself."""
        return self.space.network_name(self.chosen(choices))

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        """The network's graph."""
        return self.space.graph(self.chosen(choices), batch)

    def chosen(self, choices: Sequence[int]) -> Choices:
        """The choices in the space itself."""
        return tuple(options[choice] for options, choice in zip(self.kept, choices, strict=True))

    def coarse(self, choices: Sequence[int]) -> Choices:
        """The inverse of `chosen`, for networks of kept options. Raises ValueError for others."""
        return tuple(options.index(choice) for options, choice in zip(self.kept, choices, strict=True))
