"""The mixture of a transfer model and a physics model of one device.

Where neither is right alone, their mean in logarithms is off by less than either: what known devices have never shown
is not what a few measurements cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor.blocks.residual import Weights
from netlathe.predictor.blocks.unknown_ops import Assumed
from netlathe.predictor.features.item_features import Item
from netlathe.predictor.intervals import (
    USUAL_COVERAGE,
    Conformal,
    HeldOutErrors,
    bounds,
    expected_scores,
    normal_quantile,
    one_for_each,
)
from netlathe.predictor.networks.latency_model import Predicted, Work
from netlathe.predictor.networks.physics_model import PhysicsModel
from netlathe.predictor.numbers import FloatArray, read_number
from netlathe.predictor.transfer.few_shot import TransferModel

VERSION = 1
"""Version of a mixture in files."""
_EXPECTED_SCORES = expected_scores(10) / normal_quantile((1 + USUAL_COVERAGE) / 2)
"""Scores of ten measurements whose errors are as the parts' intervals expect."""


@dataclass(frozen=True)
class Blended:
    """The known devices adapted, and the measurements alone, mixed in logarithms. Ops that only known devices were
    measured with are left to those. `kind` names it in files."""

    adapted: TransferModel
    alone: PhysicsModel
    share: float
    """Weight of the adapted one in the mean, from 0 to 1."""
    errors: Conformal
    """Held-out scores of the mean, in parts of the mean of both models' half-widths there."""
    kind = "blended"
    offset_ms = 0.0
    adds_up = False
    has_intervals = True
    networks = None

    @property
    def prior_share(self) -> float:
        return self.share

    @property
    def residual_weights(self) -> Weights:
        return self.alone.residual_weights

    @property
    def residual(self) -> str:
        return f"{self.share:.3g} few-shot + {1 - self.share:.3g} ({self.alone.residual})"

    @property
    def work(self) -> Work:
        """That of the measurements alone; only whole networks are priced, as both models' mean does not add up."""
        return self.alone.work._replace(unit="network")

    def predict(self, items: Sequence[Item]) -> FloatArray:
        """Latencies in ms, shape (n,). Raises UnknownOpError."""
        latency_ms, rows = self.adapted.predict(items), self._known_alone(items)
        latency_ms[rows] = self._mean(latency_ms[rows], self.alone.predict([items[row] for row in rows]))
        return latency_ms

    def predict_interval(self, items: Sequence[Item], coverage: float) -> Predicted:
        latency_ms, rows = self.adapted.predict(items), self._known_alone(items)
        half_widths = _half_widths(self.adapted.predict_interval(items, coverage))
        both = [items[row] for row in rows]
        adapted, own = (part.predict_interval(both, USUAL_COVERAGE) for part in (self.adapted, self.alone))
        latency_ms[rows] = self._mean(adapted.latency_ms, own.latency_ms)
        scale = self.share * _half_widths(adapted) + (1 - self.share) * _half_widths(own)
        half_widths[rows] = scale * self.errors.quantile(coverage)
        return Predicted(latency_ms, *bounds(latency_ms, half_widths))

    def added(self, blocks: Sequence[Item], coverage: float) -> Predicted:
        """Latencies of the blocks alone in ms, each (n,): in a network, they are taken to cost the same."""
        return self.predict_interval(blocks, coverage)

    @property
    def unknown_kinds(self) -> tuple[str, ...]:
        return self.adapted.unknown_kinds

    def unknown(self, items: Sequence[Item]) -> Assumed:
        return self.adapted.unknown(items)

    @property
    def assumes(self) -> bool:
        return self.adapted.assumes

    def assuming(self) -> Blended:
        return replace(self, adapted=self.adapted.assuming())

    def _known_alone(self, items: Sequence[Item]) -> NDArray[np.intp]:
        return np.flatnonzero(self.alone.unknown(items).is_negligible)

    def _mean(self, adapted_ms: FloatArray, own_ms: FloatArray) -> FloatArray:
        """Weighted geometric mean; of 0 and 0, 0."""
        return np.asarray(adapted_ms**self.share * own_ms ** (1 - self.share))

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "share": self.share,
            "adapted": self.adapted.to_json(),
            "alone": self.alone.to_json(),
            "errors": self.errors.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Blended:
        """The object that to_json wrote. Raises ValueError, KeyError, TypeError or AttributeError on anything that is
        not such a model."""
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']!r:.20} of a blended model is none of this netlathe's")
        adapted, alone = TransferModel.from_json(data["adapted"]), PhysicsModel.from_json(data["alone"])
        share = read_number(data, "share", least=0.0, most=1.0)
        return cls(adapted, alone, share, Conformal.from_json(data["errors"]))


def blend(
    adapted: TransferModel,
    alone: PhysicsModel,
    share: float,
    held_out: tuple[HeldOutErrors, HeldOutErrors],
    groups: NDArray[Any],
) -> Blended:
    """The mixture with that share of the adapted model, and intervals of both models' held-out errors on n
    measurements: NaN where one is not to count. `groups` (n,): as one_for_each takes them."""
    of_adapted, own = held_out
    errors = share * of_adapted.errors + (1 - share) * own.errors
    scale = share * of_adapted.half_widths + (1 - share) * own.half_widths
    scores = np.concatenate([one_for_each(np.abs(errors) / scale, groups), _EXPECTED_SCORES])
    return Blended(adapted, alone, share, Conformal(np.sort(scores)))


def _half_widths(predicted: Predicted) -> FloatArray:
    """Half-widths of intervals in logarithms, (n,); 0 of what takes nothing."""
    takes = predicted.latency_ms > 0
    ratio = np.divide(
        predicted.high_ms, predicted.low_ms, out=np.ones(len(takes)), where=takes & (predicted.low_ms > 0)
    )
    return np.asarray(np.log(ratio) / 2)
