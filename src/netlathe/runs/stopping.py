"""Ctrl-C in a long run: the step in flight is finished and saved, then it ends; a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netlathe.training import Checkpointer

Between = Callable[[], None]
"""Check to be called between steps: it raises KeyboardInterrupt once a stop was asked for and saved."""


ENDINGS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a program from outside; Windows has no SIGHUP."""


class _Stop:
    """State of a stop: whether the user asked for one."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self.checkpointer = checkpointer
        self.is_asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler."""
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
        self.checkpointer.ask()

    def between(self) -> None:
        """Ends once a save that was asked for has been made, in all processes after the same step."""
        if self.checkpointer.is_answered:
            raise KeyboardInterrupt


@contextmanager
def stopping(checkpointer: Checkpointer | None) -> Iterator[Between]:
    """Context in which what would interrupt (SIGINT; SIGTERM and SIGHUP where they are handled so) waits for a save.
    Raises KeyboardInterrupt once that is done, also where a worker, which gets the same signal, fails by it."""
    if checkpointer is None:
        yield lambda: None
        return
    stop = _Stop(checkpointer)
    handled = [s for s in (signal.SIGINT, *ENDINGS) if _interrupts(s)]
    for number in handled:
        signal.signal(number, stop.ask)
    try:
        yield stop.between
    except Exception as error:
        if stop.is_asked:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number in handled:
            signal.signal(number, signal.default_int_handler)
    if checkpointer.ranks.any(stop.is_asked):
        raise KeyboardInterrupt


def _interrupts(number: int) -> bool:
    """Whether this signal raises KeyboardInterrupt as things stand."""
    return signal.getsignal(number) is signal.default_int_handler
