"""What a residual may look at."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from scipy.sparse import csr_array

from netlathe.predictor.features import FloatArray, Ops


class Inputs(NamedTuple):
    """n items: standardised log features z (n, p), and the shares (n, m) that the `ops` have in their time by the
    physics, a sparse matrix."""

    z: FloatArray
    shares: csr_array
    ops: Ops

    def take(self, indices: NDArray[Any]) -> Inputs:
        return Inputs(self.z[indices], self.shares[indices], self.ops)
