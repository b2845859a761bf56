"""Advantage actor-critic over decisions in order, by Stable-Baselines3 (extra `rl`)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from stable_baselines3 import A2C
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.episodes import Episodes, LayerEpisodes
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.priced import PricedSet
from netlathe.search.strategies.blackbox.strategy import Strategy

LEAST = 1e-9
"""Weight that an option within the limits has at least, however improbable it has become."""
WALKS = 8
"""Episodes until a network is taken that is not known yet, where the space cannot be listed."""


class ActorCritic(Strategy):
    """Advantage actor-critic (A2C: Mnih et al., ICML 2016): an agent that takes one decision after the other.

    The policy is a distribution over the options that leave the limits within reach (`Episodes`, or `LayerEpisodes`
    where limits are on prices of whole networks); an episode is a network. Its reward, at the end, is the network's
    rank among all scores so far, 0 to 1, to the power `power`, so that the best count, in whatever unit; the critic's
    value of each state is the baseline. Each score that is told is followed by `updates` updates on `batch` episodes
    each, drawn from all that were told: a look-up is dear, so each is learned from again and again, whoever asked for
    it.

    start: networks drawn at random at first. entropy: weight of the policy's entropy. Raises ImportError without
    Stable-Baselines3.
    """

    def __init__(
        self,
        feasible: FeasibleSet,
        *,
        seed: int = 0,
        start: int = 10,
        updates: int = 4,
        batch: int = 32,
        rate: float = 1e-3,
        entropy: float = 0.05,
        power: float = 8.0,
        width: int = 64,
    ) -> None:
        super().__init__(feasible, seed=seed, start=start)
        self.episodes: Episodes | LayerEpisodes = (
            LayerEpisodes(feasible) if isinstance(feasible, PricedSet) else Episodes(feasible)
        )
        self.updates, self.batch, self.power = updates, batch, power
        self._states: list[NDArray[np.float32]] = []
        self._actions: list[list[int]] = []
        self._scores: list[float] = []
        with own_randomness(seed):
            self._agent = A2C(
                "MlpPolicy", DummyVecEnv([lambda: Spaces(self.episodes)] * batch), n_steps=max(1, len(feasible.counts)),
                learning_rate=rate, gamma=1.0, gae_lambda=1.0, ent_coef=entropy, normalize_advantage=True,
                policy_kwargs={"net_arch": [width, width]}, device="cpu",
            )  # fmt: skip
        self._agent.set_logger(Logger(None, []))

    def propose(self, rng: np.random.Generator) -> Choices | None:
        unknown = self.feasible.listed_without([*self.told, *self.pending])
        for _ in range(WALKS):
            choices = self._walked(unknown, rng)
            if choices is None or not self.is_known(choices):
                return choices
        return None

    def _walked(self, unknown: NDArray[np.int64] | None, rng: np.random.Generator) -> Choices | None:
        """One episode of the policy."""
        prefix: Choices = ()
        for decision in range(len(self.feasible.counts)):
            if unknown is None:
                options = self.feasible.open_options(prefix)
            else:
                options = np.unique(unknown[:, decision]).tolist()
            if not options:
                return None
            actions = torch.from_numpy(self.episodes.actions(decision, options))
            with torch.no_grad():
                policy = self._agent.policy.get_distribution(torch.from_numpy(self.episodes.state(prefix))[None])
                weights = policy.log_prob(actions).double().exp().numpy() + LEAST
            prefix = (*prefix, int(rng.choice(options, p=weights / weights.sum())))
            if unknown is not None:
                unknown = unknown[unknown[:, decision] == prefix[-1]]
        return prefix

    def learn(self, choices: Choices, score: float | None) -> None:
        """Trains the agent on what was told so far."""
        if score is None or not choices:
            return
        self._states.append(np.stack([self.episodes.state(choices[:depth]) for depth in range(len(choices))]))
        self._actions.append(self.episodes.actions_of(choices))
        self._scores.append(score)
        if len(self._scores) < max(2, self.start):
            return
        rewards = (rankdata(self._scores) / len(self._scores)) ** self.power
        rng = np.random.default_rng([self.seed, len(self.told)])
        with own_randomness(int(rng.integers(2**32))):
            for _ in range(self.updates):
                self._update(rng.integers(len(rewards), size=self.batch), rewards)

    def _update(self, chosen: NDArray[np.int64], rewards: NDArray[np.float64]) -> None:
        """One update on these episodes, as if the policy had just made them."""
        agent, buffer = self._agent, self._agent.rollout_buffer
        states = np.stack([self._states[i] for i in chosen], axis=1)  # (decisions, batch, state)
        actions = np.array([self._actions[i] for i in chosen]).T
        decisions, batch = actions.shape
        with torch.no_grad():
            values, log_p, _ = agent.policy.evaluate_actions(
                torch.from_numpy(states.reshape(decisions * batch, -1)), torch.from_numpy(actions.reshape(-1))
            )
        values, log_p = values.reshape(actions.shape), log_p.reshape(actions.shape)
        buffer.reset()
        for step in range(decisions):
            reward = rewards[chosen] if step == decisions - 1 else np.zeros(batch)
            begins = np.full(batch, step == 0)
            buffer.add(states[step], actions[step], reward, begins, values[step], log_p[step])
        buffer.compute_returns_and_advantage(last_values=torch.zeros(batch), dones=np.ones(batch, dtype=bool))
        agent.train()


class Spaces(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Spaces of states and actions, which are all that an agent needs to know beforehand: its steps are taken by
    `ActorCritic`, as the score of an episode is told later, and maybe by another process."""

    def __init__(self, episodes: Episodes | LayerEpisodes) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (episodes.state_size,))
        self.action_space = gymnasium.spaces.Discrete(episodes.action_count)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Context in which the global generators of Python, NumPy and torch, which Stable-Baselines3 draws from, are
    seeded; they are as before afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
