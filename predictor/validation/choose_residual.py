"""The choice of residuals on a block model's physics, and of their weights, by held-out error."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import get_args

import numpy as np

from netlathe.predictor.blocks.block_model import BlockModel, MeasuredBlocks, fit_block_model
from netlathe.predictor.blocks.residual import ResidualChoice, ResidualKind, Weights
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.intervals import Conformal
from netlathe.predictor.validation.held_out import Trial, hold_out

_KINDS: tuple[ResidualKind, ...] = get_args(ResidualKind)
"""All kinds of residual, in the order in which equals are preferred."""
_MOST_FOR_GP = 2000
"""Most blocks for which `auto` tries the Gaussian process, whose cost is cubic."""
_FEWEST_FOR_CHOICE = 15
"""Fewest blocks by which `auto` judges regressors; for fewer, it takes the pure physics."""
_SIMPLICITY = 0.98
"""Factor by which residuals must beat the pure physics' held-out error to be taken."""
_STEPS = 10
"""Steps in which weights of residuals are tried, tenths: finer ones would fit the noise of the errors that they are
judged by."""


def choose_block_model(
    measured: MeasuredBlocks, choice: ResidualChoice | Weights, seed: int
) -> tuple[BlockModel, Conformal]:
    """The model with the residuals that choose_residual takes, and its held-out errors, the far ones of which say how
    fast an interval has to grow."""
    weights, trial = choose_residual(measured, choice, seed)
    growth, errors = trial.calibrated()
    return fit_block_model(measured, weights, seed, growth), errors


def choose_residual(measured: MeasuredBlocks, choice: ResidualChoice | Weights, seed: int) -> tuple[Weights, Trial]:
    """Weights of the residuals asked for, or of those that `auto` takes, and the held-out errors of their mixture.
    Raises PredictorError for an unknown choice."""
    kinds = _candidates(choice, measured.different)
    trial = hold_out(measured, kinds, seed)
    weights = _stacked(trial, kinds) if isinstance(choice, str) else choice
    return weights, trial.mixed(np.array([weights.get(kind, 0.0) for kind in kinds]))


def _stacked(trial: Trial, kinds: Sequence[ResidualKind]) -> Weights:
    """The mixture with the least error in cross-validation (stacking: Wolpert, Stacked Generalization, 1992), near the
    records and far from them, as what serves between them may do harm elsewhere."""
    if len(kinds) == 1 or not trial.near.known.any():
        return {kinds[0]: 1.0}
    grid = np.array([w for w in itertools.product(range(_STEPS, -1, -1), repeat=len(kinds)) if sum(w) == _STEPS])
    errors = trial.mixed(grid.T / _STEPS).typical
    errors[grid[:, kinds.index("none")] == _STEPS] *= _SIMPLICITY
    best = grid[np.argmin(errors)] / _STEPS
    return {kind: float(weight) for kind, weight in zip(kinds, best, strict=True) if weight}


def _candidates(choice: ResidualChoice | Weights, blocks: int) -> list[ResidualKind]:
    """The kinds of residual to try on so many different blocks."""
    if not isinstance(choice, str):
        _check_weights(choice)
        return list(choice)
    if choice != "auto":
        if choice not in _KINDS:
            raise PredictorError(f"residual must be auto, {', '.join(_KINDS)}, got {choice!r}")
        return [choice]
    if blocks < _FEWEST_FOR_CHOICE:
        return ["none"]
    return [kind for kind in _KINDS if kind != "gp" or blocks <= _MOST_FOR_GP]


def _check_weights(weights: Weights) -> None:
    is_positive = all(weight >= 0 for weight in weights.values())
    if not (set(weights) <= set(_KINDS) and is_positive and abs(sum(weights.values()) - 1) <= 1e-6):
        raise PredictorError(f"weights of {', '.join(_KINDS)} must sum up to 1, got {dict(weights)}")
