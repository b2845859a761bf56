"""Report of timing: networks and files on one device or several."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import write_whole
from netlathe.archspace.forms.model_file import ModelFile
from netlathe.archspace.records import Measurement, Setup
from netlathe.words import percent

if TYPE_CHECKING:
    from netlathe.archspace.sustained import SustainedRun
    from netlathe.profiler.device import Observation

Measurements = dict[str, Measurement]
"""By network's name. With a profile, at the speed that the machine had when that was begun, as a predictor fitted on it
predicts."""

_PERCENTILES = {"p5_ms": 5, "median_ms": 50, "p95_ms": 95}


@dataclass(frozen=True)
class Timed:
    """A network or file on a device: its time and what its start cost, or why there is no time."""

    name: str
    device: str
    """The device's address."""
    setup: Setup | None
    """None where the device could not be opened."""
    measurement: Measurement | None
    """None where there is no sound time."""
    error: str = ""
    """Why it could not be timed."""
    file: ModelFile | None = None
    """The file that was run, where it was one."""
    observation: Observation | None = None
    """Observation of its start; None where the device tells nothing."""
    details: Sequence[Mapping[str, float]] = field(default=(), repr=False)
    """Statistics that the runtime told at each visit."""
    predicted_ms: float | None = None

    @property
    def latency_ms(self) -> float | None:
        return self.measurement.latency_ms if self.measurement else None

    @property
    def median_ms(self) -> float | None:
        """Latencies of single runs, as the clock showed them: unlike the latency, not corrected for the machine's
        drift."""
        return self._percentile("median_ms")

    @property
    def p5_ms(self) -> float | None:
        return self._percentile("p5_ms")

    @property
    def p95_ms(self) -> float | None:
        return self._percentile("p95_ms")

    def _percentile(self, name: str) -> float | None:
        """Over all runs; on a phone, which sums up the runs of a visit, the median of what the visits say, in whole
        microseconds: below one there is none."""
        if self.measurement is None:
            return None
        told = [one[name] for one in self.details if name in one]
        if told:
            return statistics.median(told) or None
        if self.setup and self.setup.runtime == "tflite":  # an older benchmark_model, which prints none
            return None
        return _quantile([ms for one in self.measurement.rounds for ms in one.samples_ms], _PERCENTILES[name] / 100)

    @property
    def init_ms(self) -> float | None:
        """Loading the file and preparing it to run."""
        return self._started("init_ms")

    @property
    def first_inference_ms(self) -> float | None:
        return self._started("first_inference_ms")

    @property
    def peak_memory_mb(self) -> float | None:
        return self._started("peak_memory_mb")

    def _started(self, name: str) -> float | None:
        told = getattr(self.observation, name, None)
        if told is not None:
            return float(told)
        visits = [one[name] for one in self.details if name in one]
        return statistics.median(visits) if visits else None

    @property
    def delegated(self) -> Mapping[str, float | None]:
        """The share of the ops that each delegate or provider executes, None where it is not told; empty where nothing
        is known."""
        return self.observation.delegated if self.observation else {}

    def to_json(self) -> dict[str, Any]:
        one, seen = self.measurement, self.observation
        low_ms, high_ms = one.interval_ms or (None, None) if one else (None, None)
        inputs = self.file.inputs if self.file else ()
        return {
            "name": self.name, "device": self.device, "latency_ms": self.latency_ms, "low_ms": low_ms,
            "high_ms": high_ms, "median_ms": self.median_ms, "p5_ms": self.p5_ms, "p95_ms": self.p95_ms,
            "first_inference_ms": self.first_inference_ms, "init_ms": self.init_ms,
            "peak_memory_mb": self.peak_memory_mb, "peak_memory_of": seen.peak_memory_of if seen else "",
            "delegated": dict(self.delegated), "rounds": len(one.rounds) if one else 0,
            "is_stable": one.is_stable if one else None, "drift": one.drift if one else None,
            "predicted_ms": self.predicted_ms, "error": self.error,
            "inputs": [{"name": i.name, "dtype": i.dtype, "shape": list(i.sizes)} for i in inputs],
            "samples_ms": [list(r.samples_ms) for r in one.rounds] if one else [],
            "kernels": [vars(kernel) for kernel in seen.op_times] if seen else [],
            "kernels_ms": kernels_ms(seen) if seen else None, "kernel_runs_ms": seen.op_runs_ms if seen else None,
        }  # fmt: skip


