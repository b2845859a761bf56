"""Measurements: the setup it was taken on, its raw samples, and its own verdict."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, get_args

from netlathe.archspace.errors import GraphError, RecordError
from netlathe.archspace.files import digest
from netlathe.archspace.graph import Graph

Kind = Literal["block", "network"]

STABLE_SPREAD = 0.05
"""Rounds that agree within this (relative standard error of their median) make a stable measurement."""

LEAST_MS, MOST_MS = 1e-9, 1e12
"""A time beyond is no measurement, and drift no less than LEAST_DRIFT: what is computed from them stays finite."""
LEAST_DRIFT, MOST_DRIFT = 1e-6, 1e6

TABLE_SCHEMA = 1
"""Version of the rows that to_row writes."""
_DAMAGE = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError, GraphError)


@dataclass(frozen=True)
class Setup:
    """Everything that must be equal for two latencies to be comparable."""

    device: str
    """Name of the machine or phone model."""
    processor: str
    """SoC, CPU or GPU model."""
    os: str
    runtime: str
    """litert, onnxruntime, torch, ..."""
    runtime_version: str
    delegate: str = "none"
    """Library that executes the ops inside the runtime: xnnpack, gpu, nnapi, ..."""
    threads: int = 1
    core_mask: str = ""
    """Cores it was pinned to, '' if the scheduler chose."""
    dtype: str = "float32"
    batch: int = 1
    details: tuple[tuple[str, str], ...] = ()
    """Further conditions that only some devices have, as (name, value) pairs; kept sorted."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("threads", "batch"):
                if type(value) is not int or value < 1:
                    raise RecordError(f"a setup's {field.name} must be an integer of at least 1, got {value!r}")
            elif field.name != "details" and not isinstance(value, str):
                raise RecordError(f"a setup's {field.name} must be text, got {value!r}")
        if not all(isinstance(text, str) for pair in self.details for text in pair):
            raise RecordError("a setup's details must be pairs of texts")
        object.__setattr__(self, "details", tuple(sorted(self.details)))

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "details": dict(self.details)}

    @classmethod
    def from_json(cls, data: Any) -> Setup:
        try:
            return cls(**{**data, "details": tuple(data.get("details", {}).items())})
        except (TypeError, AttributeError) as error:
            raise RecordError(f"this is not a setup in netlathe's JSON: {error!r:.200}") from error

    @cached_property
    def key(self) -> str:
        """16 hex digits; equal setups have equal keys."""
        return digest(json.dumps(self.to_json(), sort_keys=True), 16)

    def differences(self, other: Setup) -> list[str]:
        """'field: mine / theirs' for every field and detail that differs; a dash where there is none."""
        mine, theirs = ({**dataclasses.asdict(one), **dict(one.details)} for one in (self, other))
        names = dict.fromkeys(name for name in (*mine, *theirs) if name != "details")
        pairs = ((name, mine.get(name, "-"), theirs.get(name, "-")) for name in names)
        return [f"{name}: {own} / {other}" for name, own, other in pairs if own != other]

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        runtime = f"{self.runtime} {self.runtime_version} {self.delegate}"
        return f"{self.device} ({self.processor}), {runtime}, {threads}, {self.dtype}, batch {self.batch}"


def lower_quartile(values: Sequence[float]) -> float:
    """25th percentile, between neighbours in proportion, as NumPy's default does."""
    ordered = sorted(values)
    index, rest = divmod(len(ordered) - 1, 4)
    low, high = ordered[index], ordered[min(index + 1, len(ordered) - 1)]
    return low + (high - low) * rest / 4


@dataclass(frozen=True)
class Round:
    """The consecutive runs of one graph in one round."""

    samples_ms: tuple[float, ...]
    drift: float = 1.0
    """Slowness of the machine in this round: median of the anchors' times over their references."""
    started_at: float = 0.0
    """Seconds since the epoch."""

    @property
    def latency_ms(self) -> float:
        """Lower quartile of the runs, corrected for drift: what disturbs a run only ever makes it longer, so the
        quartile repeats better than the median, and the minimum of many runs is as rare as their maximum."""
        return lower_quartile(self.samples_ms) / self.drift


@dataclass(frozen=True)
class Measurement:
    """All rounds of one graph on one setup. Latency is the median of the rounds' latencies."""

    rounds: tuple[Round, ...]

    def __post_init__(self) -> None:
        if not self.rounds or any(not r.samples_ms for r in self.rounds):
            raise RecordError("a measurement without samples is a failure, not a number")
        if any(not _is_between(ms, LEAST_MS, MOST_MS) for r in self.rounds for ms in r.samples_ms):
            raise RecordError("a measurement holds a time that is not a finite number above zero, or beyond reason")
        if any(not _is_between(r.drift, LEAST_DRIFT, MOST_DRIFT) for r in self.rounds):
            raise RecordError("a measurement holds a drift that is not a finite number above zero, or beyond reason")

    @cached_property
    def latency_ms(self) -> float:
        return statistics.median(r.latency_ms for r in self.rounds)

    @cached_property
    def spread(self) -> float:
        """Relative scatter of the rounds: interquartile range / 1.349 / median (1 sigma for a Gaussian). Outliers do
        not count, but a machine that alternates between two speeds does, unlike in the median absolute deviation."""
        latencies = [r.latency_ms for r in self.rounds]
        upper_quartile = -lower_quartile([-latency for latency in latencies])
        return (upper_quartile - lower_quartile(latencies)) / 1.349 / self.latency_ms

    @property
    def relative_error(self) -> float:
        """Standard error of the median, relative: 1.2533 * spread / sqrt(rounds)."""
        return 1.2533 * self.spread / math.sqrt(len(self.rounds))

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """90 % interval of the latency, None below 3 rounds: 1.645 standard errors either way, more where few rounds
        tell their own scatter badly. Of independent Gaussian rounds it holds the true value in 84 to 93 % of cases."""
        if len(self.rounds) < 3:
            return None
        half = 1.645 * (1 + 1.5 / (len(self.rounds) - 2)) * self.relative_error
        return self.latency_ms / (1 + half), self.latency_ms * (1 + half)

    @property
    def drift(self) -> float:
        """Slowness of the machine, median of the rounds: latency_ms * drift is about what the clock showed."""
        return statistics.median(r.drift for r in self.rounds)

    @property
    def is_stable(self) -> bool:
        """The verdict: at least three rounds, and they agree."""
        return len(self.rounds) >= 3 and self.relative_error <= STABLE_SPREAD

    @property
    def repeatability(self) -> float | None:
        """Relative difference of the latencies from even and odd rounds: what a repetition would differ by.
        None below 4 rounds."""
        if len(self.rounds) < 4:
            return None
        even, odd = Measurement(self.rounds[::2]), Measurement(self.rounds[1::2])
        return abs(even.latency_ms / odd.latency_ms - 1)


