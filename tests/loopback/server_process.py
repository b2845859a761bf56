"""Starts and ends the process that runs models for a loopback phone's benchmark_model."""

import os
import socket
import subprocess
import sys
from pathlib import Path

SOCKET = "loopback/socket"
END_TIMEOUT_S = 20.0


class ServerProcess:
    """A running `litert_server`, listening at /loopback/socket of a phone.

    The socket listens before the process is up, so that calls wait for it instead of failing.
    """

    def __init__(self, tree: Path, log: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # A socket's path has at most 107 bytes: name the folder by a descriptor.
            folder = os.open((tree / SOCKET).parent, os.O_RDONLY)
            try:
                listener.bind(f"/proc/self/fd/{folder}/{Path(SOCKET).name}")
            finally:
                os.close(folder)
            listener.listen(128)
            with log.open("wb") as errors:
                # Absolute name: this package may have been imported as loopback or as tests.loopback.
                top = Path(__file__).parents[__package__.count(".") + 1]
                path = os.pathsep.join([str(top), os.environ.get("PYTHONPATH", "")])
                self._process = subprocess.Popen(
                    [sys.executable, "-m", f"{__package__}.litert_server", str(tree), str(listener.fileno())],
                    stdin=subprocess.PIPE,  # closes when this program ends, however it ends: the server then leaves
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=[listener.fileno()],
                    start_new_session=True,
                    # Threads of BLAS would not survive the fork of a child, and would cost their start.
                    env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                )

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Ends the server and the benchmarks that it runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
