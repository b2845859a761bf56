"""The commands that the demo prints do what the demo did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from test_cli import answer, netlathe
from test_pareto import run

from netlathe.archspace.errors import FormatError
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Setup
from netlathe.cli.console import Terminal
from netlathe.cli.demo import FOUND, PREDICTOR, PROFILE, REPORT, Demo, commands, find_network, rounded
from netlathe.predictor import LatencyPredictor
from netlathe.runs.folder import Workplace
from netlathe.runs.searched import search_inputs
from netlathe.runs.settings import RunSettings, load_inputs
from netlathe.targets import Target


def test_the_search_command_that_it_prints_goes_on_with_its_own_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = Demo(tmp_path, "digits", 0.6, 16, 100, 3, Terminal(as_json=True))
    space, data = load_inputs("tiny", "digits", resolution=16, width=None, limit=100, seed=3)
    blocks = space.distinct_blocks()
    times_ms = [1e-6 / 3 * block.graph().macs for block in blocks]
    model = LatencyPredictor("none").fit(blocks, times_ms, setup=Setup("bench", "cpu", "os", "litert", "2"))
    model.save(tmp_path / PREDICTOR)
    ProfileFile(tmp_path / PROFILE, create=True).close()
    asked: list[tuple[RunSettings, Workplace]] = []

    def stop(settings: RunSettings, place: Workplace, *_: object, **__: object) -> None:
        asked.append((settings, place))
        raise typer.Exit

    monkeypatch.setattr("netlathe.runs.pipeline.run", stop)
    target_ms = rounded(0.123456789)
    with pytest.raises(typer.Exit):
        find_network(demo, data, Target(tmp_path / PREDICTOR, target_ms))
    (words,) = [words for words in commands(demo, space.classes, target_ms) if words[1] == "search"]
    result = netlathe(*words[1:])
    assert result.exit_code == 0, result.output
    (own, own_place), (parsed, parsed_place) = asked
    assert parsed_place.path == own_place.path
    assert search_inputs(parsed) == search_inputs(own)
    assert parsed.training == own.training
    assert parsed.device == own.device


@pytest.mark.parametrize("left", ["training", "search"])
def test_what_an_earlier_demo_left_makes_way_as_far_as_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    demo = Demo(tmp_path, "digits", 0.6, 16, 100, 3, Terminal(as_json=True))
    _, data = load_inputs("tiny", "digits", resolution=16, width=None, limit=100, seed=3)
    tried: list[dict[str, Any]] = []

    def search(*_: object, **options: Any) -> str:
        tried.append(options)
        if options.get("restart") or (options["restart_training"] and left == "training"):
            return "report"
        raise FormatError("another run's")

    monkeypatch.setattr("netlathe.cli.demo.search_network", search)
    found: object = find_network(demo, data, Target(tmp_path / PREDICTOR, 1.0))
    assert found == "report"
    assert [bool(one.get("restart")) for one in tried] == [False, False, True][: len(tried)]
    assert len(tried) == {"training": 2, "search": 3}[left]


def test_its_folder_is_one_of_finished_runs(tmp_path: Path) -> None:
    run(tmp_path / FOUND, 1.0, 0.5)
    (tmp_path / REPORT).write_text('{"schema": "netlathe.demo/1"}')
    assert [point["name"] for point in answer("pareto", tmp_path)["networks"]] == [FOUND]
