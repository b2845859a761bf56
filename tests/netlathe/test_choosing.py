"""`netlathe profile --budget N`: which blocks a call measures, and that calls build on each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import answer, netlathe

from netlathe.archspace.presets import tiny
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Setup, Status
from netlathe.archspace.tables import read_records
from netlathe.choosing import choose_items
from netlathe.profiler.protocol import ANCHORS
from netlathe.stages import work_items

SETUP = Setup("bench", "soc", "linux", "litert", "2.3.0", "xnnpack")
ITEMS = work_items(tiny(8), networks=3, batch=1, seed=0)
BLOCKS = [item for item in ITEMS if item.kind == "block"]
NAMES = {item.name for item in BLOCKS}


def profile_file(path: Path, finished: dict[str, Status], begun: list[str]) -> Path:
    """A profile with outcomes and rounds of blocks by name."""
    graphs = {item.name: item.graph for item in BLOCKS}
    with ProfileFile(path, create=True) as file:
        file.add_setup(SETUP)
        file.add_graphs((name, "block", graph) for name, graph in graphs.items())
        measured = [*begun, *(name for name, status in finished.items() if status is Status.OK)]
        file.add_round(SETUP, {graphs[name].key: [0.1] for name in measured}, started_at=1.0)
        for name, status in finished.items():
            file.set_outcome(SETUP, graphs[name].key, status)
    return path


def names(items: Any) -> list[str]:
    return [item.name for item in items]


def test_a_new_profile_gets_so_many_blocks_and_all_networks(tmp_path: Path) -> None:
    choice = choose_items(ITEMS, 7, tmp_path / "p.sqlite", SETUP, 0)
    assert choice.chosen is not None
    assert len(choice.chosen) == len(set(names(choice.chosen)) & NAMES) == 7
    assert choice.items == [*choice.chosen, *ITEMS[-3:]]
    assert choice.known == len(ANCHORS)


def test_what_has_an_outcome_stays_and_is_not_chosen_again(tmp_path: Path) -> None:
    first, second, third = names(BLOCKS[:3])
    path = profile_file(tmp_path / "p.sqlite", {first: Status.OK, second: Status.FAILED, third: Status.UNSUPPORTED}, [])
    choice = choose_items(ITEMS, 5, path, SETUP, 0)
    assert choice.chosen is not None
    assert len(choice.chosen) == 5
    assert names(choice.items) == [first, second, third, *names(choice.chosen), *names(ITEMS[-3:])]
    assert not {first, second, third} & set(names(choice.chosen))


def test_what_an_interrupted_campaign_began_counts_as_chosen(tmp_path: Path) -> None:
    begun = names(BLOCKS[10:13])
    path = profile_file(tmp_path / "p.sqlite", {}, begun)
    five, two = (choose_items(ITEMS, count, path, SETUP, 0).chosen for count in (5, 2))
    assert five is not None
    assert names(five)[:3] == begun
    assert len(five) == 5
    assert two is not None
    assert names(two) == begun  # more than asked for, but none is left half done


def test_another_setup_does_not_know_what_this_one_measured(tmp_path: Path) -> None:
    path = profile_file(tmp_path / "p.sqlite", dict.fromkeys(NAMES, Status.OK), [])
    other = Setup("other", "soc", "linux", "litert", "2.3.0", "xnnpack")
    assert choose_items(ITEMS, 5, path, SETUP, 0).chosen == []
    assert len(choose_items(ITEMS, 5, path, other, 0).chosen or ()) == 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chosen")


def profile(folder: Path, *more: object) -> dict[str, Any]:
    return answer("profile", "--resolution", 8, "--rounds", 3, "--output", folder / "p.sqlite", *more)


@pytest.fixture(scope="module")
def quick(folder: Path) -> dict[str, Any]:
    return profile(folder, "--quick")


def test_quick_measures_ten_blocks_and_three_networks(quick: dict[str, Any]) -> None:
    assert (quick["blocks"], quick["networks"], quick["unfinished"]) == (10, 3, 0)
    assert len(set(quick["chosen"])) == 10


def test_a_quick_profile_is_enough_to_fit_and_to_predict_the_whole_space(quick: dict[str, Any], folder: Path) -> None:
    answer("fit", folder / "p.sqlite", "--output", folder / "m.json", "--residual", "none")
    for candidate in (0, 4):
        network = tiny(8).architecture([candidate] * len(tiny(8).searchable))
        network.save(folder / "network.json")
        assert answer("predict", folder / "network.json", "--predictor", folder / "m.json")["latency_ms"] > 0


def test_the_next_call_chooses_others_beside_those_and_all_is_kept(quick: dict[str, Any], folder: Path) -> None:
    promised = profile(folder, "--budget", 4, "--networks", 0, "--dry-run")
    found = profile(folder, "--budget", 4, "--networks", 0)
    assert found["chosen"] == promised["chosen"]
    assert (found["blocks"], found["reused"]) == (14, 10)
    assert not set(found["chosen"]) & set(quick["chosen"])
    measured = {record.name for record in read_records(folder / "p.sqlite") if record.kind == "block"}
    assert measured == {*quick["chosen"], *found["chosen"], *(block.name for block in ANCHORS)}


def interrupted(monkeypatch: pytest.MonkeyPatch, where: str, folder: Path, *more: object) -> None:
    """The command, interrupted as a certain function is called: nothing else than the file stays, as after a kill."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    words = ("profile", "--resolution", 8, "--rounds", 3, "--output", folder / "p.sqlite", *more)
    with monkeypatch.context() as patch:
        patch.setattr(where, interrupt)
        assert netlathe(*words).exit_code == 130


