"""The estimator: LatencyPredictor, fitted on measurements, predicts milliseconds with an interval."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from netlathe.archspace.records import Setup
from netlathe.predictor.blocks.residual import ResidualChoice, Weights
from netlathe.predictor.catalogue import predictor_path
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features.item_features import Item, known_macs_share
from netlathe.predictor.features.samples import distinct, elements_of, items_of, lower, sample_of, warnings_of
from netlathe.predictor.files import FILE_KIND, FILE_VERSION, read_model, write_model
from netlathe.predictor.intervals import USUAL_COVERAGE, check_coverage
from netlathe.predictor.networks.kernel_latencies import KernelLatencies, kernel_latencies
from netlathe.predictor.networks.latency_model import LatencyModel, Predicted
from netlathe.predictor.numbers import FlagArray, FloatArray
from netlathe.predictor.own_model import OwnModel, Predicts, setup_of

if TYPE_CHECKING:
    from netlathe.archspace.blocks import Block
    from netlathe.archspace.graph import Graph
    from netlathe.archspace.spaces import SearchSpace
    from netlathe.predictor.transfer.prior import Prior
    from netlathe.predictor.validation.crossval import CrossValidation

_BATCH = 1 << 13
"""Items lowered to graphs at once: few enough that the processor's caches still help, enough for whole-array
arithmetic."""
_WINDOW = 1 << 16
"""Items, or rows of a table, among which equal ones are looked for."""
_MODELS = {
    "assembled": ("networks.physics_model", "PhysicsModel"),
    "adapted": ("transfer.few_shot", "TransferModel"),
    "blended": ("transfer.blended", "Blended"),
}
"""Module and class of the models by their `kind` in files."""

_PARAMETERS = ("residual", "random_state", "prior")
"""Names of the constructor's arguments."""


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A context without numpy's warnings, as _finite tells what overflows, and without collections of garbage: many
    small objects are made, none in circles, and looking through them again and again takes more time than all else."""
    collects = gc.isenabled()
    gc.disable()
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    finally:
        if collects:
            gc.enable()


def _finite(values: FloatArray) -> FloatArray:
    """The values themselves, if all are finite, else PredictorError: a file may hold coefficients that no records
    lead to, and a graph may be beyond all numbers."""
    if not np.isfinite(values).all():
        raise PredictorError(
            "this predictor gives no finite latency for some of these items: check their sizes, or fit it again"
        )
    return values


def _latencies(values_ms: FloatArray) -> FloatArray:
    """The latencies in ms themselves, if all are finite and none is below zero, else PredictorError."""
    if (values_ms < 0).any():
        raise PredictorError("this predictor gives latencies below zero: fit it again")
    return _finite(values_ms)


class LatencyPredictor:
    """Predicts the latency of blocks and networks on the one setup that its measurements come from.

    A block's latency is a non-negative sum of work terms times exp(residual); a network's is offset + slope * sum of
    its blocks. Where whole networks alone were measured, they take the blocks' place: a network's latency is the sum
    of its work. `residual` is the regressor on top of the physics: "none", "gp", "xgboost", "forest", or "auto", which
    mixes them as is best in cross-validation; or the weights of a mixture, such as {"gp": 0.7, "forest": 0.3}. With a
    `prior`, what is known of other devices is adapted to this one, and a handful of measurements is enough. Equal
    measurements and `random_state` give equal predictors. To scikit-learn it is a regressor, without deriving from its
    classes: predicting imports none of it.

    After fit: `setup_`, `n_blocks_`, `n_networks_`, `model_` (what was fitted), `residual_` (the regressors taken),
    `warnings_` (what to know, in words, of the measurements; not saved).
    """

    _estimator_type = "regressor"  # for scikit-learn before 1.6

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
        from netlathe.predictor.transfer.prior import find_prior  # only fits need these
        from netlathe.predictor.validation.choose_model import fit_model

        sample = sample_of(X, y, setup)
        prior = None if self.prior is None else find_prior(self.prior)
        model = fit_model(sample, prior, self.residual, self.random_state)
        networks = int(sample.is_network.sum())
        self.setup_, self.n_networks_, self.n_blocks_ = sample.setup, networks, len(sample.items) - networks
        self.model_: LatencyModel = model
        self.warnings_ = warnings_of(X) if y is None else []
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, by name; `deep` changes nothing, as none is an estimator."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **parameters: Any) -> Self:
        """Sets arguments of the constructor for the next fit. Raises ValueError for any other name."""
        for name, value in parameters.items():
            if name not in _PARAMETERS:
                raise ValueError(f"Invalid parameter {name!r} for LatencyPredictor; there are {', '.join(_PARAMETERS)}")
            setattr(self, name, value)
        return self

    def score(self, X: Any, y: Iterable[float], sample_weight: Any = None) -> float:  # noqa: N803
        """R² of the predictions of items X, whose latencies are y in ms, as scikit-learn's searches take it."""
        from sklearn.metrics import r2_score

        return float(r2_score(y, self.predict(X), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        from netlathe.predictor.scikit_learn import regressor_tags

        return regressor_tags()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __repr__(self) -> str:
        return f"LatencyPredictor({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def predict(self, X: Any) -> FloatArray:  # noqa: N803
        """Latencies in ms, shape (n,), of items as fit takes them. A graph whose nodes have scopes is a network, and so
        is a tuple of graphs; any other is a block; one without nodes takes exactly 0. Graphs have no dtype: latencies
        are those in the dtype of the setup. Raises NotFittedError, and UnknownOpError for an op that nothing measured
        had, unless it only moves values and is a modest part (unknown_ops)."""
        return _latencies(self._in_batches(X, lambda items: self.model_.predict(items)))

    def predict_interval(self, X: Any, coverage: float = USUAL_COVERAGE) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Intervals (low, high) in ms, each of shape (n,), in which a measurement lies with probability `coverage`, if
        the items are like the measured ones; wider for those that are not. Raises as predict does, and PredictorError
        for a coverage outside (0, 1)."""
        predicted = self.predict_with_interval(X, coverage)
        return predicted.low_ms, predicted.high_ms

    def predict_with_interval(self, X: Any, coverage: float = USUAL_COVERAGE) -> Predicted:  # noqa: N803
        """Latencies in ms with their intervals, as predict and predict_interval give them, each of shape (n,), in the
        time that one of them takes. Raises as both do."""
        check_coverage(coverage)
        predicted = self._in_batches(X, lambda items: np.array(self.model_.predict_interval(items, coverage)))
        return Predicted(*_latencies(predicted))

    def knows(self, X: Any) -> FlagArray:  # noqa: N803
        """Whether the ops of each item were measured, or are priced all the same (predict), so that predict does not
        raise UnknownOpError even without assuming(). Shape (n,)."""
        items = self._items(X)
        return self.model_.unknown(items).is_priced

    def unknown_ops(self, X: Any) -> list[Mapping[str, float]]:  # noqa: N803
        """Ops of each item that nothing measured had, by kind, with the part of its latency that they take at most,
        from 0 to 1. Predictions hold what they usually cost beside the measured work, and intervals are wider for
        them."""
        items = self._items(X)
        return self.model_.unknown(items).told()

    def known_shares(self, X: Any) -> list[tuple[float, float]]:  # noqa: N803
        """Parts of each item's MACs, and of its predicted latency, that ops take which were measured; both from 0 to 1.
        Of an opaque op, nobody knows the MACs: they are in neither side of that part."""
        items = self._items(X)
        assumed = self.model_.unknown(items)
        shares = assumed.known_share.tolist()
        return [
            (known_macs_share(item, assumed.classes(place)), share)
            for place, (item, share) in enumerate(zip(items, shares, strict=True))
        ]

    def assuming(self) -> Self:
        """A copy that refuses no op: also those that are more than next to nothing are priced by what such work usually
        costs beside the measured work, from a tenth of it to ten times. unknown_ops tells which these are; a saved copy
        does not know of this. Raises NotFittedError."""
        self._items([])
        other = copy(self)
        other.model_ = self.model_.assuming()
        return other

    def tabulate(
        self, space: SearchSpace | Sequence[Sequence[Item | Block]], coverage: float = USUAL_COVERAGE
    ) -> Predicted:
        """Latency in ms that each candidate block of a search space, or of a sequence of candidates per position, adds
        to a network, with its interval; an identity adds 0. Decisions of other kinds have no blocks to price:
        CostTable.tabulate prices any DecisionSpace by its networks.

        Arrays of shape (positions, most candidates), NaN where a position has fewer. Where blocks were measured, the
        latency of a network with one candidate per position is network_offset_ms_ + the sum of its entries. A predictor
        of whole networks, or with a prior, is not additive (adds_up_): there, entries are what blocks take by
        themselves. Raises PredictorError for anything else, and as predict_interval does.
        """
        from netlathe.archspace.spaces import SearchSpace

        check_coverage(coverage)
        positions = space.positions if isinstance(space, SearchSpace) else list(map(elements_of, elements_of(space)))
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

    def kernels(self, graph: Graph) -> KernelLatencies:
        """The latency that each kernel of a graph adds to its prediction, in ms, and which limit of the setup it comes
        near. With its `rest_ms`, they add up to what predict gives. Raises as predict does."""
        self._check_fitted()
        with _undisturbed():
            return kernel_latencies(self.model_, graph)

    def _in_batches(self, given: Any, answer: Callable[[list[Item]], FloatArray]) -> FloatArray:
        """Answers for all items, along the last axis, as `answer` gives them for some. A million graphs take gigabytes,
        so they are lowered in batches; equal items within a window count once."""
        self._check_fitted()
        windows = []
        with _undisturbed():
            for window in self._windows(given):
                different, numbers = distinct(window)
                starts = range(0, max(len(different), 1), _BATCH)
                batches = [answer(self._lowered(different[start : start + _BATCH])) for start in starts]
                windows.append(np.concatenate(batches, axis=-1)[..., np.array(numbers, dtype=np.intp)])
        return np.concatenate(windows, axis=-1)

    def _windows(self, given: Any) -> Iterator[list[Any]]:
        """Windows over the graphs of a table's rows, or over a sequence's elements as they are; at least one."""
        is_table = hasattr(given, "columns")
        elements = given.iloc if is_table else elements_of(given)
        for start in range(0, max(len(given), 1), _WINDOW):
            part = elements[start : start + _WINDOW]
            yield items_of(part, self.setup_.batch, start) if is_table else part

    def _lowered(self, elements: Sequence[Any]) -> list[Item]:
        return [lower(element, self.setup_.batch) for element in elements]

    def _items(self, given: Any) -> list[Item]:
        self._check_fitted()
        return items_of(given, self.setup_.batch)

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            from netlathe.predictor.scikit_learn import NotFittedError

            raise NotFittedError(
                "this predictor has seen no measurements; call fit(records), or LatencyPredictor.load(path or name)"
            )

    @property
    def assumes_(self) -> bool:
        """Whether ops that nothing measured had are assumed, as by assuming()."""
        return self.model_.assumes

    @property
    def residual_(self) -> str:
        """The regressor that was taken, or several with their weights, such as "0.7 gp + 0.3 forest"."""
        return self.model_.residual

    @property
    def prior_share_(self) -> float:
        """Weight of the prior in the predictions: 0 where these measurements alone were fitted, 1 where the known
        devices adapted are better alone."""
        return self.model_.prior_share

    @classmethod
    def wrapping(cls, model: Predicts, name: str = "") -> Self:
        """A latency model of your own, anything with predict(graphs) -> ms, in a predictor's place. Its `setup_`, where
        it has one, says what it is of. It has no intervals (has_intervals_), and cannot be saved."""
        name = name or type(model).__name__
        predictor = cls()
        predictor.setup_, predictor.n_blocks_, predictor.n_networks_ = setup_of(model, name), 0, 0
        predictor.model_ = OwnModel(model, name)
        predictor.warnings_ = []
        return predictor

    @property
    def has_intervals_(self) -> bool:
        """Whether predict_interval tells more than predict."""
        return self.model_.has_intervals

    @property
    def tells_precisions_(self) -> bool:
        """Whether it prices parts of a network by their precisions: MixedPredictor does, a model of your own may."""
        return isinstance(self.model_, OwnModel)

    @property
    def adds_up_(self) -> bool:
        """Whether a network is network_offset_ms_ + what tabulate says of its blocks."""
        return self.model_.adds_up

    @property
    def network_offset_ms_(self) -> float:
        """Latency of a network in ms beside what its blocks add."""
        return self.model_.offset_ms

    @property
    def _prior_name(self) -> str | None:
        return self.prior if isinstance(self.prior, str) else None

    def save(
        self, path: str | Path, validation: CrossValidation | None = None, *, made: Mapping[str, Any] | None = None
    ) -> None:
        """Writes one JSON file with a checksum, and in it what was held out, where a `validation` is given, and how it
        was `made`. Raises NotFittedError, and PredictorError for a model of your own."""
        self._check_fitted()
        if isinstance(self.model_, OwnModel):
            raise PredictorError(f"{self.model_.name}: a model of your own cannot be saved; save it as you made it")
        held_out = None if validation is None else validation.to_json()
        write_model(path, FILE_KIND, FILE_VERSION, self.to_json(), held_out=held_out, made=made)

    def to_json(self) -> dict[str, Any]:
        """Content of the file that save writes. A prior is part of what was fitted; only its name, where it has one, is
        kept apart."""
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
        module, name = _MODELS[content["kind"]]
        read: Callable[[Any], LatencyModel] = getattr(import_module(f"netlathe.predictor.{module}"), name).from_json
        predictor.model_ = read(content["model"])
        predictor.warnings_ = []
        return predictor
