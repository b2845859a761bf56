"""Final choice by comparison: networks within the limits are judged on the same validation images, in rounds, and what
each option adds to their cross-entropy is fitted, so that the decode maximises quality and not how often an option was
rewarded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge

from netlathe.archspace.decisions import Choices
from netlathe.search.costs import Constraint
from netlathe.search.decode import decode
from netlathe.training.sgd import check_finite

ValidationLoss = Callable[[Choices, int], float]
"""Cross-entropy of a network on a part of the validation images, 0, 1, ...; the same images for all."""

Memory = MutableMapping[tuple[Choices, int], float]
"""Cross-entropies by network and part that are known already; a comparison puts its own there one by one."""

OnCompared = Callable[[int, int], None]
"""Listener to a comparison: (networks compared, networks to compare)."""

LEAST_LOG_PROBABILITY = -3.0
"""Floor of log probabilities: below it they tell how long a search ran rather than how bad an option is."""

FEWEST_TO_FIT = 8
"""Networks below whose number no scores are fitted."""

ROUND = 16
"""Networks that are drawn from one fit."""


def remembering(validation_loss: ValidationLoss, memory: Memory) -> ValidationLoss:
    """The same losses, each computed once."""

    def remembered(choices: Choices, part: int) -> float:
        if (choices, part) not in memory:
            memory[choices, part] = check_finite(
                validation_loss(choices, part), f"comparing networks, {named(choices)}"
            )
        return memory[choices, part]

    return remembered


def named(choices: Choices) -> str:
    """Words for a network in errors."""
    return f"choices {'-'.join(map(str, choices))}"


@dataclass
class Compared:
    """Networks with their cross-entropies on parts of the validation images, from the first part on."""

    parts: int = 1
    """Parts that there are."""
    losses: dict[Choices, list[float]] = field(default_factory=dict)

    def means(self) -> dict[Choices, float]:
        """Mean cross-entropy of each network over all parts: of a part that it was not seen on, what it would be if it
        were as much harder for this network as for those that were."""
        harder = np.zeros(self.parts)
        for part in range(1, self.parts):
            both = [losses[part] - losses[0] for losses in self.losses.values() if len(losses) > part]
            harder[part] = np.mean(both) if both else harder[:part].mean()
        level = float(harder.mean())
        return {path: float(np.mean(x - harder[: len(x)])) + level for path, x in self.losses.items()}

    def counts(self) -> NDArray[np.float64]:
        """Parts that each network was seen on."""
        return np.array([len(losses) for losses in self.losses.values()], dtype=float)


def compare_networks(
    log_probabilities: NDArray[np.float64],
    constraints: Sequence[Constraint],
    validation_loss: ValidationLoss,
    *,
    finalists: int,
    rng: np.random.Generator,
    parts: int = 1,
    offered: Sequence[Choices] = (),
    earlier: Sequence[Mapping[Choices, float]] = (),
    on_compared: OnCompared | None = None,
) -> Compared:
    """Cross-entropies of different networks that keep all limits, in rounds.

    The first round is the decoded network, those `offered`, and decodes under Gumbel noise (perturb and MAP, Papandreou
    & Yuille, 2011), by turns around the probabilities and around none, so that every option is seen and most networks
    use the limit up. Of each later one, half are such, and half are decodes of scores drawn from the fit to all that
    was seen (Thompson sampling; Russo et al., A Tutorial on Thompson Sampling, 2018). A network is seen on the first
    part of the images; then the best so far are on the others, as many parts as there are new networks (racing), and
    those `offered` on all, as what is chosen must beat them.

    log_probabilities (decisions, options), -inf where there is no option. `earlier` are cross-entropies of other
    comparisons, as candidate_scores takes them. Fewer than `finalists` where hardly any are new. Raises TrainingError
    for a cross-entropy that is no number.
    """
    compared = Compared(parts)

    def see(choices: Choices) -> None:
        losses = compared.losses.setdefault(choices, [])
        losses.append(check_finite(validation_loss(choices, len(losses)), f"comparing networks, {named(choices)}"))

    first = dict.fromkeys([decode(log_probabilities, constraints), *offered])
    waiting = list(first) + _wide(log_probabilities, constraints, min(finalists, 2 * ROUND) - len(first), first, rng)
    while waiting:
        for choices in waiting:
            see(choices)
            if on_compared:
                on_compared(len(compared.losses), max(finalists, len(compared.losses)))
        for _ in waiting:
            means = compared.means()
            unfinished = [choices for choices, losses in compared.losses.items() if len(losses) < parts]
            if unfinished:
                see(min(unfinished, key=means.__getitem__))
        count = min(ROUND, finalists - len(compared.losses))
        waiting = _drawn(log_probabilities, constraints, compared, earlier, count // 2, rng)
        known = {*compared.losses, *waiting}
        waiting += _wide(log_probabilities, constraints, count - len(waiting), known, rng)
    for choices in offered:
        while len(compared.losses[choices]) < parts:
            see(choices)
    return compared


def _wide(
    log_probabilities: NDArray[np.float64],
    constraints: Sequence[Constraint],
    count: int,
    known: Collection[Choices],
    rng: np.random.Generator,
) -> list[Choices]:
    """At most `count` networks that are not known yet, by turns around the probabilities and around none."""
    alive = np.isfinite(log_probabilities)
    floored = np.where(alive, np.maximum(log_probabilities, LEAST_LOG_PROBABILITY), -np.inf)
    found: dict[Choices, None] = {}
    for attempt in range(4 * count):
        if len(found) >= count:
            break
        centre = floored if attempt % 2 else np.where(alive, 0.0, -np.inf)
        network = decode(centre + rng.gumbel(size=alive.shape), constraints)
        if network not in known:
            found[network] = None
    return list(found)


def _drawn(
    log_probabilities: NDArray[np.float64],
    constraints: Sequence[Constraint],
    compared: Compared,
    earlier: Sequence[Mapping[Choices, float]],
    count: int,
    rng: np.random.Generator,
) -> list[Choices]:
    """At most `count` networks that were not compared yet, each the best by scores of its own; none once the fit is
    sure of networks that were."""
    if count <= 0:
        return []
    fit = _fitted(log_probabilities, constraints, compared, earlier)
    found: dict[Choices, None] = {}
    for _ in range(2 * count):
        network = decode(fit.scores(rng), constraints)
        if network not in compared.losses:
            found[network] = None
        if len(found) == count:
            break
    return list(found)


def candidate_scores(
    log_probabilities: NDArray[np.float64],
    constraints: Sequence[Constraint],
    compared: Compared,
    earlier: Sequence[Mapping[Choices, float]] = (),
) -> NDArray[np.float64]:
    """Scores (decisions, options): minus what each option adds to the cross-entropy; -inf where there is none.

    Cross-entropy = constant + a * sum of -log p + for each limit b * cost + the options' own parts, by Bayesian ridge
    regression (MacKay, Bayesian Interpolation, 1992), which keeps these parts as small as the evidence wants them. The
    costs take back the price of latency that the probabilities were learned under: near the limit it is the limit that
    decides, not its price. `earlier` are cross-entropies by other weights, each with a constant of its own. From fewer
    than FEWEST_TO_FIT networks nothing is fitted, and the probabilities are the answer.
    """
    if len(compared.losses) < FEWEST_TO_FIT:
        return log_probabilities
    return _fitted(log_probabilities, constraints, compared, earlier).scores()


@dataclass(frozen=True)
class _Fit:
    """Cross-entropy that options add, and how sure that is."""

    alive: NDArray[np.bool_]
    """Whether there is an option (decisions, options)."""
    shared: NDArray[np.float64]
    """Columns that options share (columns, decisions, options), as the model was given them."""
    coefficients: NDArray[np.float64]
    """Coefficients of the options' own parts, then of the shared columns."""
    root: NDArray[np.float64]
    """A square root of their covariance."""

    def scores(self, rng: np.random.Generator | None = None) -> NDArray[np.float64]:
        """The likeliest scores; with `rng`, a draw from all that the fit holds possible."""
        coefficients = self.coefficients
        if rng is not None:
            coefficients = coefficients + self.root @ rng.standard_normal(self.root.shape[1])
        own, shared = np.split(coefficients, [self.alive.size])
        total = own.reshape(self.alive.shape) + np.tensordot(shared, self.shared, 1)
        return np.where(self.alive, -total, -np.inf)


