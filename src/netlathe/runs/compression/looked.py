"""Ways to choose the widths beside the integer program: looks at whole networks by a black-box strategy, NetAdapt's
steps, and all layers alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.archspace.graph import Graph
from netlathe.archspace.jsonfile import json_digest
from netlathe.compress.joint import JointSpace
from netlathe.runs.comparisons import ComparisonLog
from netlathe.runs.compression.outlook import is_kept, widest
from netlathe.runs.compression.settings import CompressSettings
from netlathe.runs.compression.strategies import NETADAPT, UNIFORM
from netlathe.runs.files import COMPARISONS, STUDY
from netlathe.runs.folder import Workplace

if TYPE_CHECKING:
    from netlathe.search.strategies.blackbox.coarse import CoarseSpace
    from netlathe.search.strategies.blackbox.feasible import PriceLimit
    from netlathe.search.strategies.blackbox.priced import PricedSet
    from netlathe.search.strategies.blackbox.study import Study
    from netlathe.search.successive import CostLimit

Loss = Callable[[Choices], float]
"""How much is wrong with a network, the less the better."""

ROUNDS = 4
"""Rounds in which what a found network leaves of the limits is given to single layers."""
TOWARDS_WIDER = 0.01
"""Weight of what wider layers gain beside what narrower ones lose, where a found network is repaired: the judge decides
whether it is to be wider or narrower, and no layer gets narrower for the sake of another."""


@dataclass(frozen=True)
class Seeker:
    """Search for the network of the least loss within the limits, by the settings' strategy.

    `scores` (decisions, options) say what options are worth without a look. `loss` is None where networks cannot be
    looked at: the sum of their scores takes its place. `floor` is the cheapest network, and keeps the limits.
    """

    settings: CompressSettings
    place: Workplace
    limits: Sequence[CostLimit]
    floor: Choices
    scores: NDArray[np.float64]
    loss: Loss | None

    def find(self) -> tuple[Choices, dict[Choices, float]]:
        """The network, and the losses of those within the limits that were looked at. Raises SearchError where every
        look-up of a black-box strategy fails."""
        from netlathe.search.successive import widened

        space = self.settings.space
        single = {UNIFORM: self._uniform, NETADAPT: self._netadapt}.get(self.settings.strategy)
        seen = {one: self._look(one) for one in (single(),)} if single else self._looked_at()
        best = min(seen, key=seen.__getitem__)
        wider = widened(space, self.scores, self.limits, best, rounds=1 if single else ROUNDS)
        seen = {wider: self._look(wider), **seen}
        return min(seen, key=seen.__getitem__), seen if self.loss else {}

    @cached_property
    def _look(self) -> Loss:
        return self.loss or self._unlikeness

    def _unlikeness(self, choices: Choices) -> float:
        return -float(self.scores[np.arange(len(choices)), list(choices)].sum())

    def _uniform(self) -> Choices:
        """All widths alike, by the largest share that keeps the limits, in the precision that is worth most with it."""
        found = widest(self.settings, partial(is_kept, self.settings, self.limits))
        return min(found, key=self._unlikeness, default=self.floor)

    def _netadapt(self) -> Choices:
        """The end of NetAdapt's steps from the original."""
        from netlathe.search.strategies.netadapt import netadapt

        with self.place.listener.progress("narrowing layer by layer", "steps") as update:
            return netadapt(
                self.settings.space, self.scores, self.limits, self.floor, loss=self.loss,
                looks=self.settings.looks, on_step=lambda done, total: update(done, total, ""),
            )  # fmt: skip

    def _looked_at(self) -> dict[Choices, float]:
        """Networks that a black-box strategy has looked at, with their losses; a later call goes on where an earlier
        one has ended."""
        from netlathe.search.errors import SearchError
        from netlathe.search.strategies.blackbox.names import make_strategy

        settings, coarse = self.settings, self._coarse
        study = self._study()
        strategy = make_strategy(settings.strategy, self._feasible, seed=settings.seed)
        with self.place.listener.progress("looking at networks", "networks") as update:

            def on_look(done: int, total: int, choices: Choices, score: float | None) -> None:
                self.place.folder.check()
                scores = [one for one in study.ledger().finished.values() if one is not None]
                told = "failed" if score is None else f"{-score:.4g}"
                update(done, total, f"{told}, least so far {-max(scores):.4g}" if scores else told)

            ledger = study.work(strategy, lambda c: -self._look(coarse.chosen(c)), settings.looks, on_look)
        found = {coarse.chosen(one): -score for one, score in ledger.finished.items() if score is not None}
        if not found:
            raise SearchError(f"all {len(ledger.finished)} look-ups failed, the last with: {ledger.errors[-1]}")
        return found

    @cached_property
    def _coarse(self) -> CoarseSpace:
        from netlathe.search.strategies.blackbox.coarse import CoarseSpace

        return CoarseSpace.of(self.settings.space, np.isfinite(self.scores), self.floor)

    @cached_property
    def _feasible(self) -> PricedSet:
        from netlathe.search.strategies.blackbox.priced import PricedSet

        coarse, settings = self._coarse, self.settings
        return PricedSet(
            coarse, price_limits(coarse, self.limits), coarse.coarse(self.floor),
            features=layer_features(settings.space), seed=settings.seed,
        )  # fmt: skip

    def _study(self) -> Study:
        """The look-ups of these settings, whatever their number; those of others lie beside them."""
        from netlathe.search.strategies.blackbox.study import Study

        settings = self.settings
        told = {
            "loss": loss_inputs(settings), "goal": settings.goal.to_json(), "strategy": settings.strategy,
            "kept": self._coarse.kept, "limits": [[one.name, type(one.model).__name__] for one in self.limits],
        }  # fmt: skip
        return Study(self.place.path / STUDY, self._coarse, told, name=json_digest(told))


