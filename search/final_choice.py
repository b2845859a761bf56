"""Final choice by comparison: networks within the limits are judged on the same validation images, and what each option
adds to their cross-entropy is fitted, so that the decode maximises quality and not how often an option was rewarded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV

from netlathe.archspace.decisions import Choices
from netlathe.search.costs import Constraint
from netlathe.search.decode import decode
from netlathe.training.sgd import check_finite

ValidationLoss = Callable[[Choices], float]
"""Cross-entropy of a network, on the same images for all."""

OnCompared = Callable[[int, int], None]
"""Listener to a comparison: (networks compared, networks to compare)."""

LEAST_LOG_PROBABILITY = -3.0
"""Floor of log probabilities: below it they tell how long a search ran rather than how bad an option is."""

FEWEST_TO_FIT = 8
"""Networks below whose number no scores are fitted."""

UNPENALISED = 1e3
"""Scale of a column that ridge regression is to leave alone."""


def compare_networks(
    log_probabilities: NDArray[np.float64],
    constraints: Sequence[Constraint],
    validation_loss: ValidationLoss,
    *,
    finalists: int,
    rng: np.random.Generator,
    on_compared: OnCompared | None = None,
) -> dict[Choices, float]:
    """Cross-entropies of different networks that keep all limits: the decoded one, then decodes under Gumbel noise
    (perturb and MAP, Papandreou & Yuille, 2011), by turns around the probabilities and around none, so that every
    option is seen and most networks use the limit up.

    log_probabilities (decisions, options), -inf where there is no option. Fewer than `finalists` where there are no
    more networks. Raises TrainingError for a cross-entropy that is no number.
    """
    alive = np.isfinite(log_probabilities)
    floored = np.where(alive, np.maximum(log_probabilities, LEAST_LOG_PROBABILITY), -np.inf)
    networks = {decode(log_probabilities, constraints): None}
    for attempt in range(4 * finalists):
        if len(networks) >= finalists:
            break
        centre = floored if attempt % 2 else np.where(alive, 0.0, -np.inf)
        networks[decode(centre + rng.gumbel(size=alive.shape), constraints)] = None
    losses = {}
    for count, choices in enumerate(networks, 1):
        where = f"comparing networks, choices {'-'.join(map(str, choices))}"
        losses[choices] = check_finite(validation_loss(choices), where)
        if on_compared:
            on_compared(count, len(networks))
    return losses


def candidate_scores(
    log_probabilities: NDArray[np.float64], constraints: Sequence[Constraint], losses: Mapping[Choices, float]
) -> NDArray[np.float64]:
    """Scores (decisions, options): minus what each option adds to the cross-entropy; -inf where there is none.

    Cross-entropy = constant + a * sum of -log p + for each limit b * cost + the options' own parts, which ridge
    regression keeps as small as leave-one-out errors want them. The costs take back the price of latency that the
    probabilities were learned under: near the limit it is the limit that decides, not its price. From fewer than
    FEWEST_TO_FIT networks nothing is fitted, and the probabilities are the answer.
    """
    if len(losses) < FEWEST_TO_FIT:
        return log_probabilities
    alive = np.isfinite(log_probabilities)
    floored = np.where(alive, np.maximum(log_probabilities, LEAST_LOG_PROBABILITY), 0.0)
    shared = [-floored, *(np.where(alive, c.table.values, 0.0) / c.limit for c in constraints)]
    networks = np.array(list(losses))
    rows = np.arange(len(alive))
    common = np.stack([column[rows, networks].sum(1) for column in shared], axis=1)
    deviation = common.std(axis=0)
    # A column that is the same in all networks says nothing.
    scale = np.where(deviation > 1e-9, UNPENALISED / np.maximum(deviation, 1e-9), 0.0)
    own = (networks[:, :, None] == np.arange(alive.shape[1])).reshape(len(networks), -1)
    model = RidgeCV(alphas=np.logspace(-2, 4, 25)).fit(np.c_[common * scale, own], list(losses.values()))
    parts = model.coef_[len(shared) :].reshape(alive.shape)
    total = parts + sum(w * s * column for w, s, column in zip(model.coef_, scale, shared, strict=False))
    return np.where(alive, -total, -np.inf)
