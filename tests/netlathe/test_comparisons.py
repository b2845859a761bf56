"""What a run's comparison of finalists keeps, and what several targets make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_own_pieces import CONFIG, SPACE, TRAINING, MacsModel, images

import netlathe as nl
from netlathe.archspace.spaces import Architecture
from netlathe.runs.comparisons import ComparisonLog

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
    """The more MACs, the better; of all, the fastest is best, which no sum of its parts tells."""
    if len(SCORED) >= ALLOWED[0]:
        raise Killed
    SCORED.append(network.name)
    return 100.0 if network == SPACE.architecture([2, 2]) else 1e-6 * network.macs


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
    report = search(tmp_path / "curve", targets_ms=[1.01 * prices[-1], 1.01 * prices[0], 1.01 * prices[4]])
    assert [run.target_ms for run in report.runs] == sorted(run.target_ms for run in report.runs)
    assert [run.name for run in report.runs] == [report.runs[0].name] * 3
    alone = search(tmp_path / "alone", targets_ms=[1.01 * prices[4], 1.01 * prices[-1]])
    choice = json.loads((tmp_path / "alone" / f"{alone.runs[1].target_ms:g}ms" / "choice.json").read_text())
    assert "smaller" in choice["run"]


def test_equal_targets_choose_equal_networks_and_are_read_again(tmp_path: Path) -> None:
    first = search(tmp_path / "a", targets_ms=[1.0, 2.0])
    scored = len(SCORED)
    again = search(tmp_path / "a", targets_ms=[1.0, 2.0])
    assert len(SCORED) == scored
    other = search(tmp_path / "b", targets_ms=[1.0, 2.0])
    assert [run.name for run in first.runs] == [run.name for run in again.runs] == [run.name for run in other.runs]
