"""Which of a space's graphs one call of `netlathe profile` measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from netlathe.archspace.errors import RecordError
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernel_space import kernel_shares
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import LatencyRecord, Setup, Status

if TYPE_CHECKING:
    from netlathe.profiler.again import Which
    from netlathe.profiler.campaign import WorkItem
    from netlathe.profiler.protocol import Plan


FEWEST_OF_GROUP = 2
"""Kernels of each class that come before all others: nothing is known of a class without any."""


class Choice(NamedTuple):
    """The graphs of a campaign."""

    items: list[WorkItem]
    chosen: list[WorkItem] | None = None
    """The blocks among them that were chosen, the most instructive first; None where all are measured."""
    known: int = 0
    """How many blocks the choice could build on."""
    continued: int = 0
    """How many of those chosen were chosen or begun by a call that was interrupted."""
    left_out: Mapping[str, str] = {}
    """Classes of kernels that cannot be measured, each with the reason."""

    @property
    def words(self) -> str:
        """Line on what was chosen and why; empty where there was no choice."""
        if self.chosen is None:
            return ""
        names = [item.name for item in self.chosen[:3]] + (["..."] if len(self.chosen) > 3 else [])
        said = f"{len(self.chosen)} blocks, which teach most beside {self.known} that are known or anchors"
        if self.continued:
            said = f"{len(self.chosen)} blocks, {self.continued} of them by a call that was interrupted"
        return f"Chosen: {said}: {', '.join(names)}" if names else "Every block is measured; there is none to choose"

    def to_json(self) -> dict[str, Any]:
        chosen = {} if self.chosen is None else {"chosen": [item.name for item in self.chosen]}
        return {**chosen, **({"left_out": dict(self.left_out)} if self.left_out else {})}


class _Known(NamedTuple):
    """Content of a profile file for one setup."""

    outcomes: dict[str, Status]
    begun: set[str]
    """Keys of all graphs that have rounds."""
    promised: list[str]
    """Keys of what a call chose that was interrupted, in its order."""
    anchors: dict[str, Graph]
    measured: list[LatencyRecord]
    """Blocks with a latency."""


def choose_items(
    items: Sequence[WorkItem],
    count: int,
    path: Path,
    setup: Setup,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> Choice:
    """Leaves out all but `count` of the blocks that the profile file has not heard of. `groups`, by the graphs' keys,
    are classes of kernels, each of which gets its share (kernel_space.kernel_shares).

    Networks stay, and so do blocks with an outcome, which the campaign reports or tries again. What an interrupted call
    chose counts as chosen, finished or not, and so does what has rounds but no outcome: the same command goes on with
    them, and chooses others only once it has ended.
    """
    known = _read(path, setup)
    blocks = {item.graph.key: item for item in items if item.kind == "block"}
    chosen = [key for key in known.promised if key in blocks]
    others = [key for key in blocks if key not in known.outcomes | known.anchors | dict.fromkeys(chosen)]
    chosen += [key for key in others if key in known.begun]
    fresh = [key for key in others if key not in known.begun]
    pending = known.anchors | {key: blocks[key].graph for key in chosen}
    for record in known.measured:
        pending.pop(record.graph.key, None)
    wanted = max(count - len(chosen), 0)
    graphs = {key: blocks[key].graph for key in fresh}
    picked_keys = (
        _pick_by_group(graphs, wanted, known, pending, groups, seed)
        if groups
        else _pick(graphs, wanted, known, list(pending.values()), seed)
    )
    built_on, continued = len(known.measured) + len(pending), len(chosen)
    chosen += picked_keys
    settled = [key for key in blocks if key in known.outcomes and key not in chosen]
    networks = [item for item in items if item.kind == "network"]
    picked = [blocks[key] for key in chosen]
    return Choice([*(blocks[key] for key in settled), *picked, *networks], picked, built_on, continued)


def _pick(graphs: Mapping[str, Graph], count: int, known: _Known, pending: Sequence[Graph], seed: int) -> list[str]:
    """Keys of the `count` graphs that teach most beside those that are known or `pending`, the most instructive
    first."""
    from netlathe.predictor.selection import choose

    keys = list(graphs)
    places = choose(
        list(graphs.values()),
        count,
        measured=[record.graph for record in known.measured],
        latency_ms=[record.latency_ms for record in known.measured],
        pending=pending,
        seed=seed,
    )
    return [keys[place] for place in places]


def _pick_by_group(
    graphs: Mapping[str, Graph],
    count: int,
    known: _Known,
    pending: Mapping[str, Graph],
    groups: Mapping[str, str],
    seed: int,
) -> list[str]:
    """Keys of `count` kernels, the next always of the group that lacks most of its share of the profile."""
    members: dict[str, dict[str, Graph]] = {}
    for key, graph in graphs.items():
        members.setdefault(groups[key], {})[key] = graph
    have = Counter(groups[key] for key in [*(r.graph.key for r in known.measured), *pending] if key in groups)
    order = _turns(members, have, count, kernel_shares(groups.values()))
    asked = Counter(order)
    picked = {
        group: iter(_pick(members[group], number, known, list(pending.values()), seed))
        for group, number in asked.items()
    }
    return [found for group in order if (found := next(picked[group], None)) is not None]


def _turns(
    members: Mapping[str, Mapping[str, Graph]], have: Counter[str], count: int, shares: Mapping[str, float]
) -> list[str]:
    """Groups of the next `count` kernels, in their order: each time the one that is furthest below its share, counting
    a few of each first."""
    left, counts = {group: len(graphs) for group, graphs in members.items()}, Counter(have)
    order: list[str] = []
    while len(order) < count and any(left.values()):
        open_groups = [group for group, number in left.items() if number]
        group = min(open_groups, key=lambda one: (counts[one] >= FEWEST_OF_GROUP, counts[one] / shares[one]))
        order.append(group)
        counts[group] += 1
        left[group] -= 1
    return order


def recorded_items(path: Path, setup: Setup) -> list[WorkItem]:
    """All that the profile file holds of a setup, as work. Raises RecordError where that is nothing."""
    from netlathe.profiler.campaign import WorkItem

    with ProfileFile(path) as file:
        records, setups = file.records(setup), [one for one in file.setups() if one != setup]
    if not records:
        nearest = min((setup.differences(one) for one in setups), key=len, default=["nothing is measured"])
        raise RecordError(
            f"{path}: holds nothing that was measured on {setup} ({'; '.join(nearest)}), so that "
            "nothing can be measured again; give the same --device, --threads, --dtype, ... as then"
        )
    return [WorkItem(record.name, record.kind, record.graph) for record in records]


def remember(choice: Choice, path: Path, setup: Setup) -> None:
    """Writes down what was chosen, so that the same command goes on with it, wherever it is interrupted."""
    if choice.chosen:
        with ProfileFile(path, create=True) as file:
            file.add_setup(setup)
            file.add_graphs((item.name, item.kind, item.graph) for item in choice.chosen)
            file.add_chosen(setup, [item.graph.key for item in choice.chosen])


def forget(choice: Choice, path: Path, setup: Setup, again: Which | None) -> None:
    """All of the call's graphs have an outcome, and it was told: the next one chooses anew."""
    with ProfileFile(path) as file:
        if again:
            file.forget_again(setup, again)
        else:
            file.forget_chosen(setup, [item.graph.key for item in choice.items])


