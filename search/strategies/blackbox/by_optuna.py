"""Optuna's samplers as strategies: TPE and NSGA-II."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.strategy import Strategy

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

MakeSampler = Callable[[int], "BaseSampler"]
"""Seed -> sampler."""


class BySampler(Strategy):
    """Proposals of a sampler of Optuna, each repaired to the nearest network within the limits.

    The sampler sees the repaired networks with their scores, and those that are pending as running trials. It is made
    anew for each proposal, with a seed of its own, so that nothing but what was told decides. start: networks drawn at
    random at first.
    """

    def __init__(self, feasible: FeasibleSet, sampler: MakeSampler, *, seed: int = 0, start: int = 10) -> None:
        super().__init__(feasible, seed=seed, start=start)
        self.sampler = sampler
        self.distributions = distributions_of(feasible.counts)

    def propose(self, rng: np.random.Generator) -> Choices | None:
        study = new_study()
        for choices, score in self.told.items():
            study.add_trial(self._trial(choices, score))
        for choices in self.pending:
            study.add_trial(self._trial(choices, None, is_running=True))
        return self.feasible.repaired(self.sampled(study, rng), rng)

    def sampled(self, study: Study, rng: np.random.Generator) -> Choices:
        """A proposal of a new sampler; its trial counts for nothing, as what is looked at is the repaired network."""
        from optuna.trial import TrialState

        with quiet():
            study.sampler = self.sampler(int(rng.integers(2**31)))
            trial = study.ask(self.distributions)
            study.tell(trial, state=TrialState.FAIL)
        return choices_of(trial.params)

    def _trial(self, choices: Choices, score: float | None, *, is_running: bool = False) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        state = TrialState.RUNNING if is_running else TrialState.FAIL if score is None else TrialState.COMPLETE
        return create_trial(
            state=state, value=score, params=params_of(choices), distributions=self.distributions
        )  # fmt: skip


class ByGenerations(BySampler):
    """Proposals of a sampler of Optuna that counts generations, as NSGA-II does: it must have asked for each trial
    itself, so a study that grows is kept, in which each network is enqueued and asked for once more."""

    def __init__(self, feasible: FeasibleSet, sampler: MakeSampler, *, seed: int = 0, start: int = 10) -> None:
        super().__init__(feasible, sampler, seed=seed, start=start)
        self._study = new_study()

    def propose(self, rng: np.random.Generator) -> Choices | None:
        return self.feasible.repaired(self.sampled(self._study, rng), rng)

    def learn(self, choices: Choices, score: float | None) -> None:
        """Replays the trial in the sampler's own study."""
        if score is None:
            return
        with quiet():
            self._study.sampler = self.sampler(len(self.told))
            self._study.enqueue_trial(params_of(choices))
            trial: Trial = self._study.ask(self.distributions)
            self._study.tell(trial, score)


def new_study() -> Study:
    """An empty study in memory."""
    import optuna

    with quiet():
        return optuna.create_study(direction="maximize")


def tpe(feasible: FeasibleSet, *, seed: int = 0, start: int = 10) -> Strategy:
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011; multivariate: Falkner et al., ICML 2018), by
    Optuna."""

    def sampler(own: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(seed=own, multivariate=True, constant_liar=True, n_startup_trials=0)

    return BySampler(feasible, sampler, seed=seed, start=start)


def nsga2(feasible: FeasibleSet, *, seed: int = 0, population: int = 20) -> Strategy:
    """NSGA-II (Deb et al., IEEE Trans. Evolutionary Computation 2002), by Optuna."""

    def sampler(own: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(seed=own, population_size=population)

    return ByGenerations(feasible, sampler, seed=seed, start=population)


def distributions_of(counts: tuple[int, ...]) -> dict[str, BaseDistribution]:
    """Decisions as Optuna's parameters: categorical, by the numbers of their options."""
    from optuna.distributions import CategoricalDistribution

    return {name: CategoricalDistribution(tuple(range(n))) for name, n in zip(_names(len(counts)), counts, strict=True)}


def params_of(choices: Choices) -> dict[str, int]:
    """Choices as Optuna's parameters."""
    return dict(zip(_names(len(choices)), choices, strict=True))


def choices_of(params: dict[str, int]) -> Choices:
    """The inverse of `params_of`."""
    return tuple(int(params[name]) for name in _names(len(params)))


def _names(decisions: int) -> list[str]:
    """Names that sort as the decisions do."""
    return [f"d{d:04d}" for d in range(decisions)]


@contextmanager
def quiet() -> Iterator[None]:
    """Context in which Optuna logs no steps, and does not warn of features that may change."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
