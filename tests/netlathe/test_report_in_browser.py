"""Pages as a browser shows them: wide and narrow, light and dark; every chart drawn, nothing asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from report_pages import profile_file, run_folder

import netlathe as nl
from tests.chromium import PROGRAM, Browser, browser

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs chromium (Debian: apt install chromium)")

CHARTS = """[...document.querySelectorAll("figure")].map(figure => {
    const svg = [...figure.querySelectorAll("svg")].filter(one => one.getBoundingClientRect().width > 0);
    const box = svg.length ? svg[0].getBoundingClientRect() : {width: 0, height: 0};
    return {title: figure.querySelector("h3").textContent, shown: svg.length, width: box.width, height: box.height,
            parts: svg.length ? svg[0].querySelectorAll("path, use").length : 0};
})"""
OVERLAPS = """[...document.querySelectorAll("figure svg")].filter(one => one.getBoundingClientRect().width > 0)
    .flatMap(svg => {
        const texts = [...svg.querySelectorAll("text")].map(one => [one.textContent, one.getBoundingClientRect()]);
        return texts.flatMap(([name, a], index) => texts.slice(index + 1).filter(([_, b]) =>
            a.left + 1 < b.right && b.left + 1 < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom
        ).map(([other, _]) => name + " / " + other));
    })"""
BRIGHTNESS = """(() => { const found = getComputedStyle(document.SELECTOR).PROPERTY.match(/[0-9.]+/g).map(Number);
    return (found[0] + found[1] + found[2]) / 765; })()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    run, profile = run_folder(folder / "runs" / "one"), profile_file(folder / "p.sqlite")
    run_folder(folder / "runs" / "two", name="<b>another & longer name of a network</b>", accuracy={"torch": 0.9})
    nl.fit(profile, folder / "p.json", splits=("configuration",))
    given = {"run": run, "profile": profile, "predictor": folder / "p.json", "comparison": folder / "runs"}
    return {kind: nl.report(what, folder / f"{kind}.html").output for kind, what in given.items()}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["run", "profile", "predictor", "comparison"])
def test_every_chart_is_drawn_and_nothing_is_asked_for(
    kind: str, width: int, chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.open(pages[kind], width)
    assert chromium.complaints == []
    assert chromium.requests == [pages[kind].as_uri()]
    charts = chromium.ask(CHARTS)
    assert charts
    for chart in charts:
        assert chart["shown"] == 1, chart
        assert chart["width"] > 0.8 * min(width, 1080) - 40, chart
        assert chart["height"] > 60, chart
        assert chart["parts"] > 5, chart
    assert chromium.ask("document.documentElement.scrollWidth") <= width
    assert chromium.ask(OVERLAPS) == []


def brightness(chromium: Browser, selector: str, name: str) -> float:
    code = BRIGHTNESS.replace("SELECTOR", selector).replace("PROPERTY", name)
    return float(chromium.ask(code))


def test_a_page_follows_the_readers_light_or_dark_setting(chromium: Browser, pages: dict[str, Path]) -> None:
    text = 'querySelector("figure svg text")'
    for scheme, is_dark in (("light", False), ("dark", True)):
        chromium.open(pages["run"], 1280, scheme=scheme)
        assert (brightness(chromium, "body", "backgroundColor") < 0.3) == is_dark
        assert (brightness(chromium, text, "fill") > 0.6) == is_dark
    chromium.call("Emulation.setEmulatedMedia", media="print")
    assert brightness(chromium, text, "fill") < 0.4  # ink on paper, whatever the setting


def test_a_page_is_one_that_keyboard_and_screen_reader_can_use(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["run"], 1280)
    for event in ("keyDown", "keyUp"):
        chromium.call("Input.dispatchKeyEvent", type=event, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert chromium.ask("document.activeElement.textContent") == "To the content"
    assert chromium.ask("document.documentElement.lang") == "en"
    for each, what in (
        ("figure", "one.getAttribute('aria-labelledby') && one.querySelector('figcaption p').textContent"),
        ("section", "document.getElementById(one.getAttribute('aria-labelledby'))"),
        ("table", "one.caption && one.querySelector('th[scope=col]')"),
        (".scroll, pre", "one.tabIndex == 0"),
    ):
        code = f"[...document.querySelectorAll({each!r})].filter(one => !({what})).length"
        assert chromium.ask(code) == 0, each
    assert chromium.ask("[...document.querySelectorAll('[id]')].length == "
                        "new Set([...document.querySelectorAll('[id]')].map(one => one.id)).size")  # fmt: skip


def test_a_page_prints(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["run"], 1280)
    assert len(chromium.call("Page.printToPDF", printBackground=False)["data"]) > 50_000
