"""Plan of a campaign's next visits, by what visits take and what time is left. Pure: no device, no file, no clock."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from netlathe.archspace.graph import Graph
from netlathe.profiler.device import Visit
from netlathe.profiler.guess import CAUTIOUS_MS_PER_WORK, LatencyGuess, work
from netlathe.profiler.ledger import Ledger
from netlathe.profiler.protocol import FEWEST_ROUNDS, Latencies, Plan, arrange, missing_rounds, split

CAUTION = 1.5
"""Factor on the guessed latencies of graphs that have not run here yet: too long a guess makes rounds shorter, too
short a one makes them longer than a time budget allows."""


class Schedule:
    """Order of a campaign's work: waves of graphs that fit into memory, and rounds that are short enough.

    `anchors` are the keys of the anchor blocks that run; they may become fewer. `graphs` are the campaign's, and the
    anchors', by key.
    """

    def __init__(
        self, plan: Plan, ledger: Ledger, anchors: Sequence[str], graphs: Mapping[str, Graph], rng: random.Random
    ) -> None:
        self.plan, self.ledger, self.anchors, self.graphs, self.rng = plan, ledger, anchors, graphs, rng
        self._work = {key: work(graph) for key, graph in graphs.items()}

    def next_wave(self, waiting: Sequence[str]) -> list[str]:
        """First of the waiting graphs, as many as the memory holds, at least one."""
        wave: list[str] = []
        filled = 0
        for key in waiting:
            graph = self.graphs[key]
            filled += graph.bytes_read() + graph.bytes_written()  # weights once, activations about twice
            if wave and filled > self.plan.loaded_bytes:
                break
            wave.append(key)
        return wave

    def latencies_ms(self, keys: Iterable[str]) -> dict[str, float]:
        """Latencies of these graphs and the anchors: of their latest visits, or guessed by their work."""
        known = {key: ms for key in self._work if (ms := self.ledger.latency_ms(key)) is not None}
        guess = LatencyGuess(((self._work[key], CAUTION * ms) for key, ms in known.items()), CAUTIOUS_MS_PER_WORK)
        return {
            key: known[key] if key in known else guess.latency_ms(self._work[key]) for key in (*keys, *self.anchors)
        }

    def is_guessed(self, keys: Iterable[str]) -> bool:
        """Whether one of these has not run yet."""
        return any(self.ledger.latency_ms(key) is None for key in keys)

    def affordable(self, pending: Sequence[str], latencies: Latencies, left_ms: float) -> Sequence[str]:
        """Graphs for which the time left is enough: all, if each can get the fewest rounds of a record; if not, the
        first ones that can; if none can, those that are to be had for something."""
        have = {key: self.ledger.count(key) for key in pending}
        lacking = sorted((key for key in pending if have[key] < FEWEST_ROUNDS), key=lambda key: -have[key])
        fitting, visits_ms = 0, 0.0
        for key in lacking:
            visits_ms += (FEWEST_ROUNDS - have[key]) * self.plan.cost_ms(latencies[key])
            if self._rounds_ms(visits_ms, FEWEST_ROUNDS - have[key], latencies) > left_ms:
                break
            fitting += 1
        if fitting == len(lacking):
            return pending
        return lacking[:fitting] or [key for key in pending if have[key] >= FEWEST_ROUNDS] or lacking

    def next_rounds(self, keys: Sequence[str], latencies: Latencies, made: int) -> list[list[str]]:
        """Graphs of each of the next rounds, until it is time to plan again. Graphs that have not run yet go first, in
        at most as many rounds as were `made`: their times are guesses, and every round makes the next ones better."""
        fresh = [key for key in keys if self.ledger.latency_ms(key) is None]
        if not fresh:
            return split(keys, latencies, self.plan, self.rng)
        return split(fresh, latencies, self.plan, self.rng)[: max(1, made)]

    def visits(self, keys: Sequence[str], latencies: Latencies) -> list[Visit]:
        """Visits of one round of these graphs, in their order, with the anchors among them."""
        return arrange(keys, self.anchors, latencies, self.plan, self.rng)

    def time_to_finish_ms(self, pending: Sequence[str], latencies: Latencies) -> float:
        """Estimated time in ms until the stop rule ends these."""
        return self._visits_ms({key: missing_rounds(self.ledger.rounds(key), self.plan) for key in pending}, latencies)

    def time_to_record_ms(self, unfinished: Sequence[str]) -> float:
        """Estimated time in ms until each of these has the fewest rounds of a record."""
        missing = {key: float(max(0, FEWEST_ROUNDS - self.ledger.count(key))) for key in unfinished}
        return self._visits_ms(missing, self.latencies_ms(unfinished)) if missing else 0.0

    def longest_round_s(self, planned_ms: Mapping[str, float]) -> float:
        """Longest time of a round in s, given what a visit of each graph is to take."""
        anchors_ms = sum(planned_ms.get(key, 0.0) for key in self.anchors)
        return self.plan.round_s + self.plan.anchor_visits * anchors_ms / 1e3

    def _visits_ms(self, missing: Mapping[str, float], latencies: Latencies) -> float:
        visits_ms = sum(count * self.plan.cost_ms(latencies[key]) for key, count in missing.items())
        return self._rounds_ms(visits_ms, max(missing.values()), latencies)

    def _rounds_ms(self, visits_ms: float, rounds: float, latencies: Latencies) -> float:
        """Time of such visits in so many rounds, or more where those would be too long, with the anchors in each."""
        rounds = max(rounds, visits_ms / (1e3 * self.plan.round_s))
        anchors_ms = sum(self.plan.cost_ms(latencies[key]) for key in self.anchors)
        return visits_ms + rounds * self.plan.anchor_visits * anchors_ms
