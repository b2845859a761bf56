"""The contract of devices tells each way of breaking it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netlathe.profiler.device import RoundEnd
from netlathe.profiler.errors import MeasurementError, ProfilerError
from netlathe.profiler.testing import SETUP, DeviceContract, SimulatedDevice

TESTS = [name for name, _ in inspect.getmembers(DeviceContract, inspect.isfunction) if name.startswith("test_")]


class Restless(SimulatedDevice):
    """Another setup each time one looks."""

    setup = property(lambda self: object(), lambda self, value: None)  # type: ignore[assignment]


class Anonymous(SimulatedDevice):
    def __init__(self) -> None:
        super().__init__(setup=SETUP.__class__("", "none", "none", "simulation", "1"))


class Backwards(SimulatedDevice):
    def time_rounds(self, rounds: Any, *, after: float = 0.0) -> Iterator[Any]:
        return super().time_rounds([list(reversed(visits)) for visits in rounds], after=after)


class Generous(SimulatedDevice):
    def _outcome(self, visit: Any) -> Any:
        found = super()._outcome(visit)
        return [*found, *found] if isinstance(found, list) else found


class Careless(SimulatedDevice):
    def _outcome(self, visit: Any) -> Any:
        found = super()._outcome(visit)
        return [0.0] * len(found) if isinstance(found, list) else found


class Uniform(SimulatedDevice):
    def load(self, key: str, graph: Any) -> None:
        super().load(key, graph)
        self.loaded[key] = 1.0


class Hoarding(SimulatedDevice):
    def unload(self, keys: Any) -> None:
        pass


class Stubborn(SimulatedDevice):
    def load(self, key: str, graph: Any) -> None:
        if key not in self.loaded:
            super().load(key, graph)


class Undemanding(SimulatedDevice):
    """Takes any graph."""

    def load(self, key: str, graph: Any) -> None:
        self._check()
        self.loaded[key] = 1.0 + graph.macs


class Picky(SimulatedDevice):
    def load(self, key: str, graph: Any) -> None:
        super().load(key, graph)
        if key.startswith("mbconv"):
            raise MeasurementError("no")


class Forgetful(SimulatedDevice):
    """Ends a round without saying so."""

    def time_rounds(self, rounds: Any, *, after: float = 0.0) -> Iterator[Any]:
        return (one for one in super().time_rounds(rounds, after=after) if not isinstance(one, RoundEnd))


class Chatty(SimulatedDevice):
    def _conditions(self) -> Any:
        return {"cpu": ["warm", "busy"]}


class Timeless(SimulatedDevice):
    """Knows no time but its own clock's."""

    def time_rounds(self, rounds: Any, *, after: float = 0.0) -> Iterator[Any]:
        return super().time_rounds(rounds, after=0.0)


class Haunted(SimulatedDevice):
    def recovered(self) -> Iterator[Any]:
        yield RoundEnd(1.0, {})


class Immortal(SimulatedDevice):
    def close(self) -> None:
        pass


BREACHES: list[tuple[Callable[[], SimulatedDevice], str]] = [
    (Restless, "test_the_setup_is_complete_and_constant"),
    (Anonymous, "test_the_setup_is_complete_and_constant"),
    (Backwards, "test_each_visit_gives_times_in_the_order_of_the_visits"),
    (Generous, "test_each_visit_gives_times_in_the_order_of_the_visits"),
    (Careless, "test_each_visit_gives_times_in_the_order_of_the_visits"),
    (Uniform, "test_more_work_takes_longer"),
    (Hoarding, "test_an_unloaded_graph_cannot_be_timed_and_the_others_can"),
    (Stubborn, "test_loading_under_a_key_again_replaces_the_graph"),
    (Undemanding, "test_a_graph_without_work_is_refused_because_there_is_nothing_to_time"),
    (Undemanding, "test_a_graph_of_another_batch_is_refused_with_what_to_do"),
    (Picky, "test_all_anchors_run"),
    (Forgetful, "test_an_abandoned_round_does_no_harm"),
    (Chatty, "test_conditions_are_numbers_or_texts_by_name"),
    (Timeless, "test_rounds_end_one_after_the_other_and_start_after_the_given_time"),
    (Haunted, "test_nothing_is_recovered_after_an_undisturbed_campaign"),
    (Immortal, "test_after_closing_it_refuses_to_work_and_closing_again_is_harmless"),
]


@pytest.mark.parametrize(("kind", "test"), BREACHES, ids=lambda value: getattr(value, "__name__", value))
def test_a_device_that_breaks_a_promise_fails_the_test_of_it(kind: Callable[[], SimulatedDevice], test: str) -> None:
    with pytest.raises((AssertionError, ProfilerError)):
        getattr(DeviceContract(), test)(kind())


def test_each_promise_is_broken_here() -> None:
    assert {test for _, test in BREACHES} == set(TESTS)


@pytest.mark.parametrize("test", TESTS)
def test_a_device_that_keeps_its_promises_passes(test: str) -> None:
    getattr(DeviceContract(), test)(SimulatedDevice())
