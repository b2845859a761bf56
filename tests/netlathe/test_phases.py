"""When a phase of a run is done again: where the digest of its inputs differs, or what it left is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_own_pieces import search

from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.events import Listener
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.runs.phase import Phase
from netlathe.training import Compute


class Squaring(Phase[int]):
    """Phase that squares a number, and leaves it in a file, too."""

    record, kind, needs = "square.json", "square", ("square.txt",)
    works = 0

    def __init__(self, folder: Path, number: int, *, unit: str = "m", is_dear: bool = False) -> None:
        place = Workplace(RunFolder(folder), Compute("cpu"), Listener())
        super().__init__(place, {"number": number, "unit": unit})
        self.number, self.is_dear = number, is_dear

    def work(self) -> int:
        type(self).works += 1
        self.place.folder.make()
        return self.number**2

    def write(self, output: int) -> dict[str, Any]:
        (self.place.path / "square.txt").write_text(str(output))
        return {"square": output}

    def read(self, content: Mapping[str, Any]) -> int:
        return int(content["square"])

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        return not (self.is_dear and "number" in differences)


@pytest.fixture(autouse=True)
def _unworked() -> None:
    Squaring.works = 0


def test_equal_inputs_are_worked_on_once(tmp_path: Path) -> None:
    assert [Squaring(tmp_path, 3).output() for _ in range(3)] == [9, 9, 9]
    assert Squaring.works == 1
    assert json.loads((tmp_path / "square.json").read_text())["run"] == {"number": 3, "unit": "m"}


def test_other_inputs_are_worked_on_again_and_the_runs_report_is_none_of_them(tmp_path: Path) -> None:
    Squaring(tmp_path, 3).output()
    (tmp_path / "report.json").write_text("{}")
    assert Squaring(tmp_path, 4).output() == 16
    assert Squaring.works == 2
    assert not (tmp_path / "report.json").exists()
    assert Squaring(tmp_path, 4).load() == 16


def test_other_inputs_do_not_replace_what_is_not_to_be_lost(tmp_path: Path) -> None:
    Squaring(tmp_path, 3).output()
    with pytest.raises(FormatError, match=r"number: 4 here, 3 in the record.*--restart does that for .*--output"):
        Squaring(tmp_path, 4, is_dear=True).output()
    assert Squaring(tmp_path, 3).load() == 9
    assert Squaring(tmp_path, 3, unit="s", is_dear=True).output() == 9
    assert Squaring.works == 2


@pytest.mark.parametrize("gone", ["square.json", "square.txt"])
def test_what_is_gone_is_made_again(tmp_path: Path, gone: str) -> None:
    Squaring(tmp_path, 3).output()
    (tmp_path / gone).unlink()
    assert Squaring(tmp_path, 3).load() is None
    assert Squaring(tmp_path, 4, is_dear=True).output() == 16


def test_a_phase_that_is_cut_off_while_it_saves_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Squaring(tmp_path, 2).output()
    with monkeypatch.context() as patch:
        patch.setattr("netlathe.runs.phase.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Squaring(tmp_path, 3).output()
    assert (tmp_path / "square.txt").read_text() == "9"
    assert Squaring(tmp_path, 2).load() is None  # the file beside it is another's by now
    assert Squaring(tmp_path, 3).output() == 9
    assert Squaring.works == 3


@pytest.mark.parametrize("change", [{"square": "many"}, {"square": []}, {"needs": 5}, {"needs": None}])
def test_a_damaged_record_is_refused_and_not_taken_for_another_runs(tmp_path: Path, change: dict[str, Any]) -> None:
    phase = Squaring(tmp_path, 3)
    phase.output()
    record = tmp_path / "square.json"
    whole = record.read_text()
    record.write_text(json.dumps({**json.loads(whole), **change}))
    with pytest.raises(FormatError, match=r"not a whole record.*--restart"):
        phase.load()
    record.write_text(whole[:-9])
    with pytest.raises(FormatError, match=r"cannot be read as JSON.*--restart"):
        phase.load()
    record.write_text(whole.replace("square/1", "other/1"))
    with pytest.raises(FormatError, match=r"expected a netlathe square"):
        phase.load()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_search", "draw_architectures"):
            patch.setattr(f"netlathe.runs.chosen.{name}", lambda *_: None)
        search(tmp_path_factory.mktemp("finished") / "run")
    return tmp_path_factory.getbasetemp() / "finished0" / "run"


@pytest.mark.parametrize("name", ["search.json", "choice.json", "training.json", "export.json", "report.json"])
def test_whatever_a_records_values_are_they_are_read_or_refused(finished: Path, name: str) -> None:
    record = finished / name
    whole = record.read_text()
    content = json.loads(whole)
    refused: list[str] = []
    for key in content.keys() - {"schema", "run", "needs"}:
        for value in (None, [], {"a": []}, [[]]):
            record.write_text(json.dumps({**content, key: value}))
            try:
                search(finished)
            except NetlatheError as error:
                refused.append(str(error))
            finally:
                record.write_text(whole)
    assert refused
    assert all("--restart" in message for message in refused)
    assert all(name in message or "this is no report" in message for message in refused)
    assert search(finished).folder == str(finished)
