"""A phone on 127.0.0.1, its daemon, and a client that speaks the protocol by hand."""

from collections.abc import Iterator

import pytest

from .adbd import AdbDaemon
from .phone import LoopbackPhone, loopback_unavailable
from .raw_client import RawClient


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPhone]:
    if reason := loopback_unavailable():
        pytest.skip(reason)
    with LoopbackPhone(tmp_path_factory.mktemp("phone")) as phone:
        yield phone


@pytest.fixture
def daemon(phone: LoopbackPhone) -> Iterator[AdbDaemon]:
    with AdbDaemon(phone) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: AdbDaemon) -> Iterator[RawClient]:
    """Connected and greeted."""
    with RawClient(daemon.port) as client:
        client.greet()
        yield client
