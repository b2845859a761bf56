"""A phone on 127.0.0.1 for the tests of one file, and its daemon for each test."""

from collections.abc import Iterator

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import LoopbackPhone


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPhone]:
    with LoopbackPhone(tmp_path_factory.mktemp("phone")) as found:
        yield found


@pytest.fixture
def daemon(phone: LoopbackPhone) -> Iterator[AdbDaemon]:
    with AdbDaemon(phone) as found:
        yield found
    phone.clear_faults()
