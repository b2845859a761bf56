"""Monte Carlo tree search over decisions in order, by upper confidence bounds (UCT: Kocsis & Szepesvári, ECML 2006)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.strategy import Strategy

Sharing = Literal["none", "decisions", "states"]

DESCENTS = 8
"""Descents until a network is taken that is not known yet, where subtrees cannot be told to be exhausted."""
FIRST = 1e3
"""Bound of what was never visited, above all others, and finite, so that ties are broken at random."""
SPENT_STEPS = 4
"""Steps that the share of a limit spent so far is rounded to, where it tells states apart."""


class UCT(Strategy):
    """Monte Carlo tree search: a node is the choices of the first decisions, and a descent takes at each the option of
    the highest upper confidence bound on the reward: a network's rank among the scores so far, 0 to 1, to the power
    `power`, so that a branch is judged by its best networks rather than by its many.

    sharing: what a node learns from other branches.
    - "none": nothing. Below the first unvisited option, choices are random (plain UCT).
    - "decisions": what an option of this decision did in all networks of the nearest ancestor with at least `reference`
      visits, whatever they had chosen since (GRAVE: Cazenave, IJCAI 2015), blended with the node's own mean by the
      schedule of RAVE (Gelly & Silver, Artificial Intelligence 2011) with its bias `bias`. Where the node itself
      has no visits, an option is drawn by Thompson sampling from these means.
    - "states": nodes of one depth are one where their last `memory` choices are the same and as much of each limit is
      spent, in steps of a quarter: a directed graph in a tree's place, with statistics of its edges (UCD: Saffidine,
      Cazenave & Méhat, Knowledge-Based Systems 2012).

    exploration: weight of sqrt(log(visits of the node) / visits of the option), in which pending networks count as
    visits (WU-UCT: Liu et al., ICLR 2020).
    """

    def __init__(
        self,
        feasible: FeasibleSet,
        *,
        seed: int = 0,
        sharing: Sharing = "decisions",
        exploration: float = 0.6,
        bias: float = 0.5,
        reference: int = 8,
        power: float = 8.0,
        memory: int = 2,
        start: int = 10,
    ) -> None:
        super().__init__(feasible, seed=seed, start=start)
        self.sharing, self.exploration, self.bias, self.reference = sharing, exploration, bias, reference
        self.memory, self.power = memory, power

    def propose(self, rng: np.random.Generator) -> Choices | None:
        networks, scores = self.scored()
        if not len(networks):
            return None
        visits = _Visits(self, networks, (rankdata(scores) / len(scores)) ** self.power)
        for _ in range(DESCENTS):
            choices = self._descend(visits, rng)
            if choices is not None and not self.is_known(choices) and self.feasible.contains(choices):
                return choices
        return None

    def _descend(self, visits: _Visits, rng: np.random.Generator) -> Choices | None:
        """One path from the root to a network."""
        prefix: Choices = ()
        unknown = visits.unknown
        for decision in range(len(self.feasible.counts)):
            if unknown is None:
                options = np.array(self.feasible.open_options(prefix), dtype=int)
            else:
                options = np.unique(unknown[:, decision])
            if not len(options):
                return None
            bounds = visits.bounds(prefix, rng)[options] + rng.uniform(0, 1e-6, len(options))
            prefix = (*prefix, int(options[bounds.argmax()]))
            if unknown is not None:
                unknown = unknown[unknown[:, decision] == prefix[-1]]
        return prefix


class _Visits:
    """Statistics of all nodes, read off the networks that were told: a node's are those of the networks below it."""

    def __init__(self, tree: UCT, networks: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        self.tree, self.networks, self.rewards = tree, networks, rewards
        self.pending = np.array(list(tree.pending), dtype=np.int64).reshape(-1, networks.shape[1])
        self.unknown = tree.feasible.listed_without([*tree.told, *tree.pending])

    def bounds(self, prefix: Choices, rng: np.random.Generator) -> NDArray[np.float64]:
        """Upper confidence bound on the reward of each option of the next decision; FIRST for one to visit first."""
        decision, tree = len(prefix), self.tree
        count = tree.feasible.counts[decision]
        below = self._below(self.networks, prefix)
        visits, mean = self._options(below, decision, count)
        waiting = np.bincount(self.pending[self._below(self.pending, prefix), decision], minlength=count)
        seen = visits + waiting
        with np.errstate(divide="ignore", invalid="ignore"):
            explored = tree.exploration * np.sqrt(np.log(max(1, seen.sum())) / seen)
        if tree.sharing != "decisions":
            return np.asarray(np.where(visits > 0, mean + np.nan_to_num(explored), FIRST))
        shared, average = self._options(self._ancestor(prefix), decision, count)
        average = np.where(shared > 0, average, self.rewards.mean())
        if not below.any():
            return np.asarray(rng.normal(average, self.rewards.std() / np.sqrt(1 + shared)))
        # The schedule of minimum mean squared error (Gelly & Silver 2011, section 4.2).
        trust = (1 + shared) / (1 + visits + shared + 4 * visits * (1 + shared) * tree.bias**2)
        value = (1 - trust) * np.nan_to_num(mean) + trust * average
        return np.asarray(value + tree.exploration * np.sqrt(np.log(1 + seen.sum()) / (1 + seen)))

    def _options(
        self, mask: NDArray[np.bool_], decision: int, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Visits and mean reward of each option among some of the networks; nan without visits."""
        chosen, rewards = self.networks[mask, decision], self.rewards[mask]
        visits = np.bincount(chosen, minlength=count)
        with np.errstate(invalid="ignore"):
            return visits, np.bincount(chosen, weights=rewards, minlength=count) / visits

    def _ancestor(self, prefix: Choices) -> NDArray[np.bool_]:
        """Networks below the nearest ancestor with enough visits, or the root."""
        for depth in range(len(prefix), 0, -1):
            mask: NDArray[np.bool_] = (self.networks[:, :depth] == np.array(prefix[:depth])).all(axis=1)
            if mask.sum() >= self.tree.reference:
                return mask
        return np.ones(len(self.networks), dtype=bool)

    def _below(self, networks: NDArray[np.int64], prefix: Choices) -> NDArray[np.bool_]:
        """Which networks are below a node."""
        depth, wanted = len(prefix), np.array(prefix, dtype=np.int64)
        if self.tree.sharing != "states":
            return np.asarray((networks[:, :depth] == wanted).all(axis=1))
        first = max(0, depth - self.tree.memory)
        alike: NDArray[np.bool_] = (networks[:, first:depth] == wanted[first:]).all(axis=1)
        for one in self.tree.feasible.constraints:
            rows, room = np.arange(depth), max(one.limit - one.table.base, 1e-12)
            spent = one.table.values[rows, networks[:, :depth]].sum(axis=1) / room
            own = one.table.values[rows, wanted].sum() / room
            alike &= np.round(spent * SPENT_STEPS) == np.round(own * SPENT_STEPS)
        return alike
