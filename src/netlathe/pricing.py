"""Predictors by file or name, and what a user should know of what they predict before trusting it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Opaque
from netlathe.subjects import Given, Subject, find_subject, with_contents
from netlathe.words import percent

if TYPE_CHECKING:
    from netlathe.archspace.blocks import Block
    from netlathe.archspace.records import Setup
    from netlathe.predictor import LatencyPredictor
    from netlathe.predictor.own_model import Predicts

Unknown = Literal["refuse", "price"]
"""Ways to treat ops that a predictor does not know: an error that names them; or a price by the bytes that they move,
their MACs and a launch each, at what such work costs there, in an interval from a tenth to ten times as much."""
WIDE_INTERVAL = 4.0
"""High over low, from which on a prediction deserves a warning."""
_FORMS = {"float16": {"float32", "float16"}}
"""Dtypes of files that run in the setup's: what computes in float16 is given float32 files, too; others, their own."""


def load_predictor(
    given: Path | str | LatencyPredictor | Predicts, *, name: str = "", unknown: Unknown = "refuse"
) -> LatencyPredictor:
    """The predictor itself, a predictor file, a shipped one by name, or any model with predict(graphs) -> ms;
    `unknown` says what becomes of ops that it does not know. Raises NetlatheError for another `unknown`."""
    from netlathe.predictor import LatencyPredictor  # only where a predictor is wanted: scikit-learn takes a second

    if unknown not in get_args(Unknown):
        raise NetlatheError(f"unknown={unknown!r:.80}: expected 'refuse' or 'price'")
    if isinstance(given, str | Path):
        model = LatencyPredictor.load(given)
    else:
        model = given if isinstance(given, LatencyPredictor) else LatencyPredictor.wrapping(given, name)
    return model.assuming() if unknown == "price" else model


