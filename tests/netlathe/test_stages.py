"""What the stages choose by themselves: networks to time, the baseline, warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from netlathe.archspace.presets import tiny
from netlathe.profiler.device import DeviceEvent, Visit, Waiting
from netlathe.profiler.devices.local import LocalDevice
from netlathe.profiler.protocol import Plan
from netlathe.stages import campaign_with_watch, work_items


def test_work_is_every_block_then_the_networks_at_the_asked_batch() -> None:
    items = work_items(tiny(8), networks=3, batch=4, seed=0)
    assert [item.kind for item in items] == ["block"] * 93 + ["network"] * 3
    assert {item.graph.input_shape[0] for item in items} == {4}


class Cooling(LocalDevice):
    """Has to cool down before its second session."""

    sessions = 0

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[DeviceEvent]:
        self.sessions += 1
        if self.sessions == 2:
            for waited_s in (0.0, 3.0, 6.0):
                yield Waiting("cooling: skin at 36.1 degC", waited_s, 600.0)
        yield from super().time_rounds(rounds, after=after)


def test_a_wait_is_told_once_when_it_begins_and_the_bar_never_moves_back(tmp_path: Path) -> None:
    waits: list[str] = []
    shares: list[float] = []
    with Cooling() as device:
        campaign_with_watch(
            device, work_items(tiny(8), networks=0, batch=1, seed=0)[:20], tmp_path / "p.sqlite", Plan(max_rounds=8),
            seed=0, watch=lambda share, left_s, note: shares.append(share), on_wait=waits.append,
        )  # fmt: skip
    assert waits == ["cooling for 0 s of at most 10 min: skin at 36.1 degC"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
