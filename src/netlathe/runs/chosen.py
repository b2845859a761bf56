"""Second phase of a run: the search's finalists are compared, and the best that its judges accept is chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.archspace.jsonfile import json_digest
from netlathe.archspace.spaces import Architecture
from netlathe.pictures import draw_architectures, draw_judged, draw_search
from netlathe.runs.comparisons import ComparisonLog
from netlathe.runs.files import ARCHITECTURE, CHOICE, COMPARISONS, MEASURED, PICTURE, SEARCH_PICTURE
from netlathe.runs.folder import Workplace
from netlathe.runs.judges import Judged, choose_network
from netlathe.runs.phase import Phase
from netlathe.runs.searched import Searched
from netlathe.runs.settings import RunSettings, name_of
from netlathe.stages import part_latencies_ms
from netlathe.words import millions, milliseconds

if TYPE_CHECKING:
    from netlathe.search import Searcher, SearchResult
    from netlathe.search.candidates import Evaluated
    from netlathe.search.costs import Constraint
    from netlathe.search.final_choice import Memory


@dataclass(frozen=True)
class Chosen:
    """The network that a run is about."""

    architecture: Architecture
    judged: Judged
    costs: tuple[float, ...]
    """Costs of the architecture by the tables, one per constraint."""
    warnings: tuple[str, ...]
    seconds: float
    compared: Mapping[str, Any]
    """Grounds of the choice, for JSON: the decoded network, the scores, the finalists."""

    def examined(self) -> dict[Choices, float]:
        """The finalists' cross-entropies."""
        return {tuple(one["choices"]): float(one["cross_entropy"]) for one in self.compared.get("examined", ())}


_COMPARED = ("decoded", "scores", "examined", "looks", "score")


class _Grounds(NamedTuple):
    """Grounds of a choice."""

    scores: NDArray[np.float64] | Sequence[Evaluated]
    score: Callable[[Choices], float]
    """Score of a network that was found, or was found for a smaller target; the higher, the better."""
    compared: dict[str, Any]
    """Summary for JSON."""


