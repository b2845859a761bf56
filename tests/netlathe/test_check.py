"""Latency limits as a test for CI: what passes, what fails, what is in doubt, and what is never taken for a pass."""

from __future__ import annotations

import json
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import netlathe

import netlathe as nl
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.graph import Graph
from netlathe.archspace.jsonfile import write_json
from netlathe.archspace.networks import network
from netlathe.archspace.records import Setup
from netlathe.check_files import change_words
from netlathe.checked import Checked, CheckReport, Latency, with_baseline, with_limit
from netlathe.checking import _kernel_label
from netlathe.outputs import kind_of
from netlathe.profiler.testing import SimulatedDevice

P = "pixel4-cpu-networks"
MODEL = nl.LatencyPredictor.load(P)
SMALL, LARGE = "mobilenet_v2_0.75", "mobilenet_v2"
SETUP = Setup("a phone", "a chip", "an OS", "tflite", "2.1")


def latency(ms: float, half: float = 0.1, setup: Setup = SETUP) -> Latency:
    return Latency(ms, ms * (1 - half), ms * (1 + half), setup)


class Scaled:
    """A model of the user's own: a millisecond per million MACs, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.setup_ = factor, SETUP

    def predict(self, graphs: Sequence[Graph]) -> list[float]:
        return [self.factor * 1e-6 * graph.macs for graph in graphs]


# Verdicts


@pytest.mark.parametrize(
    ("limit", "verdict"), [(8.9, "failed"), (9.0, "warned"), (10.0, "warned"), (10.9, "warned"), (11.0, "passed")]
)
def test_a_network_fails_where_its_whole_interval_is_above_the_limit(limit: float, verdict: str) -> None:
    assert with_limit(Checked("n", latency(10)), limit).verdict == verdict


def test_a_network_without_a_latency_never_passes() -> None:
    one = Checked("n", error="cannot be read")
    assert with_limit(one, 1e9).verdict == "error"
    assert with_baseline(one, latency(1), 9.0, is_exact=True).verdict == "error"


@pytest.mark.parametrize(
    ("now", "before", "is_exact", "verdict"),
    [
        (10.4, 10.0, True, "passed"), (10.6, 10.0, True, "failed"), (9.0, 10.0, True, "passed"),
        (10.6, 10.0, False, "warned"), (10.4, 10.0, False, "warned"), (8.0, 10.0, False, "passed"),
        (14.0, 10.0, False, "failed"),
    ],
)  # fmt: skip
def test_a_network_fails_where_it_got_slower_beyond_doubt(
    now: float, before: float, verdict: str, *, is_exact: bool
) -> None:
    one = with_baseline(Checked("n", latency(now)), latency(before), 0.05, is_exact=is_exact)
    assert one.verdict == verdict
    assert one.slower == pytest.approx(now / before - 1)
    assert with_baseline(Checked("n", latency(now)), latency(before), None, is_exact=is_exact).verdict == "passed"


def test_latencies_of_unlike_setups_do_not_compare() -> None:
    before = latency(10, setup=replace(SETUP, threads=4))
    one = with_baseline(Checked("n", latency(1)), before, 0.05, is_exact=True)
    assert one.verdict == "error"
    assert "threads: 1 / 4" in one.error
    assert one.slower is None


def test_a_network_that_the_baseline_could_not_check_is_in_doubt() -> None:
    assert with_baseline(Checked("n", latency(1)), None, 0.05, is_exact=True).verdict == "warned"


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [("", 0), ("pw", 0), ("pf", 1), ("pe", 2), ("fe", 2)],
)
def test_the_exit_code_is_of_the_worst(verdicts: str, code: int) -> None:
    made = {
        "p": Checked("p", latency(1)), "w": Checked("w", latency(1), doubts=("perhaps",)),
        "f": Checked("f", latency(1), failures=("slow",)), "e": Checked("e", error="none"),
    }  # fmt: skip
    assert CheckReport(tuple(made[one] for one in verdicts), 1.0, None, 0.9).exit_code == code


# By a predictor


def test_each_network_is_judged_by_its_predicted_interval() -> None:
    found = {name: nl.predict(name, MODEL) for name in (SMALL, LARGE)}
    between = (found[SMALL].high_ms + found[LARGE].low_ms) / 2
    report = nl.check([SMALL, LARGE], max_ms=between, predictor=MODEL)
    assert [one.verdict for one in report.networks] == ["passed", "failed"]
    for one in report.networks:
        assert one.latency == Latency(
            found[one.name].latency_ms, found[one.name].low_ms, found[one.name].high_ms, found[one.name].setup,
            one.latency.kernels if one.latency else None,
        )  # fmt: skip
    assert report.exit_code == 1
    assert nl.check(LARGE, max_ms=found[LARGE].latency_ms, predictor=MODEL).networks[0].verdict == "warned"
    assert nl.check(LARGE, max_ms=found[LARGE].latency_ms, predictor=MODEL).exit_code == 0


@pytest.mark.parametrize("limit", [math.nan, math.inf, 0.0, -1.0])
def test_limits_that_are_none_are_refused_before_any_work(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlathe.checking.load_predictor", lambda *_, **__: pytest.fail("worked"))
    with pytest.raises(nl.NetlatheError, match="--max-ms"):
        nl.check(SMALL, max_ms=limit, predictor=MODEL)
    if limit != 0.0:
        with pytest.raises(nl.NetlatheError, match="--max-slower"):
            nl.check(SMALL, max_slower=limit, baseline="b.json", predictor=MODEL)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((SMALL, "--max-ms", "nan", "--predictor", P), "--max-ms nan: a limit is a number of milliseconds above zero"),
        ((SMALL, "--max-ms", "20"), "name either a predictor or a device"),
        ((SMALL, "--max-ms", "20", "--predictor", P, "--device", "local"), "name either a predictor or a device"),
        ((SMALL, "--predictor", P), "there is nothing to check"),
        ((SMALL, "--predictor", P, "--max-slower", "5%"), "name what to compare with"),
        ((SMALL, "--predictor", P, "--max-slower", "5", "--baseline", "b.json"), "expected a number of percent"),
        ((SMALL, "--predictor", P, "--baseline", "none.json"), "there is no such file"),
        ((SMALL, "--max-ms", "20", "--predictor", "none"), "there is no such file"),
        ((SMALL, "--max-ms", "20", "--predictor", P, "--coverage", "2"), "coverage"),
        ((SMALL, SMALL, "--max-ms", "20", "--predictor", P), "is given twice"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_error_and_exit_code_2(words: Sequence[str], message: str) -> None:
    result = netlathe("check", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert message in " ".join(result.stderr.split())


def test_what_cannot_be_read_or_priced_is_an_error_and_the_others_are_checked(tmp_path: Path) -> None:
    (tmp_path / "damaged.onnx").write_bytes(b"\x08\x07nothing")
    files = ["none.tflite", tmp_path / "damaged.onnx", "mobilenet_v7", SMALL]
    result = netlathe("check", *files, "--max-ms", 1e6, "--predictor", P, "--junit", tmp_path / "j.xml", "--json", "-")
    assert result.exit_code == 2
    told = {one["name"]: one for one in json.loads(result.stdout.splitlines()[-1])["networks"]}
    assert [one["verdict"] for one in told.values()] == ["error"] * 3 + ["passed"]
    assert "there is no such file" in told["none.tflite"]["error"]
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("errors"), suite.get("failures"), len(suite.findall(".//error"))) == ("3", "0", 3)


def test_a_network_unlike_what_was_measured_is_in_doubt_whatever_the_limit() -> None:
    (one,) = nl.check("mobilenet_v2_0.35_96", max_ms=1e6, predictor=MODEL).networks
    assert one.verdict == "warned"
    assert one.messages[0].startswith("mobilenet_v2_0.35_96 is unlike what the predictor was fitted on")


def test_a_folder_stands_for_the_models_below_it_and_names_are_as_short_as_can_be(tmp_path: Path) -> None:
    for name in ("a/x.onnx", "b/x.onnx", "b/y.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(write_onnx(network(SMALL).graph()))
    names = [one.name for one in nl.check(tmp_path / "b", max_ms=100, predictor=MODEL).networks]
    assert names == ["x.onnx", "y.onnx"]
    names = [one.name for one in nl.check(tmp_path, max_ms=100, predictor=MODEL).networks]
    assert names == [str(tmp_path / name) for name in ("a/x.onnx", "b/x.onnx", "b/y.onnx")]


# Baselines


def baseline(path: Path, what: object = SMALL, predictor: object = MODEL, **changes: Any) -> Path:
    """The JSON of a check, with its content changed."""
    nl.check(what, max_ms=1e9, predictor=predictor, json=path)  # type: ignore[arg-type]
    if changes:
        data = json.loads(path.read_text())
        data.pop("schema")
        write_json(path, "check", 1, {**data, **changes})
    return path


def test_the_same_network_is_as_fast_as_it_was(tmp_path: Path) -> None:
    report = nl.check(SMALL, baseline=baseline(tmp_path / "b.json"), max_slower=0.0, predictor=MODEL)
    (one,) = report.networks
    assert (one.verdict, one.slower, one.changes, report.warnings) == ("passed", 0.0, (), ())


def test_a_slower_network_fails_and_its_kernels_say_why(tmp_path: Path) -> None:
    before = network(SMALL).graph()
    now = network("mobilenet_v2").graph()
    path = tmp_path / "net.onnx"
    path.write_bytes(write_onnx(before))
    base = baseline(tmp_path / "b.json", path)
    path.write_bytes(write_onnx(now))
    words = (path, "--predictor", P, "--baseline", base, "--max-slower", "5%", "--json", tmp_path / "now.json")
    result = netlathe("check", *words, "--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md")
    assert result.exit_code == 1
    (one,) = json.loads((tmp_path / "now.json").read_text())["networks"]
    found = {name: nl.predict(graph, MODEL).latency_ms for name, graph in (("before", before), ("now", now))}
    assert one["slower"] == pytest.approx(found["now"] / found["before"] - 1)
    assert sum(change["change_ms"] for change in one["changes"]) == pytest.approx(
        found["now"] - found["before"], rel=0.05
    )
    sizes = [abs(change["change_ms"]) for change in one["changes"]]
    assert sizes == sorted(sizes, reverse=True)
    for text in (result.stderr, (tmp_path / "j.xml").read_text(), (tmp_path / "m.md").read_text()):
        assert "slower than the baseline" in text
        assert one["changes"][0]["kernel"].split()[-1] in text


def test_a_baseline_of_another_predictor_is_compared_by_intervals_and_warned_of(tmp_path: Path) -> None:
    base = baseline(tmp_path / "b.json", content="another")
    report = nl.check(SMALL, baseline=base, max_slower=0.0, predictor=MODEL)
    assert report.networks[0].verdict == "warned"
    assert any("another predictor" in warning for warning in report.warnings)


def test_networks_that_one_side_lacks_are_told(tmp_path: Path) -> None:
    base = baseline(tmp_path / "b.json", [SMALL, LARGE])
    report = nl.check([SMALL, "mnasnet_b1"], baseline=base, max_slower=0.05, predictor=MODEL)
    assert report.exit_code == 0
    assert [warning.rpartition(": ")[2] for warning in report.warnings] == ["mnasnet_b1", LARGE]


def test_timed_and_predicted_latencies_do_not_compare(tmp_path: Path) -> None:
    base = baseline(tmp_path / "b.json", device="local")
    with pytest.raises(nl.NetlatheError, match="holds timed latencies"):
        nl.check(SMALL, baseline=base, predictor=MODEL)


@pytest.mark.parametrize(
    "networks",
    [
        3, [3], [{}], [{"name": "n"}], [{"name": "n", "latency_ms": "x"}],
        [{"name": "n", **latency(1).to_json(), "setup": {}}], [{"name": "n", **latency(-1).to_json()}],
        [{"name": "n", **latency(1).to_json(), "kernels": {"k": 3}}],
    ],
)  # fmt: skip
def test_a_damaged_baseline_is_refused(networks: object, tmp_path: Path) -> None:
    base = baseline(tmp_path / "b.json", networks=networks)
    with pytest.raises(nl.FormatError, match=r"b\.json: this check is damaged"):
        nl.check(SMALL, baseline=base, predictor=MODEL)


def test_a_baseline_is_not_overwritten(tmp_path: Path) -> None:
    base = baseline(tmp_path / "b.json")
    with pytest.raises(nl.OutputError, match="is an input"):
        nl.check(SMALL, baseline=base, predictor=MODEL, json=base)


def test_a_model_of_the_users_own_is_a_predictor_too(tmp_path: Path) -> None:
    base = baseline(tmp_path / "b.json", predictor=Scaled())
    report = nl.check(SMALL, baseline=base, max_slower=0.05, predictor=Scaled(1.1))
    assert report.networks[0].slower == pytest.approx(0.1)
    assert report.exit_code == 1


# On a device


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[SimulatedDevice]:
    opened: list[SimulatedDevice] = []

    def open_device(*_: object, **__: object) -> SimulatedDevice:
        opened.append(SimulatedDevice(noise=0.02))
        return opened[-1]

    monkeypatch.setattr("netlathe.timing.open_device", open_device)
    return opened


def test_a_device_is_judged_by_the_measurements_interval(simulated: list[SimulatedDevice], tmp_path: Path) -> None:
    found = nl.check([SMALL, "none.onnx"], max_ms=1e6, device="local", budget_s=1, json=tmp_path / "b.json")
    assert [one.verdict for one in found.networks] == ["passed", "error"]
    assert found.exit_code == 2
    timed = found.networks[0].latency
    assert timed is not None
    assert timed.low_ms < timed.latency_ms < timed.high_ms
    report = nl.check(SMALL, max_ms=timed.low_ms / 2, device="local", budget_s=1, baseline=tmp_path / "b.json")
    assert report.networks[0].verdict == "failed"
    assert report.networks[0].slower == pytest.approx(0, abs=0.1)
    assert f"timed on {timed.setup}" in report.how


def test_what_a_device_cannot_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network(LARGE).graph()
    monkeypatch.setattr("netlathe.timing.open_device", lambda *_, **__: SimulatedDevice(unsupported=[graph.key]))
    found = nl.check([SMALL, LARGE], max_ms=1e6, device="local", budget_s=1)
    assert [one.verdict for one in found.networks] == ["passed", "error"]
    assert "op 'conv' is not known here" in found.networks[1].error


def test_a_device_that_cannot_be_opened_is_exit_code_2() -> None:
    result = netlathe("check", SMALL, "--max-ms", 5, "--device", "tcp:127.0.0.1:1")
    assert result.exit_code == 2
    assert "passed" not in result.output


@pytest.mark.parametrize(
    ("node_type", "name", "label"),
    [
        ("Convolution (NHWC, F32) IGEMM", "[Delegate]:12", "Convolution (NHWC, F32) IGEMM"),
        ("Convolution (NHWC, F32) IGEMM", "Delegate/Convolution (NHWC, F32) IGEMM:12", "Convolution (NHWC, F32) IGEMM"),
        ("CONV_2D", "[b01/expand]:3", "CONV_2D b01/expand"), ("Conv", "/features/conv", "Conv /features/conv"),
    ],
)  # fmt: skip
def test_kernels_that_a_delegate_only_numbers_go_by_their_type(node_type: str, name: str, label: str) -> None:
    assert _kernel_label(node_type, name) == label


# Files


def report_of_all(name: str = "n") -> CheckReport:
    networks = (
        Checked(f"{name}1", latency(1)), Checked(f"{name}2", latency(2), doubts=("perhaps <slow>",)),
        Checked(f"{name}3", latency(3), failures=("too slow & more",)), Checked(f"{name}4", error="no\x00t\ufffe read"),
    )  # fmt: skip
    return CheckReport(networks, 2.0, None, 0.9, predictor="p", warnings=("a | b",))


def test_junit_is_what_ci_systems_read(tmp_path: Path) -> None:
    from netlathe.check_files import write_junit

    write_junit(report_of_all("nät\udcff"), tmp_path / "j.xml")
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    counts = {"tests": "4", "failures": "1", "errors": "1", "skipped": "0"}
    assert {key: suite.get(key) for key in counts} == counts
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"], ["system-out"], ["failure", "system-out"], ["error"],
    ]  # fmt: skip
    assert all(case.get("classname") and case.get("name") and float(case.get("time") or "nan") >= 0 for case in cases)
    assert cases[2].find("failure").get("message") == "too slow & more"  # type: ignore[union-attr]
    assert "perhaps <slow>" in (cases[1].findtext("system-out") or "")
    assert kind_of(tmp_path / "j.xml") == "junit"


def test_markdown_is_a_table_whose_cells_stay_apart(tmp_path: Path) -> None:
    from netlathe.check_files import write_markdown

    write_markdown(report_of_all("a|b\udcff"), tmp_path / "m.md")
    lines = (tmp_path / "m.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}
    assert len(table) == 2 + 4
    assert lines[0] == "### netlathe check: 1 failed, 1 could not be checked, 1 in doubt (of 4)"
    assert kind_of(tmp_path / "m.md") == "markdown"


def test_githubs_summary_is_added_to_and_any_other_file_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary"
    summary.write_text("# Mine\n")
    with pytest.raises(nl.OutputError, match="summary"):
        nl.check(SMALL, max_ms=100, predictor=MODEL, markdown=summary)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    for _ in range(2):
        nl.check(SMALL, max_ms=100, predictor=MODEL, markdown=summary)
    assert summary.read_text().startswith("# Mine\n### netlathe check: all 1 passed")
    assert summary.read_text().count("### netlathe check") == 2
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    for _ in range(2):
        nl.check(SMALL, max_ms=100, predictor=MODEL, markdown=tmp_path / "m.md")
    assert (tmp_path / "m.md").read_text().count("### netlathe check") == 1


def test_files_of_others_are_not_replaced_and_known_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netlathe.checking.load_predictor", lambda *_, **__: pytest.fail("worked"))
    (tmp_path / "mine").write_text("dear diary")
    for option in ("json", "junit", "markdown"):
        with pytest.raises(nl.OutputError, match="is there already"):
            nl.check(SMALL, max_ms=1, predictor=MODEL, **{option: tmp_path / "mine"})  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["mine"]


def test_a_change_is_told_with_both_counts() -> None:
    from netlathe.checked import KernelChange, KernelTime

    change = KernelChange("conv", KernelTime(3, 1.0), KernelTime(4, 1.5))
    assert change_words(change) == "+0.5 ms: 4 (before: 3) x conv"
