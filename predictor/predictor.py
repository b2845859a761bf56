"""LatencyPredictor: measurements in, milliseconds with an interval out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin

from netlathe.archspace.records import Setup
from netlathe.predictor.assembled import Assembled, Model, Predicted
from netlathe.predictor.blended import Blended
from netlathe.predictor.block_model import ResidualChoice
from netlathe.predictor.catalogue import predictor_path
from netlathe.predictor.errors import NotFittedError, PredictorError
from netlathe.predictor.features import FlagArray, FloatArray, Item
from netlathe.predictor.few_shot import Adapted
from netlathe.predictor.files import FILE_KIND, FILE_VERSION, read_model, write_model
from netlathe.predictor.fitting import fit_model
from netlathe.predictor.intervals import check_coverage
from netlathe.predictor.prior import Prior, find_prior
from netlathe.predictor.residual import Weights
from netlathe.predictor.samples import distinct, items_of, sample_of, warnings_of

_PART = 1 << 16
_MODELS: dict[str, Callable[[Mapping[str, Any]], Model]] = {
    "assembled": Assembled.from_json,
    "adapted": Adapted.from_json,
    "blended": Blended.from_json,
}


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without warnings, as _finite tells what overflows, and without collections of garbage: many small objects are
    made, none in circles, and looking through them again and again takes more time than all else."""
    collects = gc.isenabled()
    gc.disable()
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    finally:
        if collects:
            gc.enable()


def _finite(values: FloatArray) -> FloatArray:
    """The values themselves. Raises PredictorError for one that is none: a file may hold coefficients that no records
    lead to, and a graph may be beyond all numbers."""
    if not np.isfinite(values).all():
        raise PredictorError(
            "this predictor gives no finite latency for some of these items: check their sizes, or fit it again"
        )
    return values


def _latencies(values_ms: FloatArray) -> FloatArray:
    """As _finite, and none is below zero."""
    if (values_ms < 0).any():
        raise PredictorError("this predictor gives latencies below zero: fit it again")
    return _finite(values_ms)


