"""Report of a check: which networks are within a latency limit, and which got slower than they were."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from netlathe.archspace.errors import FormatError, RecordError, paragraph
from netlathe.archspace.jsonfile import read_json
from netlathe.archspace.records import Setup
from netlathe.words import milliseconds, percent

Verdict = Literal["passed", "warned", "failed", "error"]
KIND, VERSION = "check", 1
"""Kind and version of the report in files."""
_LEAST_CHANGE = 1e-3
"""Part of a network's latency below which a change of a kernel is not told."""


@dataclass(frozen=True)
class KernelTime:
    """Equal kernels of a network."""

    count: int
    latency_ms: float
    """Latency of all of them together."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KernelTime:
        """Raises ValueError, KeyError or TypeError for what is none."""
        return cls(int(data["count"]), _number(data["latency_ms"]))


@dataclass(frozen=True)
class KernelChange:
    """Equal kernels of a network that take another time than in the baseline, or are in one of both only."""

    kernel: str
    before: KernelTime
    now: KernelTime

    @property
    def change_ms(self) -> float:
        return self.now.latency_ms - self.before.latency_ms


@dataclass(frozen=True)
class Latency:
    """A network's latency with its interval, predicted or timed."""

    latency_ms: float
    low_ms: float
    high_ms: float
    """Ends of the interval."""
    setup: Setup
    """Setup that it was predicted for, or timed on."""
    kernels: Mapping[str, KernelTime] | None = None
    """Times of its kernels by their ops and shapes; None where none are told."""

    def to_json(self) -> dict[str, Any]:
        kernels = None if self.kernels is None else {name: asdict(one) for name, one in self.kernels.items()}
        return {
            "latency_ms": self.latency_ms, "low_ms": self.low_ms, "high_ms": self.high_ms,
            "setup": self.setup.to_json(), "kernels": kernels,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Latency:
        """The object that to_json wrote. Raises ValueError, KeyError, TypeError, AttributeError or RecordError for
        anything else."""
        found = data["kernels"]
        kernels = None if found is None else {str(name): KernelTime.from_json(one) for name, one in found.items()}
        ms, low_ms, high_ms = (_positive(data[key]) for key in ("latency_ms", "low_ms", "high_ms"))
        return cls(ms, low_ms, high_ms, Setup.from_json(data["setup"]), kernels)


@dataclass(frozen=True)
class Checked:
    """A network's latency, and the verdict on it."""

    name: str
    latency: Latency | None = None
    failures: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    """Why it may be above a limit and may not, and why its latency is not to be trusted."""
    error: str = ""
    """Why it has no latency, or cannot be compared."""
    baseline_ms: float | None = None
    changes: tuple[KernelChange, ...] = ()
    """Changes of kernels since the baseline, the largest first."""

    @property
    def verdict(self) -> Verdict:
        if self.error:
            return "error"
        if self.failures:
            return "failed"
        return "warned" if self.doubts else "passed"

    @property
    def slower(self) -> float | None:
        """Share by which the latency grew since the baseline; below zero where it fell."""
        if self.latency is None or self.baseline_ms is None:
            return None
        return self.latency.latency_ms / self.baseline_ms - 1

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences on it, the worst first, each with its name."""
        said = (*([self.error] if self.error else []), *self.failures, *self.doubts)
        return tuple(text if text.startswith(self.name) else f"{self.name}: {text}" for text in said)

    def to_json(self) -> dict[str, Any]:
        nothing = dict.fromkeys(("latency_ms", "low_ms", "high_ms", "setup", "kernels"))
        return {
            "name": self.name, "verdict": self.verdict, **(self.latency.to_json() if self.latency else nothing),
            "failures": list(self.failures), "doubts": list(self.doubts), "error": self.error,
            "baseline_ms": self.baseline_ms, "slower": self.slower,
            "changes": [{**asdict(one), "change_ms": one.change_ms} for one in self.changes],
        }  # fmt: skip


@dataclass(frozen=True)
class CheckReport:
    """Networks checked by a predictor, or on a device."""

    networks: tuple[Checked, ...]
    max_ms: float | None
    max_slower: float | None
    coverage: float
    """Part of all measurements that the intervals hold."""
    device: str | None = None
    """Device that they were timed on; None where they were predicted."""
    predictor: str | None = None
    content: str | None = None
    """Digest of the predictor."""
    baseline: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """2 where a network has no latency or cannot be compared, else 1 where one failed, else 0."""
        verdicts = {one.verdict for one in self.networks}
        return 2 if "error" in verdicts else int("failed" in verdicts)

    @property
    def title(self) -> str:
        """The outcome in a few words."""
        counts = {
            words: sum(one.verdict == verdict for one in self.networks)
            for verdict, words in (("failed", "failed"), ("error", "could not be checked"), ("warned", "in doubt"))
        }
        told = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
        return f"{told} (of {len(self.networks)})" if told else f"all {len(self.networks)} passed"

    @property
    def how(self) -> str:
        """How the latencies were told."""
        setups = dict.fromkeys(str(one.latency.setup) for one in self.networks if one.latency)
        where = "; ".join(setups)
        return f"timed on {where or self.device}" if self.device else f"predicted by {self.predictor} for {where}"

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": "error" if self.exit_code == 2 else "failed" if self.exit_code else "passed",
            "exit_code": self.exit_code, "max_ms": self.max_ms, "max_slower": self.max_slower,
            "coverage": self.coverage, "device": self.device, "predictor": self.predictor, "content": self.content,
            "baseline": self.baseline, "warnings": list(self.warnings),
            "networks": [one.to_json() for one in self.networks],
        }  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """Latencies of an earlier check."""

    path: str
    is_timed: bool
    content: str | None
    """Digest of its predictor."""
    networks: Mapping[str, Latency | None]
    """By name; None where there was none."""

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """The report that check wrote. Raises FormatError for anything else."""
        data = read_json(path, KIND, VERSION)
        try:
            networks = {
                str(one["name"]): None if one["latency_ms"] is None else Latency.from_json(one)
                for one in data["networks"]
            }
            return cls(str(path), data["device"] is not None, data["content"], networks)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecordError) as error:
            raise FormatError(f"{path}: this check is damaged ({error!r:.200}); write it again") from error


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)


def _positive(value: Any) -> float:
    if _number(value) <= 0:
        raise ValueError(f"{value!r:.40} is no latency")
    return float(value)


def with_limit(one: Checked, max_ms: float) -> Checked:
    """The verdict on a latency limit: it fails where its whole interval is above, and is in doubt where that holds the
    limit."""
    found = one.latency
    if found is None or found.high_ms <= max_ms:
        return one
    interval = f"{milliseconds(found.low_ms)} to {milliseconds(found.high_ms)} ms"
    if found.low_ms > max_ms:
        return replace(one, failures=(*one.failures, f"{interval} is above the limit of {max_ms:g} ms"))
    return replace(one, doubts=(*one.doubts, f"{interval} holds the limit of {max_ms:g} ms"))


def with_baseline(one: Checked, before: Latency | None, max_slower: float | None, *, is_exact: bool) -> Checked:
    """The verdict on how much slower a network got. `is_exact`: both latencies are of one predictor, so that their
    ratio is sure; else it lies between the ratios of their intervals' ends."""
    now = one.latency
    if now is None:
        return one
    if before is None:
        return replace(one, doubts=(*one.doubts, "the baseline has no latency of it to compare with"))
    differing = now.setup.differences(before.setup)
    if differing:
        why = f"the baseline is of another setup, so that it does not compare ({'; '.join(differing)}); write a new one"
        return replace(one, error=paragraph(why))
    one = replace(one, baseline_ms=before.latency_ms, changes=_changes(now, before))
    slower = now.latency_ms / before.latency_ms - 1
    least, most = slower, slower
    if not is_exact:
        least, most = now.low_ms / before.high_ms - 1, now.high_ms / before.low_ms - 1
    if max_slower is None or most <= max_slower:
        return one
    what = f"{percent(slower)} slower than the baseline's {milliseconds(before.latency_ms)} ms"
    if least > max_slower:
        return replace(one, failures=(*one.failures, f"{what}; {percent(max_slower)} are allowed"))
    interval = f"between {percent(least)} and {percent(most)}"
    return replace(one, doubts=(*one.doubts, f"{what}, {interval}; {percent(max_slower)} are allowed"))


def _changes(now: Latency, before: Latency) -> tuple[KernelChange, ...]:
    """Kernels that take another time, the largest change first."""
    if now.kernels is None or before.kernels is None:
        return ()
    nothing = KernelTime(0, 0.0)
    found = [
        KernelChange(name, before.kernels.get(name, nothing), now.kernels.get(name, nothing))
        for name in dict.fromkeys((*now.kernels, *before.kernels))
    ]
    told = [change for change in found if abs(change.change_ms) > _LEAST_CHANGE * before.latency_ms]
    return tuple(sorted(told, key=lambda change: -abs(change.change_ms)))
