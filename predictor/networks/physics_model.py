"""The usual model: blocks by physics and a residual, networks by what they cost beyond their blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, get_args

import numpy as np

from netlathe.archspace.kernels import Fusion, fusion_of
from netlathe.predictor.blocks.block_model import BlockModel, Measured, choose_block_model
from netlathe.predictor.blocks.residual import ResidualChoice, Weights
from netlathe.predictor.blocks.unknown_ops import Assumed, UnknownOps
from netlathe.predictor.errors import TooFewRecordsError
from netlathe.predictor.features.item_features import Item
from netlathe.predictor.features.samples import Sample, key_of
from netlathe.predictor.intervals import USUAL_COVERAGE, Conformal, bounds
from netlathe.predictor.networks.network_model import NetworkModel, fit_network_model, plain_sum
from netlathe.predictor.networks.segments import Segments, Unit, block_sums, block_totals, segments_of, unit_of_blocks
from netlathe.predictor.numbers import FlagArray, FloatArray

FEWEST_BLOCKS = 3


class Predicted(NamedTuple):
    """Latencies in ms with their interval; all of one shape."""

    latency_ms: FloatArray
    low_ms: FloatArray
    high_ms: FloatArray


class Model(Protocol):
    """What LatencyPredictor fits: latencies of items in ms. `kind` names it in files."""

    kind: str

    @property
    def offset_ms(self) -> float:
        """What a network takes beside what its blocks add."""
        ...

    @property
    def adds_up(self) -> bool:
        """Whether a network is offset_ms + what its blocks add."""
        ...

    @property
    def assumes(self) -> bool:
        """Whether ops that no record has are priced by what such work usually costs, not refused. Never saved."""
        ...

    @property
    def residual(self) -> str:
        """The regressor on top of the physics."""
        ...

    def predict(self, items: Sequence[Item]) -> FloatArray:
        """ms, shape (n,). Raises UnknownOpError."""
        ...

    def predict_interval(self, items: Sequence[Item], coverage: float) -> Predicted:
        """The same with an interval."""
        ...

    def added(self, blocks: Sequence[Item], coverage: float) -> Predicted:
        """What each block adds to a network that has it."""
        ...

    @property
    def unknown_kinds(self) -> tuple[str, ...]:
        """The kinds of op that no record has."""
        ...

    def unknown(self, items: Sequence[Item]) -> Assumed:
        """What is assumed of the ops that no record has."""
        ...

    def assuming(self) -> Model:
        """The same, which refuses none of them."""
        ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Assembled:
    """Fitted on the measurements of one setup."""

    blocks: BlockModel
    errors: Conformal
    """Of the block model in cross-validation."""
    networks: NetworkModel
    unit: Unit
    fusion: Fusion = "cpu"
    """What the runtime starts as one op."""
    assumes: bool = False
    """Whether ops that no record has are priced by what such work usually costs, not refused. Never saved."""
    kind = "assembled"

    @property
    def offset_ms(self) -> float:
        return self.networks.offset_ms

    @property
    def adds_up(self) -> bool:
        return self.unit != "network"

    @property
    def residual(self) -> str:
        return self.blocks.residual.name

    def predict(self, items: Sequence[Item]) -> FloatArray:
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

    def with_networks(self, networks: Sequence[Item], latency_ms: FloatArray, errors: FloatArray) -> Assembled:
        """With what n >= 0 measured networks take beyond their blocks; `errors` are relative, n of them, as a Sample's.
        Raises UnknownOpError."""
        segments, _ = self._segments(networks)
        sums = block_sums(segments, self._complete, self.errors, USUAL_COVERAGE)
        keys = [key_of(item) for item in networks]
        return replace(self, networks=fit_network_model(sums, latency_ms, keys, errors))

    def assuming(self) -> Assembled:
        return replace(self, assumes=True)

    @property
    def unknown_kinds(self) -> tuple[str, ...]:
        return self._unknown_ops.kinds

    def unknown(self, items: Sequence[Item]) -> Assumed:
        return self._assumed(segments_of(items, self.unit, self.fusion))

    def _segments(self, items: Sequence[Item]) -> tuple[Segments, Assumed]:
        """Raises UnknownOpError."""
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
        """With a rate for every op."""
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
    def from_json(cls, data: Mapping[str, Any]) -> Assembled:
        """Raises ValueError, KeyError or TypeError on anything that is not such a model."""
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
    """What the block model of a sample is fitted on, and which items, shape (n,), are networks on top of it. Raises
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


def assemble(sample: Sample, residual: ResidualChoice | Weights, seed: int) -> Assembled:
    """Blocks give the block model, networks slope and offset on top; where there are no blocks, networks take their
    place. Raises TooFewRecordsError below 3 different ones, UnknownOpError when a network holds an op that no block
    has."""
    unit, networks = unit_of(sample)
    fusion = fusion_of(sample.setup)
    model, errors = choose_block_model(Measured.of(sample.take(~networks)), residual, seed)
    whole = sample.take(networks)
    blocks_alone = Assembled(model, errors, plain_sum(), unit, fusion)
    return blocks_alone.with_networks(whole.items, whole.latency_ms, whole.errors)
