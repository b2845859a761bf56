"""Latencies of networks of several precisions, from a predictor of each on the same device."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np

from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import clamped_nodes, gated_layers
from netlathe.archspace.precisions import BORDERS, Precision, is_mixed, precisions_of, unmixed
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.intervals import USUAL_COVERAGE
from netlathe.predictor.networks.kernel_latencies import KernelLatencies
from netlathe.predictor.networks.latency_model import Predicted
from netlathe.predictor.numbers import FlagArray, FloatArray
from netlathe.predictor.predictor import LatencyPredictor

Pieces = tuple[Graph, ...]
_COMPUTED_IN = {Precision.FLOAT16: "float32"}
"""Dtype of the predictor that prices a precision, where it is not called as the precision is."""


class MixedPredictor(LatencyPredictor):
    """A predictor of float32 networks that also prices those whose parts have other precisions
    (archspace/precisions.py), by a predictor of each such precision on the same device.

    Parts are priced by the predictor whose setup has their precision as dtype, what converts by that of int8; weights
    stored as float16 cost what float32 ones do, as CPUs widen them when they load a file. A network's latency is the
    sum of its parts, in which what a network costs beside its blocks counts once: that of each dtype by its share of
    the MACs, so that networks of one precision are what its predictor says. Raises PredictorError where the first
    predictor is not of float32, two are of one dtype, or setups differ in more.
    """

    def __init__(self, float32: LatencyPredictor, *others: LatencyPredictor) -> None:
        super().__init__(float32.residual, float32.random_state, float32.prior)
        self.__dict__.update(float32.__dict__)
        self.of_dtype: dict[str, LatencyPredictor] = {}
        for model in (float32, *others):
            self._take(model)

    def _take(self, model: LatencyPredictor) -> None:
        dtype, known = model.setup_.dtype, ("float32", *_MEASURED)
        if (not self.of_dtype and dtype != "float32") or dtype not in known or dtype in self.of_dtype:
            found = " and ".join([*self.of_dtype, dtype])
            raise PredictorError(
                f"a predictor of float32 and others of {' or '.join(_MEASURED)} are needed, got {found}"
            )
        if dataclasses.replace(model.setup_, dtype="float32") != self.setup_:
            raise PredictorError(
                f"the predictors are of different setups: {self.setup_} and {model.setup_}; fit both on profiles of "
                "one device, runtime and number of threads"
            )
        self.of_dtype[dtype] = model

    def check_prices(self, precisions: Sequence[str]) -> None:
        """Raises PredictorError for precisions that no predictor here is of, saying how to get one."""
        for precision in precisions:
            dtype = _COMPUTED_IN.get(Precision(precision), precision)
            if dtype not in self.of_dtype:
                raise PredictorError(_unmeasured(f"nothing tells what {precision} costs on {self.setup_}", dtype))

    def predict(self, X: Any) -> FloatArray:  # noqa: N803
        """Latencies in ms, shape (n,), of items as LatencyPredictor takes them, and of graphs as mixed() makes them.
        Raises as LatencyPredictor does, and PredictorError for a precision that no predictor here is of."""
        latency_ms: FloatArray = self._summed(X, lambda model, items: model.predict(items)[None])[0]
        return latency_ms

    def predict_with_interval(self, X: Any, coverage: float = USUAL_COVERAGE) -> Predicted:  # noqa: N803
        """Latencies in ms with intervals of that coverage, each of shape (n,). The parts' errors are taken to go
        together, so that the bounds add up. Raises as predict does, and PredictorError for a coverage that is none."""
        found = self._summed(X, lambda model, items: np.array(model.predict_with_interval(items, coverage)))
        return Predicted(found[0], np.maximum(found[1], 0.0), found[2])

    def _summed(self, given: Any, answer: Callable[[LatencyPredictor, list[Any]], FloatArray]) -> FloatArray:
        """Answers (kinds, n) for all items, each model asked once for all parts that are its own."""
        items = self._elements(given)
        parts = [_parts(item) for item in items]
        total = np.zeros((len(answer(self.of_dtype["float32"], [])), len(items)))
        for dtype in dict.fromkeys(dtype for one in parts for dtype in one.pieces):
            places = [place for place, one in enumerate(parts) if dtype in one.pieces]
            model = self._model(dtype, parts[places[0]])
            total[:, places] += answer(model, [parts[place].pieces[dtype] for place in places])
        total += [self._beside_ms(one) for one in parts]
        if (total[0] < 0).any():
            raise PredictorError("these predictors give a latency below zero: fit them again")
        return total

    def _beside_ms(self, parts: _Parts) -> float:
        """Latency in ms of such a network beside its blocks, less what each part was charged for it."""
        if len(parts.pieces) < 2:
            return 0.0
        offsets_ms = {dtype: self.of_dtype[dtype].network_offset_ms_ for dtype in parts.pieces}
        macs = {dtype: sum(piece.macs for piece in pieces) for dtype, pieces in parts.pieces.items()}
        total = max(sum(macs.values()), 1)
        return float(sum(offsets_ms[dtype] * (macs[dtype] / total - 1) for dtype in offsets_ms))

    def _model(self, dtype: str, parts: _Parts) -> LatencyPredictor:
        if dtype not in self.of_dtype:
            what = f"node {parts.example[dtype]!r:.80} is in {dtype}, which nothing here was measured in"
            raise PredictorError(_unmeasured(what, dtype))
        return self.of_dtype[dtype]

    def _elements(self, given: Any) -> list[Any]:
        return [given.iloc[row : row + 1] for row in range(len(given))] if hasattr(given, "iloc") else list(given)

    @property
    def tells_precisions_(self) -> bool:
        """Whether it prices parts of a network by their precisions: it does."""
        return True

    def knows(self, X: Any) -> FlagArray:  # noqa: N803
        """Whether the ops of each item were measured in their precisions, (n,)."""
        found = [_parts(item) for item in self._elements(X)]
        return np.array([all(self.of_dtype[d].knows([p])[0] for d, p in one.pieces.items()) for one in found], bool)

    def unknown_ops(self, X: Any) -> list[Mapping[str, float]]:  # noqa: N803
        """Ops of each item that nothing measured had, as LatencyPredictor tells them."""
        return [self._unknown_in(_parts(item)) for item in self._elements(X)]

    def _unknown_in(self, parts: _Parts) -> dict[str, float]:
        found: dict[str, float] = {}
        for dtype, share in self._shares(parts).items():
            for op, of_part in self._model(dtype, parts).unknown_ops([parts.pieces[dtype]])[0].items():
                found[op] = found.get(op, 0.0) + share * of_part
        return found

    def known_shares(self, X: Any) -> list[tuple[float, float]]:  # noqa: N803
        """Parts of each item's MACs, and of its predicted latency, that ops take which were measured."""
        return [self._known_in(_parts(item)) for item in self._elements(X)]

    def _known_in(self, parts: _Parts) -> tuple[float, float]:
        found = {d: self._model(d, parts).known_shares([pieces])[0] for d, pieces in parts.pieces.items()}
        if len(found) == 1:
            return next(iter(found.values()))
        macs = {dtype: sum(piece.macs for piece in pieces) for dtype, pieces in parts.pieces.items()}
        total, shares = max(sum(macs.values()), 1), self._shares(parts)
        return (
            sum(macs[dtype] / total * one[0] for dtype, one in found.items()),
            sum(shares[dtype] * one[1] for dtype, one in found.items()),
        )

    def _shares(self, parts: _Parts) -> dict[str, float]:
        """Part of the latency that each dtype takes."""
        if len(parts.pieces) < 2:
            return dict.fromkeys(parts.pieces, 1.0)
        found = {d: float(self._model(d, parts).predict([pieces])[0]) for d, pieces in parts.pieces.items()}
        total = sum(found.values())
        return {dtype: ms / total if total else 0.0 for dtype, ms in found.items()}

    def assuming(self) -> Self:
        """A copy that refuses no op, as LatencyPredictor's."""
        return type(self)(*(model.assuming() for model in self.of_dtype.values()))

    def kernels(self, graph: Graph) -> KernelLatencies:
        """The latency that each kernel of a graph adds to its prediction, in ms, by the parts of each precision one
        after the other. Raises as predict does."""
        parts = _parts(graph)
        found = [
            self._model(dtype, parts).kernels(piece) for dtype, pieces in parts.pieces.items()
            for piece in ((pieces,) if isinstance(pieces, Graph) else pieces)
        ]  # fmt: skip
        return KernelLatencies(
            tuple(name for one in found for name in one.names),
            tuple(kernel for one in found for kernel in one.graphs),
            np.concatenate([one.latency_ms for one in found]),
            float(self.predict([graph])[0]),
            np.concatenate([one.limits for one in found]),
        )

    def save(self, path: str | Path, validation: object = None, *, made: object = None) -> NoReturn:
        """Raises PredictorError: each predictor has a file of its own."""
        raise PredictorError(f"{path}: a MixedPredictor is made of predictors with a file each; save these")

    def to_json(self) -> dict[str, Any]:
        """Content of each predictor's file, by dtype."""
        return {dtype: model.to_json() for dtype, model in self.of_dtype.items()}


