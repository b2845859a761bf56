"""How long graphs take that have never run on a device, from their work and from those that have run."""

from __future__ import annotations

from collections.abc import Iterable

from archspace.graph import Graph

TYPICAL_MS_PER_WORK = 1e-7
"""Where nothing has run yet: 10 billion MACs, or bytes, per second."""

CAUTIOUS_MS_PER_WORK = 5e-7

LEAST_MS = 0.02
"""What even the smallest block takes."""


class LatencyGuess:
    """Work over speed: `known` are graphs that have run and their ms, `ms_per_work` stands in where there are none."""

    def __init__(self, known: Iterable[tuple[Graph, float]], ms_per_work: float = TYPICAL_MS_PER_WORK) -> None:
        known = list(known)
        total = sum(_work(graph) for graph, _ in known)
        self.ms_per_work = sum(ms for _, ms in known) / total if total else ms_per_work

    def latency_ms(self, graph: Graph) -> float:
        return max(_work(graph) * self.ms_per_work, LEAST_MS)


def _work(graph: Graph) -> float:
    """MACs and bytes alike: what computes little moves much."""
    return graph.macs + graph.bytes_read() + graph.bytes_written()
