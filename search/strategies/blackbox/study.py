"""A search by looks at whole networks, shared by any number of processes: its trials live in an Optuna storage."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.search.errors import SearchError
from netlathe.search.strategies.blackbox.by_optuna import choices_of, distributions_of, params_of, quiet
from netlathe.search.strategies.blackbox.ledger import AFTER, ELSEWHERE, ERROR, Ledger
from netlathe.search.strategies.blackbox.strategy import Strategy
from netlathe.search.strategies.blackbox.workers import BEAT, STALE_S, WORKER, Watch, beating, open_storage, this_worker

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, TrialState

Look = Callable[[Choices], float]
"""A network's score, the higher, the better. What it raises is a failed look-up, as is a score that is no number."""

OnLook = Callable[[int, int, Choices, float | None], None]
"""Listener to look-ups: (finished, wanted, the network that this process has just looked at, its score)."""

SETTINGS = "netlathe"
"""Attribute of a study: what tells it from any other."""
FAILURES = 5
"""Failed look-ups, and not one that succeeded, after which a search gives up."""
POLL_S = 0.5
"""Longest wait, in seconds, between two looks at what other workers have done."""


class Study:
    """Look-ups of a search in an Optuna storage, which several processes may share.

    place: a journal file, or a storage's URL (`open_storage`). settings: what the outcome depends on, for JSON; a study
    of that name with others is refused with a SearchError. stale_s: seconds without a sign of life after which a worker
    on another machine is taken for dead; on this one, that is seen at once.
    """

    def __init__(
        self, place: str | Path, space: DecisionSpace, settings: Mapping[str, Any] | None = None, *,
        name: str = "search", stale_s: float = STALE_S,
    ) -> None:  # fmt: skip
        import optuna

        self.place, self.space, self.name, self.stale_s = place, space, name, stale_s
        self.storage = open_storage(place)
        try:
            with quiet():
                self._study = optuna.create_study(
                    storage=self.storage, study_name=name, direction="maximize", load_if_exists=True
                )
            self.ledger()
        except Exception as error:  # a storage that is damaged, or another program's, fails in many ways
            reason = (str(error) or repr(error)).splitlines()[0]
            raise SearchError(
                f"{place}: holds no study of a search ({reason:.200}); remove it, or name another"
            ) from error
        self._check(name, json.loads(json.dumps(settings or {})))

    def _check(self, name: str, settings: dict[str, Any]) -> None:
        kept = self._study.user_attrs.get(SETTINGS)
        if kept is None and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr(SETTINGS, settings)
        elif kept != settings:
            kept = kept if isinstance(kept, dict) else {}
            differing = [
                f"{key}: {settings.get(key)!r:.60} here, {kept.get(key)!r:.60} there"
                for key in sorted({*settings, *kept})
                if settings.get(key) != kept.get(key)
            ]
            raise SearchError(
                f"{self.place}: holds another study called {name} ({'; '.join(differing)}); name another storage, or "
                "remove it"
            )

    def ledger(self) -> Ledger:
        """Look-ups of all workers so far."""
        return Ledger.of(self._study.get_trials(deepcopy=False))

    def work(self, strategy: Strategy, look: Look, looks: int, on_look: OnLook | None = None) -> Ledger:
        """Looks at networks until the study has `looks` of them, or the space has no more, together with whoever else
        works on it; what a worker that ended has left is taken over. Returns what was found by all.

        A process that is killed loses the look-up that it was at, which is done anew. With one worker at a time, the
        outcome is that of the seed, however often it was killed. Raises SearchError where the first FAILURES look-ups
        all fail.
        """
        worker = _Worker(self, strategy, look, looks, on_look)
        while worker.step():
            pass
        return self.ledger()

    def add(self, choices: Choices, after: FrozenTrial | None = None) -> None:
        """Puts a network up to be looked at; in the place of a lost trial, where there is one."""
        from optuna.trial import TrialState

        self._add(choices, TrialState.WAITING, None, {} if after is None else {AFTER: after.number})

    def adopt(self, other: Study, is_wanted: Callable[[Choices], bool]) -> None:
        """Takes over the look-ups of another study that were of the same score: those of wanted networks that are not
        finished here. They count as finished, and towards no budget; strategies hear of them first. Nothing is taken
        twice, so what was interrupted is done again."""
        from optuna.trial import TrialState

        known = self.ledger().finished
        for choices, score in other.ledger().finished.items():
            if choices not in known and is_wanted(choices):
                state = TrialState.FAIL if score is None else TrialState.COMPLETE
                self._add(choices, state, score, {ELSEWHERE: other.name})

    def _add(self, choices: Choices, state: TrialState, score: float | None, attributes: dict[str, Any]) -> None:
        from optuna.trial import create_trial

        trial = create_trial(
            state=state, value=score, params=params_of(choices),
            user_attrs={"network": self.space.network_name(choices), **attributes},
            distributions=distributions_of(tuple(self.space.option_counts)),
        )  # fmt: skip
        self._study.add_trial(trial)

    def claim(self, trial: FrozenTrial) -> bool:
        """Takes a waiting trial; False where another worker was faster."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            if not self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                return False
            self.storage.set_trial_user_attr(trial._trial_id, WORKER, this_worker())
        except UpdateFinishedTrialError:
            return False
        return True

    def beat(self, trial: FrozenTrial, count: int) -> None:
        """Gives a sign of life of a running trial."""
        self.storage.set_trial_user_attr(trial._trial_id, BEAT, count)

    def finish(self, trial: FrozenTrial, score: float | None, error: str = "") -> bool:
        """Stores a look-up's outcome, a failure where there is no score; False where the trial was given to another
        worker meanwhile."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            if score is None:
                self.storage.set_trial_user_attr(trial._trial_id, ERROR, error[:500])
                self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            else:
                self.storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [score])
        except UpdateFinishedTrialError:
            return False
        return True

    def withdraw(self, trial: FrozenTrial) -> None:
        """Takes back a trial that does not count."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with contextlib.suppress(UpdateFinishedTrialError):  # another worker has done so
            self.storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)

    def give_back(self, trial: FrozenTrial) -> None:
        """Puts the network of a lost trial up again. The new trial comes first, so that a worker that is killed in
        between loses nothing."""
        self.add(choices_of(trial.params), after=trial)
        self.withdraw(trial)


@dataclass
class _Worker:
    """One process at work on a study."""

    study: Study
    strategy: Strategy
    look: Look
    looks: int
    on_look: OnLook | None

    def __post_init__(self) -> None:
        self.watch = Watch(self.study.stale_s)
        self.wait_s = 0.01

    def step(self) -> bool:
        """Does the next thing that there is to do; False where there is nothing more."""
        ledger = self.study.ledger()
        self._check_failures(ledger)
        lost = [trial for trial in ledger.running if self.watch.is_lost(trial)]
        for trial in lost:
            if ledger.is_valid(trial, self.looks):
                self.study.give_back(trial)
            else:
                self.study.withdraw(trial)
        if lost:
            return True
        for choices in ledger.dropped(self.looks):
            self.study.add(choices)
            return True
        for trial in ledger.waiting:
            if not ledger.is_valid(trial, self.looks):
                self.study.withdraw(trial)
            elif self.study.claim(trial):
                self._look(trial)
                self.wait_s = 0.01
                return True
        if len(ledger.ranks) < self.looks and self._propose(ledger):
            return True
        if ledger.is_done(self.looks):
            return False
        time.sleep(self.wait_s)  # others are at work, and may be lost
        self.wait_s = min(2 * self.wait_s, POLL_S)
        return True

    def _propose(self, ledger: Ledger) -> bool:
        """Puts up the network that the strategy asks for; False where there is none."""
        for choices, score in ledger.finished.items():
            if choices not in self.strategy.told:
                self.strategy.tell(choices, score)
        for trial in ledger.open:
            self.strategy.reserve(choices_of(trial.params))
        asked = self.strategy.ask()
        for choices in asked:
            self.study.add(choices)
        return bool(asked)

    def _look(self, trial: FrozenTrial) -> None:
        """Looks at a claimed trial's network, unless it turns out not to count."""
        ledger = self.study.ledger()
        if not ledger.is_valid(trial, self.looks):
            self.study.withdraw(trial)
            return
        choices, score, error = choices_of(trial.params), None, ""
        try:
            with beating(lambda count: self.study.beat(trial, count), self.study.stale_s / 6):
                score = float(self.look(choices))
            if not math.isfinite(score):
                score, error = None, f"the score is {score}"
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        except BaseException:
            self.study.give_back(trial)
            raise
        if self.study.finish(trial, score, error) and self.on_look:
            self.on_look(ledger.made + 1, self.looks, choices, score)

    def _check_failures(self, ledger: Ledger) -> None:
        if len(ledger.errors) >= FAILURES and len(ledger.errors) == len(ledger.finished):
            raise SearchError(
                f"all of the first {len(ledger.errors)} look-ups failed, the last with: {ledger.errors[-1]}; put that "
                f"right, and begin anew (the study is in {self.study.place})"
            )
