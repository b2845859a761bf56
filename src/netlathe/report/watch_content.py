"""Runs and profiles that go on in a folder, by the files that they write while they work. Nothing is written or locked
here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from netlathe.archspace.errors import FormatError
from netlathe.archspace.pools import UNIT, is_pool
from netlathe.archspace.profile_file import ProfileFile, RoundConditions
from netlathe.archspace.records import Setup, Status
from netlathe.outputs import kind_of
from netlathe.progress_files import Standing as WorkStanding
from netlathe.progress_files import Work, files_beside, read_work
from netlathe.runs.files import PROGRESS, REPORT

Standing = Literal[WorkStanding, "finished"]

_PROFILES = (".sqlite", ".sqlite3", ".db")
"""Endings of profiles that are looked for."""
MOST_ROUNDS = 300
"""Rounds of a device that are looked at, the latest."""
_DEEP = 2
"""Levels of folders in which runs are looked for: those of several targets lie in one of their own."""


@dataclass(frozen=True)
class Unit:
    """A device that measures into a profile, as the file tells."""

    name: str
    rounds: int
    graphs: int
    """Graphs with an outcome, and those of them that failed."""
    failed: int
    leased: int
    """Graphs that it has leased of its pool at this moment."""
    log: tuple[RoundConditions, ...]
    """Its latest rounds, in order of time."""

    @property
    def latest(self) -> RoundConditions | None:
        """The last of them."""
        return self.log[-1] if self.log else None

    @property
    def temperatures(self) -> dict[str, float]:
        """Temperatures of the latest round in °C, by place."""
        told = self.latest.conditions if self.latest else {}
        found = {name: value for name, value in told.items() if name.endswith("_c") and isinstance(value, int | float)}
        return {name.removesuffix("_c").replace("_", " "): float(value) for name, value in found.items()}


@dataclass(frozen=True)
class Watched:
    """A run, a compression or a profile in the folder."""

    name: str
    path: Path
    kind: str
    """'search', 'compression', 'profile', or 'run' of a finished one."""
    standing: Standing
    work: Work | None = None
    """State of what is not finished."""
    verdict: str = ""
    """First sentence of a finished one's page."""
    units: tuple[Unit, ...] = ()

    @property
    def goes_on(self) -> bool:
        return self.standing == "working"


class Finished:
    """Verdicts of what is finished, each read once for each state of its file."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def verdict(self, path: Path) -> str:
        """Raises FormatError, OSError."""
        told = path.stat()
        key = (path, told.st_mtime_ns, told.st_size)
        if key not in self._known:
            self._known[key] = _verdict(path)
        return self._known[key]


def _verdict(path: Path) -> str:
    """The first sentence of the page of a run's report, or of a profile."""
    from netlathe.report.profile_content import read_profile
    from netlathe.report.profile_page import verdict_of_profile
    from netlathe.report.run_content import read_run
    from netlathe.report.verdict import verdict_of

    if path.name == REPORT:
        return verdict_of(read_run(path.parent)).sentence
    return verdict_of_profile(read_profile(path))[0]


def look(place: Path, finished: Finished) -> list[Watched]:
    """The runs and profiles at that place, a folder or a profile, by name. Raises FormatError where there are none, or
    something cannot be read."""
    if not place.exists():
        raise FormatError(
            f"{place}: there is nothing of that name to watch; name the --output of a run or of a profile, or a folder "
            "of several"
        )
    try:
        found = list(_found(place, finished))
    except OSError as error:
        raise FormatError(f"{place}: cannot be looked at ({error})") from error
    if not found:
        raise FormatError(
            f"{place}: nothing to watch is there, neither a run nor a profile; start one with --output there, then "
            "watch it"
        )
    return found


def _found(place: Path, finished: Finished) -> Iterator[Watched]:
    if not place.is_dir():
        yield from _profile(place, finished)
        return
    for run in sorted(_runs(place, _DEEP)):
        yield from _run(run, place, finished)
    for profile in sorted(_profiles(place)):
        yield from _profile(profile, finished)


def _runs(folder: Path, deep: int) -> Iterator[Path]:
    """Folders of runs. That of several targets' runs stands for these while it goes on."""
    if (folder / PROGRESS).is_file() or (folder / REPORT).is_file():
        yield folder
        return
    for one in folder.iterdir() if deep else ():
        if one.is_dir() and not one.name.startswith("."):
            yield from _runs(one, deep - 1)


def _profiles(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.suffix in _PROFILES and path.is_file() and kind_of(path) == "profile":
            yield path
        elif path.is_file() and f".{Path(PROGRESS).stem}" in path.name and path.suffix == Path(PROGRESS).suffix:
            profile = path.with_name(path.name.rpartition(f".{Path(PROGRESS).stem}")[0] or path.name)
            if profile.suffix not in _PROFILES and profile.is_file():  # of an ending of the user's own
                yield profile


def _work(path: Path) -> Work | None:
    """State in a progress file; None where it has been removed meanwhile."""
    try:
        return read_work(path) if path.exists() else None
    except FormatError:
        if path.exists():
            raise
        return None


def _run(folder: Path, place: Path, finished: Finished) -> Iterator[Watched]:
    name = folder.resolve().name if folder == place else str(folder.relative_to(place))
    work = _work(folder / PROGRESS)
    if work is not None:
        yield Watched(name, folder, work.kind, work.standing(), work)
    elif (folder / REPORT).is_file():
        yield Watched(name, folder, "run", "finished", verdict=finished.verdict(folder / REPORT))


def _profile(path: Path, finished: Finished) -> Iterator[Watched]:
    """A profile, once for each call that measures into it."""
    works = [work for one in files_beside(path) if (work := _work(one)) is not None]
    for number, work in enumerate(works, 1):
        name = f"{path.name} ({number})" if len(works) > 1 else path.name
        yield Watched(name, path, "profile", work.standing(), work, units=read_units(path))
    if not works:
        yield Watched(path.name, path, "profile", "finished", verdict=finished.verdict(path))


def read_units(path: Path) -> tuple[Unit, ...]:
    """The devices that have measured into a profile, which may be written at this moment. Raises FormatError."""
    with ProfileFile(path, only_reads=True) as file:
        setups = file.setups(members=True)
        leased = [holder for pool in setups if is_pool(pool) for holder in file.leases(pool, time.time()).values()]
        return tuple(_unit(file, one, leased) for one in setups if not is_pool(one))


def _unit(file: ProfileFile, setup: Setup, leased: Sequence[str]) -> Unit:
    rounds, outcomes = file.round_log(setup), list(file.outcomes(setup).values())
    unit = dict(setup.details).get(UNIT, "")
    return Unit(
        f"{setup.device} {unit}".strip(), len(rounds), len(outcomes), outcomes.count(Status.FAILED),
        leased.count(setup.key), tuple(rounds[-MOST_ROUNDS:]),
    )  # fmt: skip