def delegated_words(shares: Mapping[str, float | None]) -> str:
    """'XNNPACK 90 %'; a dash where nothing is known."""
    words = (f"{name} {'in part' if share is None else percent(share, 0)}" for name, share in shares.items())
    return ", ".join(words) or "-"


def kernels_ms(seen: Observation) -> float | None:
    """The sum of a table of kernels; None without one."""
    return sum(one.mean_ms * max(1, one.times_called) for one in seen.op_times) if seen.op_times else None


def _quantile(values: Sequence[float], share: float) -> float:
    """Between neighbours in proportion, as NumPy's default does."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class TimeReport:
    """Networks and files timed on a device, or on each of several."""

    timed: tuple[Timed, ...]
    """Device after device, each in the order given; those that could not be timed too, with the reason."""
    warnings: tuple[str, ...]
    is_interrupted: bool
    """Whether these are the times until Ctrl-C."""
    is_corrected: bool
    """Whether times are in the level of a profile, whose anchors tell how fast the device is now."""
    sustained: Mapping[str, SustainedRun] = field(default_factory=dict)
    """By device's address, the load that lasted, where the latencies are those at its end."""

    @property
    def setup(self) -> Setup | None:
        """Setup of the first device that could be opened."""
        return next((one.setup for one in self.timed if one.setup), None)

    @property
    def measured(self) -> Measurements:
        """By name, on the first device; those without a sound time are left out."""
        first = [one for one in self.timed if one.device == self.timed[0].device]
        return {one.name: one.measurement for one in first if one.measurement}

    @property
    def predicted_ms(self) -> Mapping[str, float]:
        """By name, where there is a predictor."""
        return {one.name: one.predicted_ms for one in self.timed if one.predicted_ms is not None}

    @property
    def failure(self) -> str:
        """Why the first that could not be timed could not; "" where all could."""
        several = len({one.device for one in self.timed}) > 1
        for one in self.timed:
            if one.error:
                where = f" on {one.device}" if several else ""
                return one.error if one.setup is None else f"{one.name} could not be timed{where}: {one.error}"
        return ""

    @property
    def is_stable(self) -> bool:
        """Whether all have a time, and each has a standard error of at most 5 %."""
        return all(one.measurement and one.measurement.is_stable for one in self.timed)

    def to_json(self) -> dict[str, Any]:
        setups = {one.device: str(one.setup) for one in self.timed if one.setup}
        loads = {address: load.to_json() for address, load in self.sustained.items()}
        return {
            **({"sustained": loads} if loads else {}),
            "timed": [one.to_json() for one in self.timed], "setup": str(self.setup) if self.setup else "",
            "setups": setups, "warnings": list(self.warnings), "is_interrupted": self.is_interrupted,
        }  # fmt: skip


_COLUMNS = (
    "latency_ms", "low_ms", "high_ms", "median_ms", "p5_ms", "p95_ms", "first_inference_ms", "init_ms",
    "peak_memory_mb", "rounds", "is_stable", "drift", "predicted_ms", "error",
)  # fmt: skip


def write_csv(report: TimeReport, path: Path) -> None:
    """One row for each network or file on each device, whole or not at all. Raises FormatError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("network", "device", *_COLUMNS, "delegated", "setup"))
    for one in report.timed:
        row = one.to_json()
        shares = "; ".join(
            f"{name} {'in part' if n is None else f'{100 * n:.0f} %'}" for name, n in one.delegated.items()
        )
        writer.writerow((one.name, one.device, *(row[name] for name in _COLUMNS), shares, str(one.setup or "")))
    try:
        write_whole(path, text.getvalue())
    except OSError as error:
        raise FormatError(f"{path}: the table cannot be written ({error})") from error
