"""A small campaign on a phone of 127.0.0.1, and what it must leave behind however it was disturbed."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from loopback.phone import BENCHMARK_MODEL
from simulated import conv_items

from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Status
from netlathe.profiler.campaign import run_campaign
from netlathe.profiler.devices import DeviceOptions, open_device
from netlathe.profiler.protocol import ANCHORS, Plan

ITEMS = conv_items(6)
KEYS = {item.graph.key for item in ITEMS} | {block.graph().key for block in ANCHORS}
PLAN = Plan(runs=2, warmups=1, min_rounds=3, max_rounds=3, anchor_visits=1, round_s=0.4, overhead_ms=40)
"""Two rounds a pass, three passes."""


@contextmanager
def opened(address: str, *, report=lambda message: None, **options):
    options.setdefault("benchmark_binary", BENCHMARK_MODEL)
    with open_device(address, DeviceOptions(**options), report=report) as device:
        yield device


def profile_phone(address: str, path: Path, items=ITEMS, plan=PLAN, report=lambda message: None, **options):
    with opened(address, report=report, **options) as device, ProfileFile(path, create=True) as profile:
        return run_campaign(device, items, profile, plan)


def check_profile(path: Path, keys=KEYS) -> None:
    """One ok record per graph, whole and finite, on one setup; rounds that exist once."""
    with ProfileFile(path) as profile:
        (setup,) = profile.setups()
        records = profile.records(setup)
        rounds = profile.rounds(setup)
    assert sorted(record.graph.key for record in records) == sorted(keys)
    assert {record.status for record in records} == {Status.OK}
    for record in records:
        assert len(record.measurement.rounds) >= 3
        starts = [one.started_at for one in rounds[record.graph.key]]
        assert starts == sorted(set(starts))


def leftovers(phone) -> list[str]:
    """What netlathe left on the phone; it should be nothing."""
    return sorted(path.name for path in phone.path("/data/local/tmp").iterdir())
