"""Advice on what would make a network faster out of proportion: told by the predictor's price of the alternative, never
by a rule of thumb."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from netlathe.archspace.errors import GraphError
from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.kernels import kernel_bytes
from netlathe.archspace.ops import Conv2d, FullyConnected, Op, Pad, Padding
from netlathe.words import first_names, milliseconds, percent

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor
    from netlathe.predictor.networks.kernel_latencies import KernelLatencies

_MULTIPLES = (8, 16, 32)
"""Numbers of channels that runtimes compute at once: vectors, and columns of results."""
_MOST_NARROWED = 0.25
"""Largest part of the channels that advice takes away."""
_LEAST_GAIN = 0.02
"""Part of the network's latency from which on a gain is worth a word."""
_BEYOND_PROPORTION = 0.93
"""Latency of changed kernels, over what is proportional to their work, below which they have left a cliff behind;
predictions of neighbours in size are no more exact than that."""
_MOST_WIDTHS = 8
"""Most numbers of channels that are looked at, those whose layers take longest."""
_SMALLEST = 3
"""Depthwise kernel size below which there is none."""
_DEARER_PER_MAC = 1.5
"""Ratio of the prices of a MAC from which on the dearer kernel size is off a cliff."""
_MOSTLY = 0.5
"""Part of a network's latency from which on launches dominate it."""


@dataclass(frozen=True)
class Advice:
    """A change that is predicted to be worth more than the work that it saves."""

    kind: Literal["channels", "depthwise", "launches", "dtype"]
    layers: tuple[str, ...]
    """Names of the layers that it is about; none where it is about the whole."""
    now_ms: float
    """Predicted latency of the network as it is."""
    instead_ms: float | None
    """The same after the change; None where there is no single alternative to price."""
    text: str


class _Change(NamedTuple):
    """Some layers of a network changed."""

    layers: tuple[str, ...]
    graph: Graph


class _Work(NamedTuple):
    """Work and time of some kernels."""

    ms: float
    macs: int
    bytes: int


def advise(
    graph: Graph, model: LatencyPredictor, now: KernelLatencies, launching_ms: float = 0.0
) -> tuple[Advice, ...]:
    """Changes that the predictor prices out of proportion lower, the largest gain first. `now` are the kernels of the
    graph, of which those that are bound by their launch take `launching_ms`."""
    if not now.total_ms > 0:
        return ()
    model = model.assuming()  # what is changed may be more of the network than before
    found = [*_of_channels(graph, model, now), *_of_kernel_sizes(graph, model, now)]
    found.sort(key=lambda one: one.instead_ms or 0.0)
    return (*found, *_of_launches(now, launching_ms), *_of_dtype(graph, model, now))


def _of_channels(graph: Graph, model: LatencyPredictor, now: KernelLatencies) -> Iterator[Advice]:
    """For each number of channels that no vector or column fits, the best one below that it is better to have."""
    found: dict[int, list[tuple[float, Advice]]] = {}
    changes = {(width, less): change for width, less, change in _narrowed(graph, _costly_widths(graph, now))}
    for width, less in _gaining(changes, graph, model, now):
        layers, changed = changes[width, less]
        then = model.kernels(changed)
        before, after = _unlike(now, then)
        fair_ms = before.ms * min(after.macs / max(before.macs, 1), after.bytes / max(before.bytes, 1))
        gain_ms = fair_ms - after.ms
        if after.ms < _BEYOND_PROPORTION * fair_ms and gain_ms > _LEAST_GAIN * now.total_ms:
            text = (
                f"{width} channels ({_named(layers)}): with {less}, the network is predicted to take "
                f"{milliseconds(then.total_ms)} ms instead of {milliseconds(now.total_ms)}; the kernels that change "
                f"take {percent(1 - after.ms / before.ms, 0)} less, for {percent(1 - after.macs / before.macs, 0)} "
                "fewer MACs"
            )
            advice = Advice("channels", layers, now.total_ms, then.total_ms, text)
            found.setdefault(width, []).append((gain_ms, advice))
    for several in found.values():
        yield max(several, key=lambda one: one[0])[1]


