"""The lines of benchmark_model: prefixes, numbers as C++ streams print them, and its statistics."""

import dataclasses
import math
import os
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Style:
    """How the lines of one era look.

    Attributes:
        prefix: "INFO: " and so on before each message.
        percentiles: p5, median and p95 in each count line.
        duplicates: num_threads is registered twice, which it says at each start.
        signature: there is --signature_to_run_for, and its value is always logged.
        start_column: tables of ops have a [start] column.
    """

    prefix: bool
    percentiles: bool
    duplicates: bool
    signature: bool
    start_column: bool


STYLES = {
    "2026": Style(prefix=True, percentiles=True, duplicates=False, signature=True, start_column=False),
    "2023": Style(prefix=True, percentiles=False, duplicates=True, signature=False, start_column=True),
    "2021": Style(prefix=False, percentiles=False, duplicates=True, signature=False, start_column=True),
}


class Log:
    """Writes whole lines at once, as std::endl does: a killed run leaves whole lines, in order with LiteRT's own."""

    def __init__(self, style: Style) -> None:
        self.style = style

    def info(self, text: str) -> None:
        self._write(1, "INFO", text)

    def warn(self, text: str) -> None:
        self._write(1, "WARN", text)

    def error(self, text: str) -> None:
        self._write(2, "ERROR", text)

    def runtime(self, text: str) -> None:
        """A line of the runtime, not of the tool: standard error, with a prefix in every era."""
        write(2, f"INFO: {text}\n".encode())

    def _write(self, descriptor: int, level: str, text: str) -> None:
        write(descriptor, f"{f'{level}: ' if self.style.prefix else ''}{text}\n".encode("utf-8", "surrogateescape"))


def write(descriptor: int, content: bytes) -> None:
    """Writes all of it."""
    while content:
        content = content[os.write(descriptor, content) :]


def number(value: float) -> str:
    """As std::cout prints a double: six digits, an exponent from 1e+06 on."""
    return f"{value:g}"


class Statistics:
    """Durations of a phase, in whole us, summed up as the tool does."""

    def __init__(self, samples_us: Sequence[int]) -> None:
        self.samples_us = list(samples_us)

    @property
    def first(self) -> int:
        return self.samples_us[0] if self.samples_us else 0

    @property
    def mean(self) -> float:
        return sum(self.samples_us) / len(self.samples_us) if self.samples_us else 0.0

    @property
    def deviation(self) -> int:
        """Of the population, cut to whole us."""
        squares = sum(float(sample) * sample for sample in self.samples_us)
        return int(math.sqrt(max(0, int(squares / len(self.samples_us) - self.mean**2))))

    def percentile(self, percent: int) -> int:
        """The sample at that share of the sorted ones, without interpolation; 0 of none."""
        return sorted(self.samples_us)[len(self.samples_us) * percent // 100] if self.samples_us else 0

    def line(self, *, percentiles: bool) -> str:
        """The count line."""
        samples = self.samples_us
        if not samples:
            text = "count=0"
        elif min(samples) == max(samples):
            text = f"count={len(samples)} curr={samples[-1]}" + ("(all same)" if len(samples) > 1 else "")
        else:
            text = (
                f"count={len(samples)} first={samples[0]} curr={samples[-1]} min={min(samples)} max={max(samples)} "
                f"avg={number(self.mean)} std={self.deviation}"
            )
        if percentiles:
            text += f" p5={self.percentile(5)} median={self.percentile(50)} p95={self.percentile(95)}"
        return text
