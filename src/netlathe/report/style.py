"""Looks of every picture and page: colours, sizes, ticks, labels that do not overlap; a figure as PNG or inline SVG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from netlathe.archspace.files import writing

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import FigureBase

    from netlathe.report.page import Chart, Draw

INK, MUTED, GRID, PAPER = "#1d2733", "#5f6b7a", "#e4e8ed", "#fefefe"
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#1b6ac9", "#c2620a", "#1f8a70", "#c4314b", "#7a52b3", "#9aa5b1"
PALE, BAND = "#a8cbf0", "#eef2f6"
DARK: Mapping[str, str] = {
    INK: "#e8edf2",
    MUTED: "#a3afbd",
    GRID: "#2d3845",
    PAPER: "#12181f",
    BLUE: "#6cb0ff",
    ORANGE: "#f2a154",
    GREEN: "#4fc3a1",
    RED: "#ff7d90",
    PURPLE: "#b794f4",
    GREY: "#75818e",
    PALE: "#2f5f94",
    BAND: "#1c252f",
}
"""Each colour of a picture, and what stands in its place on a dark page."""
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
"""Colours of series, in their order; told apart with every common kind of colour blindness."""
VARIABLES = {colour: f"--c{index}" for index, colour in enumerate(DARK)}
"""CSS variables of the colours, by which a chart follows the page from light to dark."""

_WIDE_IN, _NARROW_IN = 9.2, 3.9
"""Widths of a chart in inches: on a page, and on a page as wide as a phone."""
_SIZE = 9.0
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": _SIZE,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.titlesize": _SIZE + 1,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": _SIZE,
    "lines.linewidth": 1.8,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Room:
    """Room of a chart."""

    is_narrow: bool = False


@contextmanager
def styled() -> Iterator[None]:
    """Context in which figures have this style, whatever the user's own settings are."""
    with matplotlib.rc_context(matplotlib.rcParamsDefault), matplotlib.rc_context(_STYLE):
        yield


def figure_of(width_in: float, height: float) -> Figure:
    """A figure of that width in inches, and of that height in its width."""
    figure = Figure(figsize=(width_in, width_in * height))
    FigureCanvasAgg(figure)  # tells how large a text is
    return figure


def save_png(draw: Draw, path: Path, *, width_in: float = 9.0, height: float = 0.6) -> None:
    """Writes a chart as PNG, whole or not at all. Raises OSError."""
    with styled():
        figure = figure_of(width_in, height)
        draw(figure, Room())
        with writing(path) as part:
            figure.savefig(part, dpi=130, format="png")


def svg_of(chart: Chart, name: str, *, is_narrow: bool) -> Markup:
    """A chart as inline SVG, whose colours are the page's variables. `name` tells its ids from those of others."""
    width, height = (_NARROW_IN, chart.narrow_height) if is_narrow else (_WIDE_IN, chart.height)
    stream = io.StringIO()
    with styled(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure = figure_of(width, height)
        figure.patch.set_visible(False)
        chart.draw(figure, Room(is_narrow))
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Markup(_inline(stream.getvalue(), name))


_COLOUR = re.compile("|".join(VARIABLES))
_TIP = re.compile(r"""<g id=(["'])tip:(.*?)\1>""")
_ID = re.compile(r'(<g) id="[^"]*"')


def _inline(text: str, name: str) -> str:
    """The SVG element alone, its colours as variables, its groups without ids, tips as titles."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>|\s*<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = _COLOUR.sub(lambda found: f"var({VARIABLES[found[0]]})", svg)
    svg = _TIP.sub(lambda found: f'<g class="tip"><title>{found[2]}</title>', svg)
    svg = _ID.sub(r"\1", svg)
    svg = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r"\bxlink:href=", "href=", svg)
    return re.sub(r"\s*\n\s*", "\n", svg).replace("\n<", "<")


def tip(artist: Artist, text: str) -> None:
    """Words that a page shows where the pointer rests on the artist."""
    artist.set_gid(f"tip:{text}")  # which matplotlib escapes


def plain_logarithms(axis: Axis, low: float, high: float) -> None:
    """A logarithmic scale from low to high, with ticks at plain numbers: some four to eight of them, however little it
    spans."""
    if axis is axis.axes.xaxis:
        axis.axes.set(xscale="log", xlim=(low, high))
    else:
        axis.axes.set(yscale="log", ylim=(low, high))
    decades = math.log10(high / low)
    if decades < 0.7:
        axis.set_major_locator(FixedLocator(_round_values(low, high)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _round_values(low: float, high: float) -> list[float]:
    """Round values from low to high, at a distance of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, math.floor(high / step + 1e-9) + 1)]


def limits_around(values: Sequence[float], share: float = 0.12) -> tuple[float, float]:
    """Ends of a logarithmic axis with so much room beside these values, which are above zero."""
    low, high = min(values), max(values)
    room = max((high / low) ** share, 1.08)
    return low / room, high * room


def above(axes: Axes, text: str) -> None:
    """Writes what the vertical axis shows above it, where long words have room."""
    axes.set_title(text, fontweight="normal", color=MUTED, fontsize=9)


def legend_below(figure: FigureBase, axes: Axes, room: Room, *, most: int = 6) -> None:
    """The legend of the axes, below the figure."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(len(handles), 2 if room.is_narrow else most)
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=1.6, columnspacing=1.4)


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and end."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most - most // 2) :]}"


_PLACES = [
    (across * distance, up * distance)
    for distance in (1.0, 2.0, 3.5)
    for across, up in ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.6), (0, -1.6), (1.6, 0), (-1.6, 0))
]
"""Places around a point that its label may stand at, the best first."""


def label_points(
    axes: Axes, labels: Sequence[tuple[str, float, float]], points: Sequence[tuple[float, float]] = ()
) -> list[str]:
    """Labels (text, x, y) beside their points, of which none covers another, or one of the `points`; returns those
    that found no place. The most important come first. All else must be drawn already: nothing moves afterwards."""
    if not labels:
        return []
    figure: Any = axes.figure  # whose canvas is figure_of's
    renderer = figure.canvas.get_renderer()
    figure.draw_without_rendering()
    frame = axes.get_window_extent(renderer)
    scale = figure.dpi / 72
    taken = [axes.transData.transform(point) for point in [*points, *((x, y) for _, x, y in labels)]]
    boxes: list[tuple[float, float, float, float]] = [
        (x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale) for x, y in taken
    ]
    left_out = []
    for text, x, y in labels:
        for across, up in _PLACES:
            label = axes.annotate(
                text,
                (x, y),
                (7 * across, 6 * up),
                textcoords="offset points",
                fontsize=_SIZE - 0.5,
                ha=("right", "center", "left")[(across > 0) - (across < 0) + 1],
                va=("top", "center", "bottom")[(up > 0) - (up < 0) + 1],
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6} if abs(across) > 2 else None,
            )
            label.set_in_layout(False)
            label.update_positions(renderer)
            box = Text.get_window_extent(label, renderer).padded(1.5 * scale)  # without its line
            is_inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            own = (*box.p0, *box.p1)
            if is_inside and not any(_overlap(own, other) for other in boxes):
                boxes.append(own)
                break
            label.remove()
        else:
            left_out.append(text)
    figure.set_layout_engine("none")
    return left_out


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
