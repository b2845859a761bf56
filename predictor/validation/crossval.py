"""Cross-validation of whole predictors: a prediction's item is not among those fitted on, under any name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import fusion_of
from netlathe.archspace.records import LatencyRecord, Setup, Status, noise_floor
from netlathe.predictor.blocks.block_model import BlockModel, MeasuredBlocks, fit_block_model
from netlathe.predictor.blocks.residual import ResidualChoice, Weights
from netlathe.predictor.errors import PredictorError, TooFewRecordsError
from netlathe.predictor.features.samples import Sample, is_network, key_of, sample_of, steady
from netlathe.predictor.folds import BLOCK_SPLITS, Fold, block_folds, configuration_folds, op_kind
from netlathe.predictor.intervals import Conformal
from netlathe.predictor.networks.latency_model import LatencyModel
from netlathe.predictor.networks.network_model import plain_sum
from netlathe.predictor.networks.physics_model import FEWEST_BLOCKS, PhysicsModel, unit_of
from netlathe.predictor.transfer.few_shot import adapt
from netlathe.predictor.transfer.prior import Prior, find_prior
from netlathe.predictor.validation.choose_model import fit_model
from netlathe.predictor.validation.choose_residual import choose_residual
from netlathe.predictor.validation.metrics import LEVELS, Predictions

SPLITS = (*BLOCK_SPLITS, "network")
"""Names of all splits: those of blocks, and of networks."""
_ENOUGH_FOR_5_FOLDS = 200
"""Number of items beyond which 5 folds tell as much as 10 do, in half of the time."""
_ENOUGH_TO_SHARE_ERRORS = 0.7
"""The part of the blocks from which on a fold makes its intervals of errors found once, among all blocks; with fewer,
its models are worse than those errors tell."""
FitFold = Callable[[Fold], LatencyModel]
"""Fits the model of a fold's training rows."""


