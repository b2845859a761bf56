"""LatencyPredictor: latency records in, milliseconds with an interval out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from sklearn.base import BaseEstimator

from archspace.errors import FormatError, RecordError
from archspace.graph import Graph
from archspace.jsonfile import read_json, write_json
from archspace.records import LatencyRecord, Setup, Status, single_setup
from predictor.block_model import BlockModel, ResidualChoice, choose_block_model, features_of
from predictor.errors import NotFittedError, PredictorError, TooFewRecordsError
from predictor.features import FlagArray, FloatArray
from predictor.intervals import Conformal, bounds, check_coverage
from predictor.network_model import NetworkModel, fit_network_model
from predictor.segments import BlockSums, block_sums, block_totals, segments_of

FILE_KIND = "predictor"
FILE_VERSION = 1
FEWEST_BLOCKS = 3
_DAMAGE = (
    ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError, RecordError,
)  # fmt: skip
"""What reading a file with any content may raise."""


class Lowerable(Protocol):
    """A block or an architecture: whatever lowers itself to a Graph."""

    def graph(self, batch: int = 1) -> Graph:
        """The graph for inputs of that batch."""
        ...


Item = Graph | Lowerable


class LatencyPredictor(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Predicts the latency of blocks and networks on the one setup that its records come from.

    A block's latency is a non-negative sum of work terms times exp(residual); a network's is offset + slope * sum of
    its blocks. `residual` is the regressor on top of the physics: "none", "gp", "xgboost", or "auto", which takes the
    best of them in cross-validation by configuration. Equal records and `random_state` give equal predictors.

    After fit: `setup_`, `residual_` (the regressor taken), `blocks_` and `networks_` (the fitted models), `errors_`
    (scores of blocks in cross-validation), `network_slope_`, `network_offset_ms_`, `n_blocks_`, `n_networks_`.
    """

    def __init__(self, residual: ResidualChoice = "auto", random_state: int = 0) -> None:
        self.residual = residual
        self.random_state = random_state

    def fit(self, records: Sequence[LatencyRecord]) -> Self:
        """Fits on the records whose status is ok: blocks give the block model, networks slope and offset.

        Raises RecordError when setups mix, TooFewRecordsError below 3 different measured blocks, UnknownOpError when a
        network holds an op that no block has, PredictorError when a network's graph does not name its blocks.
        """
        blocks = [r for r in records if r.status is Status.OK and r.kind == "block" and r.graph.nodes]
        networks = steady([r for r in records if r.status is Status.OK and r.kind == "network" and r.graph.nodes])
        configurations = [r.graph.key for r in blocks]
        if len(set(configurations)) < FEWEST_BLOCKS:
            raise TooFewRecordsError(
                f"{len(set(configurations))} different blocks are measured, at least {FEWEST_BLOCKS} are needed and "
                "about 100 make a good predictor; profile more blocks"
            )
        setup = single_setup(records)
        features, latency_ms = features_of([r.graph for r in blocks]), np.array([r.latency_ms for r in blocks])
        model, errors = choose_block_model(features, latency_ms, configurations, self.residual, self.random_state)
        sums = network_sums(networks, model, errors)
        network_model = fit_network_model(sums, np.array([r.latency_ms for r in networks]))
        self.n_blocks_, self.n_networks_ = len(blocks), len(networks)
        return self._set(setup, model, errors, network_model)

    def _set(self, setup: Setup, blocks: BlockModel, errors: Conformal, networks: NetworkModel) -> Self:
        self.setup_, self.blocks_, self.errors_, self.networks_ = setup, blocks, errors, networks
        self.residual_ = blocks.residual.kind
        self.network_slope_, self.network_offset_ms_ = networks.slope, networks.offset_ms
        return self

    def predict(self, items: Sequence[Item]) -> FloatArray:
        """ms, shape (n,), of blocks, architectures or graphs. A graph whose nodes have scopes is a network, any other
        is a block; one without nodes takes exactly 0. Raises NotFittedError, and UnknownOpError for an op that no
        record had."""
        segments = segments_of(self._graphs(items))
        sums = block_totals(segments, self.blocks_)
        return np.where(segments.is_network, self.networks_.predict(sums), sums.latency_ms)

    def predict_interval(self, items: Sequence[Item], coverage: float = 0.9) -> tuple[FloatArray, FloatArray]:
        """(low, high) in ms, each of shape (n,): where a measurement lies with probability `coverage`, if the items are
        like the records; wider for those that are not. Raises as predict does, and PredictorError for a coverage
        outside (0, 1)."""
        check_coverage(coverage)
        segments = segments_of(self._graphs(items))
        sums = block_sums(segments, self.blocks_, self.errors_, coverage)
        networks = segments.is_network
        latency_ms, half_widths = sums.latency_ms.copy(), sums.scale * self.errors_.quantile(coverage) + sums.doubt
        latency_ms[networks] = self.networks_.predict(sums.take(networks))
        half_widths[networks] = self.networks_.half_widths(sums.take(networks), coverage)
        return bounds(latency_ms, half_widths)

    def knows(self, items: Sequence[Item]) -> FlagArray:
        """Whether the records had all ops of each item, so that predict does not raise UnknownOpError. Shape (n,)."""
        graphs = self._graphs(items)
        return self.blocks_.physics.knows(features_of(graphs).terms)

    def tabulate(self, blocks_per_position: Sequence[Sequence[Item]]) -> FloatArray:
        """What each candidate block adds to a network's latency in ms; an identity adds 0.

        Shape (positions, most candidates), NaN where a position has fewer. The latency of a network with one candidate
        per position is network_offset_ms_ + the sum of its entries.
        """
        items = [item for position in blocks_per_position for item in position]
        sums = block_totals(segments_of(self._graphs(items)), self.blocks_)
        lengths = [len(position) for position in blocks_per_position]
        table = np.full((len(lengths), max(lengths, default=0)), np.nan)
        table[np.arange(table.shape[1]) < np.array(lengths, dtype=int)[:, None]] = self.networks_.contributions(sums)
        return table

    def _graphs(self, items: Sequence[Item]) -> list[Graph]:
        if not hasattr(self, "blocks_"):
            raise NotFittedError("this predictor has seen no records; call fit, or load a saved one")
        if not isinstance(items, Sequence):
            raise PredictorError(f"a sequence of blocks, architectures or graphs is needed, got {items!s:.60}")
        return [_lower(item, self.setup_.batch) for item in items]

    def save(self, path: str | Path) -> None:
        """Writes one JSON file with a checksum. Raises NotFittedError."""
        self._graphs([])
        content = {
            "setup": self.setup_.to_json(),
            "parameters": {"residual": self.residual, "random_state": self.random_state},
            "counts": {"blocks": self.n_blocks_, "networks": self.n_networks_},
            "blocks": self.blocks_.to_json(),
            "errors": self.errors_.to_json(),
            "networks": self.networks_.to_json(),
        }
        write_json(path, FILE_KIND, FILE_VERSION, {"sha256": _checksum(content), "content": content})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The predictor that save wrote: it predicts exactly the same. Raises FormatError for a file that is missing,
        damaged, changed, of another kind, or newer."""
        try:
            file = read_json(path, FILE_KIND, FILE_VERSION)
            content = file["content"]
            if file["sha256"] != _checksum(content):
                raise ValueError("its checksum does not match its content")
            return cls._from_json(content)
        except FormatError:
            raise
        except _DAMAGE as error:
            raise FormatError(f"{path}: this predictor is damaged ({error!r:.200}); fit and save it again") from error

    @classmethod
    def _from_json(cls, content: dict[str, Any]) -> Self:
        parameters, counts = content["parameters"], content["counts"]
        predictor = cls(residual=parameters["residual"], random_state=int(parameters["random_state"]))
        predictor.n_blocks_, predictor.n_networks_ = int(counts["blocks"]), int(counts["networks"])
        return predictor._set(
            Setup.from_json(content["setup"]),
            BlockModel.from_json(content["blocks"]),
            Conformal.from_json(content["errors"]),
            NetworkModel.from_json(content["networks"]),
        )


def steady(records: Sequence[LatencyRecord]) -> list[LatencyRecord]:
    """Without measurements that call themselves unstable, unless those are most: a handful of networks has no room for
    one that a busy machine made five times slower."""
    stable = [r for r in records if r.measurement and r.measurement.is_stable]
    return stable if 2 * len(stable) >= len(records) else list(records)


def network_sums(
    records: Sequence[LatencyRecord], model: BlockModel, errors: Conformal, coverage: float = 0.9
) -> BlockSums:
    """What the block model says about measured networks. Raises PredictorError when a graph names no blocks."""
    for record in records:
        if not record.graph.is_network:
            raise PredictorError(
                f"the network {record.name} does not name its blocks; use graph.scoped() or archspace.graph.chain"
            )
    return block_sums(segments_of([r.graph for r in records]), model, errors, coverage)


def _lower(item: Item, batch: int) -> Graph:
    if isinstance(item, Graph):
        if item.inputs[0][0] != batch:
            raise PredictorError(
                f"the graph takes batches of {item.inputs[0][0]}, but the predictor was fitted on batches of {batch}; "
                f"build it with graph(batch={batch})"
            )
        return item
    if not callable(getattr(item, "graph", None)):
        raise PredictorError(f"a block, an architecture or a graph is needed, got {item!r:.60}")
    return item.graph(batch)


def _checksum(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
