"""Predictors by file or name, and what a user should know of what they predict before trusting it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Opaque
from netlathe.archspace.precisions import is_mixed, precisions_of
from netlathe.predicted import PredictReport, Refused, write_csv
from netlathe.predictor.intervals import USUAL_COVERAGE, check_coverage
from netlathe.subjects import Given, Subject, find_subject, with_contents
from netlathe.words import percent

if TYPE_CHECKING:
    from netlathe.archspace.blocks import Block
    from netlathe.archspace.forms.torch_program import ExampleInputs
    from netlathe.predictor import LatencyPredictor
    from netlathe.predictor.catalogue import Card
    from netlathe.predictor.own_model import Predicts

_TOGETHER = 64
"""Networks that are read and priced together: each of many costs less so, and few graphs are in memory at once."""
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


@overload
def predict(
    what: list[Any] | tuple[Any, ...],
    predictor: str | Path | LatencyPredictor | Predicts,
    *,
    on_error: Literal["raise"] = ...,
    coverage: float = ...,
    unknown: Unknown = ...,
    shapes: Mapping[str, Sequence[int]] | None = ...,
    example_inputs: ExampleInputs | None = ...,
    csv: str | Path | None = ...,
) -> list[PredictReport]: ...


@overload
def predict(
    what: list[Any] | tuple[Any, ...],
    predictor: str | Path | LatencyPredictor | Predicts,
    *,
    on_error: Literal["keep"],
    coverage: float = ...,
    unknown: Unknown = ...,
    shapes: Mapping[str, Sequence[int]] | None = ...,
    example_inputs: ExampleInputs | None = ...,
    csv: str | Path | None = ...,
) -> list[PredictReport | Refused]: ...


@overload
def predict(
    what: Given,
    predictor: str | Path | LatencyPredictor | Predicts,
    *,
    on_error: Literal["raise"] = ...,
    coverage: float = ...,
    unknown: Unknown = ...,
    shapes: Mapping[str, Sequence[int]] | None = ...,
    example_inputs: ExampleInputs | None = ...,
    csv: str | Path | None = ...,
) -> PredictReport: ...


def predict(
    what: Given | list[Any] | tuple[Any, ...],
    predictor: str | Path | LatencyPredictor | Predicts,
    *,
    on_error: Literal["raise", "keep"] = "raise",
    coverage: float = 0.9,
    unknown: Unknown = "refuse",
    shapes: Mapping[str, Sequence[int]] | None = None,
    example_inputs: ExampleInputs | None = None,
    csv: str | Path | None = None,
) -> Any:
    """The latency of a network or block on the predictor's device, in ms, with an interval; of several, a list.

    `what` is a name (`mobilenet_v2_0.5`, `timm:resnet18`, `mbconv_k3_e6_s1_c16-16_56x56_relu6`), an architecture file,
    a run's folder, a .tflite or .onnx file (`shapes` fixes sizes that it leaves open, by its inputs' names), an
    Architecture, block or Graph, or a torch module (with `example_inputs`, as of read) or exported program; or several
    of these in a list, where a folder stands for the model files below it. `predictor` is a file, the name of one that
    ships, the object, or anything with predict(graphs) -> ms. Ops that were never measured are refused, or with
    unknown="price" priced by the bytes that they move, their MACs and a launch each, in a wide interval, and told in
    the warnings. `csv` is a table to write, a row for each.

    Raises FormatError for files that cannot be read or take other batches than the predictor's, SpaceError for unknown
    names, UnknownOpError for ops that the predictor knows nothing of, OutputError for a table that must not be written,
    PredictorError for a coverage outside (0, 1).
    In a list, with `on_error="keep"`, what cannot be read or priced is a Refused in its place instead.
    """
    check_coverage(coverage)
    several = isinstance(what, list | tuple)
    things: list[Given] = with_contents(what) if isinstance(what, list | tuple) else [what]
    place = None if csv is None else Path(csv)
    if place:
        from netlathe.outputs import Output, check_outputs

        inputs = [one for one in (*things, predictor) if isinstance(one, str | Path)]
        check_outputs([Output("--csv", place, "latencies")], inputs)
    model = load_predictor(predictor, unknown=unknown)
    found: list[PredictReport | Refused] = []
    for start in range(0, len(things), _TOGETHER):
        part = things[start : start + _TOGETHER]
        subjects = [_read(one, model, shapes, example_inputs) for one in part]
        for given, outcome in zip(part, _outcomes(subjects, model, predictor, coverage), strict=True):
            source = str(given) if isinstance(given, str | Path) else ""
            if isinstance(outcome, PredictReport):
                found.append(replace(outcome, source=source or outcome.name))
            elif several and on_error == "keep":
                found.append(Refused(source or type(given).__name__, str(outcome)))
            else:
                raise outcome
    if place:
        write_csv(found, place)
    return found if several else found[0]


def _read(
    given: Given, model: LatencyPredictor, shapes: Mapping[str, Sequence[int]] | None, inputs: ExampleInputs | None
) -> Subject | NetlatheError:
    """The network, or why it cannot be read."""
    try:
        return find_subject(given, batch=model.setup_.batch, shapes=shapes, example_inputs=inputs)
    except NetlatheError as error:
        return error


def _outcomes(
    read: Sequence[Subject | NetlatheError], model: LatencyPredictor, predictor: object, coverage: float
) -> list[PredictReport | NetlatheError]:
    """Predictions of what could be read, and why the others have none."""
    subjects = [one for one in read if isinstance(one, Subject)]
    priced: Iterator[PredictReport | NetlatheError]
    try:
        priced = iter(_reports(subjects, model, coverage))
    except NetlatheError:  # of one of them
        priced = iter([_alone(subject, model, predictor, coverage) for subject in subjects])
    return [next(priced) if isinstance(one, Subject) else one for one in read]


def _alone(
    subject: Subject, model: LatencyPredictor, predictor: object, coverage: float
) -> PredictReport | NetlatheError:
    try:
        return priced(subject, model, predictor, coverage)
    except NetlatheError as error:
        return error


def priced(subject: Subject, model: LatencyPredictor, predictor: object, coverage: float) -> PredictReport:
    """The prediction of a network that is read already. Raises UnknownOpError, which names the shipped predictors that
    know its ops where `predictor` is one that ships."""
    with naming_others(predictor, [subject.graph]):
        return _reports([subject], model, coverage)[0]


def _reports(subjects: Sequence[Subject], model: LatencyPredictor, coverage: float) -> list[PredictReport]:
    """Predictions of several together. Raises UnknownOpError where any of them cannot be priced."""
    graphs = [subject.graph for subject in subjects]
    predicted = model.predict_with_interval(graphs, coverage)
    usual = predicted if coverage == USUAL_COVERAGE else model.predict_with_interval(graphs)
    unknown_shares = model.unknown_ops(graphs)
    known = model.known_shares(graphs)
    is_guess = usual.high_ms > WIDE_INTERVAL * usual.low_ms
    reports = []
    for index, subject in enumerate(subjects):
        latency_ms, low_ms, high_ms = (float(values[index]) for values in predicted)
        told = (unknown_shares[index], known[index], bool(is_guess[index]))
        warnings = tuple(_doubts(model, subject.name, subject.dtype, subject.graph, *told))
        told_of = (coverage, model.setup_, warnings, subject.notes, *known[index])
        reports.append(PredictReport(subject.name, latency_ms, low_ms, high_ms, *told_of))
    return reports


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
    unknown, known = model.unknown_ops([graph])[0], model.known_shares([graph])[0]
    return _doubts(model, name, dtype, graph, unknown, known, high > WIDE_INTERVAL * low)


def _doubts(
    model: LatencyPredictor,
    name: str,
    dtype: str | None,
    graph: Graph,
    unknown: Mapping[str, float],
    known: tuple[float, float],
    is_guess: bool,
) -> list[str]:
    """The same, from its unknown ops, the parts of MACs and latency that are known, and whether its interval is a wide
    one."""
    found = [*other_dtype(model, name, dtype), *several_precisions(model, name, graph)]
    found += unknown_ops(name, graph, unknown, known)
    if is_guess:
        found.append(
            f"{name} is unlike what the predictor was fitted on, so its latency is little more than a guess; profile a "
            "space of its kind and size, and fit on that"
        )
    return found


def unknown_ops(name: str, graph: Graph, shares: Mapping[str, float], known: tuple[float, float]) -> list[str]:
    """A warning where a prediction holds ops that were never measured, with the parts that they have in it, and the
    parts of the MACs and of the latency that are known."""
    if not shares:
        return []
    told = ", ".join(f"{op} (at most {percent(share)} of the latency)" for op, share in shares.items())
    uncounted = " that can be counted" if opaque_ops(graph) else ""
    return [
        f"{name}: never measured on this setup and priced by what such work usually costs: {told}; the interval is "
        f"wider for it. Measured are ops of {percent(known[0])} of the MACs{uncounted} and {percent(known[1])} of the "
        "latency"
    ]


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


def several_precisions(model: LatencyPredictor, name: str, graph: Graph) -> Iterator[str]:
    """A warning where layers of the graph compute in several precisions, of which a predictor's setup has one."""
    if model.tells_precisions_ or not is_mixed(graph):
        return
    layers = {node.name for node in graph.nodes if node.op.has_macs}
    found = sorted({str(precision) for node, precision in precisions_of(graph).items() if node in layers})
    if len(found) > 1:
        yield (
            f"{name} has layers in {' and '.join(found)}, but the predictor was fitted on {model.setup_.dtype}: all "
            "are priced as such; netlathe.predictor.MixedPredictor takes a predictor of each dtype"
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
    lacking: tuple[str, ...]
    """Kinds of op that published networks have and it has no cost of."""

    @classmethod
    def by(cls, name: str, card: Card | None = None) -> Priced:
        """Coverage of a predictor file, or of a shipped one by name: as its card tells, where it does, as finding out
        takes a second."""
        told = None if card is None else card.prices
        is_whole = told is not None and told.keys() == {field.name for field in fields(cls)}
        return cls(**told) if told and is_whole else cls.of(load_predictor(name))

    @classmethod
    def of(cls, model: LatencyPredictor) -> Priced:
        """Coverage of a predictor."""
        from netlathe.archspace.networks import NETWORKS, network
        from netlathe.archspace.presets import PRESETS

        batch = model.setup_.batch
        networks = {one: network(one).graph(batch) for one in NETWORKS}
        spaces = {one: make().distinct_blocks() for one, make in PRESETS.items()}
        kinds: dict[str, list[Graph]] = {}
        for block in (block for blocks in spaces.values() for block in blocks):
            kinds.setdefault(_kind(block), []).append(block.graph(batch))
        graphs = {one: [block.graph(batch) for block in blocks] for one, blocks in spaces.items()}

        def knows(items: Sequence[Graph]) -> bool:
            return bool(model.model_.unknown(items).is_negligible.all())

        return cls(
            tuple(one for one, graph in networks.items() if knows([graph])),
            tuple(one for one, found in graphs.items() if knows(found)),
            tuple(one for one, found in kinds.items() if knows(found)),
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
        return f"{what}{spaces}{lacking}"


def _kind(block: Block) -> str:
    return block.name.partition("_")[0]
