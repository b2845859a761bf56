"""Pictures with a row for each layer: every label has its place, for small networks and for large ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from netlathe import pictures
from netlathe.archspace.presets import load_space
from netlathe.report import style

Drawn = Callable[[], Figure]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The figure of the picture that was saved last."""
    figures: list[Figure] = []
    make = style.figure_of

    def made(width_in: float, height: float) -> Figure:
        figures.append(make(width_in, height))
        return figures[-1]

    monkeypatch.setattr(style, "figure_of", made)
    monkeypatch.setattr(pictures, "_MOST_ROWS", 30)
    return lambda: figures[-1]


def check_labels(figure: Figure) -> list[str]:
    """All words of a figure, none of which covers another or is cut off."""
    figure.draw_without_rendering()
    texts: list[Text] = [one for legend in figure.legends for one in legend.get_texts()]
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [one for one in axes.get_xticklabels() if low <= one.get_position()[0] <= high]  # others are not drawn
        texts += [*axes.texts, *ticks, *axes.get_yticklabels(), axes.xaxis.label, axes.title, axes._left_title]
    boxes = [(one.get_text(), Text.get_window_extent(one)) for one in texts if one.get_text().strip()]
    frame = figure.bbox
    for index, (name, box) in enumerate(boxes):
        assert frame.x0 - 1 <= box.x0, name
        assert box.x1 <= frame.x1 + 1, name
        assert frame.y0 - 1 <= box.y0, name
        assert box.y1 <= frame.y1 + 1, name
        for other, place in boxes[index + 1 :]:
            across = min(box.x1, place.x1) - max(box.x0, place.x0)
            up = min(box.y1, place.y1) - max(box.y0, place.y0)
            assert across <= 1 or up <= 2, (name, other)
    return [name for name, _ in boxes]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Context in which a picture is made that needs no shrinking by more than a quarter to fit 640 pixels."""
    yield
    with Image.open(path) as image:
        assert 640 <= image.width <= 640 / 0.75


@pytest.mark.parametrize("name", ["tiny", "proxyless"])
def test_every_block_of_an_architecture_has_its_label(name: str, tmp_path: Path, drawn: Drawn) -> None:
    space, path = load_space(name), tmp_path / "architecture.png"
    architecture = space.architecture(space.reference)
    ms = [0.02 * (1 + index % 5) for index in range(len(architecture.blocks))]
    title = f"{architecture.name}: 1.23 ms predicted, target 1.5 ms on a device with quite a long name (Snapdragon 855)"
    with readable(path):
        pictures.draw_architectures([(title, architecture, ms)], path)
    words = check_labels(drawn())
    assert sum(" ms  " in one for one in words) == len(architecture.blocks)


def test_architectures_are_drawn_below_one_another_on_one_scale(tmp_path: Path, drawn: Drawn) -> None:
    space = load_space("tiny")
    networks = [space.architecture(space.reference), space.architecture([0] * len(space.reference))]
    rows = [(f"network {one.name}", one, [0.1] * len(one.blocks)) for one in networks]
    pictures.draw_architectures(rows, tmp_path / "both.png")
    check_labels(drawn())
    upper, lower = drawn().axes
    assert upper.get_xlim() == lower.get_xlim()
    assert (upper.bbox.x0, upper.bbox.x1) == (lower.bbox.x0, lower.bbox.x1)


@pytest.mark.parametrize("layers", [3, 30, 34])
def test_every_layer_of_a_compression_has_its_label(layers: int, tmp_path: Path, drawn: Drawn) -> None:
    kinds = ["float32", "int8", "int8-weights"]
    rows = [
        (f"stage{index}.a.layer.of.a.long.name.{index}", 64 + index, (32 + index) * (index % 7 > 0), kinds[index % 3])
        for index in range(layers)
    ]  # fmt: skip
    with readable(tmp_path / "widths.png"):
        pictures.draw_widths(
            rows, "mobilenet_v2: 5.3 to 2.9 ms on a device with quite a long name", tmp_path / "widths.png"
        )
    words = check_labels(drawn())
    assert "64, left out" in words
    assert any(one.endswith(", int8") for one in words)  # which its colour says, too
    if layers == 34:
        assert any("30 of 34 layers" in " ".join(one.split()) for one in words)