def _fitted(
    log_probabilities: NDArray[np.float64],
    constraints: Sequence[Constraint],
    compared: Compared,
    earlier: Sequence[Mapping[Choices, float]],
) -> _Fit:
    alive = np.isfinite(log_probabilities)
    means = [compared.means(), *earlier]
    networks = np.array([choices for one in means for choices in one])
    losses = np.array([loss for one in means for loss in one.values()])
    group = np.repeat(np.arange(len(means)), [len(one) for one in means])
    counts = np.concatenate([compared.counts(), np.full(int((group > 0).sum()), float(compared.parts))])
    floored = np.where(alive, np.maximum(log_probabilities, LEAST_LOG_PROBABILITY), 0.0)
    shared = np.stack([-floored, *(np.where(alive, c.table.values, 0.0) / c.limit for c in constraints)])
    columns = shared[:, np.arange(len(alive)), networks].sum(axis=2).T
    own = (networks[:, :, None] == np.arange(alive.shape[1])).reshape(len(networks), -1)
    others = group[:, None] == np.arange(len(means))
    # A part's noise is about what options do not explain together.
    weights = np.sqrt(counts / (1 + counts))[:, None]
    own, free, losses = own * weights, np.c_[columns - columns.mean(axis=0), others] * weights, losses * weights[:, 0]
    # What is not penalised is fitted first, and to what the options' own parts leave (Frisch and Waugh, 1933): among
    # the options' columns, it would pass for evidence on how large their parts are.
    inverse = np.linalg.pinv(free, rcond=1e-9)
    model = BayesianRidge(fit_intercept=False)
    model.fit(own - free @ (inverse @ own), losses - free @ (inverse @ losses))
    values, vectors = np.linalg.eigh(model.sigma_)
    spread = vectors * np.sqrt(np.maximum(values, 0))
    root = np.block([
        [spread, np.zeros((len(spread), len(losses)))], [-inverse @ own @ spread, inverse / np.sqrt(model.alpha_)]
    ])  # fmt: skip
    kept = alive.size + len(shared)
    coefficients = np.concatenate([model.coef_, inverse @ (losses - own @ model.coef_)])
    return _Fit(alive, shared, coefficients[:kept], root[:kept])
