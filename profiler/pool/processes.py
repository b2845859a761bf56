"""Devices of a pool in a process of their own, which asks for everything over its standard input and output.

One process per USB controller: what one of them waits for, or a crash in libusb, holds up no other.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.records import Setup
from netlathe.profiler.device import Report
from netlathe.profiler.errors import ProfilerError
from netlathe.profiler.pool.board import PoolBoard
from netlathe.profiler.pool.member import Member, MemberRun, MemberState, Others, PoolPlan, PoolWork

ASK_S = 0.5
"""Time after which a device that rests asks whether to stop."""


def run_members(members: Sequence[Member], plan: PoolPlan, board: Any, report: Report) -> None:
    """Runs each in a thread of its own until all have ended. Raises the first error that is no device's, once the
    others have ended."""
    errors: list[BaseException] = []

    def run(member: Member) -> None:
        try:
            MemberRun(member, plan, board, report).run()
        except BaseException as error:  # it belongs to the thread that waits
            errors.append(error)
            board.stop()

    threads = [threading.Thread(target=run, args=(member,), name=member.name) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def run_in_process(members: Sequence[Member], plan: PoolPlan, board: PoolBoard, report: Report) -> None:
    """Runs the devices in a new process, and answers what it asks the board. Raises what failed there."""
    command = [sys.executable, "-P", "-m", "netlathe.profiler.pool.processes"]  # whatever lies in the current folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers: dict[str, Callable[..., Any]] = {
            "work": board.work, "tell": board.tell, "others": board.others, "report": report,
            "is_stopped": lambda: board.rest(0.0),
        }  # fmt: skip
        _send(process.stdin, (list(members), plan))
        try:
            failure = _answer(process.stdin, process.stdout, answers)
        except EOFError:
            names = ", ".join(member.name for member in members)
            failure = ProfilerError(f"the process of {names} has crashed; what was measured is kept")
        with suppress(OSError):
            process.stdin.close()
    if failure is not None:
        raise failure


def _answer(
    requests_to: IO[bytes], requests: IO[bytes], answers: dict[str, Callable[..., Any]]
) -> BaseException | None:
    """Answers until the process says that it has ended, and returns the error of that, if any."""
    while True:
        name, arguments = _receive(requests)
        if name == "end":
            (failure,) = arguments
            return failure  # type: ignore[no-any-return]
        try:
            answer, error = answers[name](*arguments), None
        except NetlatheError as failed:
            answer, error = None, failed
        _send(requests_to, (answer, error))


def _send(pipe: IO[bytes], content: object) -> None:
    pickle.dump(content, pipe)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Content that the other end has sent: this program, with no file or network between. Raises EOFError where it is
    gone."""
    return pickle.load(pipe)  # noqa: S301


class _PipedBoard:
    """The board of the parent process."""

    def __init__(self, answers: IO[bytes], requests: IO[bytes]) -> None:
        self._answers, self._requests = answers, requests
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def work(self, setup: Setup) -> PoolWork:
        return self._ask("work", setup)  # type: ignore[no-any-return]

    def tell(self, state: MemberState) -> None:
        self._ask("tell", state)

    def others(self, name: str) -> Others:
        return self._ask("others", name)  # type: ignore[no-any-return]

    def report(self, message: str) -> None:
        self._ask("report", message)

    def rest(self, seconds: float) -> bool:
        until_s = time.monotonic() + seconds
        while not self._stop.wait(min(ASK_S, max(0.0, until_s - time.monotonic()))):
            if self._ask("is_stopped"):
                self._stop.set()
            elif time.monotonic() >= until_s:
                return False
        return True

    def stop(self) -> None:
        self._stop.set()

    def end(self, failure: BaseException | None) -> None:
        with self._lock:
            _send(self._requests, ("end", (failure,)))

    def _ask(self, name: str, *arguments: object) -> Any:
        """The parent's answer. Raises EOFError where it is gone: then all stop, and the phones are given back."""
        with self._lock:
            try:
                _send(self._requests, (name, arguments))
                answer, error = _receive(self._answers)
            except OSError as gone:
                raise EOFError from gone
        if error is not None:
            raise error
        return answer


def main() -> None:
    """Runs the devices that the standard input names."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it as well, and says when to stop
    answers = sys.stdin.buffer
    requests = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints
    members, plan = _receive(answers)
    board = _PipedBoard(answers, requests)
    failure: NetlatheError | None = None
    try:
        run_members(members, plan, board, board.report)
    except NetlatheError as error:
        failure = error
    except EOFError:  # nobody is left to tell
        return
    with suppress(OSError):
        board.end(failure)


if __name__ == "__main__":
    main()