def _read(path: Path, setup: Setup) -> _Known:
    """The anchors are those that a campaign would measure beside its items."""
    from netlathe.profiler.protocol import ANCHORS

    first = {graph.key: graph for graph in (block.graph(setup.batch) for block in ANCHORS)}
    if not path.is_file():
        return _Known({}, set(), [], first, [])
    with ProfileFile(path) as file:
        measured = [r for r in file.records(setup) if r.kind == "block" and r.status is Status.OK]
        return _Known(
            file.outcomes(setup), set(file.rounds(setup)), file.chosen(setup), file.anchors(setup) or first, measured
        )


@dataclass(frozen=True)
class DeviceForecast:
    """Forecast of a campaign on one device."""

    device: str
    setup: Setup
    choice: Choice
    counts: dict[str, int]
    """Graphs by what would happen to them: new, continued, again, reused, unsupported."""
    estimate_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            **self.counts, **self.choice.to_json(), "estimate_s": self.estimate_s, "setup": self.setup.to_json(),
        }  # fmt: skip


def forecast_campaign(
    device: str, choice: Choice, path: Path, setup: Setup, plan: Plan, again: Which | None
) -> DeviceForecast:
    """Forecast of a campaign with the blocks that were chosen; nothing is measured."""
    from netlathe.profiler.forecast import dry_run

    if path.is_file():
        with ProfileFile(path) as file:
            found = dry_run(choice.items, file, setup, plan, again)
    else:
        found = dry_run(choice.items, None, setup, plan)
    counts = {
        "new": len(found.new),
        "continued": len(found.continued),
        "again": len(found.again),
        "reused": len(found.reused),
        "unsupported": len(found.unsupported),
    }
    return DeviceForecast(device, setup, choice, counts, found.estimate_s)
