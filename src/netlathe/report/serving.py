"""A page served to this machine alone: one address, one file, nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.files import read_whole

HOST = "127.0.0.1"
_NAMES = ("localhost", HOST)
"""Names by which browsers may ask: a page elsewhere whose name leads here has another."""
_MOST_BYTES = 1 << 26


class Served:
    """A page that is served."""

    def __init__(self, server: _Server) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_port}/"

    def asked_within(self, seconds: float) -> bool:
        """Whether somebody has asked for the page so lately."""
        return time.monotonic() - self._server.asked_at < seconds


@contextmanager
def serving(page: Path, port: int) -> Iterator[Served]:
    """Context in which the page can be fetched at http://127.0.0.1:PORT/, and nothing else; 0 is any free port. Raises
    NetlatheError for a port that cannot be had."""
    try:
        server = _Server(page, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise NetlatheError(f"--port {port}: cannot be listened on ({reason}); name another, or 0 for any") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield Served(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False  # which on some systems lets two servers have one port

    def __init__(self, page: Path, port: int) -> None:
        self.page, self.asked_at = page, float("-inf")
        super().__init__((HOST, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of "/" with the file as it is by then, and all else with an error."""

    server: _Server
    server_version, sys_version = "netlathe", ""
    timeout = 10  # of a client that says nothing

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def _answer(self, *, has_body: bool) -> None:
        host = self.headers.get("Host", "").rpartition(":")
        if (host[0] or host[2]) not in _NAMES:
            self.send_error(HTTPStatus.FORBIDDEN, "This page is for this machine alone")
            return
        if self.path.partition("?")[0] != "/":
            self.send_error(HTTPStatus.NOT_FOUND, "There is one page, /")
            return
        try:
            content = read_whole(self.server.page, _MOST_BYTES)
        except (OSError, NetlatheError):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "The page is not there")
            return
        self.server.asked_at = time.monotonic()
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if has_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: the terminal is the command's."""
