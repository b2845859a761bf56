"""Several processes that compute together over gloo, told of one another by torch's variables as torchrun does, for
tests. They are forks of one that has imported what each would import first, which takes longer than their work."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

IMPORTED = ["netlathe.cli.app", "netlathe.runs.searched", "netlathe.training.ranks", "netlathe.report.style"]
END_S = 240.0
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(IMPORTED)


class RankProcess:
    """One of several processes, which runs a function with its output in files."""

    def __init__(self, work: Callable[..., None], words: Sequence[str], variables: Mapping[str, str]) -> None:
        self._streams = [tempfile.NamedTemporaryFile("r") for _ in range(2)]  # noqa: SIM115
        names = [stream.name for stream in self._streams]
        self._process = FORKS.Process(target=_run, args=(work, list(words), dict(variables), names), daemon=True)
        self._process.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and minus the signal that ended it."""
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def end(self, timeout_s: float = END_S) -> tuple[int, str, str]:
        """Exit code, standard output and standard error. A process that takes longer is killed."""
        self._process.join(timeout_s)
        if self._process.is_alive():
            self.kill()
            self._process.join()
        assert self._process.exitcode is not None
        output, errors = ("".join(stream) for stream in self._streams)
        for stream in self._streams:
            stream.close()
        return self._process.exitcode, output, errors


def _run(work: Callable[..., None], words: list[str], variables: dict[str, str], streams: list[str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    for target, name in enumerate(streams, 1):
        os.dup2(os.open(name, os.O_WRONLY), target)
    sys.argv = ["-c", *words]
    work(*words)


def _variables(index: int, count: int, port: int) -> dict[str, str]:
    """Variables of one of several processes on this machine."""
    told = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {**os.environ, **{k: str(v) for k, v in told.items()}, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(count: int, work: Callable[..., None], words: Sequence[str]) -> list[RankProcess]:
    """Starts a function of a module in so many processes that know of one another. Its words are also those of the
    command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # torch reads it where it is imported, in the process that starts here
        forkserver.ensure_running()
    port = free_port()
    return [RankProcess(work, words, _variables(index, count, port)) for index in range(count)]


def run_in(count: int, job: Callable[..., Any], folder: Path) -> list[Any]:
    """What job(ranks, folder), a function of a test module, returns in each of so many processes."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = [one.end() for one in start(count, _join, [job.__module__, job.__name__, str(folder)])]
    assert [code for code, _, _ in ends] == [0] * count, "\n".join(errors for _, _, errors in ends)
    return [pickle.loads((folder / f"{index}.pickle").read_bytes()) for index in range(count)]  # noqa: S301


def _join(module: str, name: str, folder: str) -> None:
    from netlathe.training.ranks import joined

    with joined() as ranks:
        found = getattr(import_module(module), name)(ranks, Path(folder))
        (Path(folder) / f"{ranks.index}.pickle").write_bytes(pickle.dumps(found))
