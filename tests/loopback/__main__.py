"""Runs phones on 127.0.0.1 until Ctrl-C: python -m tests.loopback [--usb] [--phones N] [--latency-ms X].

Prints a line for each: the options with which netlathe finds it, with --usb behind the variables that it needs.
"""

import argparse
import contextlib
import platform
import signal
import tempfile
from pathlib import Path

from .adbd import AdbDaemon
from .link import Link
from .phone import BENCHMARK_MODEL, PIXEL_8, LoopbackPhone, loopback_unavailable
from .usb import Identity, UsbBus, usb_unavailable

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
    parser.add_argument("--usb", action="store_true", help="plugged into an emulated USB bus")
    options = parser.parse_args()
    if reason := loopback_unavailable() or (options.usb and usb_unavailable()):
        parser.error(f"no phone can run here: {reason}")
    # A kill ends this as Ctrl-C does: phones are closed, their files removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the phone's shells inherit what nohup ignores
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loopback-phone-")))
        bus = stack.enter_context(UsbBus()) if options.usb else None
        for number in range(1, options.phones + 1):
            properties = {**PIXEL_8, **HONEST, "ro.serialno": f"LOOPBACK{number:04}"}
            phone = stack.enter_context(LoopbackPhone(folder / str(number), properties=properties))
            daemon = stack.enter_context(AdbDaemon(phone, link=Link(latency_s=options.latency_ms / 1000)))
            variables, address = "", daemon.address
            if bus is not None:
                serial = properties["ro.serialno"]
                bus.plug(daemon, Identity(serial), port=number)
                variables = "".join(f"{name}={value} " for name, value in bus.environment.items())
                address = f"usb:{serial}"
            print(f"{variables}--device {address} --benchmark-binary {BENCHMARK_MODEL}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
