"""Guesses of the latency of graphs that have never run on a device, from their work and from those that have run."""

from __future__ import annotations

from collections.abc import Iterable

from netlathe.archspace.graph import Graph

TYPICAL_MS_PER_WORK = 1e-7
"""Speed assumed where nothing has run yet: 10 billion MACs, or bytes, per second."""

CAUTIOUS_MS_PER_WORK = 5e-7

LEAST_MS = 0.02
"""Latency of even the smallest block."""


def work(graph: Graph) -> float:
    """Work of a graph, MACs and bytes alike: what computes little moves much."""
    return graph.macs + graph.bytes_read() + graph.bytes_written()


class LatencyGuess:
    """Latency guessed as work over speed: `known` are (work, ms) of graphs that have run, `ms_per_work` stands in where
    there are none."""

    def __init__(self, known: Iterable[tuple[float, float]], ms_per_work: float = TYPICAL_MS_PER_WORK) -> None:
        known = list(known)
        total = sum(amount for amount, _ in known)
        self.ms_per_work = sum(ms for _, ms in known) / total if total else ms_per_work

    def latency_ms(self, amount: float) -> float:
        return max(amount * self.ms_per_work, LEAST_MS)
