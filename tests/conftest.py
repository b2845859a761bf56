from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """ADB keys, downloads and locks of the tests stay out of the user's home."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("ANDROID_USER_HOME", str(home / ".android"))
        os.makedirs(home / "cache", exist_ok=True)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_pages_unasked() -> Iterator[None]:
    """Most tests look at no page, which takes a second to draw; tests of pages switch them on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETLATHE_PAGES", "0")
        yield


@pytest.fixture(scope="session", autouse=True)
def _default_signals() -> None:
    """Programs that tests start inherit what is ignored: nohup ignores SIGHUP, a shell's background job SIGINT."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
