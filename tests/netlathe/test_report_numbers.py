"""Numbers and words of pages: intervals, verdicts, ticks, and labels that do not overlap."""

from __future__ import annotations

import math
import re
from html import unescape
from itertools import combinations

import pytest
from matplotlib.text import Annotation

from netlathe.report.charts import Mark, draw_judged, draw_marks
from netlathe.report.page import Chart
from netlathe.report.style import DARK, Room, _round_values, figure_of, label_points, styled, svg_of
from netlathe.report.verdict import interpolated, wilson
from netlathe.runs.report import Baseline


@pytest.mark.parametrize(
    ("share", "images", "low", "high"),
    [(1.0, 10, 0.7225, 1.0), (0.5, 100, 0.4038, 0.5962), (0.0, 20, 0.0, 0.1611), (0.81, 263, 0.7583, 0.8529)],
)
def test_an_accuracys_interval_is_wilsons(share: float, images: int, low: float, high: float) -> None:
    assert wilson(share, images) == pytest.approx((low, high), abs=1e-3)


def test_without_images_there_is_no_interval() -> None:
    assert wilson(0.5, 0) is None


def test_between_two_baselines_accuracy_is_linear_in_the_logarithm_of_latency() -> None:
    curve = [Baseline("small", 1.0, 0.5), Baseline("large", 100.0, 0.9), Baseline("slow", 200.0, 0.95, 400.0)]
    assert interpolated(curve, 10.0) == pytest.approx(0.7)
    assert interpolated(curve, 200.0) == pytest.approx(0.925)
    with pytest.raises(ValueError, match="beyond"):
        interpolated(curve, 0.5)


def test_ticks_of_a_short_logarithmic_axis_are_round_numbers() -> None:
    assert _round_values(0.0399, 0.0511) == [0.04, 0.042, 0.044, 0.046, 0.048, 0.05]
    assert _round_values(20.0, 35.0) == [20.0, 25.0, 30.0, 35.0]


def drawn_labels(marks: list[Mark]) -> list[tuple[float, float, float, float]]:
    with styled():
        figure = figure_of(6.0, 0.8)
        draw_marks(figure, Room(), marks)
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        found = [text for axes in figure.axes for text in axes.texts if isinstance(text, Annotation)]
        return [tuple(super(Annotation, one).get_window_extent(renderer).extents) for one in found]  # type: ignore[misc]


def test_labels_of_a_crowd_never_overlap() -> None:
    crowd = [Mark(f"network-{index}", 1 + 0.01 * index, 0.9 + 0.0005 * index, "other") for index in range(30)]
    boxes = drawn_labels(crowd)
    assert 3 <= len(boxes) < 30  # those that find no place are in the table
    for one, other in combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_the_most_important_label_is_placed_first_and_those_left_out_are_told() -> None:
    with styled():
        figure = figure_of(3.0, 1.0)
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        same = [(f"a rather long name {index}", 0.5, 0.5) for index in range(40)]
        left_out = label_points(axes, same)
    assert same[0][0] not in left_out
    assert 0 < len(left_out) < 40


def test_a_charts_colours_are_the_pages_and_its_ids_its_own() -> None:
    timed = [("one", 1.0, 1.1), ("two", 2.0, 2.05)]
    chart = Chart("t", "s", lambda figure, room: draw_judged(figure, room, timed, 2.2, (0.9, 1.1)))
    first, other = (str(svg_of(chart, name, is_narrow=False)) for name in ("first", "other"))
    assert not any(colour in first for colour in DARK)
    assert "var(--c7)" in first
    assert set(re.findall(r'id="([^"]*)"', first)).isdisjoint(re.findall(r'id="([^"]*)"', other))
    assert first == str(svg_of(chart, "first", is_narrow=False))


def test_what_a_pointer_is_told_of_a_hostile_name_is_text() -> None:
    name = '<script>alert("x")</script> & "quotes"'
    chart = Chart("t", "s", lambda figure, room: draw_marks(figure, room, [Mark(name, 1.0, 0.9, "chosen")]))
    svg = str(svg_of(chart, "n", is_narrow=False))
    assert "<script" not in svg
    assert any(unescape(found).startswith(name) for found in re.findall("<title>(.*?)</title>", svg))


def test_one_point_alone_is_drawn_with_room_around_it() -> None:
    with styled():
        figure = figure_of(6.0, 0.6)
        draw_marks(figure, Room(), [Mark("only", 2.0, 0.9, "front")])
    low, high = figure.axes[0].get_xlim()
    assert low < 2.0 < high < 4.0
    assert math.isfinite(sum(figure.axes[0].get_ylim()))
