"""Runs models for the benchmark_model of a loopback phone: one process that knows LiteRT, one fork of it per call.

Usage: python -m ...litert_server TREE LISTENER. TREE is the phone's / on the host, LISTENER the number of a listening
socket. Ends when its standard input does, and its forks with it.
"""

import collections
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .faults import Fault

PR_SET_PDEATHSIG = 1
REQUEST_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Request:
    """What a call of benchmark_model sent: descriptors of its output, errors, / and working directory, and words."""

    descriptors: Sequence[int]
    cores: Sequence[int]
    argv: Sequence[str]

    @property
    def key(self) -> str:
        """Stem of the model's file name, empty where none is given."""
        graphs = [word.removeprefix("--graph=") for word in self.argv if word.startswith("--graph=")]
        return Path(graphs[0]).stem if graphs else ""


def receive(connection: socket.socket) -> Request:
    """Reads one request. Raises OSError when the caller is gone."""
    connection.settimeout(REQUEST_TIMEOUT_S)
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 4)
    content = b""
    while len(size) == 4 and len(content) < int.from_bytes(size, "little"):
        part = connection.recv(65536)
        if not part:
            break
        content += part
    if len(size) < 4 or len(content) < int.from_bytes(size, "little"):
        for descriptor in descriptors:
            os.close(descriptor)
        raise ConnectionError("the caller is gone")
    connection.settimeout(None)
    cores, *argv = content.decode("utf-8", "surrogateescape").split("\0")
    return Request(descriptors, [int(core) for core in cores.split(",")], argv)


class Server:
    """Accepts calls, forks for each, and tells each caller how its fork ended."""

    def __init__(self, tree: Path, listener: socket.socket) -> None:
        self.tree, self.listener = tree, listener
        self.running: dict[int, socket.socket] = {}
        self.calls: collections.Counter[str] = collections.Counter()
        self.libc = ctypes.CDLL(None)

    def serve(self) -> None:
        """Runs until standard input ends."""
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([sys.stdin, self.listener, wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self.reap()
            if sys.stdin in ready:
                break
            if self.listener in ready:
                self.accept()
        for pid in self.running:
            os.kill(pid, signal.SIGKILL)
        for pid in self.running:
            os.waitpid(pid, 0)

    def accept(self) -> None:
        # Loaded once, by the first call: a phone that runs no model starts without it.
        from .tool import litert, run  # noqa: F401

        connection, _ = self.listener.accept()
        try:
            request = receive(connection)
        except OSError:
            connection.close()
            return
        faults = self.next_faults(request.key)
        pid = os.fork()
        if pid == 0:
            self.be_the_tool(connection, request, faults)
        for descriptor in request.descriptors:
            os.close(descriptor)
        self.running[pid] = connection

    def next_faults(self, key: str) -> list[Fault]:
        """Counts the call, and returns what shall go wrong in it."""
        self.calls[f"key {key}"] += 1
        self.calls["all"] += 1
        path = self.tree / "loopback/state/faults.json"
        faults = [Fault(**fields) for fields in json.loads(path.read_text())] if path.exists() else []
        return [fault for fault in faults if fault.hits(key, self.calls[f"key {key}"], self.calls["all"])]

    def be_the_tool(self, connection: socket.socket, request: Request, faults: Sequence[Fault]) -> None:
        """Does the call's work in the fork, and ends the fork."""
        from .tool import litert, run

        code = 70  # EX_SOFTWARE, for an exception that is a mistake in here
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            # The kernel sends SIGIO when the caller closes its end, however it died; not handled, it ends this process.
            fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
            for other in (*self.running.values(), self.listener):
                other.close()
            output, errors, root, folder = request.descriptors
            if select.select([connection], [], [], 0)[0]:
                os._exit(code)  # the caller died before SIGIO was asked for
            os.dup2(output, 1)
            os.dup2(errors, 2)
            os.sched_setaffinity(0, request.cores)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            main = litert.main if request.argv[0] == "benchmark_litert_model" else run.main
            code = main(request.argv, run.Files(root, folder), self.tree, faults)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)

    def reap(self) -> None:
        """Tells callers whose forks have ended the status that waitpid gave."""
        while self.running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self.running.pop(pid) as connection:
                try:
                    connection.send(status.to_bytes(4, "little"), socket.MSG_NOSIGNAL)
                except OSError:
                    continue  # the caller died first


if __name__ == "__main__":
    Server(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))).serve()
