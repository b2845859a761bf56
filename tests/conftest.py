from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator

import pytest


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end, and no garbage collection needs to walk through it again; with Python's
    own thresholds, collections take a tenth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, *gc.get_threshold()[1:])


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


@pytest.fixture(scope="session", autouse=True)
def _one_table_of_translations() -> Iterator[None]:
    """torch.onnx.export makes its table of translations anew each time, which is half of what a small network takes.
    The table is a private part of torch: where it is gone, tests only take longer."""
    if "torch" not in sys.modules:  # tests that need no torch do not wait for it
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError, AttributeError):
            table = importlib.import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
            made = functools.cache(table.from_torchlib.__func__)
            patch.setattr(table, "from_torchlib", classmethod(made))
        yield
