"""Monte Carlo tree search over decisions in order, by upper confidence bounds (UCT: Kocsis & Szepesvári, ECML 2006)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.feasible import FeasibleSet, as_choices
from netlathe.search.strategies.blackbox.strategy import Strategy

Sharing = Literal["none", "decisions", "states"]
Order = Literal["effect", "given"]

DESCENTS = 8
"""Descents until a network is taken that is not known yet, where subtrees cannot be told to be exhausted."""
FIRST = 1e3
"""Bound of what was never visited, above all others, and finite, so that ties are broken at random."""
SPENT_STEPS = 4
"""Steps that the share of a limit spent so far is rounded to, where it tells states apart."""


class UCT(Strategy):
    """Monte Carlo tree search: a node is the choices of the first decisions, and a descent takes at each the option of
    the highest upper confidence bound on the reward: a network's rank among the scores so far, 0 to 1, to the power
    `power`, so that a branch is judged by its best networks rather than by its many, in whatever unit scores are.

    sharing: what a node learns from other branches.
    - "none": nothing. Below the first unvisited option, choices are random (plain UCT).
    - "decisions": what an option of this decision did in all networks, each of which counts exp(-rate * n / decisions)
      where n choices of the path differ in it, and the nearest one whole. That lies between RAVE (rate 0: all networks
      alike; Gelly & Silver, Artificial Intelligence 2011) and GRAVE (those below an ancestor alone; Cazenave, IJCAI
      2015), as the memory of similar states does (Xiao, Mei & Müller, AAAI 2018). It is blended with the node's own
      mean by the schedule of RAVE with its bias `bias`. Where the node itself has no visits, an option is drawn by
      Thompson sampling from these means, their standard errors weighted by `noise`.
    - "states": nodes of one depth are one where their last `memory` choices are the same and as much of each limit is
      spent, in steps of a quarter: a directed graph in a tree's place, with statistics of its edges (UCD: Saffidine,
      Cazenave & Méhat, Knowledge-Based Systems 2012).

    order: decisions are taken by their effect on the reward so far, the greatest first (the ratio of its variance
    between their options to that within), or as they are given. The tree is read off the networks anew for each
    descent, so an order that changes loses nothing.

    exploration: weight of sqrt(log(visits of the node) / visits of the option), in which pending networks count as
    visits (WU-UCT: Liu et al., ICLR 2020).
    """

    def __init__(
        self,
        feasible: FeasibleSet,
        *,
        seed: int = 0,
        sharing: Sharing = "decisions",
        order: Order = "effect",
        exploration: float = 0.3,
        bias: float = 0.5,
        rate: float = 6.0,
        noise: float = 0.5,
        power: float = 8.0,
        memory: int = 2,
        start: int = 10,
    ) -> None:
        super().__init__(feasible, seed=seed, start=start)
        self.sharing, self.order, self.exploration, self.bias = sharing, order, exploration, bias
        self.rate, self.noise, self.memory, self.power = rate, noise, memory, power

    def propose(self, rng: np.random.Generator) -> Choices | None:
        networks, scores = self.scored()
        if not len(networks):
            return None
        tree = _Tree(self, networks, (rankdata(scores) / len(scores)) ** self.power)
        choices: Choices | None = None
        for _ in range(DESCENTS):
            choices = tree.descend(rng)
            if choices is None:
                return None
            if not self.feasible.contains(choices):  # limits that no table tells of on the way down
                choices = self.feasible.repaired(choices, rng)
            if not self.is_known(choices):
                return choices
        assert choices is not None
        near = [one for one in self.feasible.neighbours(choices) if not self.is_known(one)]
        return near[rng.integers(len(near))] if near else None


class _Tree:
    """Statistics of all nodes, read off the networks that were told: a node's are those of the networks below it."""

    def __init__(self, search: UCT, networks: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        self.search, self.networks, self.rewards = search, networks, rewards
        self.pending = np.array(list(search.pending), dtype=np.int64).reshape(-1, networks.shape[1])
        self.unknown = search.feasible.listed_without([*search.told, *search.pending])
        self.order = list(range(networks.shape[1]))
        if search.order == "effect":
            effects = [effect_of(networks[:, decision], rewards) for decision in self.order]
            self.order.sort(key=lambda decision: -effects[decision])

    def descend(self, rng: np.random.Generator) -> Choices | None:
        """One path from the root to a network; None where nothing is below."""
        path, unknown = np.full(len(self.order), -1), self.unknown
        for depth, decision in enumerate(self.order):
            if unknown is None:
                options = np.array(self.search.feasible.open_options(path, decision), dtype=int)
            else:
                options = np.flatnonzero(np.bincount(unknown[:, decision]))
            if not len(options):
                return None
            bounds = self.bounds(path, depth, rng)[options] + rng.uniform(0, 1e-6, len(options))
            path[decision] = options[bounds.argmax()]
            if unknown is not None:
                unknown = unknown[unknown[:, decision] == path[decision]]
        return as_choices(path)

    def bounds(self, path: NDArray[np.int64], depth: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Upper confidence bound on the reward of each option of the decision at this depth; FIRST for one to visit
        first. path: choices, of which those of the decisions before count."""
        decision, search = self.order[depth], self.search
        below = self._below(self.networks, path, depth)
        visits, mean = self._options(decision, below.astype(float))
        waiting = self.pending[self._below(self.pending, path, depth), decision]
        seen = visits + np.bincount(waiting, minlength=len(visits))
        if search.sharing != "decisions":
            with np.errstate(divide="ignore", invalid="ignore"):
                explored = search.exploration * np.sqrt(np.log(max(1, seen.sum())) / seen)
            return np.asarray(np.where(visits > 0, mean + np.nan_to_num(explored), FIRST))
        shared, average = self._shared(path, depth)
        if not below.any():
            return np.asarray(rng.normal(average, search.noise * self.rewards.std() / np.sqrt(1 + shared)))
        # The schedule of minimum mean squared error (Gelly & Silver 2011, section 4.2).
        trust = (1 + shared) / (1 + visits + shared + 4 * visits * (1 + shared) * search.bias**2)
        value = (1 - trust) * mean + trust * average
        return np.asarray(value + search.exploration * np.sqrt(np.log(1 + seen.sum()) / (1 + seen)))

    def _shared(self, path: NDArray[np.int64], depth: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Visits and mean reward of each option over all networks by their likeness to the path, with the mean of all
        networks as one visit more."""
        before = self.order[:depth]
        differing = (self.networks[:, before] != path[before]).sum(axis=1)
        weights = np.exp(-self.search.rate * (differing - differing.min()) / len(self.order))
        shared, average = self._options(self.order[depth], weights)
        return shared, (shared * average + self.rewards.mean()) / (shared + 1)

    def _options(self, decision: int, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Visits and mean reward of each option of a decision, networks weighted; zero without visits."""
        chosen, count = self.networks[:, decision], self.search.feasible.counts[decision]
        visits = np.asarray(np.bincount(chosen, weights=weights, minlength=count), dtype=np.float64)
        sums = np.bincount(chosen, weights=weights * self.rewards, minlength=count)
        return visits, np.asarray(np.divide(sums, visits, out=np.zeros(count), where=visits > 0))

    def _below(self, networks: NDArray[np.int64], path: NDArray[np.int64], depth: int) -> NDArray[np.bool_]:
        """Which networks are below a node."""
        states = self.search.sharing == "states"
        alike = self.order[max(0, depth - self.search.memory) : depth] if states else self.order[:depth]
        below: NDArray[np.bool_] = (networks[:, alike] == path[alike]).all(axis=1)
        if states:
            before = self.order[:depth]
            for one in self.search.feasible.constraints:
                room = max(one.limit - one.table.base, 1e-12)
                spent = one.table.values[before, networks[:, before]].sum(axis=1) / room
                own = one.table.values[before, path[before]].sum() / room
                below &= np.round(spent * SPENT_STEPS) == np.round(own * SPENT_STEPS)
        return below


def effect_of(chosen: NDArray[np.int64], rewards: NDArray[np.float64]) -> float:
    """Ratio of the variance of rewards between a decision's options to that within them (the F statistic of one-way
    analysis of variance): chosen (networks,) options, rewards (networks,). Zero where nothing varies."""
    visits = np.bincount(chosen)
    means = np.bincount(chosen, weights=rewards) / np.maximum(visits, 1)
    groups = int((visits > 0).sum())
    between = float((visits * (means - rewards.mean()) ** 2).sum()) / max(1, groups - 1)
    within = float(((rewards - means[chosen]) ** 2).sum()) / max(1, len(rewards) - groups)
    return between / max(within, 1e-9)
