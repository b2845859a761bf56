"""Outlook of a compression, before any work: what the network takes now, and what it can be brought to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from netlathe.archspace.decisions import Choices
from netlathe.compress.errors import CompressError
from netlathe.pricing import naming_others
from netlathe.runs.compression.settings import CompressSettings
from netlathe.targets import KIB
from netlathe.words import millions, milliseconds

if TYPE_CHECKING:
    from netlathe.search.successive import CostLimit

_COUNTED = ("MACs", "parameters", "KiB at once")
SHARE = 0.002
"""Closeness of a share of all widths that is searched for."""


@dataclass(frozen=True)
class Latency:
    """A predicted latency in ms, with the ends of its 90 % interval."""

    device: str
    ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class Stage:
    """A network that a compression may end at, and what it costs."""

    name: str
    """'original', 'half-way' (all widths alike, in one precision), 'fastest'."""
    latencies: tuple[Latency, ...]
    """One per target."""
    macs: int
    parameters: int
    memory_kib: float
    """KiB of activations alive at once, for one image."""
    choices: Choices

    def to_json(self) -> dict[str, Any]:
        latencies = [asdict(one) for one in self.latencies]
        return {**asdict(self), "latencies": latencies, "choices": list(self.choices)}


@dataclass(frozen=True)
class Outlook:
    """Stages that a compression may reach, from the original to the fastest."""

    stages: tuple[Stage, ...]
    starts: tuple[Choices, ...]
    """Networks that keep all limits by their predictions, from one to one in each precision throughout."""
    is_kept: bool
    """Whether the original keeps all of them."""

    @property
    def original(self) -> Stage:
        """The network as it is."""
        return self.stages[0]


def look_ahead(settings: CompressSettings) -> Outlook:
    """The stages, and a network to start from. Raises CompressError where there is nothing to cut, TargetError for a
    target below the fastest, UnknownOpError for ops that a predictor does not know."""
    space = settings.space
    settings.check_prices()
    if not space.option_counts:
        raise CompressError(f"{settings.original.name}: no channels can be cut: {'; '.join(why_fixed(settings))}")
    for target in settings.goal.targets:
        with naming_others(target.name, [space.graph(space.reference, target.model.setup_.batch)]):
            target.model.predict([space.graph(space.reference, target.model.setup_.batch)])
    limits = settings.limits([target.model for target in settings.goal.targets])
    fastest = _fastest(settings, limits)
    check_reached(settings, limits[1:] if settings.device else limits, fastest)
    main = limits[0]
    middle_ms = (main.cost(space, space.reference) + main.cost(space, fastest)) / 2
    half = next(iter(widest(settings, lambda choices: main.cost(space, choices) <= middle_ms)), fastest)
    starts = widest(settings, lambda choices: is_kept(settings, limits, choices)) or (fastest,)
    named = (("original", space.reference), ("half-way", half), ("fastest", fastest))
    stages = tuple(stage(settings, name, choices) for name, choices in named)
    return Outlook(stages, starts, is_kept(settings, limits, space.reference))


def stage(settings: CompressSettings, name: str, choices: Choices) -> Stage:
    """A network's costs."""
    graph = settings.space.graph(choices)
    latencies = []
    for target in settings.goal.targets:
        item = settings.space.graph(choices, target.model.setup_.batch)
        low, high = target.model.predict_interval([item])
        latencies.append(Latency(target.name, float(target.model.predict([item])[0]), float(low[0]), float(high[0])))
    memory = graph.peak_activation_bytes(settings.goal.itemsize) / KIB
    return Stage(name, tuple(latencies), graph.macs, graph.parameters, memory, choices)


def why_fixed(settings: CompressSettings) -> list[str]:
    """Lines on the layers whose channels stay, by reason."""
    fixed = settings.space.coupled.fixed
    reasons = Counter(one.reason for one in fixed)
    found = []
    for reason, count in reasons.most_common():
        first = next(one.layer for one in fixed if one.reason == reason)
        more = f" and {count - 1} more" if count > 1 else ""
        found.append(f"{first}{more}: {reason}")
    return found or ["it has no layers with channels"]


def _fastest(settings: CompressSettings, limits: Sequence[CostLimit]) -> Choices:
    """The least network in the fastest precision, or the one beside it that is faster yet: at some widths a kernel is
    slow, and blocks may be left out."""
    space, main = settings.space, limits[0]

    def ms(choices: Choices) -> float:
        return main.cost(space, choices)

    least = min((space.alike(0.0, precision) for precision in range(len(space.precisions))), key=ms)
    return min((least, main.constraint(space, least).table.cheapest), key=ms)


def widest(settings: CompressSettings, keeps: Callable[[Choices], bool]) -> tuple[Choices, ...]:
    """The network of the largest share of all widths that keeps a limit, in each precision in which the least does."""
    space = settings.space
    found = []
    for precision in range(len(space.precisions)):
        share = _largest(lambda one, precision=precision: keeps(space.alike(one, precision)))  # type: ignore[misc]
        found += [] if share is None else [space.alike(share, precision)]
    return tuple(found)


def _largest(keeps: Callable[[float], bool]) -> float | None:
    """The largest share that keeps a limit; None where the least does not."""
    if keeps(1.0):
        return 1.0
    low, high = 0.0, 1.0
    if not keeps(low):
        return None
    while high - low > SHARE:
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def is_kept(settings: CompressSettings, limits: Sequence[CostLimit], choices: Choices) -> bool:
    """Whether a network keeps the limits."""
    return all(limit.cost(settings.space, choices) <= limit.limit for limit in limits)


def check_reached(
    settings: CompressSettings, limits: Sequence[CostLimit], fastest: Choices, timed_ms: float | None = None
) -> None:
    """Raises TargetError where neither the fastest network nor the least in any precision keeps a limit: by `timed_ms`,
    if the fastest was timed for them, or else by predictions."""
    from netlathe.search.errors import TargetError

    space = settings.space
    smallest = [fastest, *(space.alike(0.0, precision) for precision in range(len(space.precisions)))]
    for limit in limits:
        least = min(limit.cost(space, choices) for choices in smallest) if timed_ms is None else timed_ms
        if least > limit.limit:
            now = limit.cost(space, space.reference)
            unit = f" {limit.unit}" if limit.unit else ""
            by = "widths and precisions" if space.segments else "widths"
            raise TargetError(
                f"{limit.name}: {limit.limit:.4g}{unit} cannot be reached by {by} of {settings.original.name}: the "
                f"fastest takes {least:.4g}{unit}, the original {now:.4g}{unit}; raise the limit, or allow narrower "
                f"layers (--least-share, now {settings.least_share:g})"
            )


def told(outlook: Outlook) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of a table of the stages."""
    columns = ("widths", *(f"ms on {one.device} (90 % interval)" for one in outlook.original.latencies), *_COUNTED)
    return columns, [row(one) for one in outlook.stages]


def row(one: Stage) -> tuple[str, ...]:
    """Cells of a stage's row."""
    latencies = (f"{milliseconds(x.ms)} ({milliseconds(x.low_ms)} to {milliseconds(x.high_ms)})" for x in one.latencies)
    return (one.name, *latencies, millions(one.macs), millions(one.parameters), f"{one.memory_kib:,.0f}")