@dataclass(frozen=True)
class CrossValidation:
    """Held-out predictions of one sample by split, and what stands in their way."""

    setup: Setup
    splits: Mapping[str, Predictions]
    """Predictions by split, in the order of SPLITS: "network" predicts networks, all others blocks."""
    impossible: Mapping[str, str]
    """The reason why a split that was asked for is missing."""
    not_predicted: tuple[str, ...]
    """Names of items that have, in some split, an op that nothing fitted on has: there is no honest number for them."""
    unsteady: tuple[str, ...]
    """Networks left out, here as in the fit, because their measurements call themselves unstable."""
    noise_floor: float | None
    """Relative difference between two halves of the measurements themselves."""

    def to_json(self) -> dict[str, Any]:
        """Content for a predictor's file: all predictions, in single precision."""
        return {
            "setup": self.setup.to_json(),
            "splits": {split: predictions.to_json() for split, predictions in self.splits.items()},
            "impossible": dict(self.impossible),
            "not_predicted": list(self.not_predicted),
            "unsteady": list(self.unsteady),
            "noise_floor": self.noise_floor,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CrossValidation:
        """The validation that to_json was asked of, in single precision. Raises what Python does for anything else."""
        noise = data["noise_floor"]
        return cls(
            Setup.from_json(data["setup"]),
            {str(split): Predictions.from_json(one) for split, one in data["splits"].items() if split in SPLITS},
            {str(split): str(reason) for split, reason in data["impossible"].items()},
            tuple(map(str, data["not_predicted"])),
            tuple(map(str, data["unsteady"])),
            None if noise is None else float(noise),
        )


class _TrainTest(NamedTuple):
    """Indices of the rows of one fold that are fitted on, and of those that are predicted."""

    train: Fold
    test: Fold


def cross_validate(
    X: Any,  # noqa: N803
    y: Iterable[float] | None = None,
    *,
    setup: Setup | None = None,
    residual: ResidualChoice | Weights = "auto",
    prior: Prior | str | None = None,
    splits: Sequence[str] = SPLITS,
    folds: int = 0,
    seed: int = 0,
) -> CrossValidation:
    """Predicts every measured block from other blocks, and every network from the blocks and other networks, in ms. X,
    y, setup, residual and prior as LatencyPredictor takes them.

    `splits`: what to hold out (folds.py), as far as the measurements admit it. `folds`: at most so many per split; by
    default 10, or 5 where there are more than 200 items. Whether the prior serves, and which residuals, is chosen once,
    on all items; rates and residual are fitted anew for each fold. A fold that keeps most of the blocks makes its
    intervals of errors found once, among all items, on the blocks that it keeps; any other finds them anew. Raises
    RecordError when setups mix, TooFewRecordsError where the fit does, PredictorError for an unknown split.
    """
    _check(splits, folds)
    given = list(X) if y is None else X
    sample = sample_of(given, y, setup)
    fit = _fit_on(sample, residual, prior, seed)
    names, fewest = _names(given, sample), 1 if prior else FEWEST_BLOCKS
    folds = folds or (10 if len(sample.items) <= _ENOUGH_FOR_5_FOLDS else 5)
    found: dict[str, Predictions] = {}
    impossible: dict[str, str] = {}
    not_predicted: dict[str, None] = {}
    for split in splits:
        try:
            found[split], unknown = _predict(sample, names, _held(split, sample, folds, fewest, seed), fit)
            not_predicted |= dict.fromkeys(unknown)
        except PredictorError as error:
            impossible[split] = str(error)
    records = [] if y is not None else [r for r in given if r.status is Status.OK and r.graph.nodes]
    noise = _noise_of(records, sample)
    return CrossValidation(sample.setup, found, impossible, tuple(not_predicted), _unsteady(records), noise)


def _check(splits: Sequence[str], folds: int) -> None:
    if not set(splits) <= set(SPLITS):
        raise PredictorError(f"splits must be some of {', '.join(SPLITS)}, got {', '.join(splits)}")
    if folds and folds < 2:
        raise PredictorError(f"cross-validation needs at least 2 folds, got {folds}")


def _held(split: str, sample: Sample, folds: int, fewest: int, seed: int) -> list[_TrainTest]:
    """The folds of a split. Raises PredictorError, with the reason, when it is impossible."""
    networks = np.flatnonzero(sample.is_network)
    blocks = np.flatnonzero(~sample.is_network)
    keys = np.array([key_of(item) for item in sample.items])
    if split == "network":
        if len(set(keys[networks])) < 2:
            raise PredictorError("fewer than two networks are measured, so none can be left out")
        tests = [networks[test] for test in configuration_folds(keys[networks].tolist(), folds, seed)]
        pool = np.arange(len(keys))
    else:
        graphs = [item for item in sample.items if isinstance(item, Graph) and not is_network(item)]
        tests, pool = [blocks[test] for test in block_folds(split, graphs, folds, seed)], blocks
    held = [_TrainTest(np.setdiff1d(pool, test), test) for test in tests]
    left = min(len(set(keys[one.train])) for one in held)
    if left < fewest:
        raise TooFewRecordsError(f"a fold leaves {left} of {len(set(keys[pool]))} items to fit on, and takes {fewest}")
    return held


def _predict(
    sample: Sample, names: Sequence[str], held: Sequence[_TrainTest], fit: FitFold
) -> tuple[Predictions, list[str]]:
    """Predictions of all folds, and the names of the items that they cannot predict."""
    parts, unknown = [], []
    for train, test in held:
        model = fit(train)
        items = [sample.items[i] for i in test]
        known = model.unknown(items).is_negligible
        unknown += [names[i] for i in test[~known]]
        if known.any():
            parts.append(_predictions(model, sample, names, test[known]))
    if not parts:
        raise PredictorError("nothing that is left out shares all its ops with the rest; profile more of each kind")
    return Predictions.joined(parts), unknown


def _predictions(model: LatencyModel, sample: Sample, names: Sequence[str], test: Fold) -> Predictions:
    """Predictions of a fold's test rows with intervals of all LEVELS."""
    items = [sample.items[i] for i in test]
    intervals = [model.predict_interval(items, level) for level in LEVELS]
    return Predictions(
        tuple(names[i] for i in test),
        tuple("network" if is_network(item) else op_kind(item) for item in items),
        sample.latency_ms[test],
        intervals[0].latency_ms,
        np.stack([np.log(one.high_ms / one.latency_ms) for one in intervals], axis=1),
    )


def _fit_on(sample: Sample, residual: ResidualChoice | Weights, prior: Prior | str | None, seed: int) -> FitFold:
    """The fit of a fold: as all items together are fitted."""
    known = None if prior is None else find_prior(prior)
    if known is None:
        return _fit_without_prior(sample, residual, seed)
    fitted = fit_model(sample, known, residual, seed)
    weights, share = fitted.residual_weights, fitted.prior_share

    def part(train: Fold) -> Sample:
        return sample.take(np.isin(np.arange(len(sample.items)), train))

    if weights is None:
        return lambda train: adapt(known, part(train))[0]
    if not share:
        return _fit_without_prior(sample, weights, seed)
    return lambda train: fit_model(part(train), known, weights, seed, share)


def _fit_without_prior(sample: Sample, residual: ResidualChoice | Weights, seed: int) -> FitFold:
    """The fit of a fold as fit_physics_model does it, but for what is found once: the residuals' weights, and the
    held-out error on each block, of which the intervals of a fold take those on the blocks that it is fitted on. A fold
    that leaves much fewer blocks than there are has to find them anew."""
    unit, on_top = unit_of(sample)
    fusion = fusion_of(sample.setup)
    rows, blocks = np.flatnonzero(~on_top), MeasuredBlocks.of(sample.take(~on_top))
    weights, trial = choose_residual(blocks, residual, seed)

    @lru_cache(maxsize=1)
    def block_model(chosen: bytes) -> tuple[BlockModel, Conformal]:
        train = np.flatnonzero(np.frombuffer(chosen, dtype=bool))
        seen = blocks.take(train)
        if len(train) > _ENOUGH_TO_SHARE_ERRORS * len(rows):
            growth, errors = trial.take(train).calibrated()
        else:
            growth, errors = choose_residual(seen, weights, seed)[1].calibrated()
        return fit_block_model(seen, weights, seed, growth), errors

    def fit(train: Fold) -> LatencyModel:
        model, errors = block_model(np.isin(rows, train).tobytes())
        whole = train[on_top[train]]
        blocks_alone = PhysicsModel(model, errors, plain_sum(), unit, fusion)
        networks = [sample.items[i] for i in whole]
        return blocks_alone.with_networks(networks, sample.latency_ms[whole], sample.errors[whole])

    return fit


def _names(given: Any, sample: Sample) -> list[str]:
    """Names of the sample's items: as their records are called, else by their places."""
    names = (
        {key_of(r.graph): r.name for r in given if isinstance(r, LatencyRecord)} if isinstance(given, Sequence) else {}
    )
    return [names.get(key_of(item), f"item {index}") for index, item in enumerate(sample.items)]


def _unsteady(records: Sequence[LatencyRecord]) -> tuple[str, ...]:
    """Names of the networks that a fit leaves out as unstable."""
    networks = [r for r in records if r.kind == "network"]
    kept = {id(r) for r in steady(networks)}
    return tuple(r.name for r in networks if id(r) not in kept)


def _noise_of(records: Sequence[LatencyRecord], sample: Sample) -> float | None:
    """Noise floor of the measurements, by their rounds, else by their repetitions; None where neither tells."""
    by_rounds = noise_floor(records)
    return _difference_of_repetitions(sample) if by_rounds is None else by_rounds


def _difference_of_repetitions(sample: Sample) -> float | None:
    """Median difference between the two halves of an item's latencies, where items were measured several times."""
    by_key: dict[str, list[float]] = {}
    for item, latency_ms in zip(sample.items, sample.latency_ms.tolist(), strict=True):
        by_key.setdefault(key_of(item), []).append(latency_ms)
    halves = [(median(times[::2]), median(times[1::2])) for times in by_key.values() if len(times) > 1]
    return median(abs(even / odd - 1) for even, odd in halves) if halves else None
