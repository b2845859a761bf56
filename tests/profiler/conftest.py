"""A phone on 127.0.0.1 for the tests of one file, and its daemon for each test."""

import dataclasses
from collections.abc import Iterator

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import LoopbackPhone

from netlathe.profiler.protocol import PHONE_PLAN


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPhone]:
    with LoopbackPhone(tmp_path_factory.mktemp("phone")) as found:
        yield found


@pytest.fixture
def daemon(phone: LoopbackPhone) -> Iterator[AdbDaemon]:
    with AdbDaemon(phone) as found:
        yield found
    phone.clear_faults()


@pytest.fixture
def little_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    """A phone's own plan, with fewer runs and visits, and no round made again because this computer was busy."""
    plan = dataclasses.replace(PHONE_PLAN, runs=2, warmups=1, anchor_visits=1, redo_drift=None)
    monkeypatch.setattr("netlathe.profiler.phone.device.PHONE_PLAN", plan)
