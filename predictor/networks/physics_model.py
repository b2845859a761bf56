"""The model of a device's own measurements: blocks by physics and a residual, networks by their blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np

from netlathe.archspace.kernels import Fusion
from netlathe.predictor.blocks.block_model import BlockModel
from netlathe.predictor.blocks.residual import Weights
from netlathe.predictor.blocks.roofline import roofline_of
from netlathe.predictor.blocks.unknown_ops import Assumed, UnknownOps
from netlathe.predictor.errors import TooFewRecordsError
from netlathe.predictor.features.item_features import Item
from netlathe.predictor.features.samples import Sample, key_of
from netlathe.predictor.intervals import USUAL_COVERAGE, Conformal, bounds
from netlathe.predictor.networks.latency_model import Predicted, Work
from netlathe.predictor.networks.network_model import NetworkModel, fit_network_model
from netlathe.predictor.networks.segments import (
    Segments,
    Unit,
    block_sums,
    block_totals,
    fusion_in,
    segments_of,
    unit_of_blocks,
)
from netlathe.predictor.numbers import FlagArray, FloatArray

FEWEST_BLOCKS = 3
"""Fewest different blocks, or networks in their place, that a model is fitted to."""


@dataclass(frozen=True)
class PhysicsModel:
    """Latencies fitted on the measurements of one setup alone."""

    blocks: BlockModel
    errors: Conformal
    """Held-out errors of the block model."""
    networks: NetworkModel
    unit: Unit
    fusion: Fusion = "cpu"
    """Rule of which ops the runtime starts as one."""
    assumes: bool = False
    """Whether ops that no record has are priced, as of LatencyModel."""
    kind = "assembled"
    prior_share = 0.0
    has_intervals = True

    @property
    def offset_ms(self) -> float:
        return self.networks.offset_ms

    @property
    def adds_up(self) -> bool:
        return self.unit != "network"

    @property
    def residual(self) -> str:
        return self.blocks.residual.name

    @property
    def residual_weights(self) -> Weights:
        return self.blocks.residual.weights

    @property
    def work(self) -> Work:
        fusion = fusion_in(self.unit, self.fusion)
        of_kernels = self.unit in ("cpu_kernel", "gpu_kernel")
        limits = roofline_of(self.blocks.physics, of_kernels=of_kernels, links=fusion == "gpu")
        return Work(self.unit, fusion, self._complete.physics.rates, limits)

    def predict(self, items: Sequence[Item]) -> FloatArray:
        """Latencies in ms, shape (n,). Raises UnknownOpError."""
        segments, _ = self._segments(items)
        sums = block_totals(segments, self._complete)
        return np.where(segments.is_network, self.networks.predict(sums), sums.latency_ms)

    def predict_interval(self, items: Sequence[Item], coverage: float) -> Predicted:
        segments, assumed = self._segments(items)
        sums = block_sums(segments, self._complete, self.errors, coverage)
        networks = segments.is_network
        latency_ms, half_widths = sums.latency_ms.copy(), sums.scale * self.errors.quantile(coverage) + sums.doubt
        latency_ms[networks] = self.networks.predict(sums.take(networks))
        half_widths[networks] = self.networks.half_widths(sums.take(networks), coverage)
        return Predicted(latency_ms, *bounds(latency_ms, half_widths + assumed.doubt))

    def added(self, blocks: Sequence[Item], coverage: float) -> Predicted:
        segments, assumed = self._segments(blocks)
        sums = block_sums(segments, self._complete, self.errors, coverage)
        latency_ms = self.networks.contributions(sums)
        half_widths = sums.scale * self.errors.quantile(coverage) + sums.doubt + assumed.doubt
        return Predicted(latency_ms, *bounds(latency_ms, half_widths))

    def with_networks(self, networks: Sequence[Item], latency_ms: FloatArray, errors: FloatArray) -> PhysicsModel:
        """A copy fitted to what n >= 0 measured networks, of latency_ms (n,), take beyond their blocks; `errors` (n,)
        are relative, as a Sample's. Raises UnknownOpError."""
        segments, _ = self._segments(networks)
        sums = block_sums(segments, self._complete, self.errors, USUAL_COVERAGE)
        keys = [key_of(item) for item in networks]
        return replace(self, networks=fit_network_model(sums, latency_ms, keys, errors))

    def assuming(self) -> PhysicsModel:
        return replace(self, assumes=True)

    @property
    def unknown_kinds(self) -> tuple[str, ...]:
        return self._unknown_ops.kinds

    def unknown(self, items: Sequence[Item]) -> Assumed:
        return self._assumed(segments_of(items, self.unit, self.fusion))

    def _segments(self, items: Sequence[Item]) -> tuple[Segments, Assumed]:
        """Blocks of n items, and the costs assumed of their unknown ops. Raises UnknownOpError."""
        segments = segments_of(items, self.unit, self.fusion)
        assumed = self._assumed(segments)
        assumed.check(ask=self.assumes)
        return segments, assumed

    def _assumed(self, segments: Segments) -> Assumed:
        return self._unknown_ops.of(segments.features, segments.owner, len(segments.is_network))

    @cached_property
    def _unknown_ops(self) -> UnknownOps:
        return UnknownOps(self.blocks.physics, self.unit in ("cpu_kernel", "gpu_kernel"))

    @cached_property
    def _complete(self) -> BlockModel:
        """The block model with a rate for every op."""
        return replace(self.blocks, physics=self._unknown_ops.complete)

    def to_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "fusion": self.fusion,
            "blocks": self.blocks.to_json(),
            "errors": self.errors.to_json(),
            "networks": self.networks.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PhysicsModel:
        """The object that to_json wrote. Raises ValueError, KeyError or TypeError on anything that is not such a
        model."""
        if data["unit"] not in get_args(Unit):
            raise ValueError(f"networks are not made of {data['unit']!r:.20}s")
        fusion = data.get("fusion", "cpu")
        if fusion not in get_args(Fusion):
            raise ValueError(f"no runtime fuses like {fusion!r:.20}")
        return cls(
            BlockModel.from_json(data["blocks"]),
            Conformal.from_json(data["errors"]),
            NetworkModel.from_json(data["networks"]),
            data["unit"],
            fusion,
        )


def unit_of(sample: Sample) -> tuple[Unit, FlagArray]:
    """The unit that a sample's block model is fitted on, and which items, shape (n,), are networks on top of it. Raises
    TooFewRecordsError below 3 different blocks, or networks where there are no blocks."""
    networks = sample.is_network
    blocks = {key_of(item): item for item, whole in zip(sample.items, networks, strict=True) if not whole}
    if len(blocks) >= FEWEST_BLOCKS:
        return unit_of_blocks(list(blocks.values()), sample.setup.delegate), networks
    if len({key_of(item) for item in sample.items}) - len(blocks) >= FEWEST_BLOCKS:
        return "network", np.zeros_like(networks)
    raise TooFewRecordsError(
        f"{len(blocks)} different blocks are measured, at least {FEWEST_BLOCKS} are needed and about 100 make a good "
        "predictor; profile more blocks"
    )
