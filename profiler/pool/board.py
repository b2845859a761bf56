"""Common ground of a pool's devices: work by model, states, and the word to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from netlathe.archspace.pools import pool_of
from netlathe.archspace.records import Setup
from netlathe.profiler.pool.member import MemberState, Others, PoolWork

OnStates = Callable[[Mapping[str, MemberState]], None]
"""Function that is told the states of all devices, by name, whenever one changes."""


class PoolBoard:
    """The board of one process, for several threads. `choose` decides what the devices of a setup, whose unit is
    pooled, are to measure; it is asked once for each."""

    def __init__(self, choose: Callable[[Setup], PoolWork], on_states: OnStates = lambda states: None) -> None:
        self.choose, self.on_states = choose, on_states
        self.states: dict[str, MemberState] = {}
        """State of each device by name."""
        self.works: dict[Setup, PoolWork] = {}
        """Work by the setup of the pool."""
        self._lock = threading.RLock()
        self._stop = threading.Event()

    def work(self, setup: Setup) -> PoolWork:
        pool = pool_of(setup)
        with self._lock:
            if pool not in self.works:
                self.works[pool] = self.choose(pool)
            return self.works[pool]

    def tell(self, state: MemberState) -> None:
        with self._lock:
            self.states[state.name] = state
            self.on_states(dict(self.states))

    def others(self, name: str) -> Others:
        with self._lock:
            states = {one.state for other, one in self.states.items() if other != name}
        if states & {"opening", "measuring", "waiting", "quarantined"}:
            return "working"
        return "finished" if "finished" in states else "none"

    def rest(self, seconds: float) -> bool:
        return self._stop.wait(seconds) if seconds else self._stop.is_set()

    def stop(self) -> None:
        """Has all devices end as soon as they can."""
        self._stop.set()