class LatencyPredictor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Predicts the latency of blocks and networks on the one setup that its measurements come from.

    A block's latency is a non-negative sum of work terms times exp(residual); a network's is offset + slope * sum of
    its blocks. Where whole networks alone were measured, they take the blocks' place: a network's latency is the sum
    of its work. `residual` is the regressor on top of the physics: "none", "gp", "xgboost", "forest", or "auto", which
    mixes them as is best in cross-validation; or the weights of a mixture, such as {"gp": 0.7, "forest": 0.3}. With a
    `prior`, what is known of other devices is adapted to this one, and a handful of measurements is enough. Equal
    measurements and `random_state` give equal predictors.

    After fit: `setup_`, `n_blocks_`, `n_networks_`, `model_` (what was fitted), `residual_` (the regressors taken),
    `warnings_` (what to know, in words, of the measurements; not saved).
    """

    def __init__(
        self, residual: ResidualChoice | Weights = "auto", random_state: int = 0, prior: Prior | str | None = None
    ) -> None:
        self.residual = residual
        self.random_state = random_state
        self.prior = prior

    def fit(self, X: Any, y: Iterable[float] | None = None, *, setup: Setup | None = None) -> Self:  # noqa: N803
        """Fits on latency records (failed ones are left out), or on items X with their latencies y in ms.

        An item is a graph, a block, an architecture, or a tuple of graphs: a network in pieces. X may also be a
        DataFrame with a row a configuration (netlathe.archspace.configurations). `setup` says what y was measured on.

        Raises RecordError when setups mix, TooFewRecordsError below 3 different blocks or networks (without a prior),
        UnknownOpError when a network holds an op that no block has, PredictorError for latencies that are none.
        """
        sample = sample_of(X, y, setup)
        prior = None if self.prior is None else find_prior(self.prior)
        model = fit_model(sample, prior, self.residual, self.random_state)
        networks = int(sample.is_network.sum())
        self.setup_, self.n_networks_, self.n_blocks_ = sample.setup, networks, len(sample.items) - networks
        self.model_: Model = model
        self.warnings_ = warnings_of(X) if y is None else []
        return self

    def predict(self, X: Any) -> FloatArray:  # noqa: N803
        """ms, shape (n,), of items as fit takes them. A graph whose nodes have scopes is a network, and so is a tuple
        of graphs; any other is a block; one without nodes takes exactly 0. Raises NotFittedError, and UnknownOpError
        for an op that nothing measured had."""
        with _undisturbed():
            parts = [self.model_.predict(items)[numbers] for items, numbers in self._parts(X)]
        return _latencies(np.concatenate([np.zeros(0), *parts]))

    def predict_interval(self, X: Any, coverage: float = 0.9) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """(low, high) in ms, each of shape (n,): where a measurement lies with probability `coverage`, if the items are
        like the measured ones; wider for those that are not. Raises as predict does, and PredictorError for a coverage
        outside (0, 1)."""
        check_coverage(coverage)
        nothing = np.zeros((2, 0))
        with _undisturbed():
            parts = [
                np.array(self.model_.predict_interval(items, coverage)[1:])[:, numbers]
                for items, numbers in self._parts(X)
            ]
        low_ms, high_ms = _latencies(np.concatenate([nothing, *parts], axis=1))
        return low_ms, high_ms

    def knows(self, X: Any) -> FlagArray:  # noqa: N803
        """Whether all ops of each item were measured, so that predict does not raise UnknownOpError. Shape (n,)."""
        items = self._items(X)
        return self.model_.knows(items)

    def tabulate(self, space: Any, coverage: float = 0.9) -> Predicted:
        """What each candidate block of a search space, or of a sequence of candidates per position, adds to a network's
        latency in ms, with the interval beside it; an identity adds 0.

        Arrays of shape (positions, most candidates), NaN where a position has fewer. Where blocks were measured, the
        latency of a network with one candidate per position is network_offset_ms_ + the sum of its entries. A predictor
        of whole networks, or with a prior, is not additive (adds_up_): there, entries are what blocks take by
        themselves.
        """
        check_coverage(coverage)
        positions: Sequence[Sequence[Any]] = getattr(space, "positions", space)
        items = self._items([item for position in positions for item in position])
        with _undisturbed():
            added = self.model_.added(items, coverage)
        lengths = np.array([len(position) for position in positions], dtype=int)
        taken = np.arange(lengths.max(initial=0)) < lengths[:, None]
        tables = []
        for values in added:
            table = np.full(taken.shape, np.nan)
            table[taken] = _finite(values)
            tables.append(table)
        return Predicted(*tables)

    def _parts(self, given: Any) -> Iterator[tuple[list[Item], NDArray[np.intp]]]:
        """A million graphs take gigabytes, so they are lowered in parts; equal ones within a part count once."""
        count = len(given) if hasattr(given, "__len__") else 0
        for start in range(0, max(count, 1), _PART):
            part = given.iloc[start : start + _PART] if hasattr(given, "iloc") else given
            part = given[start : start + _PART] if isinstance(part, (list, tuple, np.ndarray)) else part
            yield distinct(self._items(part))

    def _items(self, given: Any) -> list[Item]:
        if not hasattr(self, "model_"):
            raise NotFittedError(
                "this predictor has seen no measurements; call fit(records), or LatencyPredictor.load(path or name)"
            )
        return items_of(given, self.setup_.batch)

    @property
    def residual_(self) -> str:
        """The regressor that was taken, or several with their weights, such as "0.7 gp + 0.3 forest"."""
        return self.model_.residual

    @property
    def adds_up_(self) -> bool:
        """Whether a network is network_offset_ms_ + what tabulate says of its blocks."""
        return self.model_.adds_up

    @property
    def network_offset_ms_(self) -> float:
        """What a network takes beside what its blocks add."""
        return self.model_.offset_ms

    @property
    def _prior_name(self) -> str | None:
        return self.prior if isinstance(self.prior, str) else None

    def save(self, path: str | Path) -> None:
        """Writes one JSON file with a checksum. Raises NotFittedError."""
        self._items([])
        write_model(path, FILE_KIND, FILE_VERSION, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """What save writes. A prior is part of what was fitted; only its name, where it has one, is kept apart."""
        return {
            "setup": self.setup_.to_json(),
            "parameters": {"residual": self.residual, "random_state": self.random_state, "prior": self._prior_name},
            "counts": {"blocks": self.n_blocks_, "networks": self.n_networks_},
            "kind": self.model_.kind,
            "model": self.model_.to_json(),
        }

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The predictor that save wrote, which predicts exactly the same, or a shipped one by name, such as
        "pixel4-cpu". Raises FormatError for a file that is missing, damaged, changed, of another kind or version."""
        return read_model(predictor_path(path), FILE_KIND, FILE_VERSION, lambda file: cls._from_json(file.content))

    @classmethod
    def _from_json(cls, content: dict[str, Any]) -> Self:
        parameters, counts = content["parameters"], content["counts"]
        prior = parameters.get("prior")
        if prior is not None and not isinstance(prior, str):
            raise ValueError("a prior goes by its name")
        predictor = cls(parameters["residual"], int(parameters["random_state"]), prior)
        predictor.n_blocks_, predictor.n_networks_ = int(counts["blocks"]), int(counts["networks"])
        predictor.setup_ = Setup.from_json(content["setup"])
        predictor.model_ = _MODELS[content["kind"]](content["model"])
        predictor.warnings_ = []
        return predictor
