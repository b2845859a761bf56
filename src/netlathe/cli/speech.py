"""How much a command says: --quiet, --verbose, and --log-file, which keeps everything, whatever is shown."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import typer

from netlathe.words import without_passwords


class Log:
    """Lines added to a file, each with its time. Where the file cannot be written any more, one line on standard error
    says so, and the command goes on."""

    def __init__(self, path: Path) -> None:
        """Raises OutputError where no log can be written: what stands there already must be one."""
        from netlathe.outputs import Output, OutputError, check_outputs

        check_outputs([Output("--log-file", path, "log")], ())
        self._path, self._lock = path, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"--log-file {path}: cannot be written ({error.strerror}); name another file") from error

    def keep(self, text: str) -> None:
        """Adds the lines of a text that are not empty."""
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        lines = [f"{now} {line.rstrip()}\n" for line in text.splitlines() if line.strip()]
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.writelines(lines)
                self._file.flush()
            except OSError as error:
                print(f"  Warning: --log-file {self._path} ends here ({error.strerror})", file=sys.stderr)
                self._end()

    def close(self) -> None:
        """Ends the log; what is to be kept later is lost."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        with suppress(OSError):  # which was told when a line could not be written
            self._file.close()


class Speech(NamedTuple):
    """Words that the command which runs was asked for."""

    is_quiet: bool = False
    is_verbose: bool = False
    log: Log | None = None


SPEECH: ContextVar[Speech] = ContextVar("SPEECH", default=Speech())  # noqa: B039 -- a named tuple
"""Asked of the command that runs; each Terminal is made by it."""


@contextmanager
def speaking(*, is_quiet: bool, is_verbose: bool, log_file: Path | None, command: str) -> Iterator[None]:
    """Context around a command; at its end verbose ones and the log tell how it went. Raises as Log does."""
    leads = os.environ.get("RANK", "0") == "0"  # of several processes, one speaks
    log = Log(log_file) if log_file and leads else None
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    token = SPEECH.set(Speech(is_quiet, is_verbose, log))
    told = log is not None or (is_verbose and leads)
    outcome = "done"
    try:
        if told:
            _tell(_setting(command))
        yield
    except typer.Exit as ended:
        outcome = "done" if not ended.exit_code else f"ended with exit code {ended.exit_code}"
        raise
    except BaseException as error:
        outcome = "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {type(error).__name__}"
        if log:
            log.keep(traceback.format_exc())
        raise
    finally:
        if told:
            wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
            _tell(f"{outcome} after {wall_s:.1f} s, {cpu_s:.1f} s of processor time{_peak()}")
        SPEECH.reset(token)
        if log:
            log.close()


def _tell(text: str) -> None:
    """A line in the log, and on standard error where the command is verbose."""
    speech = SPEECH.get()
    if speech.log:
        speech.log.keep(text)
    if speech.is_verbose:
        print(f"  {text}", file=sys.stderr)


def _setting(command: str) -> str:
    """Versions, system and command, which a report of a bug needs first; passwords in addresses are left out."""
    from importlib.metadata import version

    where = f"Python {platform.python_version()}, {platform.platform()}"
    return f"netlathe {version('netlathe')}, {where}: {without_passwords(command)}"


def _peak() -> str:
    """Most memory that this process has held, where the system tells."""
    if sys.platform == "win32":
        return ""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS tells bytes, Linux KiB
    return f", {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6:.0f} MB of memory at most"
