"""Reading of a shared study's trials: which networks were looked at, which are being looked at, and which count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.by_optuna import choices_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

AFTER = "after"
"""Attribute of a trial that takes the place of a lost one: that one's number."""
ERROR = "error"
"""Attribute of a failed look-up: what it raised."""
ELSEWHERE = "elsewhere"
"""Attribute of a look-up that was not made for this study: the name of the one that it was made for."""


@dataclass(frozen=True)
class Ledger:
    """Look-ups of a study, read off its trials in the order of their numbers.

    COMPLETE is a score, FAIL a look-up that failed. PRUNED counts for nothing: it was lost with its worker, or
    withdrawn before anybody looked. Numbers are given in one order to all workers, and a trial is created with its
    choices at once; so all agree on which of several trials of one network counts, and on which networks are the first
    of a budget. What another study has found out is finished, too, and none of them.
    """

    finished: dict[Choices, float | None] = field(default_factory=dict)
    """Score by network, None where the look-up failed."""
    errors: list[str] = field(default_factory=list)
    """Reasons of failed look-ups."""
    running: list[FrozenTrial] = field(default_factory=list)
    waiting: list[FrozenTrial] = field(default_factory=list)
    seconds: float = 0.0
    """Seconds that the finished look-ups have taken, over all workers."""
    ranks: dict[Choices, int] = field(default_factory=dict)
    """Place of each network among the different ones, in the order in which they were first asked for."""

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial]) -> Ledger:
        """The ledger of all trials of a study."""
        from optuna.trial import TrialState

        ended = (TrialState.COMPLETE, TrialState.FAIL)
        found = cls(seconds=sum(_seconds(trial) for trial in trials if trial.state in ended))
        for trial in sorted(trials, key=lambda trial: trial.number):
            choices = choices_of(trial.params)
            if ELSEWHERE not in trial.user_attrs:
                found.ranks.setdefault(choices, len(found.ranks))
            if trial.state == TrialState.RUNNING:
                found.running.append(trial)
            elif trial.state == TrialState.WAITING:
                found.waiting.append(trial)
            elif trial.state == TrialState.COMPLETE:
                found.finished.setdefault(choices, trial.value)
            elif trial.state == TrialState.FAIL:
                found.finished.setdefault(choices, None)
                found.errors.append(str(trial.user_attrs.get(ERROR, "no number")))
        return found

    @property
    def made(self) -> int:
        """Number of finished networks that this study has asked for."""
        return sum(choices in self.ranks for choices in self.finished)

    def is_used(self, looks: int) -> bool:
        """Whether the study has as many look-ups as that, all finished."""
        return len(self.ranks) >= looks and self.is_done(looks) and not self.dropped(looks)

    @property
    def open(self) -> list[FrozenTrial]:
        """Trials that somebody is to finish, by number."""
        return sorted((*self.running, *self.waiting), key=lambda trial: trial.number)

    def is_valid(self, trial: FrozenTrial, looks: int) -> bool:
        """Whether an open trial is the one of its network that counts, within the first `looks` networks."""
        choices = choices_of(trial.params)
        if choices in self.finished or self.ranks[choices] >= looks:
            return False
        replaced = {one.user_attrs.get(AFTER) for one in self.open if one.number <= trial.number}
        rivals = [one for one in self.open if choices_of(one.params) == choices and one.number not in replaced]
        return not any(one.number < trial.number for one in rivals)

    def dropped(self, looks: int) -> list[Choices]:
        """Networks among the first `looks` that nobody has looked at, nor is to: beyond an earlier, smaller budget."""
        alive = {*self.finished, *(choices_of(trial.params) for trial in self.open)}
        return [choices for choices, rank in self.ranks.items() if rank < looks and choices not in alive]

    def is_done(self, looks: int) -> bool:
        """Whether nothing that counts is left to be looked at, once no further network is asked for."""
        return not any(self.is_valid(trial, looks) for trial in self.open)


def _seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration else 0.0
