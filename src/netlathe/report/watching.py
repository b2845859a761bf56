"""`netlathe report --watch`: a page of what goes on in a folder, written anew until nothing goes on any more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.archspace.files import write_whole
from netlathe.events import Listener, listener_of
from netlathe.outputs import Output, OutputError, check_outputs
from netlathe.report.serving import Served, serving
from netlathe.report.watch_content import Finished, Watched, look

if TYPE_CHECKING:
    from netlathe.report.page import Page

EVERY_S = 10.0
PAGE = "watch.html"
"""Page in the folder; report.html is what a run itself makes at its end."""
_MOST_FAILURES = 3
"""Looks that may fail, one after the other: what is read may be replaced at that moment."""
_LINGER_S = 0.2


@dataclass(frozen=True)
class WatchReport:
    """End of a watch: the page, and the state of each run and profile."""

    output: Path
    """The page."""
    states: tuple[tuple[str, str, str], ...]
    """(name; finished, dead, stopped or failed; a sentence) of each."""

    @property
    def is_finished(self) -> bool:
        """Whether all of it is finished."""
        return all(state == "finished" for _, state, _ in self.states)

    def to_json(self) -> dict[str, Any]:
        watched = [{"name": name, "state": state, "told": told} for name, state, told in self.states]
        return {"output": str(self.output), "is_finished": self.is_finished, "watched": watched}


def watch(
    what: str | Path,
    output: str | Path | None = None,
    *,
    every_s: float = EVERY_S,
    port: int | None = None,
    force: bool = False,
    progress: bool | Listener = False,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> WatchReport:
    """Writes a page of what goes on at a place, anew every so many seconds, until nothing goes on there any more.

    `what` is the folder of a run or of several, also of profiles, or a profile; other processes work there, which are
    read and never disturbed. The page is `output`, by default watch.html in the folder, or FILE.watch.html beside a
    profile; browsers load it again by themselves. With a `port`, it is also served at http://127.0.0.1:PORT/, to this
    machine alone; 0 is any free one. At the end, it is the page of `report`, where all is finished and of one kind.
    `force` replaces any file at `output`. `clock` gives seconds since the epoch, `sleep` waits so many.

    Raises FormatError where there is nothing to watch, or it cannot be read; OutputError for an output that must not or
    cannot be written; NetlatheError for a port that is taken, and for less than a second. Whatever ends it, the page is
    whole.
    """
    if not (math.isfinite(every_s) and every_s >= 1):
        raise NetlatheError(f"--every {every_s:g}: a page is written once a second at most")
    place, listener = Path(what), listener_of(progress)
    page = _default(place) if output is None else Path(output)
    watcher = _Watcher(place, page, every_s, listener, clock)
    watcher.look()
    check_outputs([Output("--output", page, "page")], [place] if place.is_file() else [], force=force)
    try:
        _follow(watcher, port, sleep)
    except KeyboardInterrupt:
        with suppress(FormatError):
            watcher.look()  # what the page shows is as of now
        watcher.write(is_last=True)
        raise
    return WatchReport(page, watcher.states())


def _follow(watcher: _Watcher, port: int | None, sleep: Callable[[float], None]) -> None:
    """Writes the page until nothing goes on any more, and serves it meanwhile where there is a port."""
    watcher.write()
    watcher.listener.note(f"  Page: {watcher.page}")
    with ExitStack() as stack:
        served = None if port is None else stack.enter_context(serving(watcher.page, port))
        if served:
            watcher.listener.note(f"  Served at {served.url} to this machine alone; Ctrl-C ends it")
        while watcher.goes_on:
            sleep(watcher.every_s)
            watcher.look()
            watcher.write()
        if served:
            _linger(served, watcher.every_s, sleep)


def _default(place: Path) -> Path:
    return place / PAGE if place.is_dir() else place.with_name(f"{place.name}.{PAGE}")


def _linger(served: Served, every_s: float, sleep: Callable[[float], None]) -> None:
    """Gives a browser that has the page open the time to load the last one."""
    if served.asked_within(2 * every_s + 2):
        for _ in range(math.ceil((every_s + 2) / _LINGER_S)):
            sleep(_LINGER_S)


class _Watcher:
    """The state that was seen last, and the page of it."""

    def __init__(self, place: Path, page: Path, every_s: float, listener: Listener, clock: Callable[[], float]) -> None:
        self.place, self.page, self.every_s, self.listener, self.clock = place, page, every_s, listener, clock
        self.found: list[Watched] = []
        self.goes_on = True
        self._finished, self._failures = Finished(), 0
        self._told: dict[str, str] = {}

    def look(self) -> None:
        """Looks again, and tells what has changed. Raises FormatError where that fails several times, at once the
        first time."""
        try:
            self.found = look(self.place, self._finished)
            self._failures = 0
        except FormatError as error:
            self._failures += 1
            if self.found and self._failures < _MOST_FAILURES:
                return
            gone = "what was watched has ended, and left nothing: " if self.found else ""
            raise FormatError(f"{gone}{error}") from error
        self.goes_on = any(one.goes_on for one in self.found)
        for one in self.found:
            if self._told.get(one.name) != one.standing:
                self._told[one.name] = one.standing
                self.listener.note(f"  {one.name}: {self._sentence(one)}")

    def _sentence(self, one: Watched) -> str:
        from netlathe.report.watch_page import sentence

        return sentence(one, self.clock())

    def write(self, *, is_last: bool = False) -> None:
        """Writes the page. Raises OutputError where that cannot be."""
        from netlathe.report.html import render

        refresh_s = math.ceil(self.every_s) if self.goes_on and not is_last else None
        content = render(self._page(), refresh_s=refresh_s)
        try:
            write_whole(self.page, content, makes_folder=False)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"--output {self.page}: cannot be written ({reason}); name another file") from error

    def _page(self) -> Page:
        from netlathe.report.watch_page import page_of_watched

        if all(one.standing == "finished" for one in self.found) and (page := _report_page(self.found)):
            return page
        return page_of_watched(self.place.resolve().name, self.found, self.clock())

    def states(self) -> tuple[tuple[str, str, str], ...]:
        """Name, state and sentence of each."""
        return tuple((one.name, one.standing, self._sentence(one)) for one in self.found)


def _report_page(found: Sequence[Watched]) -> Page | None:
    """The page that `report` makes of these; None where they are of unlike kinds."""
    from netlathe.report.writing import page_of

    kinds = {one.kind for one in found}
    return page_of(kinds.pop(), [one.path for one in found]) if len(kinds) == 1 else None
