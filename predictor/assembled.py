"""The usual model: blocks by physics and a residual, networks by what they cost beyond their blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, get_args

import numpy as np

from netlathe.predictor.block_model import BlockModel, Measured, ResidualChoice, choose_block_model, features_of
from netlathe.predictor.errors import TooFewRecordsError
from netlathe.predictor.features import FlagArray, FloatArray, Item
from netlathe.predictor.intervals import Conformal, bounds
from netlathe.predictor.network_model import NetworkModel, fit_network_model
from netlathe.predictor.residual import Weights
from netlathe.predictor.samples import Sample, key_of
from netlathe.predictor.segments import Unit, block_sums, block_totals, segments_of, unit_of_blocks

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

    def knows(self, items: Sequence[Item]) -> FlagArray:
        """Whether predict has a number for each, shape (n,)."""
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
        segments = segments_of(items, self.unit)
        sums = block_totals(segments, self.blocks)
        return np.where(segments.is_network, self.networks.predict(sums), sums.latency_ms)

    def predict_interval(self, items: Sequence[Item], coverage: float) -> Predicted:
        segments = segments_of(items, self.unit)
        sums = block_sums(segments, self.blocks, self.errors, coverage)
        networks = segments.is_network
        latency_ms, half_widths = sums.latency_ms.copy(), sums.scale * self.errors.quantile(coverage) + sums.doubt
        latency_ms[networks] = self.networks.predict(sums.take(networks))
        half_widths[networks] = self.networks.half_widths(sums.take(networks), coverage)
        return Predicted(latency_ms, *bounds(latency_ms, half_widths))

    def added(self, blocks: Sequence[Item], coverage: float) -> Predicted:
        sums = block_sums(segments_of(blocks, self.unit), self.blocks, self.errors, coverage)
        latency_ms = self.networks.contributions(sums)
        return Predicted(latency_ms, *bounds(latency_ms, sums.scale * self.errors.quantile(coverage) + sums.doubt))

    def knows(self, items: Sequence[Item]) -> FlagArray:
        return self.blocks.physics.knows(features_of(items).terms)

    def to_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "blocks": self.blocks.to_json(),
            "errors": self.errors.to_json(),
            "networks": self.networks.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Assembled:
        """Raises ValueError, KeyError or TypeError on anything that is not such a model."""
        if data["unit"] not in get_args(Unit):
            raise ValueError(f"networks are not made of {data['unit']!r:.20}s")
        return cls(
            BlockModel.from_json(data["blocks"]),
            Conformal.from_json(data["errors"]),
            NetworkModel.from_json(data["networks"]),
            data["unit"],
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
    model, errors = choose_block_model(Measured.of(sample.take(~networks)), residual, seed)
    whole = sample.take(networks)
    sums = block_sums(segments_of(whole.items, unit), model, errors, coverage=0.9)
    keys = [key_of(item) for item in whole.items]
    return Assembled(model, errors, fit_network_model(sums, whole.latency_ms, keys), unit)
