"""Networks as episodes: one decision a step, in order, as agents of reinforcement learning take them (AMC: He et al.,
ECCV 2018; HAQ: Wang et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.priced import PricedSet


class Episodes:
    """States and actions of an agent that walks through the decisions of a space: a state is what was chosen so far and
    what it leaves of each limit, an action the place of an option among those of its decision, the cheapest first.

    It knows option counts and tables of costs alone. Actions are bounded (`actions`), so that whatever an agent does
    ends within the limits of all tables; prices of whole networks are seen only where the networks are listed.
    """

    def __init__(self, feasible: FeasibleSet) -> None:
        self.feasible, self.counts = feasible, feasible.counts
        values = [np.nan_to_num(one.table.values) for one in feasible.constraints]
        self._values = np.array(values).reshape(len(values), len(self.counts), self.action_count)
        self._most = self._values.max(axis=2)
        spans = self._most.sum(axis=1)
        self._spans = np.where(spans > 0, spans, 1.0)
        rooms = np.array([one.limit - one.table.base for one in feasible.constraints])
        self._rooms = np.minimum(rooms, spans) / self._spans
        shares = (self._values / self._spans[:, None, None]).sum(axis=0)
        self._places = [rankdata(row[:n], "ordinal") - 1 for row, n in zip(shares, self.counts, strict=True)]

    @property
    def action_count(self) -> int:
        """Number of actions, the same at each step: the most options that a decision has."""
        return max(self.feasible.counts, default=1)

    @property
    def state_size(self) -> int:
        """Numbers of a state."""
        return len(self.state(()))

    def state(self, prefix: Sequence[int]) -> NDArray[np.float32]:
        """State after the choices of the first decisions, (state_size,), each number 0 to 1: which decision is next,
        and the options' places in those before, one-hot; then of each limited cost, as shares of its whole range, what
        the next decision may add, what is spent, what the limit leaves, and what the others could take at most."""
        depth, decisions = len(prefix), len(self.counts)
        position = np.arange(decisions) == depth
        taken = np.zeros((decisions, self.action_count))
        rows = np.arange(depth)
        taken[rows, self.actions_of(prefix)] = 1
        spent = self._values[:, rows, list(prefix)].sum(axis=1) / self._spans
        most = self._most / self._spans[:, None]
        own = most[:, depth] if depth < decisions else np.zeros(len(most))
        costs = np.stack([own, spent, self._rooms - spent, most[:, depth:].sum(axis=1)], axis=1)
        return np.concatenate([position, taken.ravel(), costs.ravel()]).astype(np.float32)

    def actions(self, decision: int, options: Sequence[int]) -> NDArray[np.int64]:
        """The actions that take these options of a decision."""
        return np.asarray(self._places[decision][list(options)])

    def actions_of(self, choices: Sequence[int]) -> list[int]:
        """The actions that lead to a network, or to the choices of its first decisions."""
        return [int(places[option]) for places, option in zip(self._places, choices, strict=False)]


class LayerEpisodes:
    """States and actions of an agent that goes through a network layer by layer, as AMC's does (He et al., ECCV 2018,
    section 3.1): a state tells what the layer is, what the layers before it have saved, and what was chosen last.

    Costs are estimates of whole networks, in shares of the reference's. An action is the place of an option among those
    of its decision, the cheapest first, as AMC's is the share that is kept.
    """

    def __init__(self, feasible: PricedSet) -> None:
        self.feasible, self.counts = feasible, feasible.counts
        self._reference = np.array(feasible.space.reference)
        features = feasible.features
        features = np.zeros((len(self.counts), 0)) if features is None else features
        self._features = features / np.maximum(np.abs(features).max(axis=0, initial=0), 1e-12)
        self._whole = feasible.estimated(self._reference[None])[0]

    @property
    def action_count(self) -> int:
        """Number of actions, the same at each step: the most options that a decision has."""
        return max(self.counts, default=1)

    @property
    def state_size(self) -> int:
        """Numbers of a state."""
        return len(self.state(()))

    def state(self, prefix: Sequence[int]) -> NDArray[np.float32]:
        """State after the choices of the first decisions, (state_size,), each number 0 to 1: the index of the next
        decision and its features; of each limited cost what the next decision can save, what was saved, what those that
        follow can save, and what the limit leaves where they all do; the share of options below the last one chosen."""
        depth, decisions = len(prefix), len(self.counts)
        open_, floor = self._reference.copy(), np.array(self.feasible.floor)
        open_[:depth] = prefix
        next_ = np.where(np.arange(decisions) == depth, floor, open_)
        closed = np.where(np.arange(decisions) < depth, open_, floor)
        now, then, least = self.feasible.estimated(np.stack([open_, next_, closed])) / self._whole
        room = self.feasible.limits / self._whole - least
        costs = np.stack([now - then, 1 - now, now - least, room])
        own = self._features[depth] if depth < decisions else np.zeros(self._features.shape[1])
        last = self.actions_of(prefix)[-1] / max(1, self.counts[depth - 1] - 1) if depth else 1.0
        state = np.concatenate([[depth / decisions], own, costs.ravel(), [last]])
        return np.asarray(np.clip(state, 0, 1), dtype=np.float32)

    def actions(self, decision: int, options: Sequence[int]) -> NDArray[np.int64]:
        """The actions that take these options of a decision."""
        return np.asarray(self.counts[decision] - 1 - np.array(options, dtype=np.int64))

    def actions_of(self, choices: Sequence[int]) -> list[int]:
        """The actions that lead to a network, or to the choices of its first decisions."""
        return [count - 1 - option for count, option in zip(self.counts, choices, strict=False)]