@dataclass(frozen=True)
class PredictReport:
    """The predicted latency of one network or block."""

    name: str
    latency_ms: float
    low_ms: float
    high_ms: float
    """Ends of the interval that holds `coverage` of all measurements."""
    coverage: float
    setup: Setup
    """Setup that it is predicted for."""
    warnings: tuple[str, ...] = ()
    """Doubts about the prediction."""
    known_macs_share: float = 1.0
    """Part of the MACs, 0 to 1, of ops that the predictor was fitted on. Of an opaque op nobody knows the MACs."""
    known_ms_share: float = 1.0
    """Part of the predicted latency, 0 to 1, of such ops."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "latency_ms": self.latency_ms, "low_ms": self.low_ms, "high_ms": self.high_ms,
            "coverage": self.coverage, "known_macs_share": self.known_macs_share,
            "known_ms_share": self.known_ms_share, "warnings": list(self.warnings), "setup": self.setup.to_json(),
        }  # fmt: skip


@dataclass(frozen=True)
class Refused:
    """A network or block that could not be predicted."""

    name: str
    error: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "error": self.error}


@overload
def predict(
    what: Given,
    predictor: str | Path | LatencyPredictor | Predicts,
    *,
    coverage: float = ...,
    unknown: Unknown = ...,
    shapes: Mapping[str, Sequence[int]] | None = ...,
) -> PredictReport: ...


@overload
def predict(
    what: list[Any] | tuple[Any, ...],
    predictor: str | Path | LatencyPredictor | Predicts,
    *,
    coverage: float = ...,
    unknown: Unknown = ...,
    shapes: Mapping[str, Sequence[int]] | None = ...,
) -> list[PredictReport]: ...


def predict(
    what: Given | list[Any] | tuple[Any, ...],
    predictor: str | Path | LatencyPredictor | Predicts,
    *,
    coverage: float = 0.9,
    unknown: Unknown = "refuse",
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> PredictReport | list[PredictReport]:
    """The latency of a network or block on the predictor's device, in ms, with an interval; of several, a list.

    `what` is a name (`mobilenet_v2_0.5`, `timm:resnet18`, `mbconv_k3_e6_s1_c16-16_56x56_relu6`), an architecture file,
    a run's folder, a .tflite or .onnx file (`shapes` fixes sizes that it leaves open, by its inputs' names), or an
    Architecture, block or Graph; or several of these in a list, where a folder stands for the model files below it;
    `predictor` a file, the name of one that ships, the
    object, or anything with predict(graphs) -> ms. Ops that were never measured are
    refused, or with unknown="price" priced by the bytes that they move, their MACs and a launch each, in a wide
    interval; the warnings name them. Raises FormatError for files that cannot be read, SpaceError
    for unknown names, UnknownOpError for ops that the predictor knows nothing of.
    """
    model = load_predictor(predictor, unknown=unknown)
    if isinstance(what, list | tuple):
        return [_predicted(one, model, predictor, coverage, shapes) for one in with_contents(what)]
    return _predicted(what, model, predictor, coverage, shapes)


def predict_each(
    what: Iterable[Given],
    predictor: str | Path | LatencyPredictor | Predicts,
    *,
    coverage: float = 0.9,
    unknown: Unknown = "refuse",
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> list[PredictReport | Refused]:
    """Predictions of several, as predict makes them; one that cannot be read or priced is refused, the others stay."""
    model = load_predictor(predictor, unknown=unknown)
    found: list[PredictReport | Refused] = []
    for one in with_contents(what):
        try:
            found.append(_predicted(one, model, predictor, coverage, shapes))
        except NetlatheError as error:
            found.append(Refused(str(one), str(error)))
    return found


def _predicted(
    what: Given,
    model: LatencyPredictor,
    predictor: str | Path | LatencyPredictor | Predicts,
    coverage: float,
    shapes: Mapping[str, Sequence[int]] | None,
) -> PredictReport:
    subject = find_subject(what, batch=model.setup_.batch, shapes=shapes)
    with naming_others(predictor, [subject.graph]):
        low, high = (float(bound[0]) for bound in model.predict_interval([subject.graph], coverage))
        latency_ms = float(model.predict([subject.graph])[0])
    warnings = doubts(model, subject.name, subject.graph, subject.dtype)
    ((macs, ms),) = model.known_shares([subject.graph])
    return PredictReport(subject.name, latency_ms, low, high, coverage, model.setup_, tuple(warnings), macs, ms)


@dataclass(frozen=True)
class LayerReport:
    """A network block by block."""

    subject: Subject
    layers: tuple[dict[str, Any], ...]
    """One object per block, in order: name, input_shape, output_shape, ops, macs, parameters, predicted_ms."""
    model: LatencyPredictor | None = None
    predicted_ms: float | None = None
    """Prediction of the whole, where there is a predictor."""
    warnings: tuple[str, ...] = ()
    known_macs_share: float | None = None
    known_ms_share: float | None = None
    """As of PredictReport, where there is a predictor."""

    @property
    def opaque_ops(self) -> dict[str, int]:
        """How often the network has each op that netlathe knows nothing but the shapes of; its MACs do not count."""
        return opaque_ops(self.subject.graph)

    def to_json(self) -> dict[str, Any]:
        graph = self.subject.graph
        return {
            "name": self.subject.name,
            "input_shape": list(graph.inputs[0]),
            "output_shape": list(graph.output_shape),
            "macs": graph.macs,
            "parameters": graph.parameters,
            "bytes_read": graph.bytes_read(),
            "bytes_written": graph.bytes_written(),
            "opaque_ops": self.opaque_ops,
            "predicted_ms": self.predicted_ms,
            "known_macs_share": self.known_macs_share,
            "known_ms_share": self.known_ms_share,
            "layers": list(self.layers),
            "warnings": list(self.warnings),
        }


def show(
    what: Given,
    predictor: str | Path | LatencyPredictor | Predicts | None = None,
    *,
    unknown: Unknown = "refuse",
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> LayerReport:
    """A network block by block: shapes, MACs, parameters, and with a predictor what each adds to the latency, in ms.

    Arguments and errors are those of predict.
    """
    model = None if predictor is None else load_predictor(predictor, unknown=unknown)
    subject = find_subject(what, batch=model.setup_.batch if model else None, shapes=shapes)
    with naming_others(predictor or "", [subject.graph]):
        total_ms = float(model.predict([subject.graph])[0]) if model else None
        layers = _layer_rows(subject, model)
        warnings = doubts(model, subject.name, subject.graph, subject.dtype) if model else []
        known = model.known_shares([subject.graph])[0] if model else (None, None)
    if not subject.graph.is_network:  # the block itself is the total
        layers = [{**layer, "predicted_ms": total_ms} for layer in layers]
    return LayerReport(subject, tuple(layers), model, total_ms, tuple(warnings), *known)


def _layer_rows(subject: Subject, model: LatencyPredictor | None) -> list[dict[str, Any]]:
    """Rows of the table, unknown ops assumed: what may be a small part of a network may be all of one of its blocks."""
    graphs = [part.graph for part in subject.parts]
    table = model.assuming().tabulate([[g] for g in graphs]).latency_ms[:, 0].tolist() if model else None
    return [
        {
            "name": part.name,
            "input_shape": list(part.graph.inputs[0]),
            "output_shape": list(part.graph.output_shape),
            "ops": [node.op.kind for node in part.graph.nodes],
            "macs": part.graph.macs,
            "parameters": part.graph.parameters,
            "predicted_ms": ms,
        }
        for part, ms in zip(subject.parts, table or [None] * len(graphs), strict=True)
    ]


@contextmanager
def naming_others(predictor: object, graphs: Iterable[Graph]) -> Iterator[None]:
    """Context in which the error of a shipped predictor that lacks ops of the graphs names those that know them."""
    from netlathe.predictor import LatencyPredictor, UnknownOpError, shipped_names

    try:
        yield
    except UnknownOpError as error:
        if str(predictor) not in shipped_names() or Path(str(predictor)).is_file():
            raise
        items = list(graphs)
        others = [name for name in shipped_names() if LatencyPredictor.load(name).knows(items).all()]
        known = f"all ops of it are known to {', '.join(others)}" if others else "no other knows all ops of it either"
        raise UnknownOpError(f"{error}. Of the predictors that ship, {known}") from error


def doubts(model: LatencyPredictor, name: str, graph: Graph, dtype: str | None = None) -> list[str]:
    """Warnings on a prediction: where the predictor knows next to nothing about such a graph, where it holds ops that
    were never measured, and where the file's `dtype` is not the predictor's."""
    low, high = (float(bound[0]) for bound in model.predict_interval([graph]))
    found = list(other_dtype(model, name, dtype))
    found += unknown_ops(name, model, graph)
    if high > WIDE_INTERVAL * low:
        found.append(
            f"{name} is unlike what the predictor was fitted on, so its latency is little more than a guess; profile a "
            "space of its kind and size, and fit on that"
        )
    return found


def unknown_ops(name: str, model: LatencyPredictor, graph: Graph) -> Iterator[str]:
    """A warning where a prediction holds ops that were never measured, with the parts that they have in it."""
    (shares,) = model.unknown_ops([graph])
    if not shares:
        return
    told = ", ".join(f"{op} (at most {percent(share)} of the latency)" for op, share in shares.items())
    ((macs, ms),) = model.known_shares([graph])
    uncounted = " that can be counted" if opaque_ops(graph) else ""
    yield (
        f"{name}: never measured on this setup and priced by what such work usually costs: {told}; the interval is "
        f"wider for it. Measured are ops of {percent(macs)} of the MACs{uncounted} and {percent(ms)} of the latency"
    )


def opaque_ops(graph: Graph) -> dict[str, int]:
    """How often a graph has each op that netlathe has no op for, by the file's names."""
    return dict(Counter(node.op.operation for node in graph.nodes if isinstance(node.op, Opaque)))


