"""A check's report as files for CI: JUnit XML, and a summary in Markdown."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from netlathe.archspace.errors import printable
from netlathe.archspace.files import write_whole
from netlathe.checked import Checked, CheckReport, KernelChange, Latency, Verdict
from netlathe.outputs import is_same_file
from netlathe.words import milliseconds, percent

SUITE = "netlathe check"
"""Name of the test suite in JUnit XML, and of the summary."""
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
_MOST_CHANGES = 10
"""Most changes of kernels that the summary tells of a network; JSON has all."""
_MARKS: dict[Verdict, str] = {"passed": "passed", "warned": "in doubt", "failed": "**failed**", "error": "**error**"}


def write_junit(report: CheckReport, path: Path) -> None:
    """Writes JUnit XML as CI systems read it: a test case per network, whose `time` is the network's latency in
    seconds. Doubts are in system-out, as the format knows no warnings. Raises OSError."""
    verdicts = [one.verdict for one in report.networks]
    counts = {
        "tests": str(len(verdicts)), "failures": str(verdicts.count("failed")), "errors": str(verdicts.count("error")),
        "skipped": "0", "time": f"{sum(map(_seconds, report.networks)):.6f}",
    }  # fmt: skip
    root = ElementTree.Element("testsuites", {"name": SUITE, **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": SUITE, **counts})
    for one in report.networks:
        _add_case(suite, one, report)
    if report.warnings:
        ElementTree.SubElement(suite, "system-out").text = _text("\n".join(report.warnings))
    ElementTree.indent(root)
    content = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    write_whole(path, content + b"\n")


def _add_case(suite: ElementTree.Element, one: Checked, report: CheckReport) -> None:
    names = {"classname": f"netlathe.{report.device or 'predicted'}", "name": _text(one.name)}
    case = ElementTree.SubElement(suite, "testcase", {**names, "time": f"{_seconds(one):.6f}"})
    if one.error:
        ElementTree.SubElement(case, "error", {"type": "error", "message": _text(one.error)}).text = _text(one.error)
    if one.failures and not one.error:
        body = "\n".join([*one.failures, *map(change_words, one.changes)])
        told = {"type": "latency", "message": _text("; ".join(one.failures))}
        ElementTree.SubElement(case, "failure", told).text = _text(body)
    lines = [f"Warning: {doubt}" for doubt in one.doubts]
    if one.latency:
        lines.insert(0, f"{milliseconds(one.latency.latency_ms)} ms, {interval_words(one.latency)} ms, {report.how}")
    if lines:
        ElementTree.SubElement(case, "system-out").text = _text("\n".join(lines))


def _seconds(one: Checked) -> float:
    return one.latency.latency_ms / 1e3 if one.latency else 0.0


def _text(text: str) -> str:
    """Text without what XML and UTF-8 cannot hold: control characters, halves of pairs, two that are none."""
    whole = printable(text, keep="\n").encode("utf-8", "backslashreplace").decode()
    return whole.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def interval_words(latency: Latency) -> str:
    """'19.8 to 24.1'."""
    return f"{milliseconds(latency.low_ms)} to {milliseconds(latency.high_ms)}"


def change_words(change: KernelChange) -> str:
    """'+0.31 ms: 4 x conv 56x56x24 -> 56x56x144, were 3'."""
    now, before = change.now, change.before
    counts = f"{now.count} x" if now.count == before.count else f"{now.count} (before: {before.count}) x"
    return f"{change.change_ms:+.3g} ms: {counts} {change.kernel}"


def is_step_summary(path: Path) -> bool:
    """Whether it is the file that GitHub shows as the summary of a step, to which each command adds its part."""
    summary = os.environ.get(SUMMARY_VARIABLE)
    return bool(summary) and is_same_file(path, str(summary))


def write_markdown(report: CheckReport, path: Path) -> None:
    """Writes a table of the networks and what is to be said of them; appended to GitHub's summary of a step. Raises
    OSError."""
    text = "\n".join(_markdown(report)) + "\n"
    if is_step_summary(path):
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
    else:
        write_whole(path, text)


def _markdown(report: CheckReport) -> list[str]:
    columns = ["verdict", "network", "latency", f"{100 * report.coverage:g} % interval"]
    columns += ["limit"] if report.max_ms is not None else []
    columns += ["baseline", "change"] if report.baseline else []
    lines = [f"### {SUITE}: {report.title}", "", _row(columns), _row(["---", "---", *["---:"] * (len(columns) - 2)])]
    for one in report.networks:
        cells = [_MARKS[one.verdict], _escaped(one.name)]
        found = one.latency
        cells += [f"{milliseconds(found.latency_ms)} ms", f"{interval_words(found)} ms"] if found else ["-", "-"]
        cells += [f"{report.max_ms:g} ms"] if report.max_ms is not None else []
        cells += [_before(one), change_of(one)] if report.baseline else []
        lines.append(_row(cells))
    messages = [f"- {_escaped(text)}" for one in report.networks for text in one.messages]
    messages += [f"- Warning: {_escaped(text)}" for text in report.warnings]
    lines += ["", *messages] if messages else []
    for one in report.networks:
        if one.changes:
            told = [f"- {_escaped(change_words(change))}" for change in one.changes[:_MOST_CHANGES]]
            lines += ["", f"Kernels of {_escaped(one.name)} that changed most:", "", *told]
    return [*lines, "", f"<sub>{_escaped(report.how)}</sub>", ""]


def _before(one: Checked) -> str:
    return "-" if one.baseline_ms is None else f"{milliseconds(one.baseline_ms)} ms"


def change_of(one: Checked) -> str:
    """'+4.1 %'; a dash where it is not compared."""
    return "-" if one.slower is None else f"{'+' if one.slower > 0 else ''}{percent(one.slower)}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    line = _text(" ".join(text.split()))
    for character in "\\`*_|<>[]":
        line = line.replace(character, f"\\{character}")
    return line
