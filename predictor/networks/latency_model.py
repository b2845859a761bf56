"""The protocol of the models that LatencyPredictor fits: latencies of items, with intervals, on one setup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from netlathe.archspace.kernels import Fusion
from netlathe.predictor.blocks.residual import Weights
from netlathe.predictor.blocks.roofline import Roofline
from netlathe.predictor.blocks.unknown_ops import Assumed
from netlathe.predictor.features.item_features import Item
from netlathe.predictor.networks.network_model import NetworkModel
from netlathe.predictor.networks.segments import Unit
from netlathe.predictor.numbers import FloatArray


class Predicted(NamedTuple):
    """Latencies in ms with their interval; all of one shape."""

    latency_ms: FloatArray
    low_ms: FloatArray
    high_ms: FloatArray


class Work(NamedTuple):
    """How a model's latencies are made of work."""

    unit: Unit
    """Unit that the model prices by itself; it has no price of anything smaller."""
    fusion: Fusion = "cpu"
    """Rule of which ops the runtime starts as one."""
    rates: FloatArray | None = None
    """Rates in ms per unit of each work term, (terms,), by which kernels share what their unit takes; None where the
    model tells none."""
    roofline: Roofline | None = None
    """Limits of the setup; None where they are not told of this very one."""


class LatencyModel(Protocol):
    """Latencies of items in ms. `kind` names the model in files."""

    kind: str

    @property
    def offset_ms(self) -> float:
        """Latency of a network beside what its blocks add."""
        ...

    @property
    def adds_up(self) -> bool:
        """Whether a network is offset_ms + what its blocks add."""
        ...

    @property
    def has_intervals(self) -> bool:
        """Whether predict_interval tells more than predict."""
        ...

    @property
    def assumes(self) -> bool:
        """Whether ops that no record has are priced by what such work usually costs, not refused. Never saved."""
        ...

    @property
    def residual(self) -> str:
        """Name of the regressor on top of the physics."""
        ...

    @property
    def residual_weights(self) -> Weights | None:
        """Weights of the regressors on the physics of this device's own measurements; None where there is no such
        physics."""
        ...

    @property
    def prior_share(self) -> float:
        """Weight of the known devices' prior in the predictions: 0 without one, 1 where it speaks alone."""
        ...

    @property
    def work(self) -> Work:
        """How the latencies are made of work."""
        ...

    @property
    def networks(self) -> NetworkModel | None:
        """The model of networks by their blocks; None where networks are predicted otherwise."""
        ...

    def predict(self, items: Sequence[Item]) -> FloatArray:
        """Latencies in ms, shape (n,). Raises UnknownOpError."""
        ...

    def predict_interval(self, items: Sequence[Item], coverage: float) -> Predicted:
        """Latencies with intervals in ms, each of shape (n,). Raises UnknownOpError."""
        ...

    def added(self, blocks: Sequence[Item], coverage: float) -> Predicted:
        """Latency that each block adds to a network that has it, in ms, each of shape (n,)."""
        ...

    @property
    def unknown_kinds(self) -> tuple[str, ...]:
        """The kinds of op that no record has."""
        ...

    def unknown(self, items: Sequence[Item]) -> Assumed:
        """Costs assumed of the ops that no record has."""
        ...

    def assuming(self) -> LatencyModel:
        """A copy that refuses none of them."""
        ...

    def to_json(self) -> dict[str, Any]: ...
