"""Samples that a predictor takes: records, tables of configurations, or anything that lowers itself to a graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from netlathe.archspace.files import digest
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import Fusion, fusion_of, is_kernel
from netlathe.archspace.ops import Constant, Conv2d, DType, FullyConnected, Op, PReLU, TransposeConv2d
from netlathe.archspace.records import STABLE_SPREAD, LatencyRecord, Setup, Status, single_setup
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features.item_features import Item
from netlathe.predictor.features.op_work import NARROW, computes_narrowly, launched, op_class
from netlathe.predictor.numbers import FlagArray, FloatArray

_FEW_UNSTABLE = 0.05
"""Largest part of unstable records that is not warned of: they hardly count."""


class Sample(NamedTuple):
    """n measured items of one setup; arrays of shape (n,)."""

    items: list[Item]
    latency_ms: FloatArray
    setup: Setup
    weights: FloatArray
    """Trust in each latency, from 0 to 1: by how much its own rounds differ, where that is known."""
    errors: FloatArray
    """Relative error of each latency, by its own rounds; 0 where that is not known. The standard error of a stable one;
    of others, what their rounds differ by: what disturbed them need not be fair, so that many are as wrong as one."""

    @property
    def is_network(self) -> FlagArray:
        """Whether each item is made of blocks, shape (n,)."""
        return np.array([is_network(item) for item in self.items], dtype=bool)

    def take(self, chosen: FlagArray) -> Sample:
        """The part where `chosen`, shape (n,), is true."""
        items = [item for item, wanted in zip(self.items, chosen, strict=True) if wanted]
        return Sample(items, self.latency_ms[chosen], self.setup, self.weights[chosen], self.errors[chosen])


def is_network(item: Item) -> bool:
    """Whether an item is made of blocks: a graph whose nodes have scopes, or a network in pieces."""
    return isinstance(item, tuple) or item.is_network


def key_of(item: Item) -> str:
    """Key of an item, equal for equal computations, whether or not BatchNorm is folded in by now, as it is in files; a
    network in pieces is known by its pieces in their order."""
    if isinstance(item, Graph):
        return _deployed(item).identity
    return digest("".join(key_of(piece) for piece in item), 32)


def _deployed(graph: Graph) -> Graph:
    """The graph with BatchNorm behind each convolution: deployed, that is the same as a bias. One that computes in a
    narrower dtype throughout is one in float32: the dtype is the setup's."""
    is_narrow = graph.has_dtypes and computes_narrowly(graph.dtypes)
    if not is_narrow and all(node.op.batch_norm for node in graph.nodes if isinstance(node.op, Conv2d)):
        return graph
    nodes = tuple(replace(node, op=_deployed_op(node.op, is_narrow)) for node in graph.nodes)
    return Graph(graph.inputs, nodes, graph.outputs, () if is_narrow else graph.input_dtypes)


def _deployed_op(op: Op, is_narrow: bool) -> Op:
    if isinstance(op, Conv2d):
        op = replace(op, batch_norm=True)
    if is_narrow and isinstance(op, Conv2d | FullyConnected | TransposeConv2d | PReLU):
        return replace(op, weights=DType.FLOAT32)
    return replace(op, dtype=DType.FLOAT32) if is_narrow and isinstance(op, Constant) and op.dtype in NARROW else op


def items_of(given: Any, batch: int = 1, first_row: int = 0) -> list[Item]:
    """Graphs, and networks in pieces, of whatever `given` holds: records, graphs, tuples of graphs, blocks or
    architectures, or the rows of a table (netlathe.archspace.configurations), the first of which errors call
    `first_row`. Equal ones share an item. Raises PredictorError, RecordError for a bad row."""
    if hasattr(given, "columns"):
        from netlathe.archspace.configurations import graphs_of

        return list(graphs_of(given, batch, first_row))
    different, numbers = distinct(elements_of(given))
    lowered = [lower(element, batch) for element in different]
    return [lowered[number] for number in numbers]


