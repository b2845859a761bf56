"""Verdicts in a sentence: latency against its target, accuracy with its interval, both against the baselines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from netlathe.archspace.proportions import wilson_interval
from netlathe.report.page import State
from netlathe.report.run_content import RunContent
from netlathe.runs.report import Baseline, TargetReport
from netlathe.words import milliseconds, percent


def wilson(share: float, images: int) -> tuple[float, float] | None:
    """95 % interval of an accuracy that so many images showed; None without images."""
    return wilson_interval(round(share * images), images) if images else None


@dataclass(frozen=True)
class Verdict:
    """A sentence, and whether it is good news."""

    sentence: str
    state: State


def verdict_of(run: RunContent) -> Verdict:
    """The verdict on a run: each part of it is told as far as it is recorded."""
    main = run.main
    sentence = f"{run.name} {_latency(main)}"
    if run.own_accuracy is not None:
        sentence += f"; {_accuracy(run)}"
    if compared := against(run):
        sentence += f"; {compared}"
    return Verdict(f"{sentence}.", _state(run))


def _state(run: RunContent) -> State:
    """Bad where a limit was missed; open where nothing was measured and the interval reaches beyond the target."""
    main = run.main
    if main.is_met is False or not run.is_met:
        return "bad"
    return "open" if main.measured_ms is None and main.high_ms > main.target_ms else "good"


def _latency(main: TargetReport) -> str:
    target = f"target of {milliseconds(main.target_ms)} ms"
    if main.measured_ms is None:
        off = main.predicted_ms / main.target_ms - 1
        return (
            f"is predicted to take {milliseconds(main.predicted_ms)} ms on {main.device} (90 % interval "
            f"{_range(main.low_ms, main.high_ms)}; not measured), {_beside(off)} its {target}"
        )
    off = main.measured_ms / main.target_ms - 1
    ends = ""
    if main.measured_low_ms is not None and main.measured_high_ms is not None:
        ends = f", 90 % interval {_range(main.measured_low_ms, main.measured_high_ms)}"
    return f"takes {milliseconds(main.measured_ms)} ms on {main.device} (measured{ends}), {_beside(off)} its {target}"


def _beside(off: float) -> str:
    if percent(abs(off)) == percent(0.0):
        return "just above" if off > 0 else "just at"
    return f"{percent(abs(off))} {'above' if off > 0 else 'below'}"


def _range(low: float, high: float) -> str:
    return f"{milliseconds(low)} to {milliseconds(high)}"


def _accuracy(run: RunContent) -> str:
    own = run.own_accuracy
    assert own is not None
    ends = wilson(own, run.test_images)
    told = f" (95 % interval {percent(ends[0])} to {percent(ends[1])})" if ends else ""
    return (
        f"it gets {percent(own)}{told} of {run.test_images:,} test images right" if ends else f"accuracy {percent(own)}"
    )


def against(run: RunContent) -> str:
    """Words on how a run stands beside its original, or the baselines on their curve; '' without any."""
    own = run.own_accuracy
    if run.original_accuracy is not None and own is not None and run.stages:
        before = float(run.stages[0]["latencies"][0]["ms"])
        faster = before / (run.main.measured_ms or run.main.predicted_ms)
        off = 100 * (own - run.original_accuracy)
        return (
            f"the original takes {milliseconds(before)} ms (predicted; {faster:.2f} times as long) with "
            f"{percent(run.original_accuracy)}, {_points(off)}"
        )
    if own is None or not run.baselines:
        return ""
    return _on_the_curve(run.main.measured_ms or run.main.predicted_ms, own, run)


def _on_the_curve(ms: float, own: float, run: RunContent) -> str:
    """The baselines' accuracy at this latency, between the two that are nearest; or the one that is nearest."""
    ordered = sorted(run.baselines, key=lambda one: one.ms)
    ends = wilson(own, run.test_images)
    if len(ordered) > 1 and ordered[0].ms <= ms <= ordered[-1].ms:
        there = interpolated(ordered, ms)
        off = 100 * (own - there)
        doubt = " (within its interval)" if ends and ends[0] <= there <= ends[1] else ""
        return f"the baselines' curve has {percent(there)} at that latency, {_points(off)}{doubt}"
    nearest = min(ordered, key=lambda one: abs(one.accuracy - own))
    off = 100 * (own - nearest.accuracy)
    named = "the baseline" if nearest.name == "baseline" else f"the baseline {nearest.name}"  # as the demo's is called
    return (
        f"{named} takes {milliseconds(nearest.ms)} ms ({nearest.ms / ms:.2f} times as long) with "
        f"{percent(nearest.accuracy)}, {_points(off)}"
    )


def _points(off: float) -> str:
    """Words on how many points more a run has than something else."""
    return "as much" if abs(off) < 0.05 else f"{abs(off):.1f} points {'less' if off > 0 else 'more'}"


def interpolated(baselines: Sequence[Baseline], ms: float) -> float:
    """Accuracy at a latency on the line through these baselines, by rising latency, over its logarithm."""
    for one, other in itertools.pairwise(baselines):
        if one.ms <= ms <= other.ms:
            if other.ms == one.ms:
                return max(one.accuracy, other.accuracy)
            part = math.log(ms / one.ms) / math.log(other.ms / one.ms)
            return one.accuracy + part * (other.accuracy - one.accuracy)
    raise ValueError(f"{ms} ms is beyond these baselines")
