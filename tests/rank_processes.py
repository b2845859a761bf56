"""Several processes that compute together over gloo, started by torch's variables as torchrun would, for tests."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PROGRAM = """
import pickle, sys
from importlib import import_module
from pathlib import Path
from netlathe.training.ranks import joined
module, name, folder = sys.argv[1:]
with joined() as ranks:
    found = getattr(import_module(module), name)(ranks, Path(folder))
    (Path(folder) / f"{ranks.index}.pickle").write_bytes(pickle.dumps(found))
"""


def environment(index: int, count: int, port: int) -> dict[str, str]:
    """Variables of one of several processes on this machine."""
    told = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {**os.environ, **{k: str(v) for k, v in told.items()}, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(count: int, command: Sequence[str], **options: Any) -> list[subprocess.Popen[str]]:
    """Starts the command in so many processes that know of one another."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *command], env=environment(index, count, port), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, **options,
        )
        for index in range(count)
    ]  # fmt: skip


def run_in(count: int, job: Callable[..., Any], folder: Path) -> list[Any]:
    """What job(ranks, folder), a function of a test module, returns in each of so many processes."""
    folder.mkdir(parents=True, exist_ok=True)
    where = str(Path(sys.modules[job.__module__].__file__ or "").parent)
    code = f"import sys; sys.path[:0] = [{where!r}, *{[path for path in sys.path if path]!r}]\n{PROGRAM}"
    processes = start(count, ["-c", code, job.__module__, job.__name__, str(folder)])
    ends = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, "\n".join(error for _, error in ends)
    return [pickle.loads((folder / f"{index}.pickle").read_bytes()) for index in range(count)]  # noqa: S301
