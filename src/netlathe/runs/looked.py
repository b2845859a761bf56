"""First phase of a run by a black-box strategy: whole networks are looked at one by one, by any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.decisions import Choices
from netlathe.archspace.errors import NetlatheError
from netlathe.runs.files import LOOKS, SEARCH, STUDY, write_csv
from netlathe.runs.folder import Workplace
from netlathe.runs.phase import Phase
from netlathe.runs.scores import describe_budget, make_look, warm_searcher
from netlathe.runs.searched import Searched, WarmSearcher, describe_data, describe_space
from netlathe.runs.settings import Budget, LookSettings, RunSettings

if TYPE_CHECKING:
    from netlathe.search.costs import Constraint
    from netlathe.search.strategies.blackbox.ledger import Ledger
    from netlathe.search.strategies.blackbox.study import Study

_LOOKS = "looks"
"""Key of the numbers of looks in a phase's inputs: a larger one goes on where a smaller one has ended."""


class LookPhase(Phase[Searched]):
    """Search of a run's space by a black-box strategy under its constraints. `warm` gives the supernet whose weights
    looks may inherit, by default one in this run's folder."""

    record, kind, is_shared = SEARCH, "search", True

    def __init__(
        self, settings: RunSettings, place: Workplace, constraints: list[Constraint], warm: WarmSearcher | None = None
    ) -> None:
        looks = [budget.looks for budget in _looking(settings).budgets]
        super().__init__(place, {**study_inputs(settings), _LOOKS: _one_or_all(looks)})
        self.settings, self.constraints = settings, constraints
        self.warm = warm or warm_searcher(settings, place, constraints)

    @property
    def lasting(self) -> dict[str, Any]:
        """Inputs without the numbers of looks: a network that was trained stays so when more are looked at."""
        return {name: value for name, value in self.inputs.items() if name != _LOOKS}

    def work(self) -> Searched:
        """Looks at networks until every budget is used, together with whoever else works on the study; several
        processes look at one network each. Raises SearchError where every look-up fails, or the storage holds another
        study."""
        self.place.folder.make()
        for number in range(len(_looking(self.settings).budgets)):
            self.look(number)
        return self.place.ranks.told(self._searched)

    def _searched(self) -> Searched:
        from netlathe.search.candidates import Evaluated
        from netlathe.search.errors import SearchError

        ledgers = self.ledgers()
        evaluated = tuple(
            Evaluated(choices, score, tuple(c.table.cost(choices) for c in self.constraints))
            for choices, score in ledgers[-1].finished.items()
            if score is not None
        )
        if not evaluated:
            last = ledgers[-1]
            raise SearchError(f"all {len(last.finished)} look-ups failed, the last with: {last.errors[-1]}")
        return Searched((), sum(ledger.seconds for ledger in ledgers), evaluated=evaluated)

    def look(self, number: int) -> int:
        """Looks at networks by one budget until it is used, and returns how many this process has looked at. Raises
        NetlatheError where a process does not see the study that the leader has begun."""
        from netlathe.search.strategies.blackbox.feasible import FeasibleSet
        from netlathe.search.strategies.blackbox.names import make_strategy

        looking, space, place = _looking(self.settings), self.settings.space, self.place
        budget = looking.budgets[number]
        if place.ranks.told(lambda: self.study(number).ledger().is_used(budget.looks)):
            return 0
        self._check_seen()
        study = self.study(number)
        strategy = make_strategy(looking.strategy, FeasibleSet(space, self.constraints), seed=looking.seed)
        strategy.inform([self.study(cheaper).ledger().finished for cheaper in range(number)])
        look = make_look(self.settings, budget, place.compute.alone(), self.warm)
        label = "looking at networks" + (f" by {name_of_budget(budget)}" if len(looking.budgets) > 1 else "")
        seen = 0
        with place.listener.progress(label, "networks") as update:

            def on_look(done: int, total: int, choices: Choices, score: float | None) -> None:
                nonlocal seen
                seen += 1
                place.folder.check()
                if score is not None:
                    place.scalar("looks/score", score, done)
                told = "failed" if score is None else f"{score:.4g}"
                update(done, total, f"{space.network_name(choices)}: {told}")

            study.work(strategy, look, budget.looks, on_look)
        return seen

    def _check_seen(self) -> None:
        path = self.place.path / STUDY
        if _looking(self.settings).storage is None and not path.is_file():
            raise NetlatheError(
                f"process {self.place.ranks.index} of this run does not see {path}, where all keep what they looked "
                "at; name an --output that all machines share, or a --storage"
            )

    def study(self, number: int) -> Study:
        """The study of one budget, in the run's storage or its folder. Raises SearchError for one that holds another
        study."""
        from netlathe.archspace.jsonfile import json_digest
        from netlathe.search.strategies.blackbox.study import Study

        looking, space, inputs = _looking(self.settings), self.settings.space, study_inputs(self.settings, number)
        told = {name: inputs[name] for name in ("config", "score", "goal")}
        told["space"], told["data"] = (json_digest(inputs[name]) for name in ("space", "data"))
        if looking.storage is None:
            name = "search" if number == len(looking.budgets) - 1 else f"search by {number + 1}"
            return Study(self.place.path / STUDY, space, told, name=name)
        # In a storage elsewhere, each search has a name of its own: several targets share one, and several runs may.
        return Study(looking.storage, space, told, name=f"{space.name}-{json_digest(told)}")

    def ledgers(self) -> list[Ledger]:
        """Look-ups of all budgets so far."""
        return [self.study(number).ledger() for number in range(len(_looking(self.settings).budgets))]

    def adopt(self, other: LookPhase) -> None:
        """Takes over what was seen for another limit, by the same budgets, of networks that keep this one's."""
        from netlathe.search.strategies.blackbox.feasible import FeasibleSet

        within = FeasibleSet(self.settings.space, self.constraints)
        for number in range(len(_looking(self.settings).budgets)):
            self.study(number).adopt(other.study(number), within.contains)

    def write(self, output: Searched) -> dict[str, Any]:
        space, constraints, budgets = self.settings.space, self.constraints, _looking(self.settings).budgets
        names = [f"{c.table.name} ({c.table.unit})" if c.table.unit else c.table.name for c in constraints]
        several = len(budgets) > 1
        rows = [
            [
                space.network_name(choices), "failed" if score is None else score,
                *(c.table.cost(choices) for c in constraints), *([name_of_budget(budget)] if several else []),
            ]
            for budget, ledger in zip(budgets, self.ledgers(), strict=True)
            for choices, score in ledger.finished.items()
        ]  # fmt: skip
        columns = ["look", "network", "score", *names, *(["budget"] if several else [])]
        write_csv(self.place.path / LOOKS, columns, [[number, *row] for number, row in enumerate(rows, 1)])
        return {
            "space": space.to_json(),
            "constraints": [{"name": c.table.name, "unit": c.table.unit, "limit": c.limit} for c in constraints],
            "looks": [
                {"choices": list(one.choices), "score": one.score, "costs": list(one.costs)} for one in output.evaluated
            ],
            "seconds": output.seconds,
        }

    def read(self, content: Mapping[str, Any]) -> Searched:
        from netlathe.search.candidates import Evaluated

        looks = tuple(
            Evaluated(tuple(map(int, one["choices"])), float(one["score"]), tuple(map(float, one["costs"])))
            for one in content["looks"]
        )
        if not looks:
            raise ValueError("it lists no networks")
        return Searched((), float(content["seconds"]), evaluated=looks)

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Decides for replacing a search of other numbers of looks, whose look-ups are in the study."""
        return {name.partition("[")[0] for name in differences} == {_LOOKS}


def look_for_all(runs: Mapping[Path, RunSettings], place: Workplace) -> int:
    """Looks at networks for several limits, by rising ones, and returns how many were looked at here.

    A score depends on no limit, so each study is told what the others have seen of networks within its own, before its
    looks and after those of all: no network is looked at twice. `place` is where a supernet is trained that all share.
    """
    import torch

    phases: list[LookPhase] = []
    for folder, settings in runs.items():
        constraints = settings.goal.constraints(settings.space)
        warm = phases[0].warm if phases else warm_searcher(settings, place, constraints)
        phases.append(LookPhase(settings, place.at(folder), constraints, warm))
    waiting = [phase for phase in phases if phase.load() is None]
    seen, ranks = 0, place.ranks
    for phase in waiting:
        phase.place.folder.make()
        ranks.told(partial(_share, phases, phase))
        if len(phases) > 1:
            main = phase.settings.goal.main
            place.listener.note(f"  Looks at networks within {main.limit_ms:g} ms on {main.name}")
        seen += sum(phase.look(number) for number in range(len(_looking(phase.settings).budgets)))
        ranks.told(lambda: None)  # the others' looks are made, too
    for phase in waiting:
        ranks.told(partial(_share, phases, phase))
    return int(ranks.rows(torch.tensor([seen])).sum())


def _share(phases: Sequence[LookPhase], phase: LookPhase) -> None:
    """Tells one phase's studies what all others have seen."""
    for other in phases:
        if other is not phase:
            phase.adopt(other)


def study_inputs(settings: RunSettings, number: int | None = None) -> dict[str, Any]:
    """Inputs of the look-ups by a budget, which are those of the cheaper ones, too; by default the last. For JSON."""
    looking = _looking(settings)
    budgets = looking.budgets if number is None else looking.budgets[: number + 1]
    return {
        "config": {"strategy": looking.strategy, "seed": looking.seed},
        "score": _one_or_all([describe_budget(settings, budget) for budget in budgets]),
        "goal": settings.goal.to_json(),
        "space": describe_space(settings.space),
        "data": describe_data(settings.data),
    }


def name_of_budget(budget: Budget) -> str:
    """Words for a budget in tables."""
    if budget.score == "inherit":
        return "inherit"
    return f"{budget.score if budget.score == 'train' else 'score'} {budget.epochs}"


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _looking(settings: RunSettings) -> LookSettings:
    assert settings.looking is not None
    return settings.looking
