"""Events of a workflow while it works. Nothing is printed: who wants to see them hands over a listener."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netlathe.archspace.records import Measurement
    from netlathe.profiler.campaign import Progress

Update = Callable[[int, int, str], None]
"""(done, total, note) of one long step."""

Watch = Callable[[float, float | None, str], None]
"""(share done, seconds left where known, note) of one of several things that run side by side."""

Follow = Callable[[Sequence[Sequence[object]], str, float | None, float | None], None]
"""(rows, a line below, share done, seconds left; None where these are not known) of a table that is drawn anew at each
call."""

OnRound = Callable[["Progress", Callable[[], Mapping[str, "Measurement"]]], None]
"""(progress, what has been measured so far by name) while a timing goes on."""


class Listener:
    """Hears what a workflow tells, and does nothing with it; subclasses show it, log it or store it.

    Every method may be overridden alone. What is measured waits while a method runs, so none may take long; methods may
    be called from several threads where several devices are measured side by side.
    """

    command: str = ""
    """Command line that the work was asked for by, if any, as records keep it."""

    def __init__(self) -> None:
        self.undone: dict[str, str] = {}
        """Work left to be done by hand, by device: what could not be put right on it."""

    def step(self, title: str) -> None:
        """A longer step begins."""

    def phase(self, name: str, *, is_done: bool) -> None:
        """A phase of a run begins, or is done."""

    def plan(self, work: Mapping[str, float | None]) -> None:
        """Phases of a run in their order, and the work of each in multiply-adds: what nothing foretells is None. Told
        again where more is known."""

    def note(self, text: str) -> None:
        """One line on what was found or done."""

    def log(self, text: str) -> None:
        """A line that only a record needs: progress tells a person the same."""

    def warn(self, warnings: Iterable[str]) -> None:
        """Doubts about a result, each with its remedy; they are in the report as well."""

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        """Context around a step of unknown length."""
        yield

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Update]:
        """Context around a step of known length."""
        yield lambda done, total, note: None

    @contextmanager
    def watching(self, labels: Sequence[str]) -> Iterator[list[Watch]]:
        """Context around several things that run side by side."""
        yield [lambda share, left_s, note: None for _ in labels]

    @contextmanager
    def following(self, columns: Sequence[str]) -> Iterator[Follow]:
        """Context around many things that run side by side, told as a table that changes."""
        yield lambda rows, below, share, left_s: None

    @contextmanager
    def estimating(self, names: Sequence[str]) -> Iterator[OnRound]:
        """Context around a timing whose estimates become better round by round."""
        yield lambda progress, taken: None

    def scalar(self, name: str, value: float, step: int) -> None:
        """A number at a step of a search or a training, such as 'search/loss'; the part before the slash is what the
        steps are counted in."""

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table of what was found before the work begins; the first column holds names."""

    def report(self, report: object) -> None:
        """The whole result, just before it is returned; what a workflow keeps for a call that is interrupted, it keeps
        until this has returned."""


class Relay(Listener):
    """Listener that hands everything on to another one; subclasses keep some of it as well."""

    def __init__(self, inner: Listener) -> None:
        super().__init__()
        self.inner, self.command, self.undone = inner, inner.command, inner.undone

    def step(self, title: str) -> None:
        self.inner.step(title)

    def phase(self, name: str, *, is_done: bool) -> None:
        self.inner.phase(name, is_done=is_done)

    def plan(self, work: Mapping[str, float | None]) -> None:
        self.inner.plan(work)

    def note(self, text: str) -> None:
        self.inner.note(text)

    def log(self, text: str) -> None:
        self.inner.log(text)

    def warn(self, warnings: Iterable[str]) -> None:
        self.inner.warn(warnings)

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        with self.inner.working(label):
            yield

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Update]:
        with self.inner.progress(label, unit) as update:
            yield update

    @contextmanager
    def watching(self, labels: Sequence[str]) -> Iterator[list[Watch]]:
        with self.inner.watching(labels) as watches:
            yield watches

    @contextmanager
    def following(self, columns: Sequence[str]) -> Iterator[Follow]:
        with self.inner.following(columns) as follow:
            yield follow

    @contextmanager
    def estimating(self, names: Sequence[str]) -> Iterator[OnRound]:
        with self.inner.estimating(names) as on_round:
            yield on_round

    def scalar(self, name: str, value: float, step: int) -> None:
        self.inner.scalar(name, value, step)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        self.inner.table(columns, rows)

    def report(self, report: object) -> None:
        self.inner.report(report)


def listener_of(progress: bool | Listener) -> Listener:
    """The listener itself; for True the one that shows the command's bars on standard error, for False a deaf one."""
    if isinstance(progress, Listener):
        return progress
    if not progress:
        return Listener()
    from netlathe.cli.console import Terminal

    return Terminal()