def other_dtype(model: LatencyPredictor, name: str, dtype: str | None) -> Iterator[str]:
    """A warning where a file of that dtype is not what the predictor's setup runs. A graph has no dtype, so the
    prediction is of the same network in the setup's: to be asked for, but not to be taken for the file's."""
    runs = model.setup_.dtype
    if dtype is None or dtype in _FORMS.get(runs, {runs}):
        return
    yield (
        f"{name} computes in {dtype}, but the predictor was fitted on {runs}: this is the latency of the same network "
        f"in {runs}, not of this file; for the file, take a predictor fitted on a profile in {dtype}"
    )


@dataclass(frozen=True)
class Priced:
    """Coverage of a predictor: what it has a latency for without assuming any."""

    networks: tuple[str, ...]
    """Published networks."""
    spaces: tuple[str, ...]
    """Preset spaces, all of whose blocks it knows."""
    blocks: tuple[str, ...]
    """Kinds of block of these networks and spaces; of each, all."""
    unknown_ops: tuple[str, ...]
    """Kinds of op that it has no cost of."""
    lacking: tuple[str, ...]
    """Those of them that published networks have."""

    @classmethod
    def by(cls, name: str) -> Priced:
        """Coverage of a predictor file, or of a shipped one by name."""
        from netlathe.archspace.networks import NETWORKS, network
        from netlathe.archspace.presets import PRESETS

        model = load_predictor(name)
        batch = model.setup_.batch
        networks = {one: network(one).graph(batch) for one in NETWORKS}
        spaces = {one: make().distinct_blocks() for one, make in PRESETS.items()}
        kinds: dict[str, list[Graph]] = {}
        for block in (block for blocks in spaces.values() for block in blocks):
            kinds.setdefault(_kind(block), []).append(block.graph(batch))
        graphs = {one: [block.graph(batch) for block in blocks] for one, blocks in spaces.items()}
        return cls(
            tuple(one for one, graph in networks.items() if model.knows([graph]).all()),
            tuple(one for one, found in graphs.items() if model.knows(found).all()),
            tuple(one for one, found in kinds.items() if model.knows(found).all()),
            model.model_.unknown_kinds,
            tuple(sorted({op for shares in model.unknown_ops(list(networks.values())) for op in shares})),
        )

    @property
    def word(self) -> str:
        """Coverage in a few words, as fits a table."""
        if self.networks:
            return "networks"
        return "only blocks" if self.blocks else "only kernels"

    @property
    def words(self) -> str:
        """Coverage at length."""
        parts = f"parts ({', '.join(self.blocks)} blocks)" if self.blocks else "single kernels"
        what = f"whole networks, as {', '.join(self.networks)}" if self.networks else parts
        spaces = f"; all blocks of the spaces {', '.join(self.spaces)}" if self.spaces else "; no preset space"
        lacking = "" if self.networks else f"; no published network, for want of {', '.join(self.lacking)}"
        unknown = f". Never measured: {', '.join(self.unknown_ops)}" if self.unknown_ops else ""
        return f"{what}{spaces}{lacking}{unknown}"


def _kind(block: Block) -> str:
    return block.name.partition("_")[0]
