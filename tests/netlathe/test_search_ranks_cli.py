"""`netlathe search` in two processes: one speaks and writes, and one that is gone ends both."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rank_processes import start
from test_cli import answer
from test_search_cli import SPACE, content, one, words

from netlathe.archspace.records import Setup
from netlathe.predictor import LatencyPredictor

ENDLESS = ("--epochs", 100000, "--restart")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the space, and a predictor of a million MACs per ms."""
    path, blocks = tmp_path_factory.mktemp("ranks"), SPACE.distinct_blocks()
    SPACE.save(path / "small.json")
    times_ms = [1e-6 * block.graph().macs for block in blocks]
    LatencyPredictor("none").fit(blocks, times_ms, setup=Setup("bench", "cpu", "os", "litert", "2")).save(
        path / "bench.json"
    )
    return path


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    """A finished run of one process."""
    answer(*words(folder, folder / "undisturbed", *one(folder)))
    return folder / "undisturbed"


def command(*words: str) -> None:
    """The command itself."""
    from netlathe.cli import main

    main()


def saving(*words: str) -> None:
    """The command, which saves its state after every step."""
    import netlathe.runs.folder

    netlathe.runs.folder.EVERY_S = 0.0
    command()


def stopping(*words: str) -> None:
    """The command, with Ctrl-C in each process at the fourth step of the search."""
    import netlathe.runs.searched

    def on_each(between: Callable[[], None]) -> Callable[[Any], None]:
        def heard(step: Any) -> None:
            if step.step == 4:
                os.kill(os.getpid(), signal.SIGINT)
            between()

        return heard

    netlathe.runs.searched.on_each = on_each
    command()


def otherwise(*words: str) -> None:
    """The command, with another seed in one of the processes."""
    if os.environ["RANK"] == "1":
        sys.argv += ["--seed", "1"]
    command()


def ends(*words: object, by: Callable[..., None] = command) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, standard outputs and standard errors of a command in two processes."""
    codes, outputs, errors = zip(*[one.end() for one in start(2, by, [*map(str, words)])], strict=True)
    return list(codes), list(outputs), list(errors)


def history(run: Path) -> NDArray[np.float64]:
    with (run / "history.csv").open() as stream:
        return np.array(
            [[float(value) for key, value in row.items() if key != "phase"] for row in csv.DictReader(stream)]
        )


def test_two_processes_end_in_one_run_that_one_of_them_tells_of(
    undisturbed: Path,
    folder: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    codes, outs, errors = ends(*words(folder, run, *one(folder), "--json"))
    assert codes == [0, 0], errors
    assert json.loads(outs[0].splitlines()[-1])["name"] == json.loads((run / "report.json").read_text())["name"]
    assert (outs[1], errors[1]) == ("", "")
    assert (run / "architecture.json").read_bytes() == (undisturbed / "architecture.json").read_bytes()
    assert history(run) == pytest.approx(history(undisturbed), rel=1e-3)
    assert {path.name for path in run.iterdir()} == {path.name for path in undisturbed.iterdir()}
    assert answer(*words(folder, run, *one(folder)))["name"]  # one process reads what two have finished


@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_ends_the_run_with_one_line_and_the_same_command_goes_on(
    lost: int,
    undisturbed: Path,
    folder: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    processes = start(2, saving, [*map(str, words(folder, run, *one(folder), *ENDLESS))])
    while not (run / "checkpoint.npz").exists():
        assert [process.exit_code for process in processes] == [None, None]
        time.sleep(0.05)
    processes[lost].kill()
    code, _, error = processes[1 - lost].end()
    assert (processes[lost].end()[0], code) == (-signal.SIGKILL, 1)
    (line,) = [line for line in error.splitlines() if "Error: a process of this run is gone (" in line]
    assert "the same command goes on from there, with as many processes as you like" in line
    assert "Traceback" not in error
    assert (run / "checkpoint.npz").exists()
    if lost:  # the first process holds the folder; killed, it leaves the file, and no lock on it
        assert not list(run.glob("*.lock"))


def test_a_stop_of_one_process_stops_both_after_the_same_step_and_one_process_ends_what_two_began(
    undisturbed: Path,
    folder: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    codes, _, errors = ends(*words(folder, run, *one(folder)), by=stopping)
    assert set(codes) == {1, 130}, errors  # the second to end leaves the word to the first
    assert errors[0].count("Error:") + errors[1].count("Error:") == 1
    assert "the same command goes on from there" in "".join(errors)
    answer(*words(folder, run, *one(folder)))
    assert (run / "architecture.json").read_bytes() == (undisturbed / "architecture.json").read_bytes()
    assert history(run) == pytest.approx(history(undisturbed), rel=1e-3)
    assert content(run)[1].keys() == content(undisturbed)[1].keys()


def test_an_error_of_all_is_told_by_one_and_so_is_that_of_a_process_with_other_images(
    folder: Path,
    tmp_path: Path,
) -> None:
    codes, _, errors = ends(*words(folder, tmp_path / "run", *one(folder, 1e-9)))
    assert codes == [1, 1]
    assert "".join(errors).count("Error:") == 1
    codes, _, errors = ends(*words(folder, tmp_path / "run", *one(folder)), by=otherwise)
    assert codes == [1, 1]
    assert "".join(errors).count("Error:") == 1
    assert "process 1 of this run was given other inputs than the one that leads it (config.seed" in errors[1]


@pytest.mark.slow
def test_two_processes_look_at_networks_by_turns(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    asked = ("--strategy", "random", "--looks", 4, "--look-epochs", 1)
    codes, _, errors = ends(*words(folder, run, *one(folder), *asked))
    assert codes == [0, 0], errors
    lines = (run / "looks.csv").read_text().splitlines()
    assert len(lines) == 5
    assert len({line.split(",")[1] for line in lines[1:]}) == 4