def _is_between(value: object, least: float, most: float) -> bool:
    return isinstance(value, (int, float)) and least <= value <= most


class Status(StrEnum):
    """Outcome of a measurement."""

    OK = "ok"
    UNSUPPORTED = "unsupported"
    """The runtime cannot execute this graph on this setup; `message` says why."""
    FAILED = "failed"
    """It should have worked and did not; a later run tries again."""


@dataclass(frozen=True)
class LatencyRecord:
    """One graph on one setup: its measurement, or the reason why there is none."""

    name: str
    """Canonical block name, or a network's name."""
    kind: Kind
    graph: Graph
    setup: Setup
    status: Status
    measurement: Measurement | None = None
    message: str = ""
    details: tuple[tuple[str, float], ...] = ()
    """Other facts that the runtime told of this graph, as (name, value) pairs: init_ms, peak_memory_mb, ..."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.message, str):
            raise RecordError(f"a record's name and message must be text, got {self.name!r:.60}, {self.message!r:.60}")
        if (self.status is Status.OK) != (self.measurement is not None):
            raise RecordError(f"{self.name}: a record is either ok with a measurement, or says why there is none")
        if self.kind not in get_args(Kind):
            raise RecordError(f"{self.name}: kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r:.60}")

    @property
    def latency_ms(self) -> float:
        """Raises RecordError when the measurement failed: a failure is not a number."""
        if self.measurement is None:
            raise RecordError(f"{self.name} has no latency: {self.status} ({self.message})")
        return self.measurement.latency_ms

    def to_row(self) -> dict[str, Any]:
        """A flat row for CSV and Parquet; from_row gives the record back."""
        m = self.measurement
        rounds = [dataclasses.asdict(r) for r in m.rounds] if m else []
        return {
            "schema": TABLE_SCHEMA,
            "name": self.name,
            "kind": self.kind,
            "status": str(self.status),
            "latency_ms": m.latency_ms if m else None,
            "spread": m.spread if m else None,
            "is_stable": m.is_stable if m else None,
            "macs": self.graph.macs,
            "parameters": self.graph.parameters,
            "message": self.message,
            "details": json.dumps(dict(self.details)),
            "setup": json.dumps(self.setup.to_json(), sort_keys=True),
            "graph": json.dumps(self.graph.to_json()),
            "rounds": json.dumps(rounds),
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> LatencyRecord:
        """Raises RecordError when the row is not one that to_row wrote, or comes from a newer netlathe."""
        try:
            if int(row.get("schema", TABLE_SCHEMA)) > TABLE_SCHEMA:
                raise RecordError(
                    f"this table was written by a newer netlathe (schema {row['schema']}, this one reads "
                    f"{TABLE_SCHEMA}); upgrade netlathe"
                )
            rounds = tuple(
                Round(tuple(r["samples_ms"]), float(r["drift"]), float(r["started_at"]))
                for r in json.loads(row["rounds"])
            )
            return cls(
                name=row["name"],
                kind=row["kind"],
                graph=Graph.from_json(json.loads(row["graph"])),
                setup=Setup.from_json(json.loads(row["setup"])),
                status=Status(row["status"]),
                measurement=Measurement(rounds) if rounds else None,
                message=row["message"] if isinstance(row["message"], str) else "",
                details=tuple(json.loads(row.get("details") or "{}").items()),
            )
        except _DAMAGE as error:
            raise RecordError(f"not a latency record: {error!r:.300}") from error


def single_setup(records: Iterable[LatencyRecord]) -> Setup:
    """The setup that all records share. Raises RecordError when there is none, or when there are several."""
    setups = list(dict.fromkeys(record.setup for record in records))
    if not setups:
        raise RecordError("there are no records to take a setup from; run `netlathe profile` first")
    if len(setups) > 1:
        differing = "; ".join(setups[0].differences(setups[1]))
        raise RecordError(f"records of {len(setups)} unlike setups do not mix ({differing}); choose one of them")
    return setups[0]


def noise_floor(records: Sequence[LatencyRecord]) -> float | None:
    """Median relative difference between the two halves of each measurement's rounds: no predictor can be expected to
    do better. None when no record has four rounds."""
    halves = [r.measurement.repeatability for r in records if r.measurement]
    known = [h for h in halves if h is not None]
    return statistics.median(known) if known else None
