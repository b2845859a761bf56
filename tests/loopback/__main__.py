"""Runs phones on 127.0.0.1 until Ctrl-C: python -m tests.loopback [--phones N] [--latency-ms X]."""

import argparse
import contextlib
import platform
import signal
import tempfile
from pathlib import Path

from .adbd import AdbDaemon
from .link import Link
from .phone import BENCHMARK_MODEL, PIXEL_8, LoopbackPhone, loopback_unavailable

# What is measured is this computer's processor; records must not pretend to come from a Pixel.
HONEST = {
    "ro.product.manufacturer": "Loopback",
    "ro.product.model": "phone",
    "ro.soc.model": f"{platform.machine()} of this computer",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.loopback", description=__doc__)
    parser.add_argument("--phones", type=int, default=1, help="how many; default 1")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="of the cable, each way; default 0")
    options = parser.parse_args()
    if reason := loopback_unavailable():
        parser.error(f"no phone can run here: {reason}")
    # A kill ends this as Ctrl-C does: phones are closed, their files removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the phone's shells inherit what nohup ignores
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loopback-phone-")))
        for number in range(1, options.phones + 1):
            properties = {**PIXEL_8, **HONEST, "ro.serialno": f"LOOPBACK{number:04}"}
            phone = stack.enter_context(LoopbackPhone(folder / str(number), properties=properties))
            daemon = stack.enter_context(AdbDaemon(phone, link=Link(latency_s=options.latency_ms / 1000)))
            print(f"--device {daemon.address} --benchmark-binary {BENCHMARK_MODEL}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
