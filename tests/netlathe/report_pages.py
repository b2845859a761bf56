"""Real runs, profiles and predictors for tests of pages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Status
from netlathe.profiler.testing import SETUP

GOLDEN = Path(__file__).parent / "golden_run"
"""Records of a search on digits, as it left them."""


def run_folder(folder: Path, *without: str, **changes: Any) -> Path:
    """A copy of the golden run without some files; `changes` are values of its report."""
    shutil.copytree(GOLDEN, folder)
    for name in without:
        (folder / name).unlink()
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, **changes}))
    for name in report["files"].values():
        (folder / Path(name).name).write_bytes(b"x" * 2_000_000)
    return folder


DRAWN = ("search.json", "choice.json", "costs.json", "baselines.json", "export.json", "train.csv")
"""Records that a run's charts are drawn of, which take most of the time."""


def small_run(folder: Path, **changes: Any) -> Path:
    """The golden run without most of its charts."""
    return run_folder(folder, *DRAWN, **{"judged": {"by": "prediction", "timed": []}, **changes})


def profile_file(path: Path, *, blocks: int = 12) -> Path:
    """A profile of two sittings on a phone that warmed up, with rounds measured again and blocks that failed."""
    rng = np.random.default_rng(0)
    graphs = [MBConv(8 * (1 + index), 8 * (1 + index), 14, 14, kernel=3).graph() for index in range(blocks)]
    with ProfileFile(path, create=True) as file:
        file.add_setup(SETUP)
        names = {graph.key: f"block <{index}>" for index, graph in enumerate(graphs)}
        file.add_graphs((names[graph.key], "block", graph) for graph in graphs)
        file.set_anchors(SETUP, [graph.key for graph in graphs[:2]])
        for number in range(20):
            at = 1_700_000_000.0 + 7 * number + (3600 if number > 12 else 0)
            conditions = {"battery_c": 30 + 0.4 * number, "cpu_mhz": 1800.0, "governor": "performance"}
            if number in (4, 9):
                conditions["redone"] = "38.1 °C is too warm"
            noise = rng.lognormal(0, 0.02, blocks)
            noise[-1] = 1 + number % 3
            samples = {graph.key: [(1 + index) * noise[index]] * 3 for index, graph in enumerate(graphs)}
            file.add_round(SETUP, samples, started_at=at, drift=1 + 0.01 * number, conditions=conditions)
        for graph in graphs[1:]:
            file.set_outcome(SETUP, graph.key, Status.OK)
        file.set_outcome(SETUP, graphs[0].key, Status.UNSUPPORTED, "no such op & <none>")
        file.begin_again(SETUP, [graphs[-1].key], "unstable", 1_700_000_050.0)
        file.end_again(SETUP, graphs[-1].key, None, discounted=[1_700_000_000.0])
    return path
