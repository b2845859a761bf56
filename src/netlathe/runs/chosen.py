"""Second phase of a run: the search's finalists are compared, and the best that its judges accept is chosen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netlathe.archspace.spaces import Architecture
from netlathe.pictures import draw_architectures, draw_judged, draw_search
from netlathe.runs.files import ARCHITECTURE, CHOICE, MEASURED, PICTURE, SEARCH_PICTURE
from netlathe.runs.folder import Workplace
from netlathe.runs.judges import Judged, choose_network
from netlathe.runs.phase import Phase
from netlathe.runs.searched import Searched
from netlathe.runs.settings import RunSettings, name_of
from netlathe.stages import part_latencies_ms
from netlathe.words import millions, milliseconds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netlathe.search import Searcher, SearchResult
    from netlathe.search.candidates import Evaluated
    from netlathe.search.costs import Constraint


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


class ChoosePhase(Phase[Chosen]):
    """Choice of the network among those that a search has made likely."""

    record, kind, needs = CHOICE, "choice", (ARCHITECTURE,)

    def __init__(
        self,
        settings: RunSettings,
        place: Workplace,
        search: Mapping[str, Any],
        constraints: list[Constraint],
        searched: Searched,
    ) -> None:
        super().__init__(place, choice_inputs(settings, search))
        self.settings, self.constraints, self.searched = settings, constraints, searched

    def work(self) -> Chosen:
        begun = time.monotonic()
        space, listener, goal = self.settings.space, self.place.listener, self.settings.goal
        scores, compared = self._scores()
        judged, warnings = choose_network(space, goal, scores, self.constraints, self.settings.device, listener)
        architecture = space.architecture(judged.path)
        listener.note(
            f"  Found {architecture.name}: {millions(architecture.macs)} MACs, judged by the {judged.by} "
            f"({judged.judgements} judged)"
        )
        costs = tuple(c.table.cost(judged.path) for c in self.constraints)
        return Chosen(architecture, judged, costs, tuple(warnings), time.monotonic() - begun, compared)

    def _scores(self) -> tuple[NDArray[np.float64] | Sequence[Evaluated], dict[str, Any]]:
        """Grounds of the choice, and their summary for JSON: networks that were looked at one by one, or scores
        of options, by finalists that are judged on validation images or by an own score."""
        if self.searched.searcher is None:
            return self.searched.evaluated, {"looks": len(self.searched.evaluated)}
        result = self._compared(self.searched.searcher())
        summary = result.summary()
        compared = {"decoded": summary["choices"], "scores": summary["scores"], "examined": summary["examined"]}
        return result.scores, compared

    def _compared(self, searcher: Searcher) -> SearchResult:
        from netlathe.archspace.decisions import Choices

        score, space = self.settings.score, self.settings.space

        def own_loss(path: Choices) -> float:
            assert score is not None
            return -float(score(space.architecture(path)))

        with self.place.listener.progress("comparing networks", "networks") as update:
            return searcher.result(lambda done, total: update(done, total, ""), loss=own_loss if score else None)

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
        costs, warnings = tuple(map(float, content["costs"])), tuple(map(str, content["warnings"]))
        return Chosen(architecture, judged, costs, warnings, float(content["seconds"]), {})

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
            draw_judged(output.judged.timed, main.limit_ms, folder / MEASURED)


def choice_inputs(settings: RunSettings, search: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of the choice, for JSON: the search's inputs, the judge, and an own score."""
    own = {"score": name_of(settings.score)} if settings.score else {}
    return {**search, "judge": settings.device.to_json() if settings.device else None, **own}
