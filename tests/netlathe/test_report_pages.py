"""`netlathe report`: pages of runs, profiles and predictors, made of their own files alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import profile_file, run_folder, small_run
from test_cli import answer, netlathe, refusal
from test_own_pieces import _undrawn, search

import netlathe as nl
from netlathe.events import Listener
from netlathe.profiler.testing import SETUP, SimulatedDevice
from netlathe.report import profile_content
from netlathe.report.page import ORIGIN
from netlathe.report.run_content import read_run
from netlathe.report.snippets import snippets_of, torch_snippet
from netlathe.report.verdict import verdict_of
from netlathe.report.writing import make_page

__all__ = ["_undrawn"]  # a fixture

SECTIONS = (
    "Latency and accuracy", "Layer by layer", "The choice", "Learning", "Classes", "Files, and how to use them", "Time",
    "Where this comes from",
)  # fmt: skip


class Notes(Listener):
    """What a workflow tells."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, warnings: Any) -> None:
        self.warnings += warnings


def headings(page: Path) -> list[str]:
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", page.read_text())


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches pages on that are made unasked."""
    monkeypatch.delenv("NETLATHE_PAGES")


def test_a_runs_page_begins_with_its_verdict_and_tells_all_that_is_recorded(tmp_path: Path) -> None:
    made = nl.report(run_folder(tmp_path / "run"))
    assert made.output == tmp_path / "run" / "report.html"
    assert made.bytes < 3_000_000
    assert "ms on predictor (measured, 90 % interval" in made.verdict
    assert "below its target of 0.0484 ms" in made.verdict
    assert re.search(r"95 % interval 9\d\.\d % to 9\d\.\d %\) of 360 test images", made.verdict)
    assert "baseline" in made.verdict
    assert [one for one in headings(made.output) if one != "Warnings"] == [*SECTIONS]
    text = made.output.read_text()
    for told in ("reference_w0.35", "bound by", "multiplier", "FloatArray(10)", "netlathe search --space tiny", "seed"):
        assert told in text


@pytest.mark.parametrize(
    ("ms", "words"), [(0.0484, "just at its target"), (0.0484001, "just above its target"), (0.044, "9.1 % below its")]
)
def test_a_latency_at_its_target_is_not_called_zero_percent_below(ms: float, words: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    report = json.loads((folder / "report.json").read_text())
    report["targets"][0].update(target_ms=0.0484, measured_ms=ms)
    (folder / "report.json").write_text(json.dumps(report))
    assert words in verdict_of(read_run(folder)).sentence


def test_what_a_run_did_not_record_is_left_out_and_nothing_is_invented(tmp_path: Path) -> None:
    lost = ("search.json", "choice.json", "costs.json", "made.json", "baselines.json", "export.json", "train.csv")
    made = nl.report(run_folder(tmp_path / "old", *lost, "training.json"))
    assert headings(made.output) == ["The choice", "Files, and how to use them", "Time", "Where this comes from"]
    assert "baseline" not in made.verdict


def test_a_target_that_was_missed_is_bad_news(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run")
    report = json.loads((folder / "report.json").read_text())
    report["targets"][0] |= {"measured_ms": 0.06, "is_met": False}
    (folder / "report.json").write_text(json.dumps(report))
    made = nl.report(folder)
    assert "above its target" in made.verdict
    assert 'class="verdict bad"' in made.output.read_text()


def test_a_prediction_whose_interval_reaches_beyond_the_target_is_no_good_news_yet(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run")
    report = json.loads((folder / "report.json").read_text())
    report["targets"][0] |= {"measured_ms": None, "is_met": None}
    (folder / "report.json").write_text(json.dumps(report))
    made = nl.report(folder)
    assert "not measured" in made.verdict
    assert 'class="verdict open"' in made.output.read_text()


def test_names_from_files_are_text_and_no_markup(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    made = nl.report(
        run_folder(tmp_path / "run", "search.json", "train.csv", name=hostile, warnings=[f"{hostile} & more"])
    )
    text = made.output.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text


@pytest.mark.parametrize("name", ["report.json", "search.json", "costs.json", "baselines.json"])
def test_a_damaged_record_is_one_clear_error(name: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    kept = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({"schema": kept["schema"]}))
    assert re.search(f"{name}: lacks or confuses", refusal("report", folder))
    assert not (folder / "report.html").exists()


def test_a_page_replaces_a_page_and_no_file_of_the_users_own(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run")
    (folder / "report.html").write_text("<p>mine</p>")
    assert "is there already, and is not a page of `netlathe report`" in refusal("report", folder)
    assert (folder / "report.html").read_text() == "<p>mine</p>"
    for _ in range(2):
        answer("report", folder, "--output", tmp_path / "page.html")
    answer("report", folder, "--force")
    assert "<p>mine" not in (folder / "report.html").read_text()


def test_what_is_no_run_profile_or_predictor_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "expected the folder of a finished run, a profile or a predictor" in refusal(
        "report", tmp_path / "notes.txt"
    )
    assert "predictors that ship are pixel1-cpu" in refusal("report", tmp_path / "nothing")
    assert "holds a finished run" in refusal("report", tmp_path)
    run = small_run(tmp_path / "run")
    assert "runs with predictors do not compare" in refusal(
        "report", run, "pixel4-cpu", "--output", tmp_path / "x.html"
    )


def test_a_profiles_page_tells_stability_drift_and_what_was_measured_again(tmp_path: Path) -> None:
    made = answer("report", profile_file(tmp_path / "p.sqlite"))
    page = tmp_path / "p.sqlite.html"
    assert made["output"] == str(page)
    assert "11 latencies on" in made["verdict"]
    assert "10 of them stable" in made["verdict"]
    assert headings(page) == [
        "Warnings", "Stability", "The machine meanwhile", "Measured again", "Without a latency", "Records", "Setup",
        "Where this comes from",
    ]  # fmt: skip
    text = page.read_text()
    for told in ("38.1 °C is too warm", "battery 30.0 to 37.6 °C", "no such op &amp; &lt;none&gt;", "block &lt;11&gt;"):
        assert told in text


def test_a_predictors_page_tells_the_errors_that_its_fit_told(tmp_path: Path) -> None:
    found = nl.fit(profile_file(tmp_path / "p.sqlite"), tmp_path / "p.json", residual="none", splits=("configuration",))
    made = nl.report(tmp_path / "p.json")
    assert made.output == tmp_path / "p.json.html"
    assert headings(made.output) == ["Errors on what was held out", "Kinds", "Intervals", "How it was fitted", ORIGIN]
    metrics = found.validation.splits["configuration"].metrics
    assert f"(mean error {100 * metrics.mape:.1f} %)" in made.verdict


def test_a_shipped_predictors_page_shows_its_card(tmp_path: Path) -> None:
    made = nl.report("pixel4-cpu-networks", tmp_path / "card.html")
    assert headings(made.output) == ["Card", "How it was fitted", ORIGIN]
    assert "within ±10 %" in made.verdict


def test_what_was_held_out_is_kept_to_single_precision(tmp_path: Path) -> None:
    from netlathe.predictor.files import FILE_KIND, FILE_VERSION, read_held_out
    from netlathe.predictor.validation.crossval import CrossValidation

    found = nl.fit(
        profile_file(tmp_path / "p.sqlite"), tmp_path / "p.json", residual="none", splits=("configuration",)
    ).validation
    kept = read_held_out(tmp_path / "p.json", FILE_KIND, FILE_VERSION, CrossValidation.from_json)
    assert kept is not None
    own, again = found.splits["configuration"], kept.splits["configuration"]
    assert (own.names, own.kinds, found.noise_floor) == (again.names, again.kinds, kept.noise_floor)
    np.testing.assert_allclose(own.half_widths, again.half_widths, rtol=1e-6)
    assert own.metrics.mape == pytest.approx(again.metrics.mape, rel=1e-5)


def test_several_runs_are_compared_on_one_curve(tmp_path: Path) -> None:
    one = small_run(tmp_path / "one")
    small_run(tmp_path / "two", name="another", accuracy={"torch": 0.5})
    made = nl.report(tmp_path)
    assert made.kind == "comparison"
    assert made.output == tmp_path / "report.html"
    text = made.output.read_text()
    assert "beaten by another" in text
    made = nl.report([one, tmp_path / "two"], tmp_path / "both.html")
    assert made.title == "2 runs"


def test_several_predictors_and_profiles_are_compared(tmp_path: Path) -> None:
    made = nl.report(["pixel4-cpu", "pixel1-cpu"], tmp_path / "x.html")
    assert "is within ±10 % most often" in made.verdict
    profiles = [profile_file(tmp_path / f"{name}.sqlite") for name in "ab"]
    made = nl.report(profiles, tmp_path / "y.html")
    assert "1.000" in made.output.read_text()


@pytest.mark.usefixtures("pages")
def test_profiles_fits_and_searches_make_their_pages_and_tell_where(tmp_path: Path) -> None:
    told = Notes()
    profile, predictor = tmp_path / "p.sqlite", tmp_path / "p.json"
    nl.profile(
        profile, space="tiny", device=SimulatedDevice(setup=SETUP), blocks=20, networks=3, rounds=4, progress=told
    )
    nl.fit(profile, predictor, residual="none", splits=("configuration",), progress=told)
    report = search(tmp_path / "run", progress=told, baselines=(1,))
    assert not list(tmp_path.rglob("*progress*.json"))
    (made,) = profile_content.read_profile(profile).made
    assert made[1]["netlathe"] == nl.__version__
    assert made[1]["packages"]["numpy"] == np.__version__
    told_by_page = (tmp_path / "p.json.html").read_text()
    assert f"<dt>fitted on</dt><dd>{profile}</dd>" in told_by_page
    assert f"<dt>netlathe</dt><dd>{nl.__version__}</dd>" in told_by_page
    pages = [tmp_path / "p.sqlite.html", tmp_path / "p.json.html", tmp_path / "run" / "report.html"]
    assert [note for note in told.notes if "Page" in note] == [f"  Page: {page}" for page in pages]
    assert all(page.is_file() for page in pages)
    assert report.name in pages[-1].read_text()
    assert "reference" in pages[-1].read_text()
    content = read_run(tmp_path / "run")
    assert sum(one.images for one in content.classes) == content.test_images
    assert sum(one.right for one in content.classes) == round(content.own_accuracy * content.test_images)  # type: ignore[operator]
    for one in (torch_snippet(content), *snippets_of(content)):
        assert one is not None
        if "Kotlin" not in one.title:
            run_in(tmp_path / "run", one.code)
    search(tmp_path / "run", baselines=(1,), progress=told)
    assert len([note for note in told.notes if "Page" in note]) == 3


@pytest.mark.usefixtures("pages")
def test_no_page_is_made_where_none_is_wanted(tmp_path: Path) -> None:
    profile = tmp_path / "p.sqlite"
    nl.profile(profile, device=SimulatedDevice(setup=SETUP), blocks=20, networks=3, rounds=3, page=False)
    answer(
        "fit", profile, "--output", tmp_path / "p.json", "--residual", "none", "--splits", "configuration", "--no-page"
    )
    search(tmp_path / "run", page=False)
    assert (tmp_path / "run" / "report.json").is_file()
    assert list(tmp_path.rglob("*.html")) == []


def run_in(folder: Path, code: str) -> None:
    """Runs lines of code as a user does, in the folder that holds the files."""
    import os

    before = os.getcwd()
    os.chdir(folder)
    try:
        exec(code, {})
    finally:
        os.chdir(before)


@pytest.mark.usefixtures("pages")
def test_a_page_that_cannot_be_made_is_a_warning_and_no_error(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run")
    (folder / "report.html").write_text("<p>mine</p>")
    told = Notes()
    make_page(folder, told)
    assert "no page was made" in told.warnings[0]
    assert "netlathe report" in told.warnings[0]
    (folder / "report.html").unlink()
    (folder / "made.json").write_text("{")
    make_page(folder, told)
    assert "made.json" in told.warnings[1]
    assert told.notes == []


def test_pages_are_switched_off_by_the_environment(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run")
    make_page(folder, Notes())
    assert not (folder / "report.html").exists()


def test_the_command_tells_its_verdict(tmp_path: Path) -> None:
    shown = netlathe("report", small_run(tmp_path / "run"))
    assert "below its target" in shown.stderr
    assert "Wrote" in shown.stderr
