"""Exchanges of moves: a network that integer programs have found, made better where costs of neighbours go together.

A table of single options charges each change of precision two borders, so a plan that changes a stretch of segments
looks dearer than it is. Moves, such as all precisions of a stretch, are priced as whole networks, two at a time: one
that gains for another that pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.search.costs import ROUNDING
from netlathe.search.successive import CostLimit

Moves = Callable[[Choices], Sequence[Choices]]
"""Networks that differ from one by a move each."""
MOST_ROUNDS = 20
TRIED = 32
"""Pairs of moves whose own costs are looked at in a round, at most, the best by scores first."""
_LEAST_GAIN = 1e-9


def exchanged(
    space: DecisionSpace, scores: NDArray[np.float64], limits: Sequence[CostLimit], found: Choices, moves: Moves
) -> Choices:
    """A network of at least the score of `found`, which keeps the limits by its own costs, where `found` does: the best
    pair of moves is made, until none is better. scores (decisions, options), -inf where there is no option."""
    for _ in range(MOST_ROUNDS):
        better = _best_pair(space, scores, limits, found, moves)
        if better is None:
            return found
        found = better
    return found


def _best_pair(
    space: DecisionSpace, scores: NDArray[np.float64], limits: Sequence[CostLimit], found: Choices, moves: Moves
) -> Choices | None:
    """The best network two moves away at most that keeps the limits; None where none is better."""
    options = [one for one in dict.fromkeys((found, *moves(found))) if np.isfinite(_score(scores, one))]
    gains = np.array([_score(scores, one) for one in options]) - _score(scores, found)
    costs = _costs(space, limits, options)
    extra, left = costs - costs[:, :1], np.array([one.limit for one in limits]) - costs[:, 0]
    fits = np.all(extra[:, :, None] + extra[:, None, :] <= left[:, None, None] + ROUNDING, axis=0)
    together = gains[:, None] + gains[None, :]
    pairs = np.argwhere(np.triu(fits & (together > _LEAST_GAIN)))  # the first option is no move
    order = np.argsort(-together[tuple(pairs.T)], kind="stable")
    tried = [_merged(found, options[a], options[b]) for a, b in pairs[order[:TRIED]]]
    kept = [one for one in tried if one is not None]
    if not kept:
        return None
    is_kept = (_costs(space, limits, kept) <= np.array([[one.limit * (1 + ROUNDING)] for one in limits])).all(axis=0)
    return next((one for one, keeps in zip(kept, is_kept, strict=True) if keeps), None)


def _merged(found: Choices, first: Choices, second: Choices) -> Choices | None:
    """Both moves made; None where they contradict each other."""
    merged = []
    for before, one, other in zip(found, first, second, strict=True):
        if before not in (one, other) and one != other:
            return None
        merged.append(other if one == before else one)
    return tuple(merged)


def _costs(space: DecisionSpace, limits: Sequence[CostLimit], networks: Sequence[Choices]) -> NDArray[np.float64]:
    """Costs (limits, networks)."""
    return np.array([one.model.predict([space.graph(c, one.batch) for c in networks]) for one in limits], float)


def _score(scores: NDArray[np.float64], choices: Choices) -> float:
    return float(scores[np.arange(len(choices)), list(choices)].sum())
