"""What a run's comparison of finalists keeps, and what several targets make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_own_pieces import CONFIG, SPACE, TRAINING, MacsModel, images

import netlathe as nl
from netlathe.archspace.spaces import Architecture
from netlathe.events import Listener
from netlathe.runs.chosen import ChoosePhase, _sum_of
from netlathe.runs.comparisons import ComparisonLog
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.runs.judges import Judged
from netlathe.training import Compute

INPUTS = {"config": {"seed": 0}}
SCORED: list[str] = []
"""Networks that were scored, in order."""
ALLOWED: list[int] = []
"""How many may be scored before the process is killed."""


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("draw_search", "draw_architectures"):
        monkeypatch.setattr(f"netlathe.runs.chosen.{name}", lambda *_: None)
    SCORED.clear()
    ALLOWED[:] = [1000]


class Killed(BaseException):
    """As a kill ends a process: nobody handles it."""


def score(network: Architecture) -> float:
    """The more MACs, the better, and the fastest is better than its parts tell."""
    if len(SCORED) >= ALLOWED[0]:
        raise Killed
    SCORED.append(network.name)
    return 1e-5 * network.macs + (1.0 if network == SPACE.architecture([2, 2]) else 0.0)


def search(output: Path, **options: Any) -> Any:
    target = nl.Target(MacsModel(), 1e3, "mine")
    return nl.search(
        SPACE, images(), target=target, output=output, config=CONFIG, training=TRAINING, score=score, **options
    )


def test_what_was_compared_is_there_again_and_a_line_that_was_cut_off_is_not(tmp_path: Path) -> None:
    log = ComparisonLog(tmp_path / "f.jsonl", INPUTS)
    assert not (tmp_path / "f.jsonl").exists()
    log[(0, 1), 0] = 0.1 + 0.2
    log[(0, 1), 1] = 1.5
    assert dict(ComparisonLog(tmp_path / "f.jsonl", INPUTS)) == {((0, 1), 0): 0.1 + 0.2, ((0, 1), 1): 1.5}
    content = (tmp_path / "f.jsonl").read_bytes()
    (tmp_path / "f.jsonl").write_bytes(content[:-2])
    again = ComparisonLog(tmp_path / "f.jsonl", INPUTS)
    assert ((0, 1), 0) in again
    again[(1, 1), 0] = 2.5
    assert ComparisonLog(tmp_path / "f.jsonl", INPUTS)[(1, 1), 0] == 2.5


def test_another_comparisons_log_counts_for_nothing(tmp_path: Path) -> None:
    ComparisonLog(tmp_path / "f.jsonl", INPUTS)[(0, 1), 0] = 1.5
    other = ComparisonLog(tmp_path / "f.jsonl", {"config": {"seed": 1}})
    assert not other
    other[(1, 1), 0] = 2.5
    assert dict(ComparisonLog(tmp_path / "f.jsonl", {"config": {"seed": 1}})) == {((1, 1), 0): 2.5}
    assert not ComparisonLog(tmp_path / "f.jsonl", INPUTS)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]\n[]", b'{"schema": "netlathe.comparisons/9"}\n[[0], 0, 1]'])
def test_a_foreign_file_is_no_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.jsonl").write_bytes(content)
    assert not ComparisonLog(tmp_path / "f.jsonl", INPUTS)


def test_a_kill_while_comparing_costs_one_network_and_ends_in_the_same_choice(tmp_path: Path) -> None:
    undisturbed = search(tmp_path / "undisturbed").name
    whole = list(SCORED)
    SCORED.clear()
    for count in (1, 4, 5):
        ALLOWED[:] = [count]
        with pytest.raises(Killed):
            search(tmp_path / "killed")
    ALLOWED[:] = [1000]
    assert search(tmp_path / "killed").name == undisturbed
    assert whole == SCORED


def test_a_network_for_a_small_target_is_offered_to_every_larger_one(tmp_path: Path) -> None:
    prices = sorted(1e-6 * SPACE.architecture([a, b]).macs + 1e-3 for a in range(3) for b in range(3))
    report = search(tmp_path, targets_ms=[1.01 * prices[-1], 1.01 * prices[0], 1.01 * prices[4]])
    targets = [run.target_ms for run in report.runs]
    assert targets == sorted(targets)
    smaller: list[list[int]] = []
    for run in report.runs:
        choice = json.loads((Path(run.folder) / "choice.json").read_text())
        scores = choice["scores"]
        values = [sum(scores[d][k] for d, k in enumerate(path)) for path in (*smaller, choice["choices"])]
        assert max(values) == values[-1]
        assert all(path in [one["choices"] for one in choice["examined"]] for path in smaller)
        assert ("smaller" in choice["run"]) == bool(smaller)
        smaller.append(choice["choices"])


def test_a_network_for_a_smaller_target_is_taken_where_the_judge_refused_what_is_better() -> None:
    phase = ChoosePhase.__new__(ChoosePhase)
    phase.place = Workplace(RunFolder(Path()), Compute("cpu"), Listener())
    small = Judged((0, 1), "stopwatch", True, 3, (("small", 1.0, 0.9),))
    phase.offered = [small]
    scores = partial(_sum_of, np.array([[1.0, 0.0], [0.0, 1.0]]))
    refused = Judged((0, 0), "stopwatch", False, 8, (("slow", 2.0, 2.1),))
    taken = phase._better(refused, scores)
    assert (taken.path, taken.is_met, taken.judgements) == ((0, 1), True, 8)
    assert taken.timed == (("slow", 2.0, 2.1), ("small", 1.0, 0.9))
    assert phase._better(replace(refused, is_met=True), scores).path == (0, 1)
    best = Judged((0, 1), "stopwatch", True, 1)
    assert phase._better(best, scores) is best


def test_equal_targets_choose_equal_networks_and_are_read_again(tmp_path: Path) -> None:
    first = search(tmp_path / "a", targets_ms=[1.0, 2.0])
    scored = len(SCORED)
    again = search(tmp_path / "a", targets_ms=[1.0, 2.0])
    assert len(SCORED) == scored
    other = search(tmp_path / "b", targets_ms=[1.0, 2.0])
    assert [run.name for run in first.runs] == [run.name for run in again.runs] == [run.name for run in other.runs]
