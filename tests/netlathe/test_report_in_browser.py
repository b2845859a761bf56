"""Pages as a browser shows them: wide and narrow, light and dark; every chart drawn, nothing asked for."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from report_pages import profile_file, run_folder

import netlathe as nl
from netlathe.events import Listener
from netlathe.progress_files import ProgressFile
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
CUT = """[...document.querySelectorAll(".tiles .value, .tiles .note")]
    .filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"""
"""Tiles whose words reach beyond them."""
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
    assert chromium.ask(CUT) == []


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
    unnamed = "tbody tr > :first-child:not(th[scope=row])"
    for each, what in (
        ("figure", "one.getAttribute('aria-labelledby') && one.querySelector('figcaption p').textContent"),
        ("section", "document.getElementById(one.getAttribute('aria-labelledby'))"),
        (
            "table",
            f"one.caption && one.querySelector('th[scope=col]') && !one.querySelector({unnamed!r})",
        ),
        (".scroll, pre", "one.tabIndex == 0"),
    ):
        code = f"[...document.querySelectorAll({each!r})].filter(one => !({what})).length"
        assert chromium.ask(code) == 0, each
    assert chromium.ask("[...document.querySelectorAll('[id]')].length == "
                        "new Set([...document.querySelectorAll('[id]')].map(one => one.id)).size")  # fmt: skip


FOCUSED = """(() => { const one = document.activeElement, style = getComputedStyle(one);
    return [one.tagName, style.outlineStyle, parseFloat(style.outlineWidth)]; })()"""


def test_keyboard_focus_is_always_visible(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["run"], 1280)
    seen = set()
    for _ in range(60):
        for event in ("keyDown", "keyUp"):
            chromium.call("Input.dispatchKeyEvent", type=event, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        tag, style, width = chromium.ask(FOCUSED)
        if tag == "BODY":
            break
        assert (style, width >= 2) == ("solid", True), tag
        seen.add(tag)
    assert {"A", "SUMMARY", "DIV", "PRE"} <= seen  # links, folded tables, tables that scroll, code


FAINT = """(() => {
    const parts = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(value => value / 255);
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = colour => { const [r, g, b] = parts(colour).map(linear);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ground = one => { for (; one; one = one.parentElement) {
        const colour = getComputedStyle(one).backgroundColor;
        if (colour != "rgba(0, 0, 0, 0)") return colour; } return "rgb(255, 255, 255)"; };
    const words = one => [...one.childNodes].some(node => node.nodeType == 3 && node.textContent.trim());
    return [...document.querySelectorAll("body *")].filter(words).filter(one => one.getBoundingClientRect().width > 0)
        .flatMap(one => {
            const style = getComputedStyle(one), is_drawn = one instanceof SVGElement;
            if (is_drawn && one.tagName != "text") return [];
            const [a, b] = [light(is_drawn ? style.fill : style.color), light(ground(one))];
            const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            return contrast < 4.5 ? [one.tagName + " " + one.textContent.slice(0, 40) + " " + contrast.toFixed(2)] : [];
        });
})()"""
"""Words whose contrast is less than WCAG 2.1 asks for (1.4.3, level AA)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["run", "profile", "predictor", "comparison"])
def test_words_stand_out_from_their_ground(kind: str, scheme: str, chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages[kind], 1280, scheme=scheme)
    assert chromium.ask(FAINT) == []


A4_IN = (8.27, 11.69)


@pytest.mark.parametrize("kind", ["run", "profile", "predictor", "comparison"])
def test_a_page_prints_on_a4(kind: str, chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages[kind], round(96 * (A4_IN[0] - 0.8)))
    chromium.call("Emulation.setEmulatedMedia", media="print")
    assert chromium.ask("document.documentElement.scrollWidth <= innerWidth")  # nothing is cut off at the right
    assert chromium.ask("[...document.querySelectorAll('section')].filter(one => one.offsetHeight && "
                        "one.innerText.trim() == one.querySelector('h2').innerText.trim()).length") == 0  # fmt: skip
    charts = chromium.ask(CHARTS)
    assert all(chart["shown"] == 1 for chart in charts)
    pdf = chromium.call("Page.printToPDF", printBackground=False, paperWidth=A4_IN[0], paperHeight=A4_IN[1])["data"]
    content = base64.b64decode(pdf)
    sheets = content.count(b"/Type /Page\n")
    assert 1 <= sheets <= 12
    assert content.count(b"/MediaBox [0 0 595") == sheets or content.count(b"/MediaBox [0 0 594") == sheets


def test_a_watched_page_shows_how_far_it_is_wide_and_narrow(chromium: Browser, tmp_path: Path) -> None:
    kinds = ("search", "compression")
    with ExitStack() as stack:
        for kind in kinds:
            folder = tmp_path / "runs" / kind
            folder.mkdir(parents=True)
            work = stack.enter_context(ProgressFile(Listener(), folder / "progress.json", kind, kind))
            work.phase(kind, is_done=False)
            update = stack.enter_context(work.progress("training a_network_with_a_long_name", "steps"))
            update(0, 300, "")
            update(90, 300, "loss 1.2")
            for step in range(40):
                work.scalar("train/loss", 2.0 / (1 + step), step + 1)
            work.phase("export", is_done=False)
        with pytest.raises(KeyboardInterrupt):
            nl.watch(tmp_path / "runs", tmp_path / "x.html", sleep=interrupted)
    for width in (1280, 390):
        chromium.open(tmp_path / "x.html", width)
        assert chromium.complaints == []
        meters = "[...document.querySelectorAll('progress')].map(one => [one.value, one.offsetWidth > innerWidth / 2])"
        assert chromium.ask(meters) == [[0.3, True]] * 2 * len(kinds)  # of all, and of each
        assert chromium.ask("document.documentElement.scrollWidth") <= width
        assert chromium.ask(OVERLAPS) == []
        assert chromium.ask(FAINT) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_time_left_of_a_whole_run_fits_its_tile(width: int, chromium: Browser, tmp_path: Path) -> None:
    times = [NOW_S]
    work = ProgressFile(Listener(), tmp_path / "progress.json", "search", "mine", clock=lambda: times[-1])
    with work, work.progress("searching", "steps") as update:
        work.plan({"search": 3.0, "choice": None, "training": 2.0, "export": None, "run": None})
        work.phase("search", is_done=False)
        update(0, 1120, "")
        times.append(NOW_S + 1300)
        update(450, 1120, "")
        with pytest.raises(KeyboardInterrupt):
            nl.watch(tmp_path, tmp_path / "x.html", sleep=interrupted, clock=lambda: times[-1])
        chromium.open(tmp_path / "x.html", width)
    assert "about 1 h 8 min of the whole run" in chromium.ask("document.body.innerText")  # 1,936 s, and 2/3 of 3,236
    assert chromium.ask(CUT) == []
    assert chromium.ask("document.documentElement.scrollWidth") <= width


NOW_S = 1_700_000_000.0


def interrupted(seconds: float) -> None:
    raise KeyboardInterrupt