def elements_of(given: Any) -> list[Any]:
    """Elements of a sequence or of a table's column, as they are. Raises PredictorError for anything else."""
    if hasattr(given, "iloc"):
        given = given.tolist()
    if not isinstance(given, Sequence | np.ndarray) or isinstance(given, str):
        raise PredictorError(f"a sequence of blocks, architectures or graphs is needed, got {given!s:.60}")
    return list(given)


def distinct(elements: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """The different ones among n elements, and the number of each element among them. Blocks and architectures are
    compared by value; graphs and records by identity, as hashing a graph takes longer than walking it."""
    different: list[Any] = []
    by_value: dict[Any, int] = {}
    by_identity: dict[int, int] = {}
    numbers = []
    for element in elements:
        number = len(different)
        try:
            if isinstance(element, (Graph, tuple, LatencyRecord)):
                number = by_identity.setdefault(id(element), number)
            else:
                number = by_value.setdefault(element, number)
        except TypeError:  # not hashable
            number = by_identity.setdefault(id(element), number)
        if number == len(different):
            different.append(element)
        numbers.append(number)
    return different, numbers


def sample_of(given: Any, latency_ms: Iterable[float] | None, setup: Setup | None) -> Sample:
    """Sample of measured records, or of items with their latencies in ms; without identities, which do no work. Raises
    RecordError when records' setups mix, PredictorError when latencies are missing, too many, or no finite numbers
    above zero."""
    if latency_ms is None:
        return _sample_of_records(given)
    setup = setup or unknown_setup(_batch_of(given))
    items = items_of(given, setup.batch)
    try:
        values = np.asarray(list(latency_ms), dtype=float)
    except (TypeError, ValueError) as error:
        raise PredictorError(f"the latencies in ms are not numbers: {error}") from error
    if values.shape != (len(items),):
        raise PredictorError(f"{len(items)} items need as many latencies in ms, got an array of shape {values.shape}")
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(bad):
        raise PredictorError(f"latency {bad[0]} is {values[bad[0]]:g} ms: leave out what could not be measured")
    kept = [index for index, item in enumerate(items) if isinstance(item, tuple) or item.nodes]
    return Sample([items[index] for index in kept], values[kept], setup, np.ones(len(kept)), np.zeros(len(kept)))


def unknown_setup(batch: int = 1) -> Setup:
    """Setup of latencies that come without a word on what they were measured on."""
    return Setup("unknown device", "unknown processor", "unknown", "unknown runtime", "", batch=batch)


def _sample_of_records(records: Any) -> Sample:
    records = list(records)
    strange = next((r for r in records if not isinstance(r, LatencyRecord)), None)
    if strange is not None:
        raise PredictorError(f"{strange!r:.60} is no latency record; give the latencies in ms as the second argument")
    setup = single_setup(records) if records else unknown_setup()
    usable = _of_one_unit([r for r in records if r.status is Status.OK and r.graph.nodes])
    for record in usable:
        if record.kind == "network" and not record.graph.is_network:
            raise PredictorError(
                f"the network {record.name} does not name its blocks; use graph.scoped() or archspace.graph.chain"
            )
    kept = [r for r in usable if r.kind == "block"] + steady([r for r in usable if r.kind == "network"])
    latency_ms = np.array([r.latency_ms for r in kept], dtype=float)
    scatter = [r.measurement.spread if r.measurement and not r.measurement.is_stable else 0.0 for r in kept]
    weights, errors = _weights(_errors(kept)), np.maximum(_errors(kept), scatter)
    return Sample([r.graph for r in kept], latency_ms, setup, weights, errors)


def _of_one_unit(records: list[LatencyRecord]) -> list[LatencyRecord]:
    """The records without blocks of several kernels, as a campaign's anchors are, where single kernels are most of the
    blocks and have all of the ops: kernels add up to such blocks, which are told apart less well."""
    blocks = [r for r in records if r.kind == "block"]
    if not blocks:
        return records
    fusion = fusion_of(blocks[0].setup)
    several = [r for r in blocks if not is_kernel(r.graph, fusion)]
    if not several or 2 * len(several) >= len(blocks):
        return records
    left_out = {id(r) for r in several}
    known = _classes([r.graph for r in blocks if id(r) not in left_out], fusion)
    return (
        [r for r in records if id(r) not in left_out]
        if _classes([r.graph for r in several], fusion) <= known
        else records
    )


def _classes(graphs: Iterable[Graph], fusion: Fusion) -> set[str]:
    """Classes of all ops that a runtime starts for these graphs."""
    return {
        op_class(op, (inputs or results)[0]) for graph in graphs for op, inputs, results, _ in launched(graph, fusion)
    }


def _weights(errors: FloatArray) -> FloatArray:
    """Trust in latencies of relative errors (n,), shape (n,): one half where one is as uncertain as a stable one may
    be, less beyond. Where most are worse than that, the better half of them is what there is."""
    weights = 1 / (1 + (errors / STABLE_SPREAD) ** 2)
    return np.minimum(1, weights / min(1, 2 * np.median(weights))) if len(weights) else weights


def warnings_of(given: Any) -> list[str]:
    """Warnings of latency records whose own rounds differ too much, if there are more than a few; none of anything else
    that is fitted on."""
    records = [r for r in given if isinstance(r, LatencyRecord)] if isinstance(given, Sequence) else []
    blocks, networks = (_errors([r for r in records if r.kind == kind]) for kind in ("block", "network"))
    warnings = []
    if np.sum(blocks > STABLE_SPREAD) > _FEW_UNSTABLE * len(blocks):
        warnings.append(_unstable("blocks", blocks, "they count less"))
    if 2 * np.sum(networks > STABLE_SPREAD) > len(networks):  # fewer are left out
        warnings.append(_unstable("networks", networks, "a network is little more than the sum of its blocks"))
    return warnings


def _unstable(what: str, errors: FloatArray, consequence: str) -> str:
    doubted = errors[errors > STABLE_SPREAD]
    return (
        f"{len(doubted)} of {len(errors)} {what} were measured unstably: their own rounds leave their latencies "
        f"uncertain by {100 * np.median(doubted):.0f} % (median) to {100 * doubted.max():.0f} %, so {consequence}; "
        "measure them again on a quiet machine: `netlathe profile --again unstable`"
    )


def _errors(records: Sequence[LatencyRecord]) -> FloatArray:
    """Relative standard errors of the records that have a latency, shape (n,)."""
    return np.array([r.measurement.relative_error for r in records if r.measurement], dtype=float)


def steady(records: Sequence[LatencyRecord]) -> list[LatencyRecord]:
    """The records without those that call themselves unstable, unless these are most: a handful of networks has no room
    for one that a busy machine made five times slower."""
    stable = [r for r in records if r.measurement and r.measurement.is_stable]
    return stable if 2 * len(stable) >= len(records) else list(records)


def _batch_of(given: Any) -> int:
    """Batch size of the first graph, 1 where there is none."""
    first = next(iter(given), None) if hasattr(given, "__iter__") else None  # a table's first column's name is no graph
    while isinstance(first, tuple) and first:
        first = first[0]
    if isinstance(first, LatencyRecord):
        first = first.graph
    return first.batch if isinstance(first, Graph) else 1


def lower(item: Any, batch: int) -> Item:
    """The graph of a block, an architecture or a record; graphs, and networks in pieces, are their own. Raises
    PredictorError for anything else, and for a graph of another batch."""
    if isinstance(item, tuple) and item and all(isinstance(piece, Graph) for piece in item):
        for piece in item:
            lower(piece, batch)
        return item
    if isinstance(item, LatencyRecord):
        item = item.graph
    if isinstance(item, Graph):
        if item.batch != batch:
            raise PredictorError(
                f"the graph takes batches of {item.batch}, but the predictor was fitted on batches of {batch}; "
                f"build it with graph(batch={batch})"
            )
        return item
    if not callable(getattr(item, "graph", None)):
        raise PredictorError(f"a block, an architecture or a graph is needed, got {item!r:.60}")
    lowered: Graph = item.graph(batch)
    return lowered
