"""What known devices say and what a device's own measurements say, weighed against each other.

Where neither is right alone, their mean in logarithms is off by less than either: what known devices have never shown
is not what a few measurements cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from netlathe.predictor.blocks.unknown_ops import Assumed
from netlathe.predictor.features.item_features import Item
from netlathe.predictor.intervals import USUAL_COVERAGE, Conformal, LeftOut, bounds, one_for_each
from netlathe.predictor.networks.physics_model import Assembled, Predicted
from netlathe.predictor.numbers import FloatArray, read_number
from netlathe.predictor.transfer.few_shot import Adapted

VERSION = 1
_EXPECTED_SCORES = norm.ppf(1 - np.arange(19, 0, -2) / 40) / norm.ppf((1 + USUAL_COVERAGE) / 2)
"""Those of ten measurements whose errors are as the parts' intervals expect, evenly over their distribution."""


@dataclass(frozen=True)
class Blended:
    """The known devices adapted, and the measurements alone. `kind` names it in files. What only known devices were
    measured with is left to them."""

    adapted: Adapted
    alone: Assembled
    share: float
    """Of the adapted one in the mean."""
    errors: Conformal
    """Scores of the mean on measurements left out of both, in parts of the mean of their half-widths there."""
    kind = "blended"
    offset_ms = 0.0
    adds_up = False

    @property
    def residual(self) -> str:
        return f"{self.share:.3g} few-shot + {1 - self.share:.3g} ({self.alone.residual})"

    def predict(self, items: Sequence[Item]) -> FloatArray:
        latency_ms, rows = self.adapted.predict(items), self._known_alone(items)
        latency_ms[rows] = self._mean(latency_ms[rows], self.alone.predict([items[row] for row in rows]))
        return latency_ms

    def predict_interval(self, items: Sequence[Item], coverage: float) -> Predicted:
        latency_ms, rows = self.adapted.predict(items), self._known_alone(items)
        half_widths = _half_widths(self.adapted.predict_interval(items, coverage))
        both = [items[row] for row in rows]
        told, own = (part.predict_interval(both, USUAL_COVERAGE) for part in (self.adapted, self.alone))
        latency_ms[rows] = self._mean(told.latency_ms, own.latency_ms)
        scale = self.share * _half_widths(told) + (1 - self.share) * _half_widths(own)
        half_widths[rows] = scale * self.errors.quantile(coverage)
        return Predicted(latency_ms, *bounds(latency_ms, half_widths))

    def added(self, blocks: Sequence[Item], coverage: float) -> Predicted:
        """Alone and in a network, a block is taken to cost the same."""
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

    def _mean(self, told_ms: FloatArray, own_ms: FloatArray) -> FloatArray:
        """In logarithms; of 0 and 0, 0."""
        return np.asarray(told_ms**self.share * own_ms ** (1 - self.share))

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
        """Raises ValueError, KeyError, TypeError or AttributeError on anything that is not such a model."""
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']!r:.20} of a blended model is none of this netlathe's")
        adapted, alone = Adapted.from_json(data["adapted"]), Assembled.from_json(data["alone"])
        share = read_number(data, "share", least=0.0, most=1.0)
        return cls(adapted, alone, share, Conformal.from_json(data["errors"]))


def blend(
    adapted: Adapted, alone: Assembled, share: float, left_out: tuple[LeftOut, LeftOut], groups: NDArray[Any]
) -> Blended:
    """`left_out`: of the one and of the other, NaN where a measurement is not to count. `groups` (n,): as one_for_each
    takes them."""
    told, own = left_out
    errors = share * told.errors + (1 - share) * own.errors
    scale = share * told.half_widths + (1 - share) * own.half_widths
    scores = np.concatenate([one_for_each(np.abs(errors) / scale, groups), _EXPECTED_SCORES])
    return Blended(adapted, alone, share, Conformal(np.sort(scores)))


def _half_widths(predicted: Predicted) -> FloatArray:
    """In logarithms, (n,); 0 of what takes nothing."""
    takes = predicted.latency_ms > 0
    ratio = np.divide(
        predicted.high_ms, predicted.low_ms, out=np.ones(len(takes)), where=takes & (predicted.low_ms > 0)
    )
    return np.asarray(np.log(ratio) / 2)
