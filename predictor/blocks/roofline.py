"""The roofline of a setup, as its physics was fitted: the fastest that it computes, moves and starts anything.

Williams, Waterman, Patterson: Roofline: An Insightful Visual Performance Model for Multicore Architectures (2009). Each
of the three is the best of all op classes, so that the times by it are lower bounds: who comes near one of them is
bound by it. A rate that the measurements did not tell apart from its neighbours' is at the least that the fit allows;
such rates tell nothing, and are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netlathe.predictor.blocks.physics import Physics, prior_rates
from netlathe.predictor.features.op_work import CACHE_BYTES, COLUMN, PLAIN_MOVES, TERMS
from netlathe.predictor.numbers import FlagArray, FloatArray

_MATRIX_CLASSES = ("conv", "pointwise")
"""Classes that come nearest to the peak: what they compute with is read once for many MACs."""
_PER_MAC = ("macs", "aligned", "wide")
"""Quantities of a MAC where all channels fill whole vectors and columns."""
_MOVING_CLASSES = (*PLAIN_MOVES, "activation")
_LINKED = ("add", "mul", "activation")
"""Those that a GPU's runtime links behind other ops, where they move next to nothing."""
_LEAST_TOLD = 0.02
"""Part of the usual ratio to its prior below which a rate was not told apart by the measurements."""


@dataclass(frozen=True)
class Roofline:
    """Limits of a setup by its physics; None for one that its measurements do not tell."""

    macs_per_ms: float | None
    """Peak rate of computing."""
    bytes_per_ms: float | None
    """Bandwidth to what fits into the second-level cache, in bytes of values of 4 bytes."""
    far_bytes_per_ms: float | None
    """Bandwidth to what does not, where it is another one."""
    launch_ms: float | None
    """Time to launch a kernel."""

    def compute_ms(self, macs: FloatArray) -> FloatArray:
        """Time to compute, at the peak rate, in ms, shape (n,); NaN where that is not told."""
        return macs / self.macs_per_ms if self.macs_per_ms else np.full(len(macs), np.nan)

    def memory_ms(self, moved: FloatArray) -> FloatArray:
        """Time to move so many bytes, of values of 4 bytes, in ms, shape (n,); NaN where that is not told."""
        if not self.bytes_per_ms:
            return np.full(len(moved), np.nan)
        spilled = np.maximum(moved - CACHE_BYTES, 0)
        far = self.far_bytes_per_ms or self.bytes_per_ms
        return np.asarray((moved - spilled) / self.bytes_per_ms + spilled / far)


def roofline_of(physics: Physics, *, of_kernels: bool = False, links: bool = False) -> Roofline:
    """Limits that a physics tells. `of_kernels`: of single kernels, each of which was a call of its own; `links`: of a
    runtime that links element-wise ops behind others."""
    told = _told(physics)
    peaks = [rate for name in _MATRIX_CLASSES if (rate := _per_mac(physics, told, name))]
    moving = [name for name in _MOVING_CLASSES if not (links and name in _LINKED)]
    moves = [column for name in moving if told[column := COLUMN[f"{name}.moved"]]]
    move_ms = min((float(physics.rates[column]) for column in moves), default=None)
    spilled = COLUMN["spilled"]
    starts = [COLUMN[name] for name in (("calls", "launches") if of_kernels else ("launches",)) if told[COLUMN[name]]]
    return Roofline(
        1 / min(peaks) if peaks else None,
        1 / move_ms if move_ms else None,
        1 / (move_ms + float(physics.rates[spilled])) if move_ms and told[spilled] else None,
        float(physics.rates[starts].sum()) if starts else None,
    )


def _told(physics: Physics) -> FlagArray:
    """Whether the measurements tell each rate, shape (terms,)."""
    ratios = physics.rates / prior_rates()
    usual = np.median(ratios[physics.seen]) if physics.seen.any() else 0.0
    return np.asarray(physics.seen & (ratios > _LEAST_TOLD * usual))


def _per_mac(physics: Physics, told: FlagArray, name: str) -> float | None:
    """Time of a MAC of a class in ms where nothing else holds it up; None where that is not told."""
    columns = [COLUMN[term] for quantity in _PER_MAC if (term := f"{name}.{quantity}") in TERMS]
    return float(physics.rates[columns].sum()) if told[columns].any() else None
