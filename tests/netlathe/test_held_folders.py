"""A run's folder is one process's at a time, and what is wrong with a command shows before its images are read."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_own_pieces import SPACE, MacsModel, search

import netlathe as nl
from netlathe.archspace.errors import NetlatheError
from netlathe.runs.folder import RunFolder
from netlathe.search.costs import Constraint, CostTable, idle_limits
from netlathe.training import Compute, TrainingError

HOLDER = """
import sys, time
from pathlib import Path
from netlathe.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in the folder `run`."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class Unread:
    """Images that must not be read."""

    def __len__(self) -> int:
        raise AssertionError("the images were read")

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("the images were read")


def test_a_second_command_is_refused_at_once_and_a_killed_one_holds_nothing(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(NetlatheError, match=r"run: another process is working on the run in this folder.*--output"):
        nl.search(SPACE, Unread(), target=nl.Target(MacsModel(), 1.0, "mine"), output=tmp_path / "run")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert search(tmp_path / "run").folder == str(tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.lock"))


def test_each_targets_folder_is_held(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "2ms").held(), pytest.raises(NetlatheError, match="2ms: another process"):
        search(tmp_path, targets_ms=[1.0, 2.0])
    assert not (tmp_path / "1ms").exists()


def test_a_folder_that_was_made_for_nothing_is_gone(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").held():
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ms", [math.nan, 0.0, -1.0, math.inf])
@pytest.mark.parametrize("where", ["target", "targets_ms", "limits"])
def test_what_is_no_target_is_refused_before_the_images_are_read(tmp_path: Path, ms: float, where: str) -> None:
    target = nl.Target(MacsModel(), ms if where == "target" else 1.0, "mine")
    more: dict[str, Any] = {"targets_ms": [1.0, ms]} if where == "targets_ms" else {}
    more |= {"limits": [nl.Limit("macs", ms)]} if where == "limits" else {}
    with pytest.raises(NetlatheError, match="numbers above zero"):
        nl.search(SPACE, Unread(), target=target, output=tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()


def test_threads_are_those_asked_for_and_given_back() -> None:
    before = torch.get_num_threads()
    with Compute("cpu", threads=before + 1).threaded():
        assert torch.get_num_threads() == before + 1
    with Compute("cpu").threaded():
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
    with pytest.raises(TrainingError, match="-1 threads"):
        Compute("cpu", threads=-1)


@pytest.mark.parametrize(("load", "threads", "warned"), [(9.0, 2, True), (9.0, 1, False), (0.1, 1, False)])
def test_a_busy_machine_is_warned_of(monkeypatch: pytest.MonkeyPatch, load: float, threads: int, warned: bool) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    compute = Compute("cpu", threads=threads)
    with compute.threaded():
        warnings = compute.doubts()
    assert bool(warnings) is warned
    assert all("load 9.0 on 2 processors" in one and "--threads 1" in one for one in warnings)


def test_a_limit_that_rules_nothing_out_is_told() -> None:
    table = CostTable("latency on bench", "ms", 1.0, np.array([[0.0, 1.0], [0.0, 2.0]]))
    assert idle_limits([Constraint(table, 3.9)]) == []
    (warning,) = idle_limits([Constraint(table, 4.0)])
    assert "4 ms of latency on bench rule nothing out" in warning
    assert "more than 4 ms" in warning
