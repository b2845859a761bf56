"""Studies that several processes share: nothing is looked at twice, nothing is lost, whoever is killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState
from test_strategy_contract import COUNTS, TINY, feasible_of, score

from netlathe.archspace.decisions import Choices
from netlathe.search.errors import SearchError
from netlathe.search.strategies.blackbox.by_optuna import choices_of
from netlathe.search.strategies.blackbox.ledger import Ledger
from netlathe.search.strategies.blackbox.names import make_strategy
from netlathe.search.strategies.blackbox.study import Study
from netlathe.search.strategies.blackbox.workers import Watch, is_gone, this_worker

WORKER = Path(__file__).with_name("study_worker.py")
FEASIBLE = feasible_of(COUNTS)


def study_at(place: str | Path, settings: dict[str, object] | None = None, stale_s: float = 60.0) -> Study:
    return Study(place, FEASIBLE.space, settings or {"strategy": "ego", "seed": 0}, stale_s=stale_s)


def work(study: Study, looks: int, strategy: str = "evolution", look: object = score) -> Ledger:
    return study.work(make_strategy(strategy, FEASIBLE), look, looks)  # type: ignore[arg-type]


class KilledError(BaseException):
    """In the place of Ctrl-C."""


@pytest.mark.parametrize("strategy", ["ego", "uct", "evolution", "actor-critic", "nsga2"])
def test_a_study_that_is_interrupted_ends_as_one_that_was_not(tmp_path: Path, strategy: str) -> None:
    whole = work(study_at(tmp_path / "whole"), 26, strategy)
    left = 11

    def interrupted(choices: Choices) -> float:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError
        return score(choices)

    with pytest.raises(KilledError):
        work(study_at(tmp_path / "cut"), 26, strategy, interrupted)
    cut = work(study_at(tmp_path / "cut"), 26, strategy)
    assert list(cut.finished.items()) == list(whole.finished.items())
    assert len(whole.finished) == 26


def test_a_finished_study_looks_at_nothing_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    first = work(study_at(tmp_path / "s"), 5, "random")
    asked: list[Choices] = []
    again = work(study_at(tmp_path / "s"), 5, "random", lambda choices: asked.append(choices) or 0.0)
    assert not asked
    assert again.finished == first.finished
    assert len(work(study_at(tmp_path / "s"), 7, "random").finished) == 7


def test_a_database_serves_as_well(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = study_at(url)
    assert len(work(study, 4, "random").finished) == 4


def test_a_space_with_fewer_networks_than_look_ups_ends(tmp_path: Path) -> None:
    feasible = feasible_of(TINY)
    study = Study(tmp_path / "s", feasible.space)
    assert 0 < len(study.work(make_strategy("local", feasible), score, 50).finished) < 12


def test_failed_look_ups_are_no_numbers_and_are_not_repeated(tmp_path: Path) -> None:
    asked = Counter[Choices]()

    def look(choices: Choices) -> float:
        asked[choices] += 1
        if choices[0] == 0:
            raise ValueError("the loss diverged")
        return float("nan") if choices[0] == 1 else score(choices)

    ledger = work(study_at(tmp_path / "s"), 20, "random", look)
    assert set(asked.values()) == {1}
    assert {c for c, value in ledger.finished.items() if value is None} == {c for c in asked if c[0] < 2}
    assert set(ledger.errors) == {"ValueError: the loss diverged", "the score is nan"}


def test_a_score_that_always_fails_ends_the_search(tmp_path: Path) -> None:
    def look(choices: Choices) -> float:
        raise ValueError("no such file: images.npz")

    with pytest.raises(SearchError, match=r"first 5 look-ups failed, .* ValueError: no such file: images.npz"):
        work(study_at(tmp_path / "s"), 20, "random", look)


def test_another_study_in_the_storage_is_refused_by_what_differs(tmp_path: Path) -> None:
    work(study_at(tmp_path / "s"), 1, "random")
    with pytest.raises(SearchError, match=r"another study called search \(seed: 1 here, 0 there\)"):
        study_at(tmp_path / "s", {"strategy": "ego", "seed": 1})
    for content in (
        "this is no journal\nreally\n",
        "{}\n{}\n",
        "[1]\n",
        '{"op_code":4,"worker_id":"a"}\n',
        "\xff\n" * 9,
    ):
        (tmp_path / "text").write_text(content)
        with pytest.raises(SearchError, match=r"text: (cannot be opened as|holds no) (a study|study)"):
            study_at(tmp_path / "text")
    with pytest.raises(SearchError, match="nodb://here: cannot be opened as a study's storage"):
        study_at("nodb://here")


def test_a_trial_that_lost_its_worker_is_taken_over_once(tmp_path: Path) -> None:
    study = study_at(tmp_path / "s")
    study.add((0,) * 6)
    (trial,) = study.ledger().waiting
    assert study.claim(trial)
    assert not study.claim(trial)
    study.give_back(trial)
    study.give_back(trial)  # as two workers at once may
    one, other = study.ledger().waiting
    ledger = study.ledger()
    assert ledger.is_valid(one, 9)
    assert not ledger.is_valid(other, 9)
    assert not study.finish(trial, 1.0)  # who was taken for dead comes too late
    assert list(work(study, 1, "random").finished) == [(0,) * 6]


def test_of_two_trials_of_one_network_the_first_counts_and_no_more_than_the_budget(tmp_path: Path) -> None:
    study = study_at(tmp_path / "s")
    for choices in ((0,) * 6, (0,) * 6, (1,) * 6, (0, 1, 0, 0, 0, 0)):
        study.add(choices)
    ledger = study.ledger()
    assert [ledger.is_valid(trial, 2) for trial in ledger.waiting] == [True, False, True, False]


def test_what_was_beyond_a_budget_is_looked_at_when_that_grows(tmp_path: Path) -> None:
    study = study_at(tmp_path / "s")
    for choices in ((0,) * 6, (0, 1, 0, 0, 0, 0)):
        study.add(choices)
    assert list(work(study, 1, "random").finished) == [(0,) * 6]
    assert not study.ledger().open
    assert list(work(study, 2, "random").finished) == [(0,) * 6, (0, 1, 0, 0, 0, 0)]


def test_what_another_study_has_seen_is_finished_here_and_counts_towards_no_budget(tmp_path: Path) -> None:
    first = Study(tmp_path / "s", FEASIBLE.space, name="small")
    seen = work(first, 6, "random", lambda choices: float("nan") if choices[1] == 0 else score(choices)).finished
    second = Study(tmp_path / "s", FEASIBLE.space, name="large")
    for _ in range(2):  # the second time as after a kill
        second.adopt(first, lambda choices: choices[4] > 0)
    wanted = {one: value for one, value in seen.items() if one[4] > 0}
    assert second.ledger().finished == wanted
    assert 0 < len(wanted) < len(seen)
    assert len(second._study.get_trials()) == len(wanted)
    asked: list[Choices] = []

    def look(choices: Choices) -> float:
        asked.append(choices)
        return score(choices)

    ledger = work(second, 5, "local", look)
    assert len(asked) == ledger.made == 5
    assert not set(asked) & set(wanted)
    assert len(ledger.finished) == 5 + len(wanted)


def test_what_is_adopted_while_it_waits_to_be_looked_at_is_not_looked_at(tmp_path: Path) -> None:
    first, second = (Study(tmp_path / "s", FEASIBLE.space, name=name) for name in ("small", "large"))
    (known,) = work(first, 1, "random").finished
    second.add(known)
    second.adopt(first, lambda choices: True)
    asked: list[Choices] = []
    ledger = work(second, 3, "random", lambda choices: asked.append(choices) or 1.0)
    assert known not in asked
    assert len(asked) == 2
    assert ledger.finished[known] == score(known)


def test_a_worker_on_another_machine_is_lost_when_its_beats_stop() -> None:
    now = 0.0
    watch = Watch(stale_s=10.0, clock=lambda: now)
    trial = Trial(number=3, user_attrs={"worker": {"host": "elsewhere", "place": "x", "pid": 1, "began": "0"}})
    assert not watch.is_lost(trial)
    now = 9.0
    trial.user_attrs["beat"] = 1
    assert not watch.is_lost(trial)
    now = 18.0
    assert not watch.is_lost(trial)
    now = 20.0
    assert watch.is_lost(trial)


class Trial:
    """What a watch sees of a trial."""

    def __init__(self, number: int, user_attrs: dict[str, object]) -> None:
        self.number, self.user_attrs = number, user_attrs


def test_a_process_of_this_machine_is_gone_once_it_has_ended() -> None:
    assert not is_gone(this_worker())
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert not is_gone({**this_worker(), "place": ""})
    if this_worker()["place"]:
        assert is_gone({**this_worker(), "pid": ended.pid})
        assert is_gone({**this_worker(), "began": "1"})


@pytest.mark.slow
def test_four_workers_that_are_killed_at_random_lose_and_double_nothing(tmp_path: Path) -> None:
    place, log, looks, rng = tmp_path / "study.journal", tmp_path / "log", 50, random.Random(7)

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(WORKER), str(place), str(looks), str(log), "0.2"]
        return subprocess.Popen(command, cwd=WORKER.parent)

    def at_work() -> list[int]:
        """Workers that have begun a look-up."""
        begun = {line.split()[0] for line in log.read_text().splitlines()} if log.exists() else set()
        return [i for i, one in enumerate(workers) if one.poll() is None and str(one.pid) in begun]

    workers, kills = [start() for _ in range(4)], 0
    while any(worker.poll() is None for worker in workers):
        time.sleep(rng.uniform(0.2, 0.5))
        if kills < 8 and (living := at_work()):
            victim = rng.choice(living)
            workers[victim].kill()
            workers[victim].wait()
            workers[victim] = start()
            kills += 1
    assert [worker.returncode for worker in workers] == [0] * 4
    assert kills == 8
    ledger = study_at(place).ledger()
    assert len(ledger.finished) == looks
    assert all(value == score(choices) for choices, value in ledger.finished.items())
    trials = study_at(place)._study.get_trials()
    assert Counter(choices_of(t.params) for t in trials if t.state == TrialState.COMPLETE).most_common(1)[0][1] == 1
    lines = [line.split() for line in log.read_text().splitlines()]
    begun = Counter(network for _, what, network in lines if what == "begin")
    ended = Counter(network for _, what, network in lines if what == "end")
    assert len(ended) == looks
    # A look-up begins again only where its worker was killed, some of which were in the middle of one.
    assert 0 < sum(begun.values()) - looks <= kills
    assert sum(ended.values()) - looks <= kills
    assert len({pid for pid, _, _ in lines}) >= kills
