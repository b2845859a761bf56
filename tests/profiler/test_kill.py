"""A real campaign in a process of its own, killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Status
from netlathe.profiler.campaign import WorkItem, run_campaign
from netlathe.profiler.devices.local import LocalDevice
from netlathe.profiler.errors import ProfilerError
from netlathe.profiler.protocol import ANCHORS, Plan

ITEMS = [WorkItem(b.name, "block", b.graph()) for b in (ConvBlock(3, 4 + i, 16, 16) for i in range(10))]
ROUNDS = 40
PLAN = Plan(min_rounds=ROUNDS, max_rounds=ROUNDS)

CHILD = """
import sys, time
from test_kill import ITEMS, PLAN, LocalDevice, ProfileFile, run_campaign

class Leisurely(LocalDevice):
    def _conditions(self):
        time.sleep(0.05)  # leaves the parent time to strike before the last round
        return super()._conditions()

with Leisurely() as device, ProfileFile(sys.argv[1]) as profile:
    run_campaign(device, ITEMS, profile, PLAN)
"""


def wait_for_rounds(child, profile, setup, count):
    for _ in range(1200):
        if len(profile.round_log(setup)) >= count:
            return
        assert child.poll() is None, "the child ended early"
        time.sleep(0.05)
    pytest.fail("the child stored no rounds within a minute")


def kept_samples(profile, setup, before):
    """Samples per graph key and round, after checking that those from before are still the first of them."""
    samples = {key: [r.samples_ms for r in rounds] for key, rounds in profile.rounds(setup).items()}
    assert all(samples[key][: len(rounds)] == rounds for key, rounds in before.items())
    return samples


def test_a_campaign_killed_twice_is_continued_and_measures_every_graph_exactly_once(tmp_path):
    path = tmp_path / "profile"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    with LocalDevice() as device, ProfileFile(path, create=True) as profile:
        kept: dict[str, tuple] = {}
        for strike in (3, 9):
            child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], env=environment)
            try:
                wait_for_rounds(child, profile, device.setup, strike)
                with pytest.raises(ProfilerError, match="another campaign"):
                    run_campaign(device, ITEMS, profile, PLAN)
            finally:
                os.kill(child.pid, signal.SIGKILL)
                assert child.wait() == -signal.SIGKILL
            kept = kept_samples(profile, device.setup, kept)
        assert 9 <= len(profile.round_log(device.setup)) < ROUNDS
        summary = run_campaign(device, ITEMS, profile, PLAN)
        records = profile.records()
        kept_samples(profile, device.setup, kept)
    assert len(summary.records) == 10
    assert summary.rounds + len(kept[ITEMS[0].graph.key]) == ROUNDS
    assert {r.graph.key for r in records} == {*(i.graph.key for i in ITEMS), *(b.graph().key for b in ANCHORS)}
    assert len(records) == 15
    assert all(r.status is Status.OK and len(r.measurement.rounds) == ROUNDS for r in records)
