"""A latency model of the user's own in the place of a fitted one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Setup
from netlathe.predictor.blocks.unknown_ops import Assumed
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features.item_features import Item
from netlathe.predictor.features.op_work import OP_CLASSES
from netlathe.predictor.networks.latency_model import Predicted, Work
from netlathe.predictor.numbers import FloatArray


class Predicts(Protocol):
    """Any object that predicts latencies: of n graphs, n milliseconds."""

    def predict(self, graphs: Sequence[Graph], /) -> Any:
        """Latencies in ms, of length n."""
        ...


@dataclass(frozen=True)
class OwnModel:
    """A user's model whose predictions are taken as they are; its intervals have no width."""

    model: Predicts
    name: str
    kind = "own"
    offset_ms = 0.0
    adds_up = False
    assumes = False
    residual = "own"
    residual_weights = None
    prior_share = 0.0
    has_intervals = False
    networks = None
    unknown_kinds: tuple[str, ...] = ()
    work = Work("network")

    def predict(self, items: Sequence[Item]) -> FloatArray:
        """Latencies in ms, shape (n,). Raises PredictorError where the model gives anything else."""
        latency_ms = np.asarray(self.model.predict(items), dtype=np.float64)  # type: ignore[arg-type]  # never in pieces
        if latency_ms.shape != (len(items),):
            raise PredictorError(
                f"{self.name}: predict gave an array of shape {latency_ms.shape} for {len(items)} graphs; it must give "
                "one number of milliseconds for each"
            )
        return latency_ms

    def predict_interval(self, items: Sequence[Item], coverage: float) -> Predicted:
        latency_ms = self.predict(items)
        return Predicted(latency_ms, latency_ms, latency_ms)

    def added(self, blocks: Sequence[Item], coverage: float) -> Predicted:
        """Latencies of the blocks alone in ms, each (n,): in a network, they are taken to cost the same."""
        return self.predict_interval(blocks, coverage)

    def unknown(self, items: Sequence[Item]) -> Assumed:
        """No assumed costs: the model has to refuse ops that it does not know itself."""
        return Assumed(*np.zeros((3, len(items), len(OP_CLASSES))))

    def assuming(self) -> OwnModel:
        return self

    def to_json(self) -> dict[str, Any]:
        content = getattr(self.model, "digest", None)
        told = {} if content is None else {"content": str(content)}
        return {"name": self.name, "type": type(self.model).__qualname__, **told}


def setup_of(model: Predicts, name: str) -> Setup:
    """The setup that the model names in `setup_`; else one of no more than its name."""
    told = getattr(model, "setup_", None)
    return told if isinstance(told, Setup) else Setup(name, "unknown", "unknown", "unknown", "unknown")
