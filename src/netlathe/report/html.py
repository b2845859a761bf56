"""A page as one HTML file that asks for nothing: charts inline, no script, light and dark, for paper and phones."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from netlathe.report.page import Chart, Facts, Meters, Notes, Page, Snippet, Table
from netlathe.report.style import DARK, VARIABLES, svg_of

_KINDS = {Chart: "chart", Table: "table", Snippet: "snippet", Facts: "facts", Notes: "notes", Meters: "meters"}


def render(page: Page, *, refresh_s: int | None = None) -> str:
    """The page as HTML. With `refresh_s`, a browser loads it again after so many seconds."""
    light = {variable: colour for colour, variable in VARIABLES.items()}
    dark = {VARIABLES[colour]: other for colour, other in DARK.items()}
    template = _environment().get_template("page.html.j2")
    return template.render(page=page, version=version("netlathe"), light=light, dark=dark, refresh_s=refresh_s)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("netlathe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(kind=lambda part: _KINDS[type(part)], svg=_svg)
    return found


def _svg(chart: Chart, *place: Any) -> Markup:
    """Both drawings of a chart: for wide pages and for narrow ones, of which a style sheet shows one."""
    name = "-".join(map(str, place))
    wide, narrow = (svg_of(chart, f"{name}-{width}", is_narrow=width == "narrow") for width in ("wide", "narrow"))
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(wide, narrow)