class Look(NamedTuple):
    """Outcome of a look at a network."""

    loss: float
    accuracy: float | None = None
    """Share of the validation images that are classified right, 0..1; None where there is no telling."""


_LOSS, _ACCURACY = 0, 1
"""Numbers of a network in the log, in the place of parts of the images."""


class LossLog:
    """Losses, each on the disk before the next is asked for: a kill costs the one that was being computed."""

    def __init__(self, settings: CompressSettings, place: Workplace, look: Callable[[Choices], Look]) -> None:
        self.look, self.known = look, ComparisonLog(place.path / COMPARISONS, loss_inputs(settings))

    def __call__(self, choices: Choices) -> float:
        """The loss, computed once. Raises what the look raises."""
        if (choices, _LOSS) not in self.known:
            found = self.look(choices)
            if found.accuracy is not None:
                self.known[choices, _ACCURACY] = found.accuracy
            self.known[choices, _LOSS] = found.loss
        return self.known[choices, _LOSS]

    def accuracy(self, choices: Choices) -> float | None:
        """The accuracy of a network that was looked at; None where there is no telling."""
        return self.known.get((choices, _ACCURACY))


def loss_inputs(settings: CompressSettings) -> dict[str, Any]:
    """Inputs of a network's loss, for JSON."""
    return {**settings.importance_inputs(), **settings.space_inputs(), "score": settings.score_name}


def price_limits(space: DecisionSpace, limits: Sequence[CostLimit]) -> list[PriceLimit]:
    """The limits as prices of whole networks, whose graphs are made once for all of them."""
    from netlathe.search.strategies.blackbox.feasible import PriceLimit

    @lru_cache(maxsize=2)
    def graphs(batch: int, networks: tuple[Choices, ...]) -> list[Graph]:
        return [space.graph(choices, batch) for choices in networks]

    def price(limit: CostLimit, networks: Sequence[Choices]) -> NDArray[np.float64]:
        return limit.model.predict(graphs(limit.batch, tuple(networks)))

    return [PriceLimit(one.name, partial(price, one), one.limit, one.unit) for one in limits]


def layer_features(space: JointSpace) -> NDArray[np.float64]:
    """Layers as AMC's and HAQ's agents are told of them (He et al., ECCV 2018, section 3.1; Wang et al., CVPR 2019),
    (decisions, features): of the first layer that a decision is on, kernel, stride, height, width, channels read and
    given; MACs of all of them; whether it is on widths, on a block, or on a precision."""
    nodes = space.coupled.graph.nodes
    on = [group.producers for group in space.groups]
    on += [tuple(nodes[index].name for index in sorted(block.nodes)) for block in space.blocks]
    on += [segment.nodes for segment in space.segments]
    kinds = [0] * len(space.groups) + [1] * len(space.blocks) + [2] * len(space.segments)
    steps = {node.name: (node.op, shapes, results) for node, shapes, results in space.coupled.graph.steps()}
    found = np.zeros((len(on), 10))
    for row, names, kind in zip(found, on, kinds, strict=True):
        layers = [steps[name] for name in names]
        macs = [op.macs(*shapes) for op, shapes, _ in layers]
        op, (read, *_), (result, *_) = layers[int(np.argmax(np.array(macs) > 0))]
        kernel, stride = (getattr(op, name, (1, 1))[0] for name in ("kernel", "stride"))
        height, width = (*result[1:-1], 1, 1)[:2]
        row[:7] = [kernel, stride, height, width, read[-1], result[-1], sum(macs)]
        row[7 + kind] = 1
    return found


def steadied(scores: NDArray[np.float64], found: Choices) -> NDArray[np.float64]:
    """Scores (decisions, options) by which a repair narrows or widens a network, and does not change it for another."""
    gains = scores - scores[np.arange(len(found)), list(found)][:, None]
    return np.where(gains > 0, TOWARDS_WIDER * gains, gains)
