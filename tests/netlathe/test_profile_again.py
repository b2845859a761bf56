"""`netlathe profile --again`: what a profile holds is measured again in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from disturbed import disturb
from test_choosing import FIRST_ROUND, REPORT, interrupted
from test_cli import answer, netlathe, refusal

from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import LatencyRecord

OPTIONS = ("--resolution", 8, "--rounds", 8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three blocks and two networks of 8 rounds beside the anchors, of which a block and a network were disturbed."""
    path = tmp_path / "p.sqlite"
    answer("profile", *OPTIONS, "--budget", 3, "--networks", 2, "--output", path)
    disturb(path, bad(path))
    assert bad(path) <= unstable(path)
    return path


def records(path: Path) -> list[LatencyRecord]:
    with ProfileFile(path) as file:
        return file.records()


def bad(path: Path) -> set[str]:
    with ProfileFile(path) as file:
        anchors = file.anchors(file.setups()[0])
    kinds = {record.kind: record.graph.key for record in records(path) if record.graph.key not in anchors}
    return set(kinds.values())


def unstable(path: Path) -> set[str]:
    return {r.graph.key for r in records(path) if r.measurement and not r.measurement.is_stable}


def again(path: Path, *more: object) -> dict[str, Any]:
    return answer("profile", "--rounds", 8, "--output", path, "--again", "unstable", *more)


def rounds(path: Path) -> dict[str, int]:
    with ProfileFile(path) as file:
        return {key: len(found) for key, found in file.rounds(file.setups()[0]).items()}


def test_what_is_unstable_is_measured_again_whatever_its_space(path: Path) -> None:
    shaky, before = unstable(path), {record.graph.key for record in records(path)}
    forecast = again(path, "--dry-run")
    assert (forecast["again"], forecast["new"]) == (len(shaky), 0)
    found = again(path, "--export", path.with_suffix(".csv"))
    assert (found["again"], found["unfinished"], found["space"]) == (len(shaky), 0, None)
    assert {record.graph.key for record in records(path)} == before
    assert {rounds(path)[key] for key in bad(path)} == {16}


def test_the_end_of_a_profile_and_of_a_fit_name_the_remedy(path: Path, tmp_path: Path) -> None:
    told = answer("profile", *OPTIONS, "--budget", 1, "--networks", 0, "--output", path)["warnings"]
    assert not any("measure into a new file" in warning for warning in told)
    told = answer("fit", path, "--output", tmp_path / "m.json", "--residual", "none")["warnings"]
    assert any("netlathe profile --again unstable" in warning for warning in told)


@pytest.mark.parametrize("where", [FIRST_ROUND, REPORT])
def test_an_interrupted_command_is_continued_and_the_next_one_begins_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    count = len(unstable(path))
    interrupted(monkeypatch, where, path.parent, "--again", "unstable", "--rounds", 8)
    before = rounds(path)
    assert again(path)["again"] == count
    grown = {key for key in bad(path) if rounds(path)[key] > before[key]}
    assert grown == (set() if where == REPORT else bad(path))
    assert {rounds(path)[key] for key in bad(path)} == {16}
    disturb(path, bad(path))
    expected = len(unstable(path))
    assert again(path)["again"] == expected


def test_a_budget_that_is_out_is_no_success_and_costs_no_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = records(path)
    with monkeypatch.context() as patch:
        patch.setattr("netlathe.profiler.progress.Pace.budget_left_s", 0.0)
        result = netlathe("profile", "--output", path, "--again", "unstable", "--budget-s", 1, "--json")
    found = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert found["again"] == 0
    assert found["unfinished"] >= 2
    assert records(path) == before
    assert again(path)["again"] >= 2


def test_with_nothing_unstable_nothing_is_measured_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "p.sqlite"
    answer("profile", *OPTIONS, "--budget", 2, "--networks", 0, "--output", path)
    before = rounds(path)
    result = netlathe("profile", "--output", path, "--again", "failed")
    assert result.exit_code == 0
    assert "Nothing failed or was unsupported" in result.stdout + result.stderr
    assert rounds(path) == before


@pytest.mark.parametrize("option", [("--quick",), ("--budget", 3)])
def test_it_chooses_no_new_blocks(path: Path, option: tuple[object, ...]) -> None:
    message = refusal("profile", "--output", path, "--again", "unstable", *option)
    assert f"leave out {option[0]}" in message


def test_a_profile_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    message = refusal("profile", "--output", tmp_path / "new.sqlite", "--again", "unstable")
    assert "no such profile file" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_another_setup_is_an_error_that_says_what_differs(path: Path, more: tuple[str, ...]) -> None:
    message = refusal("profile", "--output", path, "--again", "unstable", "--threads", 2, *more)
    assert "threads: 2 / 1" in message
    with ProfileFile(path) as file:
        assert len(file.setups()) == 1
