"""`netlathe report`: one HTML page of a run, a profile or a predictor, or of several of a kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import FormatError, did_you_mean
from netlathe.archspace.files import write_whole
from netlathe.outputs import Kind, Output, check_outputs, kind_of
from netlathe.runs.files import PAGE, REPORT, find_runs

if TYPE_CHECKING:
    from netlathe.events import Listener
    from netlathe.report.page import Page

SWITCH = "NETLATHE_PAGES"
"""Environment variable that, at 0, lets no page be made unasked."""
_RUNS: tuple[Kind, ...] = ("run", "compression")
_WORDS = {"run": "runs", "profile": "profiles", "predictor": "predictors"}


@dataclass(frozen=True)
class PageReport:
    """A page that was written."""

    output: Path
    kind: str
    """Kind of thing that it is about: 'search', 'compression', 'profile', 'predictor' or 'comparison'."""
    title: str
    verdict: str
    """Its first sentence."""
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "output": str(self.output),
            "kind": self.kind,
            "title": self.title,
            "verdict": self.verdict,
            "bytes": self.bytes,
        }


@dataclass(frozen=True)
class _Subject:
    """A thing to report on: 'run', 'profile' or 'predictor', and where it is."""

    kind: str
    path: Path


def report(
    what: str | Path | Sequence[str | Path], output: str | Path | None = None, *, force: bool = False
) -> PageReport:
    """One HTML page of a finished run, a profile or a predictor, made of its own files alone; of several, a comparison.

    `what` is a run's folder (of a search or a compression), a folder of runs, a profile, a predictor's file or the name
    of one that ships; or several of a kind. `output` is by default report.html in the folder, or the file's name with
    .html behind it, and report.html here for several. The page loads nothing and runs no script. An earlier page there
    is replaced, with `force` any file.

    Raises FormatError for what is none of these or damaged, and for unlike things; OutputError for an output that must
    not or cannot be written.
    """
    given = [what] if isinstance(what, str | Path) else list(what)
    if not given:
        raise FormatError("nothing is given to report on; name a run's folder, a profile or a predictor")
    subjects = [subject for one in given for subject in _subjects(one)]
    kinds = list(dict.fromkeys(subject.kind for subject in subjects))
    if len(kinds) > 1:
        words = " with ".join(_WORDS[kind] for kind in kinds)
        raise FormatError(f"{', '.join(map(str, given))}: {words} do not compare; name things of one kind")
    place = _place(given, subjects) if output is None else Path(output)
    files = [subject.path / REPORT if subject.kind == "run" else subject.path for subject in subjects]
    check_outputs([Output("--output", place, "page")], files, force=force)
    return write_page(page_of(kinds[0], [subject.path for subject in subjects]), place)


def _subjects(given: str | Path) -> list[_Subject]:
    """Things at that path: a run, the runs in a folder, a profile, a predictor."""
    from netlathe.predictor.catalogue import shipped_names

    path = Path(given)
    if path.is_dir():
        return [_Subject("run", run) for run in find_runs(path)]
    if not path.exists():
        if str(given) in shipped_names():
            return [_Subject("predictor", Path(given))]
        raise FormatError(
            f"{given}: there is no such run's folder, profile or predictor"
            f"{did_you_mean(str(given), shipped_names())}; predictors that ship are {', '.join(shipped_names())}"
        )
    try:
        kind = kind_of(path)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error})") from error
    if kind in _RUNS:
        return [_Subject("run", path.parent)]
    if kind in ("profile", "predictor"):
        return [_Subject(str(kind), path)]
    raise FormatError(f"{path}: expected the folder of a finished run, a profile or a predictor; this is none of them")


def _place(given: Sequence[str | Path], subjects: Sequence[_Subject]) -> Path:
    first = Path(given[0])
    if len(given) > 1:
        return Path(PAGE)
    if first.is_dir():
        return first / PAGE
    return subjects[0].path / PAGE if subjects[0].kind == "run" else page_beside(first)


def page_beside(file: Path) -> Path:
    """my_cpu.sqlite -> my_cpu.sqlite.html"""
    return file.with_name(f"{file.name}.html")


def page_of(kind: str, paths: Sequence[Path]) -> Page:
    """The page of things of one kind: 'run', 'profile' or 'predictor'; of several, their comparison. Raises
    FormatError."""
    if kind == "run":
        from netlathe.report.compare_page import page_of_runs
        from netlathe.report.run_content import read_run
        from netlathe.report.run_page import page_of_run

        runs = [read_run(path) for path in paths]
        return page_of_run(runs[0]) if len(runs) == 1 else page_of_runs(runs)
    if kind == "profile":
        from netlathe.report.compare_page import page_of_profiles
        from netlathe.report.profile_content import read_profile
        from netlathe.report.profile_page import page_of_profile

        profiles = [read_profile(path) for path in paths]
        return page_of_profile(profiles[0]) if len(profiles) == 1 else page_of_profiles(profiles)
    from netlathe.report.compare_page import page_of_predictors
    from netlathe.report.predictor_content import read_predictor
    from netlathe.report.predictor_page import page_of_predictor

    predictors = [read_predictor(path) for path in paths]
    return page_of_predictor(predictors[0]) if len(predictors) == 1 else page_of_predictors(predictors)


def write_page(page: Page, place: Path) -> PageReport:
    """Writes a page, whole or not at all. Raises FormatError where it cannot be written."""
    from netlathe.report.html import render

    content = render(page).encode()
    try:
        write_whole(place, content)
    except OSError as error:
        raise FormatError(f"{place}: the page cannot be written ({error})") from error
    return PageReport(place, page.kind.lower(), page.title, page.verdict, len(content))


def make_page(what: Path, listener: Listener, output: Path | None = None) -> None:
    """Makes the page of what a workflow has just finished, and tells where it is in one line. Whatever goes wrong with
    it is a warning: the work is done, and a page can be made later. A file of the user's own at its place stays."""
    if os.environ.get(SWITCH) == "0":
        return
    try:
        made = report(what, output)
    except Exception as error:  # what was measured or trained in hours must not end in the traceback of a picture
        listener.warn([f"no page was made ({error!s:.300}); `netlathe report {what} --output FILE` tries again"])
        return
    listener.note(f"  Page: {made.output}")
