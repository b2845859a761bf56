"""Content of a page, before it is HTML: sections of charts, tables, facts and code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

    from netlathe.report.style import Room

ORIGIN = "Where this comes from"
"""Title of the section on files, command and versions."""
State = Literal["good", "bad", "open"]
"""A verdict: kept, missed, or nothing that could be either."""
Draw = Callable[["FigureBase", "Room"], None]
"""Draws a chart into a figure of that room."""


@dataclass(frozen=True)
class Table:
    """Rows of text under columns; all but the first `text` columns are numbers, and stand to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    text: int = 1
    marked: frozenset[int] = frozenset()
    """Rows that stand out."""
    is_folded: bool = False
    """Whether it is shown only when asked for."""


@dataclass(frozen=True)
class Chart:
    """A chart, and what it shows in words and numbers."""

    title: str
    summary: str
    """A sentence on what is to be seen, for those who cannot."""
    draw: Draw
    height: float = 0.55
    """Height of the chart, in its width."""
    narrow_height: float = 1.0
    """The same where there is room for a phone's width alone."""
    table: Table | None = None
    """The numbers that are drawn."""


@dataclass(frozen=True)
class Snippet:
    """Lines of code that use a file."""

    title: str
    note: str
    code: str


@dataclass(frozen=True)
class Facts:
    """Short facts by name."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Notes:
    """Sentences, each a point of a list."""

    lines: tuple[str, ...]
    are_warnings: bool = False


@dataclass(frozen=True)
class Meters:
    """How far things are: (name, share done from 0 to 1, None where that is not known, and words on it)."""

    rows: tuple[tuple[str, float | None, str], ...]


Part = Chart | Table | Snippet | Facts | Notes | Meters


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading."""

    title: str
    parts: tuple[Part, ...]
    lead: str = ""
    """A sentence to read before looking."""


@dataclass(frozen=True)
class Tile:
    """A number that a reader looks for first."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """One page: what it is about, its verdict, and its sections."""

    title: str
    kind: str
    """Kind of thing that it is about, in words: 'search', 'profile', ..."""
    verdict: str
    state: State
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]


def section(title: str, parts: Sequence[Part | None], lead: str = "") -> Section | None:
    """A section of the parts that there are; None without any."""
    found = tuple(part for part in parts if part is not None)
    return Section(title, found, lead) if found else None


def made_facts(made: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """Facts on when, by what and how something was made; none where that was not recorded."""
    if made is None:
        return ()
    packages = made.get("packages")
    told = ", ".join(f"{name} {found}" for name, found in packages.items()) if isinstance(packages, Mapping) else ""
    rows = [
        ("fitted on", made.get("source")),
        ("command", made.get("command") or "a call from Python"),
        ("finished", made.get("finished_at")),
        ("netlathe", made.get("netlathe")),
        ("Python", made.get("python")),
        ("system", made.get("system")),
        ("packages", told),
    ]
    return tuple((name, str(value)) for name, value in rows if value)
