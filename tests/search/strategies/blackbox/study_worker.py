"""A worker of a study, as a process of its own: `python study_worker.py PLACE LOOKS LOG SECONDS`. Each look-up writes a
line when it begins and one when it has ended."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from test_strategy_contract import COUNTS, feasible_of, score

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.names import make_strategy
from netlathe.search.strategies.blackbox.study import Study

SETTINGS = {"strategy": "ego", "seed": 0}


def main(place: str, looks: str, log: str, seconds: str, strategy: str = "evolution") -> None:
    def look(choices: Choices) -> float:
        write(f"begin {'-'.join(map(str, choices))}")
        time.sleep(float(seconds))
        write(f"end {'-'.join(map(str, choices))}")
        return score(choices)

    def write(line: str) -> None:
        descriptor = os.open(Path(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{os.getpid()} {line}\n".encode())
        os.close(descriptor)

    feasible = feasible_of(COUNTS)
    Study(place, feasible.space, SETTINGS).work(make_strategy(strategy, feasible), look, int(looks))


if __name__ == "__main__":
    main(*sys.argv[1:])