FIRST_ROUND, REPORT = "netlathe.profiler.round_store.RoundStore.add_round", "netlathe.cli.profile.show_profile"


@pytest.mark.parametrize("where", [FIRST_ROUND, REPORT])
def test_an_interrupted_budget_is_completed_and_not_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    budget = ("--budget", 3, "--networks", 1)
    interrupted(monkeypatch, where, tmp_path, *budget)
    promised = profile(tmp_path, *budget, "--dry-run")
    again = profile(tmp_path, *budget)
    assert again["chosen"] == promised["chosen"]
    assert (again["blocks"], again["reused"]) == (3, 4 if where == REPORT else 0)
    after = profile(tmp_path, *budget)
    assert (after["blocks"], after["reused"]) == (6, 4)
    assert not set(after["chosen"]) & set(again["chosen"])


def test_a_larger_budget_after_an_interruption_adds_to_what_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, REPORT, tmp_path, "--budget", 2, "--networks", 0)
    first = profile(tmp_path, "--budget", 2, "--networks", 0, "--dry-run")["chosen"]
    more = profile(tmp_path, "--budget", 3, "--networks", 0)
    assert more["chosen"][:2] == first
    assert (more["blocks"], more["reused"]) == (3, 2)


def test_a_budget_that_ends_with_blocks_unfinished_goes_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.profiler.progress.Pace.budget_left_s", 0.0)
    words = ("profile", "--resolution", 8, "--output", tmp_path / "p.sqlite", "--budget", 2, "--networks", 0)
    result = netlathe(*words, "--budget-s", 1, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["unfinished"] == 2
    monkeypatch.undo()
    assert answer(*words)["chosen"] == found["chosen"]


def test_measuring_all_settles_an_interrupted_choice_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, REPORT, tmp_path, "--budget", 2, "--networks", 0)
    profile(tmp_path, "--networks", 0)
    assert profile(tmp_path, "--budget", 2, "--networks", 0)["chosen"] == []


def test_a_choice_of_another_space_in_the_same_file_is_left_for_its_own_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, FIRST_ROUND, tmp_path, "--budget", 2, "--networks", 0)
    promised = profile(tmp_path, "--budget", 2, "--networks", 0, "--dry-run")["chosen"]
    other = answer(
        "profile", "--resolution", 16, "--rounds", 3, "--output", tmp_path / "p.sqlite", "--budget", 2, "--networks", 0
    )
    assert other["blocks"] == 2
    assert profile(tmp_path, "--budget", 2, "--networks", 0)["chosen"] == promised


def test_a_profile_file_that_is_deleted_meanwhile_is_no_success_and_the_saved_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.sqlite"
    words = ("profile", "--resolution", 8, "--rounds", 3, "--output", path, "--budget", 2, "--networks", 0)
    store = ProfileFile.add_round

    def store_and_delete(self: ProfileFile, *args: Any, **options: Any) -> None:
        path.unlink(missing_ok=True)
        store(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ProfileFile, "add_round", store_and_delete)
        result = netlathe(*words)
    assert result.exit_code == 1
    assert "deleted while it was in use" in result.output
    assert "Wrote" not in result.output
    (tmp_path / "p.rescued.sqlite").replace(path)
    assert answer(*words)["rounds"] == 2  # the third is the one that was saved


def test_a_dry_run_names_what_it_would_choose(tmp_path: Path) -> None:
    words = ("profile", "--resolution", 8, "--output", tmp_path / "p.sqlite", "--dry-run", "--budget", 3)
    result = netlathe(*words)
    found = answer(*words)
    assert found["new"] == 3 + 12
    assert len(found["chosen"]) == 3
    assert all(name in result.output for name in found["chosen"])
    assert not (tmp_path / "p.sqlite").exists()


def test_quick_gives_way_to_a_budget_that_is_named(tmp_path: Path) -> None:
    found = answer(
        "profile", "--resolution", 8, "--output", tmp_path / "p.sqlite", "--dry-run", "--quick", "--budget", 2,
        "--networks", 1,
    )  # fmt: skip
    assert found["new"] == 2 + 1


def test_a_budget_beyond_the_space_measures_all_of_it(tmp_path: Path) -> None:
    found = answer(
        "profile", "--resolution", 8, "--output", tmp_path / "p.sqlite", "--dry-run", "--budget", 1000, "--networks", 0
    )
    assert found["new"] == len(NAMES)
    assert set(found["chosen"]) == NAMES
