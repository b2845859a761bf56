"""The commands that the demo prints do what the demo did."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from test_cli import answer, netlathe
from test_pareto import run

from netlathe.archspace.records import Setup
from netlathe.cli.console import Terminal
from netlathe.cli.demo import FOUND, PREDICTOR, REPORT, Demo, commands, rounded, search_job
from netlathe.job import Job, prepare
from netlathe.predictor import LatencyPredictor


def test_the_search_command_that_it_prints_goes_on_with_its_own_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = Demo(tmp_path, "digits", 0.6, 16, 100, 3, Terminal(as_json=True))
    space, data = prepare("tiny", "digits", resolution=16, width=None, limit=100, seed=3)
    blocks = space.distinct_blocks()
    times_ms = [1e-6 / 3 * block.graph().macs for block in blocks]
    model = LatencyPredictor("none").fit(blocks, times_ms, setup=Setup("bench", "cpu", "os", "litert", "2"))
    model.save(tmp_path / PREDICTOR)
    target_ms = rounded(0.123456789)
    own = search_job(demo, space, model, data, target_ms)
    parsed: list[Job] = []

    def stop(job: Job, *_: object, **__: object) -> None:
        parsed.append(job)
        raise typer.Exit

    monkeypatch.setattr("netlathe.run_search.run", stop)
    (words,) = [words for words in commands(demo, space.classes, target_ms) if words[1] == "search"]
    result = netlathe(*words[1:])
    assert result.exit_code == 0, result.output
    (job,) = parsed
    assert job.folder == own.folder
    assert job.description() == own.description()
    network = space.architecture([0] * len(space.searchable))
    assert job.run_description(network) == own.run_description(network)


def test_its_folder_is_one_of_finished_runs(tmp_path: Path) -> None:
    run(tmp_path / FOUND, 1.0, 0.5)
    (tmp_path / REPORT).write_text('{"schema": "netlathe.demo/1"}')
    assert [point["name"] for point in answer("pareto", tmp_path)["networks"]] == [FOUND]