def _costly_widths(graph: Graph, now: KernelLatencies) -> list[int]:
    """The numbers of channels whose layers take longest."""
    widths = {node.name: _width(node.op) for node in graph.nodes}
    found: Counter[int] = Counter()
    for names, ms in zip(now.names, now.latency_ms.tolist(), strict=True):
        found[max(widths[name] for name in names)] += ms
    return [width for width, _ in found.most_common(_MOST_WIDTHS)]


def _narrowed(graph: Graph, widths: Iterable[int]) -> Iterator[tuple[int, int, _Change]]:
    """(channels, fewer channels, network in which all layers of so many have so few)."""
    for width in widths:
        lower = {width // multiple * multiple for multiple in _MULTIPLES if width % multiple}
        for less in sorted(lower, reverse=True):
            if less >= (1 - _MOST_NARROWED) * width:
                change = _changed(graph, lambda op, width=width, less=less: _resized(op, width, less))  # type: ignore[misc]
                if change:
                    yield width, less, change


def _width(op: Op) -> int:
    """Channels that a layer gives; 0 for what is none."""
    if isinstance(op, Conv2d):
        return op.out_channels
    return op.out_features if isinstance(op, FullyConnected) else 0


def _resized(op: Op, width: int, less: int) -> Op:
    """The layer with fewer channels, if it has so many; a depthwise one has as many groups."""
    if isinstance(op, Conv2d) and op.out_channels == width:
        return replace(op, out_channels=less, groups=less if op.groups == width else op.groups)
    if isinstance(op, FullyConnected) and op.out_features == width:
        return replace(op, out_features=less)
    return op


def _changed(graph: Graph, edit: Callable[[Op], Op]) -> _Change | None:
    """The graph with its ops edited, but for those that give its results; None where nothing is, or it does not fit
    together any more."""
    given = {graph.producers[tensor] for tensor in graph.outputs}
    nodes = [
        node if index in given or (op := edit(node.op)) is node.op else replace(node, op=op)
        for index, node in enumerate(graph.nodes)
    ]
    return _rebuilt(graph, nodes)


def _rebuilt(graph: Graph, nodes: list[Node]) -> _Change | None:
    pairs = zip(graph.nodes, nodes, strict=True)
    layers = tuple(node.name for node, new in pairs if new is not node and not isinstance(node.op, Pad))
    try:
        return _Change(layers, replace(graph, nodes=tuple(nodes))) if layers else None
    except GraphError:
        return None


def _gaining(
    changes: dict[tuple[int, int], _Change], graph: Graph, model: LatencyPredictor, now: KernelLatencies
) -> list[tuple[int, int]]:
    """Keys of the changes that save more of the time than of the MACs, and enough to tell."""
    if not changes:
        return []
    found = model.predict([change.graph for change in changes.values()]).tolist()
    gains = {key: 1 - ms / now.total_ms for key, ms in zip(changes, found, strict=True)}
    return [
        key for key, gain in gains.items() if gain > max(_LEAST_GAIN, 1 - changes[key].graph.macs / max(graph.macs, 1))
    ]


def _unlike(now: KernelLatencies, then: KernelLatencies) -> tuple[_Work, _Work]:
    """The kernels that a change touches, before and after it."""
    kept = {kernel.key for kernel in now.graphs} & {kernel.key for kernel in then.graphs}
    return _work(now, kept), _work(then, kept)


def _work(priced: KernelLatencies, but: Iterable[str]) -> _Work:
    rows = [
        (ms, kernel) for ms, kernel in zip(priced.latency_ms.tolist(), priced.graphs, strict=True)
        if kernel.key not in but
    ]  # fmt: skip
    kernels = [kernel for _, kernel in rows]
    return _Work(sum(ms for ms, _ in rows), sum(k.macs for k in kernels), sum(kernel_bytes(k) for k in kernels))


def _of_kernel_sizes(graph: Graph, model: LatencyPredictor, now: KernelLatencies) -> Iterator[Advice]:
    """Depthwise kernel sizes whose MACs cost far more than those of the next smaller size."""
    for size in sorted({found for node in graph.nodes if (found := _depthwise_size(node.op)) > _SMALLEST}):
        change = _with_smaller_kernels(graph, size)
        if change is None:
            continue
        then = model.kernels(change.graph)
        before, after = _unlike(now, then)
        ratio = (before.ms / max(before.macs, 1)) / max(after.ms / max(after.macs, 1), 1e-300)
        if ratio > _DEARER_PER_MAC and now.total_ms - then.total_ms > _LEAST_GAIN * now.total_ms:
            less = size - 2
            text = (
                f"{size}x{size} depthwise convolutions ({_named(change.layers)}): a MAC is predicted to cost "
                f"{ratio:.2g} times as much as with {less}x{less}, with which the network would take "
                f"{milliseconds(then.total_ms)} ms instead of {milliseconds(now.total_ms)}"
            )
            yield Advice("depthwise", change.layers, now.total_ms, then.total_ms, text)


def _depthwise_size(op: Op) -> int:
    """Size of a square depthwise kernel; 0 for any other op."""
    if isinstance(op, Conv2d) and op.groups == op.out_channels > 1 and op.kernel[0] == op.kernel[1]:
        return op.kernel[0]
    return 0


def _with_smaller_kernels(graph: Graph, size: int) -> _Change | None:
    """The network with each depthwise convolution of that size two smaller; None where none can be."""
    nodes = list(graph.nodes)
    for index, node in enumerate(graph.nodes):
        op = node.op
        if not isinstance(op, Conv2d) or _depthwise_size(op) != size:
            continue
        pad = graph.producers[node.inputs[0]]
        if op.padding is Padding.VALID:  # what pads it must pad less
            before = nodes[pad].op if pad >= 0 else None
            if not isinstance(before, Pad) or graph.sole_users.get(pad) != (index, 1) or min(_borders(before)) < 1:
                continue
            (top, bottom), (left, right) = before.height, before.width
            nodes[pad] = replace(nodes[pad], op=Pad((top - 1, bottom - 1), (left - 1, right - 1)))
        nodes[index] = replace(node, op=replace(op, kernel=(size - 2, size - 2)))
    change = _rebuilt(graph, nodes)
    if change is None or change.graph.shapes[-1] != graph.shapes[-1]:
        return None
    return change


def _borders(pad: Pad) -> tuple[int, ...]:
    return (*pad.height, *pad.width)


def _of_launches(now: KernelLatencies, launching_ms: float) -> Iterator[Advice]:
    """That launching kernels takes most of the time, where it does."""
    if launching_ms > _MOSTLY * now.total_ms:
        text = (
            f"of the {milliseconds(now.total_ms)} ms predicted, {milliseconds(launching_ms)} are of kernels that take "
            "little longer than their launch: fewer and larger kernels would save more than fewer MACs"
        )
        yield Advice("launches", (), now.total_ms, None, text)


def _of_dtype(graph: Graph, model: LatencyPredictor, now: KernelLatencies) -> Iterator[Advice]:
    """That float32 is faster than int8, where a predictor of the same setup in float32 ships and says so."""
    from netlathe.predictor import LatencyPredictor
    from netlathe.predictor.catalogue import read_card, shipped_names

    if model.setup_.dtype != "int8":
        return
    wanted = replace(model.setup_, dtype="float32")
    for name in shipped_names():
        if not read_card(name).setup.differences(wanted):
            other = LatencyPredictor.load(name)
            if not other.knows([graph]).all():
                continue
            ms = float(other.predict([graph])[0])
            if ms < (1 - _LEAST_GAIN) * now.total_ms:
                text = (
                    f"int8 is slower than float32: {name} predicts {milliseconds(ms)} ms instead of "
                    f"{milliseconds(now.total_ms)}"
                )
                yield Advice("dtype", (), now.total_ms, ms, text)


def _named(layers: tuple[str, ...]) -> str:
    return first_names(layers, 3)