class ChoosePhase(Phase[Chosen]):
    """Choice of the network among those that a search has made likely, and those chosen for `smaller` targets, which
    meet this one, too: what is chosen has at least their scores, so that more time never costs quality."""

    record, kind, needs, is_shared = CHOICE, "choice", (ARCHITECTURE,), True

    def __init__(
        self,
        settings: RunSettings,
        place: Workplace,
        search: Mapping[str, Any],
        constraints: list[Constraint],
        searched: Searched,
        smaller: Sequence[Chosen] = (),
    ) -> None:
        super().__init__(place, choice_inputs(settings, search, smaller))
        self.settings, self.constraints, self.searched = settings, constraints, searched
        self.search, self.smaller = dict(search), smaller
        self.offered = [one.judged for one in smaller if one.judged.is_met]
        self.earlier = [one.examined() for one in smaller]

    def work(self) -> Chosen:
        from netlathe.search.costs import idle_limits

        begun = time.monotonic()
        space, listener, goal = self.settings.space, self.place.listener, self.settings.goal
        grounds = self._grounds()
        found, doubts = self.place.ranks.told(
            lambda: choose_network(space, goal, grounds.scores, self.constraints, self.settings.device, listener)
        )
        judged = self._better(found, grounds.score)
        warnings = [*idle_limits(self.constraints), *(doubts if judged is found else ())]
        architecture = space.architecture(judged.path)
        listener.note(
            f"  Found {architecture.name}: {millions(architecture.macs)} MACs, judged by the {judged.by} "
            f"({judged.judgements} judged)"
        )
        compared = dict(grounds.compared)
        if self.searched.searcher is None:
            compared["score"] = grounds.score(judged.path)
        costs = tuple(c.table.cost(judged.path) for c in self.constraints)
        return Chosen(architecture, judged, costs, tuple(warnings), time.monotonic() - begun, compared)

    def _grounds(self) -> _Grounds:
        """Grounds of the choice: networks that were looked at one by one, or scores of options, by finalists that are
        judged on validation images or by an own score."""
        if self.searched.searcher is None:
            known = {tuple(one.judged.path): float(one.compared["score"]) for one in self.smaller}
            known |= {one.choices: one.score for one in self.searched.evaluated}
            return _Grounds(self.searched.evaluated, known.__getitem__, {"looks": len(self.searched.evaluated)})
        result = self._compared(self.searched.searcher())
        summary = result.summary()
        compared = {"decoded": summary["choices"], "scores": summary["scores"], "examined": self._priced(result)}
        return _Grounds(result.scores, partial(_sum_of, result.scores), compared)

    def _priced(self, result: SearchResult) -> list[dict[str, Any]]:
        """The finalists with their losses and what the main predictor says of them, in ms, for JSON."""
        model, space, paths = self.settings.goal.main.model, self.settings.space, list(result.examined)
        priced = model.predict([space.architecture(path) for path in paths]).tolist() if paths else []
        return [
            {"choices": list(path), "cross_entropy": loss, "predicted_ms": ms}
            for (path, loss), ms in zip(result.examined.items(), priced, strict=True)
        ]

    def _compared(self, searcher: Searcher) -> SearchResult:
        """The search's result, its finalists judged on validation images or by an own score."""
        score, space, ranks = self.settings.score, self.settings.space, self.place.ranks

        def own_loss(path: Choices) -> float:
            assert score is not None
            return ranks.told(lambda: -float(score(space.architecture(path))))

        self.place.folder.make()
        memory = self._memory()
        with self.place.listener.progress("comparing networks", "networks") as update:
            return searcher.result(
                lambda done, total: update(done, total, ""), loss=own_loss if score else None, memory=memory,
                offered=[one.path for one in self.offered], earlier=self.earlier,
            )  # fmt: skip

    def _memory(self) -> Memory:
        """Comparisons made before, to which the leader adds new ones in the folder."""
        score = self.settings.score
        inputs = {**self.search, **({"score": name_of(score)} if score else {})}
        log: Memory = ComparisonLog(self.place.path / COMPARISONS, inputs) if self.place.leads else {}
        known = self.place.ranks.told(lambda: dict(log))
        return log if self.place.leads else known

    def _better(self, judged: Judged, score: Callable[[Choices], float]) -> Judged:
        """The network found, or one for a smaller target, if that has a better score, or is all that meets the limits:
        the judge may have refused what is between them."""
        best = max(self.offered, key=lambda one: score(one.path), default=judged)
        if best is judged or (judged.is_met and score(judged.path) >= score(best.path)):
            return judged
        self.place.listener.note("  A network that was found for a smaller target is better here, too")
        timed = (*judged.timed, best.timed[-1]) if best.timed else judged.timed
        return replace(best, judgements=judged.judgements, timed=timed)

    def write(self, output: Chosen) -> dict[str, Any]:
        output.architecture.save(self.place.path / ARCHITECTURE)
        self._draw(output)
        return {
            "architecture": output.architecture.to_json(),
            "judged": output.judged.to_json(),
            "choices": list(output.judged.path),
            "costs": list(output.costs),
            "warnings": list(output.warnings),
            "seconds": output.seconds,
            **output.compared,
        }

    def read(self, content: Mapping[str, Any]) -> Chosen:
        judged = Judged.from_json(content["judged"], content["choices"])
        architecture = self.settings.space.architecture(judged.path)  # blocks of a user's own are known to it alone
        self.place.listener.note(f"  {architecture.name} was found before; {self.place.path / self.record} tells so")
        kept = {"examined": [], **{name: content[name] for name in _COMPARED if name in content}}
        costs, warnings = tuple(map(float, content["costs"])), tuple(map(str, content["warnings"]))
        return Chosen(architecture, judged, costs, warnings, float(content["seconds"]), kept)

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Always: it takes minutes, and the search that it follows from is the same."""
        return True

    def _draw(self, output: Chosen) -> None:
        folder, main = self.place.path, self.settings.goal.main
        self.place.remove((SEARCH_PICTURE, PICTURE, MEASURED))
        if self.searched.history:
            draw_search(self.searched.history, self.constraints, output.costs, folder / SEARCH_PICTURE)
        predicted_ms = float(main.model.predict([output.architecture])[0])
        title = (
            f"{output.architecture.name}: {milliseconds(predicted_ms)} ms predicted, target "
            f"{milliseconds(main.limit_ms)} ms on {main.name}"
        )
        parts = part_latencies_ms(main.model, output.architecture)
        draw_architectures([(title, output.architecture, parts)], folder / PICTURE)
        if output.judged.timed:
            low, high = (float(end[0]) for end in main.model.predict_interval([output.architecture]))
            band = low / predicted_ms, high / predicted_ms
            draw_judged(output.judged.timed, main.limit_ms, folder / MEASURED, band)


def _sum_of(scores: NDArray[np.float64], path: Choices) -> float:
    return float(scores[np.arange(len(path)), list(path)].sum())


def choice_inputs(settings: RunSettings, search: Mapping[str, Any], smaller: Sequence[Chosen] = ()) -> dict[str, Any]:
    """Inputs of the choice, for JSON: the search's inputs, the judge, an own score, and what was chosen for smaller
    targets."""
    own: dict[str, Any] = {"score": name_of(settings.score)} if settings.score else {}
    if smaller:
        found = [[one.judged.path, one.judged.is_met, sorted(one.examined().items())] for one in smaller]
        own["smaller"] = json_digest(found)
    return {**search, "judge": settings.device.to_json() if settings.device else None, **own}