_MEASURED = (Precision.INT8, Precision.INT8_WEIGHTS)
"""Precisions that a device is measured in beside float32."""


def _unmeasured(what: str, dtype: str) -> str:
    return (
        f"{what}: give a predictor of it (netlathe profile --space kernels --dtype {dtype}, then netlathe fit), or "
        "take another precision"
    )


class _Parts(NamedTuple):
    """An item by the dtypes that its parts are priced in."""

    pieces: dict[str, Any]
    """The item itself where it is all of one dtype; else tuples of graphs."""
    example: dict[str, str]
    """Name of a node of each dtype."""


def _parts(item: Any) -> _Parts:
    """The parts of an item by dtype; graphs of several are cut where the dtype changes, and into blocks."""
    if not isinstance(item, Graph) or not (item.has_dtypes or is_mixed(item)):
        return _Parts({"float32": item}, {})
    dtypes = _dtypes_of(item)
    example = {dtype: item.nodes[place].name for place, dtype in reversed([*enumerate(dtypes)])}
    if len(example) < 2:
        (dtype,) = example or {"float32": ""}
        return _Parts({dtype: item if dtype == Precision.INT8 else unmixed(item)}, example)
    changes = [place for place in range(1, len(dtypes)) if dtypes[place] != dtypes[place - 1]]
    pieces: dict[str, Pieces] = {}
    for start, stop in itertools.pairwise([0, *changes, len(dtypes)]):
        part = item.subgraph(start, stop)
        cut = part if dtypes[start] == Precision.INT8 else unmixed(part)
        pieces[dtypes[start]] = (*pieces.get(dtypes[start], ()), *cut.segments())
    return _Parts(dict(pieces), example)


def _dtypes_of(graph: Graph) -> list[str]:
    """The dtype of the predictor that prices each node: what converts is int8's, and an activation goes with the layer
    that applies it."""
    precisions = precisions_of(graph)
    found = [
        str(Precision.INT8) if isinstance(node.op, BORDERS) else _priced_in(precisions[node.name])
        for node in graph.nodes
    ]
    for before, after in (clamped_nodes(graph) | gated_layers(graph)).items():
        found[after] = found[before]
    return found


def _priced_in(precision: Precision) -> str:
    return _COMPUTED_IN.get(precision, str(precision))
